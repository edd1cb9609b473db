"""Shared by the commands: connecting to the broker, printing, users and names."""

from __future__ import annotations

import os
import pwd
import sys
from functools import cache

from remo_broker.cli.options import Arguments, Option, Usage
from remo_broker.cli.terminal import Output
from remo_broker.client.admin import AdminClient
from remo_broker.ctl.broker import HostBroker
from remo_broker.ctl.commands import ADMIN_SOCKET, JSON, JSON_AUTO, JSON_SHORT, NO_LEGEND, NO_PAGER, SOCKET
from remo_broker.ctl.units import is_systemd_there
from remo_broker.protocol.names import REFUSED_PROJECT_NAMES, is_project_name
from remo_broker.protocol.shared_limits import MAX_UID

PROJECT_NAMES = "names of projects have 1 to 64 of a-z, 0-9, - and _, and start with a letter or digit"


def socket_path(arguments: Arguments) -> str:
    return arguments.value(SOCKET) or ADMIN_SOCKET


def open_client(arguments: Arguments) -> AdminClient:
    """A client for the admin socket; it connects on its first request."""
    path = socket_path(arguments)
    return HostBroker(path) if manages_units(arguments) else AdminClient(path)


def open_output(arguments: Arguments) -> Output:
    mode = arguments.value(JSON) or "off"
    # The last of the two options wins.
    said = [name for name in arguments.given() if name in (JSON.name, JSON_SHORT.name)]
    if mode == JSON_AUTO or (said and said[-1] == JSON_SHORT.name):
        mode = "pretty" if sys.stdout.isatty() else "short"
    return Output(json_mode=mode, legend=not arguments.flag(NO_LEGEND), pager=not arguments.flag(NO_PAGER))


def manages_units(arguments: Arguments) -> bool:
    """Whether the commands talk to the broker that this host's systemd starts."""
    return is_systemd_there() and os.path.realpath(socket_path(arguments)) == os.path.realpath(ADMIN_SOCKET)


def uids(arguments: Arguments, option: Option) -> list[int]:
    """Numeric users, from numbers or names, without duplicates."""
    found = []
    for word in arguments.values(option):
        if word.isascii() and word.isdigit() and len(word) <= len(str(MAX_UID)) and int(word) <= MAX_UID:
            found.append(int(word))
            continue
        try:
            found.append(pwd.getpwnam(word).pw_uid)
        except KeyError:
            raise Usage(
                f"{option.name}: unknown user: {word!r}", hint=f"give a name, or a number up to {MAX_UID}"
            ) from None
    if arguments.flag(option) and not found:
        # Only commas were given; an empty list of users would admit everyone.
        raise Usage(f"{option.name} requires a user", hint=f"give a name, or a number up to {MAX_UID}")
    return list(dict.fromkeys(found))


def checked_project(name: str) -> str:
    """`name`, if it is a valid project name. Raises `Usage`."""
    if not is_project_name(name):
        raise Usage("not a valid name for a project", hint=PROJECT_NAMES)
    return name


def project_operand(arguments: Arguments) -> str:
    return checked_project(arguments.operands[0])


def directory_problem(path: str) -> str | None:
    """Why a directory's name cannot be a project's name; None if it can."""
    name = os.path.basename(path)
    if not is_project_name(name):
        return "the directory's name is not valid for a project"
    if name in REFUSED_PROJECT_NAMES:
        return f"the name {name} is reserved"
    return None


@cache
def user_name(uid: int) -> str | None:
    """`alice`; None if no user has that uid."""
    try:
        return pwd.getpwuid(uid).pw_name
    except (KeyError, OverflowError):
        return None


def user(uid: int) -> str:
    """`1000 (alice)`, or the number alone."""
    name = user_name(uid)
    return str(uid) if name is None else f"{uid} ({name})"


def fetches(allowed: int, not_found: int, denied: int) -> str:
    """Outcomes of fetches. An allowed secret need not exist."""
    return f"{allowed - not_found} handed out, {not_found} not there, {denied} denied"
