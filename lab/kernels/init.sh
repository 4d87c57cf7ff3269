#!/bin/busybox sh
# The first process of a guest: it mounts the machine's files, under a layer of
# memory that takes what is written, and goes there.
/bin/busybox --install -s /bin
. /environment
mkdir -p /proc /sys /dev /lower /upper /root
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
while read -r module; do insmod "/modules/$module"; done </modules/order

nine=trans=virtio,version=9p2000.L,msize=262144
mount -t 9p -o "$nine,ro,cache=loose" root /lower
mount -t tmpfs memory /upper
mkdir /upper/files /upper/work
mount -t overlay -o lowerdir=/lower,upperdir=/upper/files,workdir=/upper/work overlay /root
mount -t proc proc /root/proc
mount -t sysfs sys /root/sys
mount -t devtmpfs dev /root/dev
mkdir -p /root/dev/pts /root/dev/shm "/root/lib/modules/$RELEASE" /root/var/lib/fairlead-lab
mount -t devpts pts /root/dev/pts
for place in /dev/shm /run /var/lib/fairlead-lab; do mount -t tmpfs memory "/root$place"; done
mount -t cgroup2 cgroup2 /root/sys/fs/cgroup
mount -t bpf bpf /root/sys/fs/bpf
# So the kernel loads what it is asked for, as on an installed system.
mount --bind "/lower$MODULES" "/root/lib/modules/$RELEASE"
# Made by udev elsewhere; its opening loads the module.
mkdir -p /root/dev/net
[ -e /root/dev/net/tun ] || mknod /root/dev/net/tun c 10 200
# Written through, so that a crash loses nothing.
mount -t 9p -o "$nine,cache=none" share "/root$SHARE"
exec switch_root /root /bin/sh "$SHARE/run.sh"
