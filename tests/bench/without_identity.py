"""The installed broker without what it reads about its peers: what that costs is the difference."""

from __future__ import annotations

import sys

sys.path.append(f"/usr/lib/remo-broker/lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages")

from remo_broker.broker import daemon
from remo_broker.broker.audit import identity


def _nothing(*_: object) -> bytes:
    return b""


setattr(identity, "peer_identity", _nothing)  # noqa: B010 - mypy objects to an assignment
sys.exit(daemon.main())
