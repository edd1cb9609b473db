"""The installed broker with a piece left out: what that costs is the difference.

usage: prototype.py identity|records

`identity` is what it reads about its peers, `records` what it hands to journald: both for measurements only.
"""

from __future__ import annotations

import sys

sys.path.append(f"/usr/lib/remo-broker/lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages")

from remo_broker.broker import daemon
from remo_broker.broker.audit import identity, journal


def _no_identity(*_: object) -> bytes:
    return b""


def _no_record(*_: object) -> None:
    pass


# By setattr, as mypy objects to assignments.
{
    "identity": lambda: setattr(identity, "peer_identity", _no_identity),
    "records": lambda: setattr(journal.JournalTransport, "send", _no_record),
}[sys.argv.pop()]()
sys.exit(daemon.main())
