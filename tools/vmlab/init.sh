#!/bin/busybox sh
# The guest's first process: make the machine ready, run the command, tell the host how it ended.
#
# /vm/settings  minimal=0|1, stdin=0|1     /vm/command  the command, as a shell script
# /vm/modules   what to load at boot, in order
# Ports to the host: 1 stdin, 2 control, 3 stdout, 4 stderr, 5 status.

export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export HOME=/root USER=root LOGNAME=root SHELL=/bin/sh TERM=dumb LANG=C.UTF-8
. /vm/settings
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
while read -r module; do insmod "$module"; done </vm/modules
mkdir -p /dev/pts /dev/shm
mount -t devpts -o gid=5,mode=620 devpts /dev/pts
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
mount -t tmpfs -o mode=1777 tmpfs /tmp
mount -t tmpfs -o mode=755 tmpfs /run
ln -s /proc/self/fd /dev/fd
ln -s fd/0 /dev/stdin
ln -s fd/1 /dev/stdout
ln -s fd/2 /dev/stderr
if [ "$minimal" = 0 ]; then
    mount -t tracefs tracefs /sys/kernel/tracing
    mount -t debugfs debugfs /sys/kernel/debug
    mount -t bpf bpf /sys/fs/bpf
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
fi
ifconfig lo up
echo rawkm-vm >/proc/sys/kernel/hostname
ulimit -c 0

until [ -c /dev/vport0p5 ]; do sleep 0.01; done
exec 9>/dev/vport0p5
echo ready >&9 # waits until the host's end is open, and with it those of the ports before

# Answers the host's question whether this machine still runs, when the command takes too long.
(
    while read -r _; do echo alive >&9; done </dev/vport0p2
) &
responder=$!

# The command writes to pipes, not to the ports: a port can be opened once only (/dev/stdout is a second time), and
# keeps the processor while the host is slow.
mkfifo /run/stdout /run/stderr
cat </run/stdout >/dev/vport0p3 9>&- &
out=$!
cat </run/stderr >/dev/vport0p4 9>&- &
err=$!
exec 3>/run/stdout 4>/run/stderr
if [ "$stdin" = 1 ]; then exec 5</dev/vport0p1; else exec 5</dev/null; fi

echo 5 >/proc/sys/kernel/printk # from here on warnings too go to the console
cd /rawkm
setsid /bin/sh /vm/command <&5 >&3 2>&4 3>&- 4>&- 5<&- 9>&- &
command=$!
exec 3>&- 4>&- 5<&-
wait "$command"
status=$?

# What the command left running holds the pipes open: end it, but let what was written reach the host. All are
# stopped first, or a shell would go on to its next command when the one it waits for is killed.
for signal in STOP KILL; do
    for directory in /proc/[0-9]*; do
        pid=${directory#/proc/}
        case $pid in 1 | "$out" | "$err" | "$responder") ;; *) kill -$signal "$pid" ;; esac
    done
done 2>/dev/null
wait "$out" "$err"
echo "exit $status" >&9
reboot -f
