"""`remo-brokerctl list`, `show`, `register`, `unregister` and `reload`."""

from __future__ import annotations

import os
import sys

from remo_broker.cli.options import Arguments, Usage
from remo_broker.cli.program import Problem, complain
from remo_broker.cli.terminal import Output
from remo_broker.cli.text import escaped
from remo_broker.cli.times import ago, shown, shown_short
from remo_broker.client.errors import (
    ClientError,
    ManifestInvalid,
    ManifestNotFound,
    ManifestUnreadable,
    ProjectUnknown,
    Unsendable,
)
from remo_broker.ctl.commands import ALL, ALLOW_UID, NAMES, NO_ENABLE, PROGRAM
from remo_broker.ctl.session import (
    checked_project,
    directory_problem,
    manages_units,
    open_client,
    open_output,
    systemctl,
    uids,
    user,
)
from remo_broker.protocol.names import counted


def list_projects(arguments: Arguments) -> None:
    output = open_output(arguments)
    with open_client(arguments) as client:
        projects = client.status().projects
    if output.json != "off":
        output.show_json([project.to_json() for project in projects])
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
    with output.paged():
        output.table(header, rows, f"{counted(len(rows), 'project')} listed.")


def show(arguments: Arguments) -> None:
    output = open_output(arguments)
    with open_client(arguments) as client:
        found = client.show(project_operand(arguments))
    if output.json != "off":
        fields = found.to_json()
        del fields["ok"]
        output.show_json(fields)
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
                ("Socket", escaped(found.socket_path)),
                ("Users", ", ".join(map(user, found.allowed_uids)) or "anybody who can open the socket"),
                ("Leases", f"{found.ttl_seconds} s, at most {found.max_entries}; {found.cache_entries} live"),
                ("Connections", str(found.connections)),
                ("Fetches", f"{found.fetches_allowed} allowed, {found.fetches_denied} denied{last}"),
                *((("Names" if place == 0 else ""), escaped(name)) for place, name in enumerate(names)),
            ]
        )


def register(arguments: Arguments) -> int:
    output = open_output(arguments)
    path = os.path.realpath(arguments.operands[0])
    name = os.path.basename(path)
    problem = directory_problem(path)
    if problem is not None:
        raise Problem(f"{path}: {problem}")
    with open_client(arguments) as client:
        try:
            socket = client.register(name, path, uids(arguments, ALLOW_UID))
        except (ManifestInvalid, ManifestNotFound, ManifestUnreadable, Unsendable) as error:
            from remo_broker.manifest.reader import PROJECT_PATH

            # The broker does not repeat the path that it was given.
            raise Problem(f"{path}: {error.message.removeprefix(f'{PROJECT_PATH}: ')}") from None
    unit = unit_change(arguments, "enable", name)
    if output.json != "off":
        output.show_json({"name": name, "socket_path": socket, "unit": unit.name, "unit_enabled": unit.done})
    else:
        output.line(f"Registered {name}; its socket is {escaped(socket)}.")
        unit.tell(output, "Enabled", "systemd opens the socket from the next boot on")
    return unit.status()


def unregister(arguments: Arguments) -> int:
    output = open_output(arguments)
    name = project_operand(arguments)
    known = True
    with open_client(arguments) as client:
        try:
            client.unregister(name)
        except ProjectUnknown:
            # What is left of an earlier time, or of a half that failed, is taken away all the same.
            if not (touches_units(arguments) and has_unit(name)):
                raise
            known = False
    unit = unit_change(arguments, "disable", name)
    if output.json != "off":
        output.show_json({"name": name, "unregistered": known, "unit": unit.name, "unit_disabled": unit.done})
    else:
        output.line(f"Unregistered {name}." if known else f"The broker does not know {name}; only its unit was left.")
        unit.tell(output, "Disabled", "systemd does not open the socket any more")
    return unit.status()


class UnitChange:
    """What became of a project's socket unit; `name` is None where it was not to be touched."""

    def __init__(self, name: str | None, command: str = "", error: str | None = None) -> None:
        self.name = name
        self.done = name is not None and error is None
        self._command = command
        self._error = error

    def tell(self, output: Output, verb: str, consequence: str) -> None:
        if self.done:
            output.line(f"{verb} {self.name}: {consequence}.")

    def status(self) -> int:
        """0, or 1 after a line on standard error: what the broker did stands, but half of it is missing."""
        if self._error is None:
            return 0
        complain(PROGRAM, f"the broker's part is done, but not systemd's: {self._error}; run 'sudo {self._command}'")
        return 1


def touches_units(arguments: Arguments) -> bool:
    return not arguments.flag(NO_ENABLE) and manages_units(arguments)


def socket_unit(project: str) -> str:
    return f"remo-broker-client@{project}.socket"


def has_unit(project: str) -> bool:
    """Whether the project's socket unit is enabled or runs."""
    try:
        return any(
            systemctl("--quiet", asked, socket_unit(project)).returncode == 0 for asked in ("is-enabled", "is-active")
        )
    except OSError:
        return False


def unit_change(arguments: Arguments, verb: str, project: str) -> UnitChange:
    """Enable the project's socket unit without starting it (the broker has the socket), or disable and stop it."""
    if not touches_units(arguments):
        return UnitChange(None)
    unit = socket_unit(project)
    words = [verb, *(["--now"] if verb == "disable" else []), unit]
    try:
        answer = systemctl(*words)
    except OSError as error:
        return UnitChange(unit, " ".join(["systemctl", *words]), f"systemctl: {os.strerror(error.errno or 0)}")
    if answer.returncode != 0:
        said = answer.stderr.strip().splitlines() or ["it gave no reason"]
        return UnitChange(unit, " ".join(["systemctl", *words]), said[-1])
    return UnitChange(unit)


def reload(arguments: Arguments) -> int:
    output = open_output(arguments)
    if arguments.flag(ALL) == bool(arguments.operands):
        raise Usage("'reload' wants either a PROJECT or --all")
    reloaded: list[dict[str, object]] = []
    failed = False
    with open_client(arguments) as client:
        if arguments.flag(ALL):
            names = [project.name for project in client.status().projects]
        else:
            names = [project_operand(arguments)]
        for name in names:
            try:
                allowlist = client.reload(name)
            except ClientError as error:
                if not arguments.flag(ALL):
                    raise
                failed = True
                complain(PROGRAM, f"{name}: {error}")
                reloaded.append({"name": name, "error": error.message})
                continue
            reloaded.append({"name": name, "allowlist": allowlist})
            if output.json == "off":
                output.line(
                    f"Reloaded {name}: {', '.join(map(escaped, allowlist)) or 'no names, everything is denied'}"
                )
    if output.json != "off":
        output.show_json(reloaded if arguments.flag(ALL) else reloaded[0])
    sys.stdout.flush()
    return 1 if failed else 0


def project_operand(arguments: Arguments) -> str:
    return checked_project(arguments.operands[0])
