#!/usr/bin/env bash
# Real programs read a mounted model and get what they get from the plain folder.
set -euo pipefail
cd "$(dirname "$0")/.."
modelfs="${CARGO_TARGET_DIR:-target}/release/modelfs"
venv="${CARGO_TARGET_DIR:-target}/clients-venv"

# A venv may lack pip where Debian's python3-venv is missing.
if [ ! -x "$venv/bin/pip" ]; then
    python3 -m venv "$venv" 2>/dev/null || {
        [ "$(id -u)" -eq 0 ] || { echo "please install python3-venv" >&2; exit 1; }
        apt-get update -qq && apt-get install -y -qq --no-install-recommends python3-venv >/dev/null
        python3 -m venv "$venv"
    }
fi
"$venv/bin/pip" install --quiet --disable-pip-version-check -r tests/clients/requirements.txt

work=$(mktemp -d "${TMPDIR:-/tmp}/modelfs-clients.XXXXXX")
daemon=
cleanup() {
    if [ -n "$daemon" ]; then kill "$daemon" 2>/dev/null || true; wait "$daemon" 2>/dev/null || true; fi
    if mountpoint -q "$work/models" 2>/dev/null; then umount -l "$work/models" || true; fi
    rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

scripts/demo_model.py "$work/plain"
"$venv/bin/python" tests/clients/make_onnx.py "$work/plain/onnx"
export MODELFS_CACHE_DIR="$work/cache" XDG_RUNTIME_DIR="$work/run"
mkdir -p "$work/models" "$work/run"
"$modelfs" publish --quiet "$work/plain" demo/minilm v1 --registry "$work/registry"
for mode in "" --no-passthrough; do
    "$modelfs" mount "$work/models" --registry "$work/registry" $mode >"$work/log" 2>&1 &
    daemon=$!
    for _ in $(seq 200); do [ -d "$work/models/demo/minilm/v1" ] && break; sleep 0.05; done
    # The first round is cold; the second reads what the first one cached.
    for round in cold warm; do
        echo "== ${mode:-passthrough}, $round"
        "$venv/bin/python" tests/clients/clients.py "$work/plain" "$work/models/demo/minilm/v1"
    done
    "$modelfs" evict --all >/dev/null
    "$modelfs" unmount "$work/models" >/dev/null
    wait "$daemon"
    daemon=
done
echo "clients: ok"
