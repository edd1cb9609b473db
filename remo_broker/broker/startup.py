"""The broker's setup at start: the descriptor limit, the audit transport, its own identity as a
peer."""

from __future__ import annotations

import os

from remo_broker.broker import systemd
from remo_broker.broker.audit.journal import SOCKET_PATH, JournalTransport, StderrTransport
from remo_broker.protocol import audit_records

TYPE_CHECKING = False
if TYPE_CHECKING:
    from remo_broker.broker.audit.trail import Transport


def raise_descriptor_limit() -> int:
    """Raise the descriptor limit to the hard limit. Returns it."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def transport(choice: str) -> Transport:
    if choice == "journal" or (choice == "auto" and systemd.under_systemd() and os.path.exists(SOCKET_PATH)):
        return JournalTransport()
    return StderrTransport()


class OwnPeer:
    """The broker itself, as the peer for what a signal makes it do."""

    pid, uid, gid = os.getpid(), os.getuid(), os.getgid()
    fields = audit_records.own_fields()
