#!/bin/sh
# Runs when the container starts: waits for the project's secrets, and ends the start where they do not come. Dev container
# tools run it from the shell that is process 1; as an image's ENTRYPOINT it is process 1 and executes its arguments.
wait=$(cat /usr/local/share/remo-broker/wait 2>/dev/null)
if [ "${wait:-0}" != 0 ] && ! /usr/local/bin/remo-secret wait --timeout="$wait"; then
    echo "remo-broker: the container stops: no secrets arrived within $wait s" >&2
    echo "Hint: follow the hint above, then start the container again; with the Feature's option wait=0, it does not wait" >&2
    # A shell that is process 1 continues whatever its commands return.
    [ "$PPID" != 1 ] || kill -TERM 1
    exit 1
fi
[ $# = 0 ] || exec "$@"
