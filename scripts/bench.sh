#!/usr/bin/env bash
# Runs the side-by-side bench as root (it drops the page cache) with nginx as the server.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ "$(id -u)" -ne 0 ]; then
    echo "the bench drops the page cache between rounds and therefore needs root: sudo make bench" >&2
    exit 1
fi
if ! command -v nginx >/dev/null 2>&1; then
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq && apt-get install -y -qq --no-install-recommends nginx-light >/dev/null
fi
exec "${CARGO_TARGET_DIR:-target}/release/side_by_side" "$@"
