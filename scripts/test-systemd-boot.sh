#!/usr/bin/env bash
# Runs as process 1 of new namespaces (see test-systemd.sh): makes a root in memory, leaves the
# machine's for good, makes sure of that, and becomes systemd.
set -euo pipefail
place=$1
root=$place/root
mount -t tmpfs -o mode=755 tmpfs "$root"
cd "$root"
mkdir usr proc sys dev etc run tmp var old test root models
mount --bind /usr usr
mount -o remount,bind,ro usr
for link in bin sbin lib lib64; do ln -s "usr/$link" "$link"; done
cp "$place"/units/* test/
mkdir -p etc/systemd/system etc/modelfs dev/shm var/cache var/tmp
# Where Debian's awk leads.
[ ! -d /etc/alternatives ] || cp -a /etc/alternatives etc/
: >etc/machine-id
echo 'root:x:0:0::/root:/bin/sh' >etc/passwd
echo 'root:x:0:' >etc/group
cp test/modelfs.service etc/systemd/system/
printf '[Unit]\nDescription=Nothing but what the test starts\nDefaultDependencies=no\n' \
    >etc/systemd/system/test.target
for unit in sysinit.target systemd-tmpfiles-setup.service systemd-tmpfiles-clean.service \
    systemd-tmpfiles-clean.timer systemd-tmpfiles-setup-dev.service systemd-sysctl.service; do
    ln -s /dev/null "etc/systemd/system/$unit"
done
printf 'MODELFS_REGISTRY=/test/registry\nMODELFS_MOUNTPOINT=/models\nMODELFS_OPTIONS=--no-passthrough\n' \
    >etc/modelfs/modelfs.conf
mount -t proc proc proc
# The kernel's settings are those of the whole machine.
for settings in proc/sys proc/sysrq-trigger; do
    [ -e "$settings" ] || continue
    mount --bind "$settings" "$settings"
    mount -o remount,bind,ro "$settings"
done
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mknod -m 666 dev/null c 1 3
mknod -m 666 dev/zero c 1 5
mknod -m 666 dev/full c 1 7
mknod -m 666 dev/random c 1 8
mknod -m 666 dev/urandom c 1 9
mknod -m 666 dev/fuse c 10 229
mount -t tmpfs tmpfs run
pivot_root . old
cd /
umount -l old
rmdir old
: >test/root
# Whatever is on a disk is /usr, read-only; all else is memory or the kernel's own.
seen=0
while read -r _ _ _ _ point options rest; do
    kind=${rest#*- }
    case "${kind%% *}:$point:$options" in
        tmpfs:* | proc:* | sysfs:* | cgroup2:* | *:/usr:ro,*) seen=$((seen + 1)) ;;
        *) echo "not cut off from the machine: $point $options $rest" >&2 && exit 1 ;;
    esac
done </proc/self/mountinfo
if [ "$seen" -lt 6 ] || [ -e /work ] || [ -e /home ] || [ -n "$(ls -A /tmp /var/tmp | grep -v :)" ]; then
    echo "not cut off from the machine" >&2
    exit 1
fi
[ "${DRY:-}" = '' ] || exec cat /proc/self/mountinfo
exec env -i PATH=/usr/sbin:/usr/bin container=modelfs-test /usr/lib/systemd/systemd --system \
    --unit=test.target --log-target=console --show-status=no
