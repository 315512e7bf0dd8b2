#!/usr/bin/env bash
# Fuzzes each target (or those named) for FUZZ_SECONDS, one after another, starting from fuzz/corpus.
# What is found on the way is kept beside the build, so that the next run goes on from there; what
# breaks a promise is left in fuzz/artifacts and ends this with an error. Memory is bounded: a small
# document that costs much is a finding, too.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${FUZZ_SECONDS:-60}
command -v cargo-fuzz >/dev/null 2>&1 || {
    echo "cargo-fuzz is missing: cargo install cargo-fuzz --locked" >&2
    exit 1
}
targets=("$@")
[ ${#targets[@]} -gt 0 ] || mapfile -t targets < <(cargo fuzz list)

# All of it is safe Rust: without a sanitizer the stable compiler does, and it is twice as fast.
cargo fuzz build --sanitizer none
for target in "${targets[@]}"; do
    found=fuzz/target/corpus/$target
    mkdir -p "$found"
    echo "== $target, $seconds s"
    cargo fuzz run --sanitizer none "$target" "$found" "fuzz/corpus/$target" -- \
        -max_total_time="$seconds" -max_len=16384 -timeout=10 \
        -rss_limit_mb=1024 -malloc_limit_mb=64 -print_final_stats=1 -verbosity=0
done
