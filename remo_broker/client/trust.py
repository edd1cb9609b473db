"""Whether a socket's listener is the broker, by the uid that the kernel recorded at listen(2).

| listener | accepted on |
| --- | --- |
| root: systemd, or a broker run by root | every socket |
| this process's own user: a broker run by hand | every socket |
| the user `remo-broker`: the sockets that the broker binds itself | a project's socket |
| a system user, if this system has no user `remo-broker` (a container) | a project's socket |
| a user that this user namespace does not map | every socket |
| the uid in `$REMO_BROKER_UID` | every socket |
"""

from __future__ import annotations

import os

BROKER_USER = "remo-broker"
UID_VARIABLE = "REMO_BROKER_UID"
# On every Linux, system users have lower uids; people have this uid or a higher one.
FIRST_ORDINARY_UID = 1000
# The contents of /proc/self/uid_map in the initial user namespace.
_EVERY_UID = [b"0", b"0", b"4294967295"]


def is_broker(uid: int, *, admin: bool) -> bool:
    """Whether a listener with this uid may be the broker. `admin`: for a socket of the host."""
    if uid in (0, os.geteuid()) or os.environ.get(UID_VARIABLE) == str(uid):
        return True
    if uid == _unmapped_uid():
        return True
    if admin:
        return False
    import pwd

    try:
        return uid == pwd.getpwnam(BROKER_USER).pw_uid
    except KeyError:
        return uid < FIRST_ORDINARY_UID


def _unmapped_uid() -> int | None:
    """The uid shown for users outside this user namespace; None in the initial namespace."""
    try:
        with open("/proc/self/uid_map", "rb") as file:
            if file.read().split() == _EVERY_UID:
                return None
        with open("/proc/sys/kernel/overflowuid", "rb") as file:
            return int(file.read())
    except (OSError, ValueError):
        return None
