# shellcheck shell=sh
# Host steps that `./run install` shares with the maintainer scripts of the Debian package. `facts`
# in install.sh prints the variables: units sysusers tmpfiles users groups state profiles.

systemd_runs() { [ -d /run/systemd/system ]; }

# After files were installed or removed: make the programs that read them reload.
reload_host() {
    journalctl --update-catalog
    load_profiles
    systemd_runs || return 0
    systemctl daemon-reload
    ! systemctl -q is-active dbus.service || systemctl reload dbus.service
}

# Profiles for AppArmor, where the kernel has it. The units start without them, too.
apparmor_runs() { [ -e /sys/kernel/security/apparmor/profiles ] && command -v apparmor_parser >/dev/null; }

load_profiles() {
    apparmor_runs || return 0
    for profile in $profiles; do
        if [ -e "/etc/apparmor.d/$profile" ]; then
            apparmor_parser --replace --write-cache "/etc/apparmor.d/$profile" ||
                echo "The AppArmor profile $profile was not loaded." >&2
        fi
    done
}

# Before their files are removed.
unload_profiles() {
    apparmor_runs || return 0
    for profile in $profiles; do
        [ ! -e "/etc/apparmor.d/$profile" ] || apparmor_parser --remove "/etc/apparmor.d/$profile" || true
    done
}

make_users_and_directories() {
    for unit_file in $sysusers; do systemd-sysusers "$unit_file"; done
    # systemd-sysusers leaves the user of an earlier version as it is, and then other processes of
    # that user could fetch secrets as any client can.
    [ "$(id -gn remo-broker)" = remo-broker-daemon ] || usermod -g remo-broker-daemon remo-broker
    take_over_socket_directory /run/remo-broker
    for unit_file in $tmpfiles; do systemd-tmpfiles --create "$unit_file"; done
}

# An earlier version's broker owned the directory of the sockets, and could put links and directories there
# for root to follow. Level by level: what a directory of root's contains, nobody else can exchange.
take_over_socket_directory() {
    [ -d "$1" ] && [ "$(stat -c %u "$1")" != 0 ] || return 0
    for depth in 0 1 2 3; do
        find "$1" -xdev -mindepth "$depth" -maxdepth "$depth" ! -user root -exec chown -h root {} +
        find "$1" -xdev -mindepth "$depth" -maxdepth "$depth" -type d -exec chmod go-w {} +
    done
    find "$1" -xdev -depth -mindepth 1 ! -type s ! -type d -delete
}

# Stop units that only an older version had: systemd still runs them, though their files are gone.
stop_units_without_file() {
    find /etc/systemd/system -type l \( -name 'remo-broker*' -o -name 'remo-sidecar*' \) ! -exec test -e {} \; \
        -exec rm -f {} +
    systemd_runs || return 0
    systemctl list-units --all --plain --no-legend 'remo-broker*' 'remo-sidecar*' | while read -r unit load _; do
        if [ "$load" = not-found ]; then
            systemctl stop "$unit" 2>/dev/null || true # it may have stopped already
            systemctl reset-failed "$unit" 2>/dev/null || true
        fi
    done
}

# systemd holds the sockets while a service restarts: no connection is refused, and no socket's
# inode changes.
restart_running_services() {
    systemd_runs || return 0
    for unit in $units; do
        case $unit in
            *@*) ;;
            *.service)
                if systemctl -q is-active "$unit"; then
                    echo "Restarting $unit, which was running." >&2
                    systemctl try-restart "$unit"
                fi
                ;;
        esac
    done
}

# Start sockets that an older version did not have, if they are enabled and the admin socket
# listens.
start_new_sockets() {
    systemd_runs || return 0
    systemctl -q is-active remo-broker-admin.socket || return 0
    for unit in $units; do
        case $unit in
            *@*) ;;
            *.socket)
                if systemctl -q is-enabled "$unit" 2>/dev/null && ! systemctl -q is-active "$unit"; then
                    systemctl start "$unit" || true
                fi
                ;;
        esac
    done
}

# For a template, a pattern that matches its instances.
patterns() {
    for unit in $units; do printf '%s\n' "$unit" | sed 's/@\./@*./'; done
}

stop_all() {
    systemd_runs || return 0
    # The broker first: when it stops, it leaves the sockets of its projects to their units, which start.
    systemctl stop remo-broker.service
    # Since systemd 254 its descriptor store outlives the stop: who connects to a socket in it would
    # wait for nobody, and systemd would not forget the unit.
    systemctl clean --what=fdstore remo-broker.service 2>/dev/null || true
    # shellcheck disable=SC2046 # a list of patterns
    systemctl stop $(patterns)
    # shellcheck disable=SC2046
    systemctl reset-failed $(patterns) 2>/dev/null || true
}

disable_all() {
    # shellcheck disable=SC2086 # a list of units
    systemctl -q disable $units 2>/dev/null || true
}

# What `remo-brokerctl setup-journal` has made, for the broker's group; the records stay.
remove_own_journal() {
    rm -rf /etc/systemd/system/systemd-journald@remo-broker.*.d \
        /etc/systemd/system/systemd-journald-varlink@remo-broker.socket.d \
        /etc/systemd/journald@remo-broker.conf /etc/systemd/system/remo-broker.service.d/50-journal.conf
    rmdir /etc/systemd/system/remo-broker.service.d 2>/dev/null || true # if no other drop-in is in it
    systemd_runs || return 0
    systemctl stop 'systemd-journald@remo-broker.*' systemd-journald-varlink@remo-broker.socket 2>/dev/null || true
    rm -rf /run/systemd/journal.remo-broker # systemd leaves the sockets when it stops them
}

remove_users_and_state() {
    remove_own_journal
    for directory in $state; do rm -rf "$directory"; done
    # First the groups that are no user's own: of one with a user's name, userdel would say that it
    # stays.
    for group in $groups; do groupdel "$group" 2>/dev/null || :; done
    for user in $users; do
        ! getent passwd "$user" >/dev/null || userdel "$user"
    done
    for group in $groups; do
        ! getent group "$group" >/dev/null || groupdel "$group"
    done
}
