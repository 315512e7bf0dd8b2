#!/usr/bin/env bash
# Rules of this code base that neither rustfmt nor clippy knows. Which file may import which is tested by
# tests/core/imports.
set -euo pipefail
cd "$(dirname "$0")/.."

failed=0
rule() { # message, offenders
    [ -z "$2" ] && return
    printf '%s\n%s\n' "$1" "$2" >&2
    failed=1
}

sources=$(git ls-files '*.rs')
undocumented=$(for f in $sources; do [ "$(head -c 3 "$f")" = '//!' ] || echo "  $f"; done)
rule "every file opens with //! (what it owns, its invariant, its concurrency rule):" "$undocumented"

# The library knows no mount and no command line; kernel adapters know no daemon.
rule "src/ may not import platform or mountd:" "$(grep -rnE 'modelfs_(platform|mountd)|fuser::' src || true)"
rule "platform/ may not import mountd:" "$(grep -rn 'modelfs_mountd' platform || true)"
# ELOOP while publishing has no stable kind in std; the disk is the one place of the store that sees errno.
rule "errno exists only in platform:" "$(grep -rnE 'Errno|raw_os_error|EIO\b' src --include=*.rs | grep -vE '^src/(store/disk|publish/scan)' | grep -vE '^[^:]+:[0-9]+:\s*//' || true)"
rule "left behind:" "$(grep -nE 'todo!\(|unimplemented!\(|FIXME|#\[ignore|allow\(dead_code' $sources || true)"
[ "$failed" -eq 0 ] && echo "house rules: ok"
exit "$failed"
