# shellcheck shell=sh
# Sourced by `./run`: installs this tree onto a host or into a directory, and removes it.
lib=/usr/lib/remo-broker
unit_dir=/usr/lib/systemd/system
# Only units start these, so they go below $lib/libexec.
helpers='bind=remo_broker.binder.__main__ manifest=remo_broker.manifest.__main__'
. remo_broker/build/host.sh

# The programs, each as "NAME=MODULE".
programs() {
    sed -n '/^\[project.scripts\]/,/^\[/s/^\([a-z0-9-]*\) = "\(.*\):main"$/\1=\2/p' pyproject.toml
}

# The install path of a file from the tree or from $work.
place() {
    name=${1##*/}
    case $1 in
        units/*.d/*.conf) echo "$unit_dir/${1#units/}" ;;
        units/*.service)
            if grep -qxF '[D-BUS Service]' "$1"; then
                echo "/usr/share/dbus-1/system-services/$name"
            else
                echo "$unit_dir/$name"
            fi
            ;;
        units/*.socket | units/*.target | units/*.timer | units/*.path | units/*.slice) echo "$unit_dir/$name" ;;
        units/*.sysusers) echo "/usr/lib/sysusers.d/${name%.sysusers}.conf" ;;
        units/*.tmpfiles) echo "/usr/lib/tmpfiles.d/${name%.tmpfiles}.conf" ;;
        units/*.catalog) echo "/usr/lib/systemd/catalog/$name" ;;
        units/*.preset) echo "/usr/lib/systemd/system-preset/$name" ;;
        policy/*.conf) echo "/usr/share/dbus-1/system.d/$name" ;;
        policy/*.policy) echo "/usr/share/polkit-1/actions/$name" ;;
        policy/*.rules) echo "/usr/share/polkit-1/rules.d/$name" ;;
        policy/*.apparmor) echo "/etc/apparmor.d/${name%.apparmor}" ;;
        feature/* | */static/*) echo "/usr/share/remo-broker/feature/$name" ;;
        schema/*) echo "/usr/share/remo-broker/$name" ;;
        man/*) echo "/usr/share/man/man${name##*.}/$name" ;;
        */completions/*.bash) echo "/usr/share/bash-completion/completions/${name%.bash}" ;;
        */completions/*.fish) echo "/usr/share/fish/vendor_completions.d/$name" ;;
        */completions/_*) echo "/usr/share/zsh/vendor-completions/$name" ;;
        *) die "no directory is defined for $1: see place in remo_broker/build/install.sh" ;;
    esac
}

# One "source target" per line.
layout() {
    for file in units/* units/*.d/* policy/* schema/* feature/* man/*.[1-8] "$work"/completions/* "$work"/static/*; do
        case $file in
            */remo-broker.service.d/preserve.conf) # systemd 253 and earlier do not know its setting
                [ "$(systemctl --version | sed -n '1s/^systemd \([0-9]*\).*/\1/p')" -ge 254 ] || continue
                ;;
        esac
        [ ! -f "$file" ] || echo "$file $(place "$file")"
    done
}

# Prints assignments of the variables that host.sh uses.
facts() {
    units='' sysusers='' tmpfiles=''
    for file in units/*; do
        [ -f "$file" ] || continue
        target=$(place "$file")
        case $target in
            "$unit_dir"/*) units="$units ${target##*/}" ;;
            *.d/*.conf)
                case $file in
                    *.sysusers) sysusers="$sysusers ${target##*/}" ;;
                    *.tmpfiles) tmpfiles="$tmpfiles ${target##*/}" ;;
                esac
                ;;
        esac
    done
    echo "units='$units' sysusers='$sysusers' tmpfiles='$tmpfiles'"
    echo "profiles='$(basename -s .apparmor policy/*.apparmor | tr '\n' ' ')'"
    # In sysusers.d(5), a u line also creates a group of the same name.
    echo "users='$(awk '$1 ~ /^u/ { printf "%s ", $2 }' units/*.sysusers)'"
    echo "groups='$(awk '$1 ~ /^[ug]/ { printf "%s ", $2 }' units/*.sysusers)'"
    # With DynamicUser=, the second path is the directory and the first a link to it.
    state=$(sed -n 's|^StateDirectory=\(.*\)|/var/lib/\1 /var/lib/private/\1|p' units/*.service)
    runtime=$(awk '$1 ~ /^[dD]/ && $2 ~ /^\/(run|var\/lib)\/remo-[a-z-]+$/ { print $2 }' units/*.tmpfiles)
    echo "state='$(echo $state $runtime)'"
}

# launcher MODULE: prints a program for /usr/bin. With -I, the caller's environment, home and
# working directory cannot affect imports, because these programs run as root. To start fast, it
# uses neither `site` nor pip's start scripts, and only adds the environment after the standard
# library. What is imported lives as long as the process: the cycle collector does not look at it,
# which would take a sixteenth of the broker's imports.
launcher() {
    cat <<END
#!$python -SI
import gc
import sys

if sys.version_info[:2] != ($major, $minor):
    sys.exit("remo-broker was installed for Python $major.$minor, and $python is another by now: run \`./run install\` again")
sys.path.append("$lib/lib/python$major.$minor/site-packages")
gc.disable()
try:
    from $1 import main

    gc.freeze()
    gc.enable()
    status = main()
except KeyboardInterrupt:  # while it is still being imported
    status = 130
sys.exit(status)
END
}

# Builds into $work/static the static client of remo-secret for this machine, and for the
# containers' other architectures if their compilers are installed. Without it, remo-secret is only
# the Python program.
build_static_client() {
    mkdir "$work/static"
    own=$(uname -m)
    for architecture in ${STATIC_CLIENTS:-$own x86_64 aarch64}; do
        file=$work/static/remo-secret.$architecture
        [ ! -e "$file" ] || continue
        if ! "$python" -B -m remo_broker.build.static_client "$file" "$architecture" 2>"$work/static.log"; then
            rm -f "$file"
            [ "$architecture" != "$own" ] ||
                say "$(cat "$work/static.log"). remo-secret is installed in Python only; with musl-tools or gcc, install again"
        fi
    done
}

install_tree() {
    need_python
    version=$("$python" -c 'import sys; print(*sys.version_info[:2])')
    major=${version% *} minor=${version#* }
    new=$destdir$lib.new
    work=$(mktemp -d)
    trap 'rm -rf "$work" "$new"' EXIT

    # Next to the old one, so that a broker that starts meanwhile finds a complete environment.
    rm -rf "$new"
    mkdir -p "$destdir/usr/lib"
    "$python" -m venv --without-pip "$new"
    unpack_pip "$work/pip"
    pip_settings "$work/pip/pip"
    mkdir "$work/tree"
    cp -R pyproject.toml remo_broker "$work/tree" # building in place would leave root's files here
    "$new/bin/python" "$work/pip/pip" install -q --use-pep517 --no-compile "$work/tree"
    # Start scripts would name the wrong interpreter: see launcher.
    find "$new/bin" -mindepth 1 ! -name 'python*' -delete
    rm -f "$new/.gitignore" # venv makes it since Python 3.13
    sed -i '/^command = /d' "$new/pyvenv.cfg" # it names the build path, not the final one
    "$python" -m compileall -q -j 0 -s "$new" -p "$lib" "$new/lib"
    chmod -R a+rX,go-w "$new"

    # Generated from the programs' own tables. The .pyz files are for containers, whose Python
    # differs: see their module.
    PYTHONDONTWRITEBYTECODE=1 "$new/bin/python" -P -m remo_broker.build.completions "$work/completions"
    PYTHONDONTWRITEBYTECODE=1 "$new/bin/python" -P -m remo_broker.build.pack "$new/remo-secret.pyz"
    PYTHONDONTWRITEBYTECODE=1 "$new/bin/python" -P -m remo_broker.build.pack "$new/remo-sidecar.pyz"

    build_static_client

    layout >"$work/layout"
    while read -r file target; do
        mode=0644
        case $file in feature/*.sh | */static/*) mode=0755 ;; esac
        install -D -m "$mode" "$file" "$destdir$target"
        echo "$target"
    done <"$work/layout" >"$work/files"
    programs >"$work/programs"
    while read -r program; do
        launcher "${program#*=}" >"$work/launcher"
        if [ "${program%%=*}" = remo-secret ]; then
            # The static client looks for it here.
            install -m 0755 "$work/launcher" "$new/remo-secret"
            [ ! -e "$work/static/remo-secret.$own" ] || cp "$work/static/remo-secret.$own" "$work/launcher"
        fi
        install -D -m 0755 "$work/launcher" "$destdir/usr/bin/${program%%=*}"
        echo "/usr/bin/${program%%=*}"
    done <"$work/programs" >>"$work/files"
    mkdir "$new/libexec"
    for helper in $helpers; do
        launcher "${helper#*=}" >"$work/launcher"
        install -m 0755 "$work/launcher" "$new/libexec/${helper%%=*}"
    done
    # Remove files that only the older version had.
    if [ -e "$destdir$lib/installed-files" ]; then
        grep -vxFf "$work/files" "$destdir$lib/installed-files" | remove_files
    fi
    install -m 0644 "$work/files" "$new/installed-files"

    rm -rf "$destdir$lib.old"
    [ ! -e "$destdir$lib" ] || mv "$destdir$lib" "$destdir$lib.old"
    mv "$new" "$destdir$lib"
    rm -rf "$destdir$lib.old"
}

# Remove the files that standard input lists, and directories of ours that this leaves empty.
remove_files() {
    while read -r file; do
        rm -f "$destdir$file"
        directory=${file%/*}
        case ${directory##*/} in remo-*) rmdir "$destdir$directory" 2>/dev/null || : ;; esac
    done
}

install_host() {
    [ "$(id -u)" = 0 ] || [ -n "$destdir" ] || die 'install writes below /usr: sudo ./run install'
    refuse_package
    [ -n "$destdir" ] || command -v systemd-sysusers >/dev/null ||
        die 'there is no systemd on this host to install under; the broker runs without: see remo-broker(8) and ./run demo'
    install_tree
    [ -z "$destdir" ] || { say "installed below $destdir"; return; }
    eval "$(facts)"
    make_users_and_directories
    reload_host
    if ! systemd_runs; then
        say 'installed. systemd does not run here: see remo-broker(8) on how to start the broker without it'
        return
    fi
    stop_units_without_file
    if systemctl -q is-enabled remo-broker-admin.socket 2>/dev/null; then
        systemctl -q enable remo-broker-admin.socket # and units added to Also= since
        start_new_sockets
        restart_running_services
    else
        restart_running_services
        say 'installed. Next: systemctl enable --now remo-broker-admin.socket'
    fi
}

# Only the package may replace or remove files that it installed.
refuse_package() {
    [ -z "$destdir" ] && command -v dpkg-query >/dev/null || return 0
    ! dpkg-query -S "$lib/installed-files" >/dev/null 2>&1 ||
        die 'the package remo-broker is installed here. Remove it first: apt-get remove remo-broker'
}

uninstall_host() {
    [ "$(id -u)" = 0 ] || [ -n "$destdir" ] || die 'uninstall writes below /usr: sudo ./run uninstall'
    refuse_package
    eval "$(facts)"
    if [ -z "$destdir" ] && systemd_runs && [ -d "$lib" ]; then
        # Also the units of the installed version, which may differ.
        for file in $(grep "^$unit_dir/[^/]*$" "$lib/installed-files"); do units="$units ${file##*/}"; done
        disable_all
        stop_all
        unload_profiles
    fi
    if [ -e "$destdir$lib/installed-files" ]; then
        remove_files <"$destdir$lib/installed-files"
    fi
    rm -rf "$destdir$lib" "$destdir$lib.new" "$destdir$lib.old" "$destdir/usr/share/remo-broker"
    [ -z "$destdir" ] || { say "uninstalled below $destdir"; return; }
    reload_host
    stop_units_without_file
    remove_users_and_state
    say 'uninstalled. Kept: the records in the journal, and /etc/remo-broker if it exists'
}
