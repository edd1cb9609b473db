"""`remo-brokerctl audit`: which secrets went to whom, and which requests were refused."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

from remo_broker.cli.options import Arguments, Option, Usage
from remo_broker.cli.program import Problem
from remo_broker.cli.times import FORMS, USEC, iso, parse
from remo_broker.client.errors import ClientError
from remo_broker.ctl import audit_table
from remo_broker.ctl.audit_fast_reader import read_to_count
from remo_broker.ctl.audit_first_fetches import Firsts
from remo_broker.ctl.audit_reader import Query, any_record, follow, read
from remo_broker.ctl.audit_requester import matches
from remo_broker.ctl.commands import (
    ALL_EVENTS,
    BY,
    DEFAULT_FOLLOW_LINES,
    DENIED,
    DIRECTORY,
    FOLLOW,
    FULL,
    LINES,
    MARK_NEW,
    MOST_LINES,
    NAMESPACE,
    PROJECT_OPTION,
    RECORDS_OF_UNIT,
    REPORT,
    SECRET_OPTION,
    SINCE,
    SUMMARY,
    UNTIL,
    VERIFY,
    WHO,
)
from remo_broker.ctl.session import checked_project, manages_units, open_client, open_output, socket_path, user_name
from remo_broker.ctl.status import unit_states
from remo_broker.protocol import paths
from remo_broker.protocol.clock import now_usec

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from remo_broker.cli.terminal import Output
    from remo_broker.ctl.audit_first_fetches import Firsts
from remo_broker.ctl.audit_reader import Record

TEXT_FIELDS = (
    *("project", "unit", "credential", "secret", "decision", "outcome", "reason", "backend"),
    *("peer_unit", "peer_user_unit", "peer_container", "peer_comm", "peer_exe", "start_id", "previous_start_id"),
)
NUMBER_FIELDS = (
    *("generation", "latency_usec", "count", "secret_count", "allowlist_size", "dropped"),
    *("peer_pid", "peer_uid", "peer_gid", "peer_owner_uid", "peer_pidfd_inode", "peer_gone", "serial"),
    "previous_serial",
)


def audit(arguments: Arguments) -> int:
    output = open_output(arguments)
    mode = _mode(arguments)
    query = _query(arguments)
    if mode is VERIFY:
        return _verify(arguments, output, query)
    if mode is MARK_NEW:
        from remo_broker.ctl.audit_mark_new import mark

        output.line(f"First fetches noted: {mark(query)}.")
        return 0
    if mode is FOLLOW:
        if query.since is None and query.lines is None:
            query.lines = DEFAULT_FOLLOW_LINES
        show(output, _narrowed(follow(query), arguments), query, live=True)
        return 0
    found = _narrowed(read_to_count(query) if mode in (REPORT, SUMMARY) else read(query), arguments)
    if mode is REPORT:
        _report(arguments, output, query, found)
        return 0
    with output.paged():
        if mode is SUMMARY:
            from remo_broker.ctl.audit_summary import show_summary

            count = show_summary(output, found, arguments.value(BY) or "")
        else:
            count = show(output, found, query, live=False, full=arguments.flag(FULL))
    if not count and query.project is not None:
        _require_known(query)
    return 0


def _mode(arguments: Arguments) -> Option | None:
    """The requested form of review; None for the table. Raises `Usage` for two at a time."""
    modes = [option for option in (VERIFY, MARK_NEW, REPORT, FOLLOW) if arguments.flag(option)]
    if arguments.flag(SUMMARY) or arguments.flag(BY):
        modes.append(SUMMARY)
    if len(modes) > 1:
        raise Usage(f"{modes[0].name} and {modes[1].name} cannot be combined")
    mode = modes[0] if modes else None
    if mode is FOLLOW and arguments.flag(UNTIL):
        raise Usage("--follow and --until cannot be combined")
    if mode in (SUMMARY, REPORT) and arguments.flag(ALL_EVENTS):
        raise Usage("--all adds events other than fetches, which are not counted here", hint="omit --all")
    if mode in (VERIFY, MARK_NEW):
        for option in (PROJECT_OPTION, RECORDS_OF_UNIT, SECRET_OPTION, DENIED, LINES, WHO, ALL_EVENTS):
            if arguments.flag(option):
                raise Usage(
                    f"{option.name} excludes records, which {mode.name} would report as missing",
                    hint=f"omit {option.name}",
                )
    return mode


def _query(arguments: Arguments) -> Query:
    lines = arguments.number(LINES, 0, MOST_LINES)
    since, until = moment(arguments, SINCE), moment(arguments, UNTIL)
    if since is not None and until is not None and since > until:
        raise Usage("--since is later than --until")
    directory, namespace = arguments.value(DIRECTORY), arguments.value(NAMESPACE)
    if directory is not None and namespace is not None:
        raise Usage("--directory and --namespace cannot be combined")
    project = arguments.value(PROJECT_OPTION)
    return Query(
        project=None if project is None else checked_project(project),
        unit=arguments.value(RECORDS_OF_UNIT),
        secret=arguments.value(SECRET_OPTION),
        denied=arguments.flag(DENIED),
        all_events=arguments.flag(ALL_EVENTS) or arguments.flag(VERIFY),
        since=since,
        until=until,
        lines=lines,
        directory=directory,
        namespace=namespace,
    )


def _narrowed(found: Iterable[Record], arguments: Arguments) -> Iterator[Record]:
    pattern = arguments.value(WHO)
    return iter(found) if pattern is None else (one for one in found if matches(one, pattern))


def moment(arguments: Arguments, option: Option) -> int | None:
    text = arguments.value(option)
    if text is None:
        return None
    found = parse(text, now_usec() / USEC)
    if found is None:
        raise Usage(f"{option.name}: not a time from 1970 to 9998", hint=f"write {FORMS}; see systemd.time(7)")
    return found


def _require_known(query: Query) -> None:
    """Raise `Problem` for a project that does not exist and has no record in the journal."""
    if os.path.lexists(paths.project_socket(paths.SOCKET_DIR, query.project or "")):
        return
    ever = Query(project=query.project, all_events=True, lines=1, directory=query.directory, namespace=query.namespace)
    if not any_record(ever):
        raise Problem(
            f"no project {query.project}: it is not registered, and the journal has no record of it",
            hint="'remo-brokerctl list' shows the registered projects",
        )


def show(output: Output, found: Iterator[Record], query: Query, *, live: bool, full: bool = False) -> int:
    """Print the records as a table or as JSON. Return the number of rows."""
    hosts = query.directory is not None
    is_first = Firsts(query).is_first
    if output.json == "off":
        return audit_table.show(output, found, live=live, full=full, hosts=hosts, is_first=is_first)
    count = 0
    for record in found:
        count += 1
        output.show_json(fields(record, host=hosts) | ({"first_seen": True} if is_first(record) else {}))
        if live:
            sys.stdout.flush()
    return count


def fields(record: Record, *, host: bool = False) -> dict[str, Any]:
    """A record for programs: every field it has, named as in the journal without the prefix.

    The user's current name on this host is added.
    """
    found: dict[str, Any] = {"time": iso(record.usec), "event": record.event}
    for name in TEXT_FIELDS:
        value = record.text(f"REMO_{name.upper()}")
        if value is not None:
            found[name] = value
    for name in NUMBER_FIELDS:
        number = record.number(f"REMO_{name.upper()}")
        if number is not None:
            found[name] = number
    if host:
        found["host"] = record.text("_HOSTNAME")
        return found
    known = user_name(found["peer_uid"]) if "peer_uid" in found else None
    if known is not None:
        found["peer_user"] = known
    return found


def _report(arguments: Arguments, output: Output, query: Query, found: Iterator[Record]) -> None:
    from remo_broker.ctl.audit_report import Report, pair, write_report

    earlier = None
    if query.since is not None:
        before = Query(
            project=query.project,
            secret=query.secret,
            until=query.since - 1,
            directory=query.directory,
            namespace=query.namespace,
        )
        earlier = {known for known in map(pair, read_to_count(before)) if known is not None}
    write_report(output, Report(found, earlier), arguments.value(REPORT) or "-")


def _verify(arguments: Arguments, output: Output, query: Query) -> int:
    from remo_broker.ctl.audit_last_start import last_start
    from remo_broker.ctl.audit_verify import verify

    running, may_run = (None, True) if query.directory is not None else _running(arguments)
    if running is not None:
        _sync(query)
    with output.paged():
        return verify(
            output,
            read(query),
            from_first=query.since is None,
            # The start before may have its records in another namespace.
            whole=query.since is None and query.namespace is None,
            running=running,
            may_run=may_run,
            last=None if query.directory is not None or query.namespace is not None else last_start(),
            bounded=query.until is not None,
        )


def _running(arguments: Arguments) -> tuple[tuple[str, int] | None, bool]:
    """The running broker's start id and last serial; without them, whether one may run, which does not
    tell this user. Never starts a broker. Raises `Problem` if systemd does not say whether it runs: no
    other user may hide what the broker says."""
    if manages_units(arguments):
        if not unit_states().runs:
            return None, False
    elif not os.path.exists(socket_path(arguments)):
        return None, False
    try:
        with open_client(arguments) as client:
            found = client.status().audit
    except (ClientError, Problem):
        return None, True
    return ((found.start_id, found.serial - found.queued), True) if found.start_id else (None, True)


def _sync(query: Query) -> None:
    """Make journald write what it has received. Without the privilege, wait a moment instead."""
    from remo_broker.ctl.journals import unit_namespace

    namespace = query.namespace or unit_namespace()
    options = [] if namespace is None else [f"--namespace={namespace}"]
    command = ["journalctl", *options, "--sync"]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    except OSError:
        return
    if done.returncode != 0:
        time.sleep(0.2)
