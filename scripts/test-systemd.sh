#!/usr/bin/env bash
# Our units under a real systemd: a restart keeps the mount, a stop leaves none. systemd is booted in
# namespaces, with a root of its own in memory and /usr read-only: a booting systemd empties /tmp,
# writes below /var and sets the kernel up, so it must not see this machine's files, devices or
# settings. Needs root and the package systemd (which need not run).
set -euo pipefail
cd "$(dirname "$0")/.."
binary=$(realpath "${CARGO_TARGET_DIR:-target}/debug/modelfs")
groups=$(awk '$3 == "cgroup2" { print $2; exit }' /proc/mounts)
lacks() { echo "$1" >&2; exit 1; }
[ "$(id -u)" -eq 0 ] || lacks "this test needs root"
[ -x /usr/lib/systemd/systemd ] || lacks "this test needs systemd (apt-get install systemd)"
[ -x "$binary" ] || lacks "$binary is missing: cargo build --workspace --bins"
[ -n "$groups" ] || lacks "this test needs a mounted cgroup2"

place=$(mktemp -d /tmp/modelfs-systemd.XXXXXX)
groups=$groups/modelfs-test-$$
unshared=''
first=''
finish() {
    # The first process of the namespace takes all others with it.
    if [ -n "$first" ]; then kill -9 "$first" 2>/dev/null || true; fi
    if [ -n "$unshared" ]; then kill -9 "$unshared" 2>/dev/null || true; fi
    wait 2>/dev/null || true
    # The dead leave their groups a moment later.
    for _ in $(seq 50); do
        find "$groups" -depth -type d -exec rmdir {} \; 2>/dev/null || true
        [ -d "$groups" ] || break
        sleep 0.1
    done
    rm -rf --one-file-system "$place"
}
trap finish EXIT

# As packaged, but that nothing else is started with it.
mkdir "$place/units" "$place/root"
for unit in modelfs.service modelfs.user.service; do
    sed -e "s|^ExecStart=modelfs|ExecStart=/usr/bin/modelfs|" -e 's|/usr/bin/modelfs|/test/modelfs|' \
        -e '/^Wants=/d; /^After=/d' -e 's/^\[Unit\]/[Unit]\nDefaultDependencies=no/' \
        "packaging/systemd/$unit" >"$place/units/$unit"
done
sed "s|/test/modelfs|$binary|" "$place/units/modelfs.service" >"$place/modelfs-check.service"
sed "s|/test/modelfs|$binary|" "$place/units/modelfs.user.service" >"$place/modelfs-check-user.service"
said=$(systemd-analyze verify --man=no "$place"/modelfs-check*.service 2>&1) || true
[ -z "$said" ] || lacks "systemd-analyze verify: $said"
echo "ok: systemd-analyze verify"

cp scripts/test-systemd-boot.sh scripts/test-systemd-inside.sh "$binary" "$place/units"
mkdir "$groups"
sh -c 'echo $$ >"$0/cgroup.procs" && exec unshare --pid --fork --kill-child --mount --cgroup --ipc --uts \
    --net --propagation private bash "$1/units/test-systemd-boot.sh" "$1"' \
    "$groups" "$place" >"$place/log" 2>&1 </dev/null &
unshared=$!
inside=()
for _ in $(seq 100); do
    first=$(pgrep -P "$unshared" || true)
    inside=(nsenter -t "${first:-0}" -m -p -C -i -u -n -r -w)
    [ -n "$first" ] && "${inside[@]}" test -e /test/root &&
        "${inside[@]}" systemctl is-active test.target && break
    sleep 0.1
done >/dev/null 2>&1
if ! "${inside[@]}" /bin/bash /test/test-systemd-inside.sh; then
    printf 'what systemd and modelfs said:\n' >&2
    tail -60 "$place/log" >&2
    exit 1
fi
