#!/usr/bin/env bash
# The part of test-systemd.sh that runs beside the systemd that it has booted, in its root.
set -euo pipefail
[ -e /test/root ] || { echo "not in the test's own root: nothing was booted" >&2; exit 1; }
unit=modelfs.service
file=/models/org/net/v1/w.bin
modelfs=/test/modelfs

fail() { echo "FAILED: $1" >&2; exit 1; }
ok() { echo "ok: $1"; }
number() { awk '$5 == "/models" { print $3 }' /proc/self/mountinfo; }
mounted() { [ -n "$(number)" ]; }
gone() { ! mounted; }
main_pid() { systemctl show --property=MainPID --value $unit; }
inactive() { [ "$(systemctl show --property=ActiveState --value $unit)" = inactive ]; }
# By its name, in this namespace of processes alone.
nobody() { ! pgrep -x modelfs >/dev/null; }
# What the guard does is not waited for by systemctl; ten seconds are for a slow machine.
soon() { for _ in $(seq 100); do "$@" && return; sleep 0.1; done; return 1; }
sum_of() { sha256sum | cut -d' ' -f1; }

mkdir /test/plain
head -c 30000000 /dev/urandom >/test/plain/w.bin
sum=$(sum_of </test/plain/w.bin)
$modelfs --quiet publish /test/plain org/net v1 --registry /test/registry

systemctl start $unit
mounted || fail "no mount after the start"
[ "$(sum_of <$file)" = "$sum" ] || fail "wrong bytes"
ok "started by systemd $(systemctl --version | head -1)"

was=$(number) pid=$(main_pid)
exec 3<$file
head -c 1000000 <&3 >/test/first
python3 - <<'X' &
import mmap, os
path = "/models/org/net/v1/w.bin"
plain = open("/test/plain/w.bin", "rb").read()
file = open(path, "rb")
mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
while not os.path.exists("/test/enough"):
    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    assert os.pread(file.fileno(), len(plain), 0) == plain
    assert mapped[:] == plain
    assert open(path, "rb").read() == plain
X
reader=$!
for _ in 1 2 3; do
    sleep 0.5
    systemctl restart $unit
    [ "$(number)" = "$was" ] || fail "another mount after a restart"
    [ "$(main_pid)" != "$pid" ] || fail "the same process after a restart"
    pid=$(main_pid)
done
[ "$(systemctl show --property=NFileDescriptorStore --value $unit)" = 0 ] || fail "left in the store"
: >/test/enough
wait $reader || fail "a reader saw an error or a wrong byte"
[ "$(cat /test/first - <&3 | sum_of)" = "$sum" ] || fail "what was open before reads otherwise"
ok "three restarts: the same mount; an open file, a map and a reader go on"

systemctl reload $unit
sleep 1
[ "$(main_pid)" = "$pid" ] && [ "$(sum_of <$file)" = "$sum" ] || fail "reload"
ok "reloaded"

exec 3<&-
systemctl stop $unit
! mounted || fail "a mount after the stop"
soon nobody || fail "a process after the stop"
inactive || fail "the stop was none"
ok "stopped: no mount, no process"

systemctl start $unit
$modelfs --quiet unmount /models --cache-dir /var/cache/modelfs || fail "modelfs unmount"
soon inactive || fail "still active after modelfs unmount"
sleep 2
! mounted && inactive || fail "started again after modelfs unmount"
ok "modelfs unmount is the end"

systemctl start $unit
mv /etc/modelfs/modelfs.conf /test/away
! systemctl restart $unit 2>/dev/null || fail "a restart without a configuration"
systemctl stop $unit
soon gone || fail "a mount after a restart that failed"
soon nobody || fail "a process after a restart that failed"
mv /test/away /etc/modelfs/modelfs.conf
ok "a restart whose second half fails leaves no mount"

systemctl reset-failed $unit 2>/dev/null || true
systemctl start $unit
pid=$(main_pid)
[ "$pid" -gt 1 ] || fail "no main process"
kill -9 "$pid"
back() { mounted && [ "$(main_pid)" -gt 1 ] && [ "$(timeout 5 sha256sum $file | cut -d' ' -f1)" = "$sum" ]; }
soon back || fail "not back after its death"
systemctl stop $unit
! mounted || fail "a mount at the end"
soon nobody || fail "a process at the end"
ok "killed: started again, with a mount of its own"
