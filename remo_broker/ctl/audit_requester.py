"""Who asked, as far as the record tells: the container or unit, the program, the user.

The fields come from the kernel at connection time. A program can call itself anything, so they show
where to look and do not prove identity.
"""

from __future__ import annotations

import os
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, TypeVar

from remo_broker.ctl.containers import SHORT_ID, container_name
from remo_broker.ctl.journals import machine_id
from remo_broker.ctl.session import user, user_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from remo_broker.ctl.audit_reader import Record

T = TypeVar("T")

UNKNOWN = "-"
# The units in which container engines run a container, by what precedes its name or id.
ENGINE_UNITS = (
    *("machine-", "systemd-nspawn@", "lxc@", "docker-", "podman-", "libpod-", "libpod-payload-", "nerdctl-", "crio-"),
    *("cri-containerd-", "containerd-"),
)


def program(record: Record) -> str | None:
    """What the program calls itself; a program without a name has set it to nothing."""
    return record.text("REMO_PEER_COMM") or None


def place(record: Record, *, brief: bool = False) -> str | None:
    """The container, else the program's unit. `brief` leaves out the word for it.

    A container inside another unit is only that unit's claim: any unit can create a control group
    below its own and name it like a container. So it is shown with the unit, and its id is not
    looked up, except that users see the names of their own containers. For a session, its user is
    shown: its number means nothing after it has ended.
    """
    container, unit = record.text("REMO_PEER_CONTAINER"), record.text("REMO_PEER_UNIT")
    if container is None:
        owner, user_unit = record.number("REMO_PEER_OWNER_UID"), record.text("REMO_PEER_USER_UNIT")
        if owner is not None:
            return f"session of uid {owner_of(record, owner)}"
        if user_unit is not None and unit is not None:
            return f"{_short(user_unit)} of {_short(unit)}"
        return None if unit is None else _short(unit)
    word = "" if brief else "container "
    if unit is None or _runs(unit, container):
        return f"{word}{container_name(container)}"
    own = unit == f"user@{os.geteuid()}.service" and is_local(record)
    return f"{word}{container_name(container) if own else container[:SHORT_ID]} of {_short(unit)}"


def _runs(unit: str, container: str) -> bool:
    """Whether an engine runs that container as that unit. A part of the name alone says nothing: a user
    1000 can name a control group `lxc.payload.1000`."""
    stem = unit.rpartition(".")[0].replace("\\\\", "\\").replace("\\x2d", "-")
    return any(stem == engine + container for engine in ENGINE_UNITS)


def _short(unit: str) -> str:
    return unit.removesuffix(".service")


# What `who` depends on, and the pid if nothing else is known. The first ones are those that name
# the requester.
WHO_FIELDS = (
    *("REMO_PEER_COMM", "REMO_PEER_CONTAINER", "REMO_PEER_UNIT", "REMO_PEER_USER_UNIT", "REMO_PEER_OWNER_UID"),
    *("REMO_PEER_UID", "_MACHINE_ID"),
)


def who_key(get: Callable[[str], T | None], fields: tuple[str, ...] = WHO_FIELDS) -> tuple[T | None, ...]:
    """Equal for records of the same requester, as far as is known; `get` gives a field.

    `fields` may name more of them after `WHO_FIELDS`.
    """
    key = tuple(map(get, fields))
    return (*key, get("REMO_PEER_PID")) if not any(key[:3]) else key


def who(record: Record, *, brief: bool = False) -> str:
    """`npm in container web`, `backup.timer`, or the numbers if nothing better is known."""
    comm, where = program(record), place(record, brief=brief)
    if comm is not None and where is not None:
        return f"{comm} in {where}"
    if comm is None and where is None:
        return peer(record)
    uid = record.number("REMO_PEER_UID")
    owner = "" if uid is None else f", uid {owner_of(record, uid)}"
    return f"{comm or where}{owner}"


def peer(record: Record) -> str:
    pid, uid = record.number("REMO_PEER_PID"), record.number("REMO_PEER_UID")
    if pid is None or uid is None:
        return UNKNOWN
    gone = " (ended)" if record.text("REMO_PEER_GONE") else ""
    return f"pid {pid}{gone}, uid {owner_of(record, uid)}"


def owner_of(record: Record, uid: int) -> str:
    """The number, with the user's name if the uid belongs to this host."""
    return user(uid) if is_local(record) else str(uid)


def is_local(record: Record) -> bool:
    machine = record.text("_MACHINE_ID")
    return machine is None or machine == machine_id()


def matches(record: Record, pattern: str) -> bool:
    """Whether any field that identifies the requester matches `pattern`, with * and ?."""
    uid, pid = record.number("REMO_PEER_UID"), record.number("REMO_PEER_PID")
    container = record.text("REMO_PEER_CONTAINER")
    words = (
        who(record),
        program(record),
        place(record),
        record.text("REMO_PEER_UNIT"),
        record.text("REMO_PEER_USER_UNIT"),
        container,
        None if container is None else container_name(container),
        record.text("REMO_PEER_EXE"),
        None if uid is None or not is_local(record) else user_name(uid),
        None if uid is None else f"uid {uid}",
        None if pid is None else f"pid {pid}",
    )
    if any(word is not None and fnmatchcase(word, pattern) for word in words):
        return True
    # Container ids are shown with twelve digits and may be entered that way.
    return container is not None and len(pattern) >= 12 and container.startswith(pattern)
