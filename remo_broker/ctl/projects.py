"""`remo-brokerctl list`, `show` and `reload`."""

from __future__ import annotations

from remo_broker.cli.options import Arguments
from remo_broker.cli.text import escaped
from remo_broker.cli.times import ago, shown, shown_short
from remo_broker.ctl import socket_problems
from remo_broker.ctl.commands import NAMES
from remo_broker.ctl.session import fetches, open_client, open_output, project_operand, user
from remo_broker.protocol.names import counted


def list_projects(arguments: Arguments) -> None:
    output = open_output(arguments)
    with open_client(arguments) as client:
        projects = client.status().projects
    if output.json != "off":
        output.show_json([project.to_json() | socket_problems.field(project) for project in projects])
        return
    header = ["PROJECT", "NAMES", "LEASES", "CONNECTIONS", "ALLOWED", "DENIED", "LAST FETCH"]
    rows = [
        [
            project.name,
            str(project.allowlist_size),
            str(project.cache_entries),
            str(project.connections),
            str(project.fetches_allowed),
            str(project.fetches_denied),
            shown_short(project.last_fetch_usec),
        ]
        for project in projects
    ]
    problems = [socket_problems.problem(project) for project in projects]
    if any(problems):
        header.append("STATE")
        rows = [[*row, why or "served"] for row, why in zip(rows, problems, strict=True)]
    with output.paged():
        output.table(header, rows, f"{counted(len(rows), 'project')} listed.")


def show(arguments: Arguments) -> None:
    output = open_output(arguments)
    with open_client(arguments) as client:
        found = client.show(project_operand(arguments))
    if output.json != "off":
        fields = found.to_json()
        del fields["ok"]
        output.show_json(fields | socket_problems.field(found))
        return
    if arguments.flag(NAMES):
        for name in found.allowlist:
            output.line(escaped(name))
        return
    last = f", last {shown(found.last_fetch_usec)}; {ago(found.last_fetch_usec)}" if found.last_fetch_usec else ""
    names = found.allowlist or ["none: everything is denied"]
    with output.paged():
        output.pairs(
            [
                ("Project", escaped(found.name)),
                ("Directory", escaped(found.project_path)),
                ("Socket", escaped(socket_problems.problem(found) or found.socket_path)),
                ("Users", ", ".join(map(user, found.allowed_uids)) or "anybody who can open the socket"),
                ("Leases", f"{found.ttl_seconds} s, at most {found.max_entries}; {found.cache_entries} live"),
                ("Connections", str(found.connections)),
                ("Fetches", f"{fetches(found.fetches_allowed, found.fetches_not_found, found.fetches_denied)}{last}"),
                *((("Names" if place == 0 else ""), escaped(name)) for place, name in enumerate(names)),
            ]
        )
