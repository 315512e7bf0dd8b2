#!/usr/bin/env bash
# Installs what is lacking (as root, through apt), or says what to install: `demo` for building and
# using modelfs, `tests` for testing and measuring it as well.
set -euo pipefail
what="${1:-tests}"
case "$what" in demo | tests) ;; *) echo "usage: scripts/deps.sh [demo|tests]" >&2; exit 2 ;; esac

missing=()
need() { # command, package
    command -v "$1" >/dev/null 2>&1 || missing+=("$2")
}
need fusermount3 fuse3
need cc gcc
need python3 python3
if [ "$what" = tests ]; then
    need curl curl
    need getfattr attr
    need openssl openssl
    # The tests of OCI registries start one.
    need docker-registry docker-registry
    # The tests of full, failing and unplugged disks make file systems of their own.
    need mkfs.ext4 e2fsprogs
    need mkfs.xfs xfsprogs
    need mkfs.btrfs btrfs-progs
fi
[ -e /dev/fuse ] || echo "note: /dev/fuse is missing; mounting needs a kernel with FUSE (modprobe fuse)" >&2
# Where udev does not run, /dev/fuse may be closed to users; everywhere else it is open to all.
if [ -e /dev/fuse ] && [ "$(id -u)" -eq 0 ] && [ "$(stat -c %a /dev/fuse)" != 666 ]; then
    chmod 666 /dev/fuse
fi
command -v cargo >/dev/null 2>&1 || {
    echo "cargo is missing: install a Rust toolchain first (https://rustup.rs)" >&2
    exit 1
}
[ ${#missing[@]} -eq 0 ] && exit 0

if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "installing ${missing[*]}" >&2
    export DEBIAN_FRONTEND=noninteractive
    case " ${missing[*]} " in *" docker-registry "*)
        # The tests start one of their own: the package's service, open to the network, stays off.
        ! command -v systemctl >/dev/null 2>&1 || systemctl mask --quiet docker-registry.service ;;
    esac
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
else
    echo "please install: ${missing[*]}   (Debian, Ubuntu: sudo apt-get install ${missing[*]})" >&2
    exit 1
fi
