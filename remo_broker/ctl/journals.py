"""Where the broker's records are: the default journal, the unit's namespace, or a directory."""

from __future__ import annotations

import glob
import os
import re
from functools import cache
from typing import TYPE_CHECKING

from remo_broker.cli.program import Problem
from remo_broker.ctl.units import SERVICE, is_systemd_there, systemctl

if TYPE_CHECKING:
    from cysystemd.reader import JournalReader

# The group of the broker's process, and of no other.
GROUP = "remo-broker-private"
# For the machine's own journal and those of namespaces: journald(8) appends the namespace to the
# machine id.
DIRECTORIES = ("/var/log/journal", "/run/log/journal")
MACHINE_ID_PATH = "/etc/machine-id"
# In each, what has entries of services, after a crash with a tilde. Users may read their own journals, which
# are beside it.
SYSTEM_FILES = "system*.journal*"

is_namespace = re.compile(r"[A-Za-z0-9_.-]{1,64}").fullmatch


def unit_namespace() -> str | None:
    """The journal namespace that the broker's unit writes to, if it is known to have one."""
    try:
        return _known_namespace()
    except (OSError, ValueError):
        return None


def _known_namespace() -> str | None:
    """The same, None if it is known to have none. Raises OSError if systemctl cannot be run, and
    ValueError if it does not tell."""
    if not is_systemd_there():
        return None
    answer = systemctl("show", "--property=LogNamespace", "--value", SERVICE)
    if answer.returncode != 0:
        raise ValueError
    name = answer.stdout.strip()
    return name if name and is_namespace(name) else None


def journalctl(unit: str = SERVICE) -> str:
    """The command that shows a unit's whole log, for messages.

    It includes the default journal, because systemd's own lines stay there.
    """
    namespace = unit_namespace()
    return f"journalctl {'' if namespace is None else f'--namespace=+{namespace} '}-u {unit}"


def open_journals(directory: str | None, namespace: str | None) -> list[JournalReader]:
    """Readers for all `journal_directories`. Raises `Problem` if there is nothing to read."""
    try:
        from cysystemd.reader import JournalOpenMode, JournalReader
    except ImportError:
        raise Problem(
            "cannot read the journal: the Python package cysystemd is missing", hint="install remo-broker again"
        ) from None
    readers = []
    for path in journal_directories(directory, namespace):
        reader = JournalReader()
        if path is None:
            # This machine's only. Beside it are the journals that containers link there, whose root
            # decides on every field, the trusted ones too.
            reader.open(JournalOpenMode.LOCAL_ONLY)
        else:
            reader.open_directory(path)
        readers.append(reader)
    return readers


def journal_directories(directory: str | None, namespace: str | None) -> list[str | None]:
    """Where all journals are that may hold records; None is the system's own. Raises `Problem` if
    there is nothing to read.

    `directory` selects a journal elsewhere, `namespace` one other than the unit's. Without either,
    both the default journal and the unit's namespace are read, because the unit may have got its
    namespace only recently.
    """
    if directory is not None:
        if not os.path.isdir(directory):
            raise Problem(f"{directory}: no such directory")
        return [directory]
    if namespace is not None:
        found = namespace_directories(namespace)
        if not found:
            raise Problem(
                f"there is no journal namespace {namespace}",
                hint="'ls /var/log/journal' shows those that there are: MACHINE-ID.NAMESPACE",
            )
        _require_permission(found)
        return [*found]
    try:
        own = _known_namespace()
        found = [] if own is None else namespace_directories(own)
    except (OSError, ValueError):
        # Who is not root asks systemd over the bus, and any local user can keep others from that. The
        # broker's records are in one of them.
        found = namespace_directories("*")
    default = [path for one in DIRECTORIES for path in glob.glob(f"{one}/{machine_id() or '*'}")]
    _require_permission([*default, *found])
    return [None, *found]


@cache
def machine_id() -> str | None:
    try:
        with open(MACHINE_ID_PATH, encoding="ascii") as file:
            return file.read().strip()
    except (OSError, ValueError):
        return None


def namespace_directories(namespace: str) -> list[str]:
    """Those that exist; of all namespaces with `*`."""
    machine = machine_id()
    if machine is None:
        return []
    name = namespace if namespace == "*" else glob.escape(namespace)
    paths = [path for directory in DIRECTORIES for path in sorted(glob.glob(f"{directory}/{machine}.{name}"))]
    return [path for path in paths if os.path.isdir(path)]


def _require_permission(directories: list[str]) -> None:
    """Raise if permission is missing: the journal would look empty, or shorter, and such an audit is
    wrong."""
    files = [path for directory in directories for path in glob.glob(f"{directory}/{SYSTEM_FILES}")]
    closed = [path for path in (*directories, *files) if not os.access(path, os.R_OK) and os.path.lexists(path)]
    if closed or (not files and os.geteuid() != 0):
        raise Problem(
            "cannot read the journal: permission denied",
            hint="use sudo, or join the group systemd-journal",
        )
    if not files:
        raise Problem(
            "this host has no journal", hint="without journald, the broker writes its records to standard error"
        )
