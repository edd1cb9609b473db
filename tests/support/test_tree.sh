# shellcheck shell=sh
# `./run test`. Sourced by `run`, which has what is not defined here.

# Whole, or with arguments for pytest. What takes time runs side by side: the first tests need nothing
# of .cache.
test_tree() {
    need_for_tests
    need_for_lint
    need_pip
    mkdir -p .cache
    trap wait EXIT # if a step fails, nothing goes on behind the prompt
    # Tests that need .cache wait until nobody holds the lock: see tests/conftest.py. Only these shells
    # do, and no child of theirs that stays.
    exec 9>.cache/lock
    flock 9
    { fetch_for_tests 9>&-; :; } & fetching=$!
    make_venv 9>&-
    { make_for_machines 9>&-; :; } & making=$!
    exec 9>&-
    lint & linting=$!
    status=0
    if [ $# = 0 ] && { [ "$(id -u)" != 0 ] || others_reach_tree; }; then
        # pytest keeps the modules as it needs them; each of the workers would make its own.
        .venv/bin/python -m pytest --collect-only -q >/dev/null 2>&1 || :
        wait "$linting" && run_tests || status=$?
        wait "$fetching" || status=$?
        wait "$making" || status=$?
    else
        wait "$fetching"
        wait "$making"
        wait "$linting"
        [ "$(id -u)" != 0 ] || others_reach_tree || move_to_copy
        run_tests "$@" || status=$?
    fi
    return "$status"
}

# Tests also run programs as other users, who must be able to reach the tree and its .venv.
run_tests() {
    if [ $# != 0 ]; then
        .venv/bin/python -m pytest "$@"
    else
        # Each file on one worker: tests mostly wait for processes and machines. tests/conftest.py
        # puts the files in order.
        .venv/bin/python -m pytest -n 4 --dist loadfile --no-loadscope-reorder
    fi
}

# Fill .cache. What needs .venv is apart, as the rest is fetched while that is made.
make_for_machines() {
    [ "$(id -u)" = 0 ] || return 0
    roots=''
    if others_reach_tree; then # the copy has no .cache/roots
        .venv/bin/python -m tests.support.roots & roots=$!
    fi
    .venv/bin/python -m tests.support.installation # fetches what `./run install` needs in a machine without a network
    [ -z "$roots" ] || wait "$roots"
}

others_reach_tree() {
    "${python:?}" -c 'import subprocess, sys
subprocess.run(["test", "-r", sys.argv[1]], user=65534, group=65534, extra_groups=[], check=True)' "$PWD/run" 2>/dev/null
}

# Not below TMPDIR, which may be one user's own, nor /tmp, which may be small.
move_to_copy() {
    tree=$PWD copy=$(mktemp -d /var/tmp/remo-broker-test.XXXXXX)
    trap 'rm -rf "$copy"' EXIT
    trap 'exit 129' HUP
    trap 'exit 130' INT
    trap 'exit 143' TERM
    say "other users cannot reach $tree: the tests run in a copy of it, $copy"
    # The tree may have been cloned with a umask that keeps it from others.
    tar -c --mode=a+rX --exclude=./.git --exclude=./.cache/roots . | tar -x -C "$copy"
    cd "$copy" || exit
    # The programs in .venv name their interpreter and their package by absolute path.
    grep -rlIF "$tree" .venv/bin .venv/lib/python*/site-packages/*.pth .venv/lib/python*/site-packages/__editable__* |
        while read -r file; do
            "$python" -c 'import sys
name, old, new = sys.argv[1:]
text = open(name).read().replace(old, new)
open(name, "w").write(text)' "$file" "$tree" "$copy"
        done
}
