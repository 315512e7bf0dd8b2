#!/usr/bin/env bash
# Makes schema-N.tar.gz with an older modelfs: make.sh OLD-MODELFS N. See README.md.
# Needs root (or fusermount3), python3, tar, gzip.
set -euo pipefail
old=$(realpath "$1")
schema=$2
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
daemon= server=
cleanup() {
    [ -z "$daemon" ] || kill "$daemon" 2>/dev/null || true
    [ -z "$server" ] || kill "$server" 2>/dev/null || true
    wait
    rm -rf "$work"
}
trap cleanup EXIT
cd "$work"
mkdir -m 700 cache models run
touch log
export MODELFS_CACHE_DIR="$work/cache" XDG_RUNTIME_DIR="$work/run"

"$here/make_models.py" plain
for version in net/v1 net/v2 small/v1; do
    "$old" publish "plain/$version" "org/${version%/*}" "${version#*/}" --registry registry \
        --chunk-size 256KiB --leaf-size 16KiB --meta published_at=2024-02-03T04:05:06Z
done

"$here/serve.py" registry >address &
server=$!
until [ -s address ]; do sleep 0.05; done
# The name of the registry must be the same wherever the test runs: a proxy leads to it.
http_proxy="http://$(cat address)" "$old" mount models --registry http://models.test >log 2>&1 &
daemon=$!
until grep -q mounted log; do sleep 0.05; done

"$here/use.py" models/org >used.json
"$old" pin org/net@v1 --owner ann
"$old" pin org/net@v1 --owner bob
"$old" pin org/small@v1 --owner ann
"$old" unmount models
wait "$daemon"
daemon=
"$old" trace export org/net@v1 >trace.json
for version in net/v1 net/v2 small/v1; do "$old" info "org/$version" --json; done >info.jsonl
"$here/describe.py" "$schema" >expected.json
"$old" --version
tar --create --sparse --sort=name --owner=0 --group=0 --numeric-owner --mtime=2026-01-01 \
    cache registry plain expected.json | gzip -9n >"$here/schema-$schema.tar.gz"
ls -l "$here/schema-$schema.tar.gz"
