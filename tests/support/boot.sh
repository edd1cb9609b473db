#!/bin/sh
# Boots the test machine: machine.py runs this in the new namespaces. A reboot ends systemd-nspawn
# with status 133.
set -e
for hierarchy in $HIERARCHIES; do
    mkdir "$hierarchy/$GROUP"
    echo 0 >"$hierarchy/$GROUP/cgroup.procs"
done
mount -t tmpfs -o size=2g,mode=0755 machine "$TOP"
cd "$TOP"
mkdir root lower upper work nspawn
mkdir -p /run/systemd/nspawn
mount --bind nspawn /run/systemd/nspawn # it keeps a directory there for each machine
mount --bind "$LOWER" lower
# In the option, a colon or a comma of a path would end it: hence names without a directory.
mount -t overlay -o lowerdir=lower,upperdir=upper,workdir=work machine root
cd root
[ -z "$ADDED" ] || cp -R "$ADDED/usr" .
rm -rf etc/systemd/system etc/systemd/*.conf.d etc/init.d etc/rc?.d etc/fstab etc/crypttab etc/machine-id var/log/journal
rm -f usr/sbin/policy-rc.d # of an image of a container, in which packages may start nothing
rm -rf etc/remo-broker var/lib/remo-broker usr/lib/remo-broker
[ -z "$UNPACKED" ] || tar -x -f "$UNPACKED"
mkdir -p etc/systemd/system etc/systemd/journald.conf.d var/log/journal usr/src/remo-broker
# A million records, none of them thrown away before they are counted.
printf '[Journal]\nSystemMaxUse=1G\n' >etc/systemd/journald.conf.d/room.conf
echo "$MACHINE_ID" >etc/machine-id
# Nothing that they would generate is of use here, and they are most of what a daemon-reload costs.
mkdir -p etc/systemd/system-generators
for generator in usr/lib/systemd/system-generators/*; do ln -sf /dev/null "etc/systemd/system-generators/${generator##*/}"; done
for unit in $MASKED; do ln -s /dev/null "etc/systemd/system/$unit"; done
if [ "$BUS" = dbus-broker ]; then ln -s /usr/lib/systemd/system/dbus-broker.service etc/systemd/system/dbus.service; fi
while :; do
    status=0
    "$@" || status=$?
    [ "$status" = 133 ] || exit "$status"
done
