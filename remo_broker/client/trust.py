"""Who listens on a socket, by what the kernel noted when `listen` was called, and whether that is the broker.

| listener | accepted on |
| --- | --- |
| root: systemd, or a broker run by root | every socket |
| this process's own user: a broker run by hand | every socket |
| the user `remo-broker`: what the broker binds itself | a project's socket |
| a system user of a host whose users are not known here (a container) | a project's socket |
| a user that this user namespace does not map | every socket |
| the uid in `$REMO_BROKER_UID` | every socket |
"""

from __future__ import annotations

import os

BROKER_USER = "remo-broker"
UID_VARIABLE = "REMO_BROKER_UID"
# Users of the distribution and of packages have lower uids on every Linux; people have this one and higher ones.
FIRST_ORDINARY_UID = 1000
# What /proc/self/uid_map says of a process that is in no user namespace but the first.
_EVERY_UID = [b"0", b"0", b"4294967295"]


def is_broker(uid: int, *, admin: bool) -> bool:
    """Whether a listener with this uid may be the broker. `admin` is for the sockets of the host."""
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
    """The uid that stands for all users outside this user namespace; None where there are none."""
    try:
        with open("/proc/self/uid_map", "rb") as file:
            if file.read().split() == _EVERY_UID:
                return None
        with open("/proc/sys/kernel/overflowuid", "rb") as file:
            return int(file.read())
    except (OSError, ValueError):
        return None
