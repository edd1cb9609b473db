#!/bin/sh
# Installs remo-secret into an image, as root: the static client where there is one for the architecture, and beside it the
# Python program where Python is, or where it is asked for. Its options come as variables: see devcontainer-feature.json.
set -eu
# What is installed is for every user of the image, whatever the build's mask is.
umask 022

here=$(cd "$(dirname "$0")" && pwd)
prefix=/usr/local
wait=${WAIT:-15} setup=${SETUP:-} python=${PYTHON:-false}

die() {
    echo "remo-broker: $1" >&2
    echo "Hint: $2" >&2
    exit 1
}

[ "$(id -u)" = 0 ] || die 'install.sh must run as root' 'build the image as root, as dev container tools do'
case $wait in '' | *[!0-9]* | ??????*) die "wait is '$wait'" 'give a number of seconds, such as 15' ;; esac
# As long as 'remo-secret wait' waits at most.
[ "$wait" -le 86400 ] || die "wait is '$wait'" 'give at most 86400 seconds'
case $setup in *[!A-Za-z0-9_=\ -]*) die "setup is '$setup'" 'give names of tools, separated by spaces' ;; esac

# Python 3.9 or later with its standard library, which Debian's python3-minimal lacks; the one file finds it by itself.
has_python() {
    for name in python3 python3.9 python3.10 python3.11 python3.12 python3.13 python3.14; do
        if command -v "$name" >/dev/null && "$name" -c 'import json, socket, sys; sys.exit(sys.version_info < (3, 9))'; then
            return 0
        fi
    done
    return 1
}

install_python() {
    echo 'remo-broker: installing Python'
    if command -v apt-get >/dev/null; then
        apt-get -q update
        DEBIAN_FRONTEND=noninteractive apt-get -qy install --no-install-recommends python3
        rm -rf /var/lib/apt/lists/*
    elif command -v dnf >/dev/null; then
        dnf -qy install python3
    elif command -v microdnf >/dev/null; then
        microdnf -y install python3
    elif command -v apk >/dev/null; then
        apk add --no-cache python3
    else
        die 'no package manager that this script knows' 'install Python 3.9 or later in the image before this Feature'
    fi
    has_python || die 'the Python that was installed is older than 3.9' 'use a newer base image'
}

static=$here/remo-secret.$(uname -m)
[ -e "$static" ] || static=
[ -n "$static" ] || python=true
[ -z "$setup" ] || python=true
if [ "$python" = true ] && ! has_python; then install_python; fi

mkdir -p "$prefix/bin" "$prefix/lib/remo-broker" "$prefix/share/remo-broker"
one_file=
if has_python; then
    [ -e "$here/remo-secret.pyz" ] || die "$here has no remo-secret.pyz" "copy the Feature again: remo-brokerctl devcontainer --write"
    one_file=$prefix/lib/remo-broker/remo-secret.pyz
    cp "$here/remo-secret.pyz" "$one_file"
    chmod 0755 "$one_file"
fi
# An earlier version may have left a link, through which cp would write.
rm -f "$prefix/bin/remo-secret"
if [ -n "$static" ]; then
    cp "$static" "$prefix/bin/remo-secret"
    chmod 0755 "$prefix/bin/remo-secret"
else
    ln -s "$one_file" "$prefix/bin/remo-secret"
fi
cp "$here/entrypoint.sh" "$prefix/share/remo-broker/entrypoint.sh"
chmod 0755 "$prefix/share/remo-broker/entrypoint.sh"
echo "$wait" >"$prefix/share/remo-broker/wait"

if [ -n "$setup" ]; then
    user=${_REMOTE_USER:-root}
    # Some images have no su; their user is root.
    become="su -s /bin/sh -c"
    [ "$user" != root ] || become="sh -c"
    $become "exec $prefix/bin/remo-secret setup $setup" "$user" ||
        die "remo-secret setup $setup failed" 'see the error above'
fi
echo "remo-broker: installed remo-secret$([ -z "$static" ] || echo ', static')$([ -z "$one_file" ] || echo ', with Python')"
