#!/bin/sh
# Resets the test machine, see Machine.reset. One command, as it runs before every test; $1 is a unit
# to enable and start, if any. Units are stopped before their files are removed, and not while a boot
# still starts them. The journal is empty afterwards, that of the audit's own namespace too: no test
# meets records of another.
# shellcheck disable=SC2046 # names of units are words
systemctl is-system-running --wait >/dev/null
# systemctl asks for one stop after another. On a busy machine, a client that is still there, such as
# the sidecar, may meanwhile start the broker again.
for _ in 1 2 3 4 5 6 7 8 9 10; do
    ! systemctl stop 'remo-*' || systemctl show --property=ActiveState 'remo-*' | grep -q =a || break
done
systemctl clean --what=fdstore remo-broker.service 2>/dev/null  # outlives a stop since systemd 254
systemctl reset-failed 'remo-*' 2>/dev/null
rm -rf /run/remo-broker /var/lib/remo-broker /etc/remo-broker
systemd-tmpfiles --create remo-broker.conf || exit
# To load the units again takes half of the time, and most tests change none of them. What a test has
# removed itself is in no list of files: systemd tells when it has last loaded them.
units() {
    systemctl show --property=UnitsLoadTimestampMonotonic
    find /etc/systemd/system /run/systemd/system /usr/lib/systemd/system -name 'remo-*' -printf '%p %C@ %l\n'
}
if [ "$1 $(units)" != "$(cat /run/units-after-reset 2>/dev/null)" ]; then
    find /etc/systemd/system /run/systemd/system -depth -name 'remo-*' -exec rm -rf {} +
    [ -z "$1" ] || systemctl -q --no-reload enable "$1" || exit
    systemctl daemon-reload || exit
    echo "$1 $(units)" >/run/units-after-reset
fi
journal=/var/log/journal/$(cat /etc/machine-id)
for namespace in "$journal".*; do
    [ ! -d "$namespace" ] || systemctl stop "systemd-journald@${namespace##*.}.service"
    rm -rf "$namespace"
done
journalctl --rotate && rm -f "$journal"/*@* || exit
# By name, loaded or not: tests may start units more often than the limit of starts allows.
systemctl reset-failed $(find /usr/lib/systemd/system -name 'remo-*' -type f ! -name '*@*' -printf '%f ')
[ -z "$1" ] || systemctl start $(find /etc/systemd/system -name 'remo-*' -printf '%f ')
