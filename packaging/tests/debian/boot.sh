#!/bin/bash
# Boots a tree over that of this host, with the host's systemd as process 1, and has it run trial.sh:
# boot.sh DIRECTORY FIRST.deb SECOND.deb, in a mount namespace of its own. Everything is in further namespaces, in a
# cgroup that is removed, and on file systems in memory. DIRECTORY/out gets what the trial prints (`said`), what its commands
# print (`errors`), and the log of systemd (`log`). Status 77: this host does not allow it.
set -eu
directory=$1
root=$directory/tree/root
cgroups=$directory/cgroups

lacks() {
    echo "$1"
    exit 77
}

mkdir "$directory/tree" "$cgroups" "$directory/out"
mount -t tmpfs none "$directory/tree" || lacks "no tmpfs can be mounted"
mkdir "$directory/tree/upper" "$directory/tree/work" "$root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$directory/tree/upper,workdir=$directory/tree/work" "$root" ||
    lacks "no overlay can be mounted"
{ [ -x "$root/lib/systemd/systemd" ] && [ -e "$root/var/lib/dpkg/status" ]; } || lacks "/usr or /var is a file system of its own"
mount -t cgroup2 none "$cgroups" || lacks "there are no cgroups of version 2"
group=$cgroups/varta-it-boot-$$
mkdir "$group" || lacks "no cgroup can be made"
# shellcheck disable=SC2317 # called by the trap
leave() {
    # Those of processes that the end of process 1 has just killed are in use for a moment.
    echo $$ >"$cgroups/cgroup.procs"
    for _ in $(seq 300); do
        find "$group" -depth -type d -exec rmdir {} + 2>/dev/null && return
        sleep 0.1
    done
    echo "$group is not removed"
}
trap leave EXIT
# The namespace of cgroups begins at the group in which the process is that makes it.
echo $$ >"$group/cgroup.procs" || lacks "no process can be moved to another cgroup"
unshare --pid --fork --mount --cgroup --ipc --uts --net true || lacks "namespaces cannot be made"

cp "$2" "$directory/tree/first.deb"
cp "$3" "$directory/tree/second.deb"
cp "$(dirname "$0")/trial.sh" "$directory/tree"

# shellcheck disable=SC2016
inside='
set -eu
directory=$1
root=$directory/tree/root
for place in run tmp dev; do mount -t tmpfs -o mode=0755 none "$root/$place"; done
chmod 1777 "$root/tmp"
for device in null zero full random urandom tty; do
    : >"$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
# Here systemd logs to the ring of the kernel, if it can. This is a file.
: >"$directory/out/log"
: >"$root/dev/kmsg"
mount --bind "$directory/out/log" "$root/dev/kmsg"
mkdir "$root/dev/pts" "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666 none "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
mount -t tmpfs -o mode=1777 none "$root/dev/shm"
mount -t proc none "$root/proc"
mount -t sysfs -o ro none "$root/sys"
mount -t cgroup2 none "$root/sys/fs/cgroup"
mount --bind "$directory/out" "$root/mnt"
mkdir "$root/run/trial" "$root/run/systemd" "$root/run/systemd/system"
mv "$directory/tree/trial.sh" "$directory/tree"/*.deb "$root/run/trial"
# Nothing of this host is started but what each system has, and nothing forbids the package to start its service.
: >"$root/etc/fstab"
rm -f "$root/usr/sbin/policy-rc.d"
cat >"$root/run/systemd/system/trial.target" <<UNIT
[Unit]
DefaultDependencies=no
Wants=trial.service
UNIT
cat >"$root/run/systemd/system/trial.service" <<UNIT
[Unit]
DefaultDependencies=no
SuccessAction=exit-force
FailureAction=exit-force
SuccessActionExitStatus=0
FailureActionExitStatus=1
[Service]
Type=oneshot
ExecStart=/bin/sh /run/trial/trial.sh
TimeoutStartSec=420
Environment=LC_ALL=C DEBIAN_FRONTEND=noninteractive
StandardOutput=file:/mnt/said
StandardError=file:/mnt/errors
UNIT
exec env --ignore-environment container=lxc PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    chroot "$root" /lib/systemd/systemd --system --unit=trial.target --log-target=kmsg --show-status=no'
result=0
timeout --kill-after=5 480 unshare --pid --fork --kill-child --mount --cgroup --ipc --uts --net \
    sh -c "$inside" sh "$directory" || result=$?
exit "$result"
