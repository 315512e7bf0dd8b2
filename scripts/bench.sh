#!/usr/bin/env bash
# Runs the side-by-side bench as root (it drops the page cache), with nginx as the server and rclone
# and python's safetensors as contenders. What cannot be had is said in the table, not left out.
set -euo pipefail
cd "$(dirname "$0")/.."
target="${CARGO_TARGET_DIR:-target}"
if [ "$(id -u)" -ne 0 ]; then
    echo "the bench drops the page cache between rounds and therefore needs root: sudo make bench" >&2
    exit 1
fi

missing=()
command -v nginx >/dev/null 2>&1 || missing+=(nginx-light)
command -v rclone >/dev/null 2>&1 || missing+=(rclone)
command -v useradd >/dev/null 2>&1 || missing+=(passwd)
if [ ${#missing[@]} -gt 0 ]; then
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq && apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null ||
        echo "could not install: ${missing[*]}" >&2
fi

# The loads are python's; a venv may lack pip where Debian's python3-venv is missing.
venv="$target/bench-venv"
if ! "$venv/bin/python" -c 'import numpy, safetensors' 2>/dev/null; then
    { python3 -m venv "$venv" 2>/dev/null ||
        { apt-get install -y -qq --no-install-recommends python3-venv >/dev/null && python3 -m venv "$venv"; }; } &&
        "$venv/bin/pip" install --quiet --disable-pip-version-check \
            -r benches/side_by_side/requirements.txt ||
        echo "python's safetensors could not be installed" >&2
fi
exec "$target/release/side_by_side" "$@"
