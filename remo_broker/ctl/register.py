"""`remo-brokerctl register` and `unregister`."""

from __future__ import annotations

import os
import shlex

from remo_broker.cli.options import Arguments
from remo_broker.cli.program import Problem, complain
from remo_broker.cli.real_path import real_path
from remo_broker.cli.terminal import Output
from remo_broker.cli.text import escaped
from remo_broker.client.admin import AdminClient
from remo_broker.client.errors import (
    ManifestInvalid,
    ManifestNotFound,
    ManifestUnreadable,
    ProjectExists,
    ProjectUnknown,
    Unsendable,
)
from remo_broker.ctl import enable, reader_access, writable_paths
from remo_broker.ctl.commands import ALLOW_UID, FIX_ACL, NAME, NO_ENABLE, PROGRAM, REPLACE
from remo_broker.ctl.session import (
    PROJECT_NAMES,
    checked_project,
    directory_problem,
    manages_units,
    open_client,
    open_output,
    project_operand,
    uids,
)
from remo_broker.ctl.units import systemctl


def register(arguments: Arguments) -> int:
    output = open_output(arguments)
    path = real_path(arguments.operands[0])
    given = arguments.value(NAME)
    name = os.path.basename(path) if given is None else checked_project(given)
    problem = directory_problem(path) if given is None else None
    if problem is not None:
        raise Problem(f"{path}: {problem}", hint=f"give a name with --name; {PROJECT_NAMES}")
    acl = reader_access.grant(path) if arguments.flag(FIX_ACL) else []
    if output.json == "off":
        for command in acl:
            output.line(f"Ran {escaped(command)}")
    with open_client(arguments) as client:
        try:
            socket = client.register(
                name,
                path,
                uids(arguments, ALLOW_UID),
                replace=arguments.flag(REPLACE),
                any_name=given is not None,
            )
            names = client.show(name).allowlist
        except ProjectExists as error:
            raise taken(client, error, name, path) from None
        except (ManifestInvalid, ManifestNotFound, ManifestUnreadable, Unsendable) as error:
            from remo_broker.manifest.constants import ANOTHER_NAME
            from remo_broker.manifest.reader import PROJECT_PATH

            # The broker does not repeat the path it was given.
            message = error.message.removeprefix(f"{PROJECT_PATH}: ")
            hint = error.hint
            if isinstance(error, ManifestUnreadable) and "setfacl" in message:
                hint = "register it with --fix-acl, which runs what is missing"
            elif isinstance(error, ManifestInvalid):
                hint = f"'remo-brokerctl check {shlex.quote(path)}' shows all faults and their lines"
                if f": {ANOTHER_NAME} " in message:
                    hint = (
                        f"if that is meant, as in a worktree: remo-brokerctl register --name={name} {shlex.quote(path)}"
                    )
            raise Problem(f"{path}: {message}", hint=hint) from None
    writable_paths.warn(path)
    unit = unit_change(arguments, "enable", name)
    if output.json != "off":
        unit_fields = {"unit": unit.name, "unit_enabled": unit.done}
        fields = {"name": name, "socket_path": socket, "allowlist": names}
        output.show_json(fields | unit_fields | ({"acl": acl} if arguments.flag(FIX_ACL) else {}))
    else:
        output.line(f"Registered {name}; its socket is {escaped(socket)}.")
        output.line(
            f"It may fetch {', '.join(names)}." if names else "It may fetch nothing: its manifest names no secret."
        )
        unit.report(output, "Enabled", "systemd opens the socket from the next boot on")
    return unit.status()


def taken(client: AdminClient, error: ProjectExists, name: str, path: str) -> Problem:
    """Report who has the name. `reload` in a second clone would read the first one."""
    try:
        holder = client.show(name).project_path
    except ProjectUnknown:  # the broker's own project, or removed since
        return Problem(error.message, hint=error.hint)
    if holder == path:
        return Problem(
            f"{name} is registered already",
            hint=f"'remo-brokerctl reload {name}' reads its manifest again; --replace changes who may connect",
        )
    return Problem(
        f"{path}: the name {name} is registered for {holder}",
        hint="register this one by another name with --name, or in place of that one with --replace",
    )


def unregister(arguments: Arguments) -> int:
    output = open_output(arguments)
    name = project_operand(arguments)
    known = True
    with open_client(arguments) as client:
        try:
            client.unregister(name)
        except ProjectUnknown:
            # An interrupted unregister may have left a unit.
            if not (touches_units(arguments) and has_unit(name)):
                raise
            known = False
    unit = unit_change(arguments, "disable", name)
    if output.json != "off":
        output.show_json({"name": name, "unregistered": known, "unit": unit.name, "unit_disabled": unit.done})
    else:
        output.line(f"Unregistered {name}." if known else f"The broker does not know {name}; its unit was left over.")
        unit.report(output, "Disabled", "systemd does not open the socket any more")
    return unit.status()


class UnitChange:
    """What happened to a project's socket unit; `name` is None if it was not touched."""

    def __init__(self, name: str | None, command: str = "", error: str | None = None) -> None:
        self.name = name
        self.done = name is not None and error is None
        self._command = command
        self._error = error

    def report(self, output: Output, verb: str, consequence: str) -> None:
        if self.done:
            output.line(f"{verb} {self.name}: {consequence}.")

    def status(self) -> int:
        """0, or 1 after an error: the broker's change holds, but systemd's part is missing."""
        if self._error is None:
            return 0
        complain(PROGRAM, f"the socket unit was not changed: {self._error}", f"run 'sudo {self._command}'")
        return 1


def touches_units(arguments: Arguments) -> bool:
    return not arguments.flag(NO_ENABLE) and manages_units(arguments)


def has_unit(project: str) -> bool:
    """Whether the project's socket unit is enabled or active."""
    try:
        return any(
            systemctl("--quiet", asked, enable.socket_unit(project)).returncode == 0
            for asked in ("is-enabled", "is-active")
        )
    except OSError:
        return False


def unit_change(arguments: Arguments, verb: str, project: str) -> UnitChange:
    """Enable the project's socket unit without starting it, or disable and stop it."""
    if not touches_units(arguments):
        return UnitChange(None)
    words = ["systemctl", *enable.command(verb, project)]
    return UnitChange(enable.socket_unit(project), " ".join(words), enable.change(verb, project))
