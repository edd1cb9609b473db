"""A private bus, a peer on the status socket and the service between them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.bus import Bus, BusProcess, bus_service, private_bus
from tests.support.status import StatusPeer, status_peer

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Iterator


@pytest.fixture
def bus(tmp_path: pathlib.Path) -> Iterator[Bus]:
    directory = tmp_path / "bus"
    directory.mkdir()
    with private_bus(directory) as running:
        yield running


@pytest.fixture
def peer(tmp_path: pathlib.Path) -> Iterator[StatusPeer]:
    with status_peer(tmp_path / "status.sock") as listening:
        yield listening


@pytest.fixture
def service(bus: Bus, peer: StatusPeer) -> Iterator[BusProcess]:
    """The service, following `peer`, with its name on `bus`."""
    with bus_service(bus, peer.path) as running:
        yield running
