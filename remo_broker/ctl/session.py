"""What every command begins with: the broker to speak to, how to print, and whether systemd is there."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from functools import cache

from remo_broker.cli.options import Arguments, Option, Usage
from remo_broker.cli.terminal import Output
from remo_broker.client.admin import AdminClient
from remo_broker.ctl.commands import ADMIN_SOCKET, JSON, JSON_SHORT, MAX_UID, NO_LEGEND, NO_PAGER, SOCKET
from remo_broker.protocol.names import RESERVED_PROJECT_NAMES, is_project_name

SYSTEMD_MARK = "/run/systemd/system"


def socket_path(arguments: Arguments) -> str:
    return arguments.value(SOCKET) or ADMIN_SOCKET


def open_client(arguments: Arguments) -> AdminClient:
    """A client for the admin socket; it connects at its first request."""
    return AdminClient(socket_path(arguments))


def open_output(arguments: Arguments) -> Output:
    mode = arguments.value(JSON) or "off"
    # Of two ways to say it the last one counts, as of one that is said twice.
    said = [name for name in arguments.given() if name in (JSON.name, JSON_SHORT.name)]
    if said and said[-1] == JSON_SHORT.name:
        mode = "pretty" if sys.stdout.isatty() else "short"
    return Output(json_mode=mode, legend=not arguments.flag(NO_LEGEND), pager=not arguments.flag(NO_PAGER))


def manages_units(arguments: Arguments) -> bool:
    """Whether the broker spoken to is the one that this host's systemd starts."""
    return os.path.isdir(SYSTEMD_MARK) and os.path.realpath(socket_path(arguments)) == os.path.realpath(ADMIN_SOCKET)


def systemctl(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run systemctl; what it prints is captured."""
    return subprocess.run(
        ["systemctl", "--no-ask-password", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def uids(arguments: Arguments, option: Option) -> list[int]:
    """Users as numbers, from numbers or names, each once."""
    found = []
    for word in arguments.values(option):
        if word.isascii() and word.isdigit() and len(word) <= len(str(MAX_UID)) and int(word) <= MAX_UID:
            found.append(int(word))
            continue
        try:
            found.append(pwd.getpwnam(word).pw_uid)
        except KeyError:
            raise Usage(f"{option.name}: there is no user {word!r}; give a name, or a number up to {MAX_UID}") from None
    if arguments.flag(option) and not found:
        # Nothing but commas: without a user it would mean everybody.
        raise Usage(f"{option.name} wants a user, a name or a number up to {MAX_UID}")
    return list(dict.fromkeys(found))


def checked_project(name: str) -> str:
    """`name`, which is one that a project can have. Raises `Usage`."""
    if not is_project_name(name):
        raise Usage("a project's name has at most 64 of a-z, 0-9, - and _, a letter or digit first")
    return name


def directory_problem(path: str) -> str | None:
    """Why no project can be registered under the name of its directory, and what to do; None where one can."""
    name = os.path.basename(path)
    if not is_project_name(name):
        return (
            "a project's directory has at most 64 of a-z, 0-9, - and _ in its name, a letter or digit first; rename it"
        )
    if name in RESERVED_PROJECT_NAMES:
        return f"the broker's own socket is called {name}; rename the project's directory"
    return None


@cache
def user_name(uid: int) -> str | None:
    """`alice`, or None where nobody has the number here."""
    try:
        return pwd.getpwuid(uid).pw_name
    except (KeyError, OverflowError):
        return None


def user(uid: int) -> str:
    """`1000 (alice)`, or the number alone."""
    name = user_name(uid)
    return str(uid) if name is None else f"{uid} ({name})"
