#!/usr/bin/env bash
# The main job on a real model: publish, mount, list, read one tensor, read all, status, unmount.
# Everything it makes lies in one temporary folder that is gone when it ends.
set -euo pipefail
cd "$(dirname "$0")/.."
modelfs="${CARGO_TARGET_DIR:-target}/release/modelfs"

work=$(mktemp -d "${TMPDIR:-/tmp}/modelfs-demo.XXXXXX")
mnt="$work/models"
daemon=
cleanup() {
    if [ -n "$daemon" ]; then
        kill "$daemon" 2>/dev/null || true
        wait "$daemon" 2>/dev/null || true
    fi
    if mountpoint -q "$mnt" 2>/dev/null; then umount -l "$mnt" 2>/dev/null || fusermount3 -uz "$mnt" || true; fi
    rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

if [ -t 1 ]; then bold=$'\e[1m' dim=$'\e[2m' green=$'\e[32m' off=$'\e[0m'; else bold= dim= green= off=; fi
step() { printf '\n%s%s%s\n' "$bold" "$1" "$off"; }
run() { printf '%s$ %s%s\n' "$dim" "$*" "$off"; "$@"; }
shown() { printf '%s$ %s%s\n' "$dim" "$1" "$off"; }

step "A model"
scripts/demo_model.py "$work/source"

export MODELFS_CACHE_DIR="$work/cache" MODELFS_REGISTRY="$work/registry" XDG_RUNTIME_DIR="$work/run"
mkdir -p "$mnt" "$work/run"
chmod 700 "$work/run"

step "Publish it into a registry: a plain folder that any web server could serve"
shown "modelfs publish source demo/minilm v1 --registry registry"
"$modelfs" publish "$work/source" demo/minilm v1 --registry "$MODELFS_REGISTRY"

step "Mount the registry"
shown "modelfs mount models --registry registry"
"$modelfs" mount "$mnt" --registry "$MODELFS_REGISTRY" --cache-size 1GiB >"$work/log" 2>&1 &
daemon=$!
for _ in $(seq 100); do
    mountpoint -q "$mnt" && grep -q . "$work/log" && break
    kill -0 "$daemon" 2>/dev/null || { cat "$work/log" >&2; exit 1; }
    sleep 0.05
done
cat "$work/log"
version="$mnt/demo/minilm/v1"
run ls -lA "$version"

step "Read one tensor out of the middle of the weights"
scripts/demo_tensor.py "$version/model.safetensors"

step "Read everything and compare with the source"
shown "sha256sum models/demo/minilm/v1/** source/**"
sums() { (cd "$1" && find . -type f -print0 | sort -z | xargs -0 sha256sum); }
sums "$work/source" >"$work/sums.source"
sums "$version" >"$work/sums.mounted"
if cmp -s "$work/sums.source" "$work/sums.mounted"; then
    printf '%s%s files, every digest the same%s\n' "$green" "$(wc -l <"$work/sums.mounted")" "$off"
else
    diff "$work/sums.source" "$work/sums.mounted" >&2
    exit 1
fi

step "What the cache holds now"
run "$modelfs" status
echo
run "$modelfs" list

step "Unmount"
run "$modelfs" unmount "$mnt"
wait "$daemon"
daemon=
printf '%sdone; nothing is left behind%s\n' "$green" "$off"
