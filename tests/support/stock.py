"""A store with its arena, for pushes without a socket."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from remo_broker.broker.refusals import Refused
from remo_broker.broker.secrets.memory import Arena, RegionHolder
from remo_broker.broker.secrets.store import Store
from remo_broker.broker.secrets.strict_json import OBJECT, finish, scan

if TYPE_CHECKING:
    from remo_broker.broker.secrets.expiry import Clocks
    from remo_broker.broker.secrets.store import Snapshot

NOW = 1_780_194_600_000_000


class Stock:
    """A store with its arena; pushes as the admin socket does."""

    def __init__(self, clocks: Clocks | None = None) -> None:
        self.arena = Arena()
        self.store = Store(self.arena, 900, clocks)

    def close(self) -> None:
        self.store.clear()
        self.arena.SPARES = 0
        while self.arena._spares:
            self.arena.give_back(self.arena.take())

    def receive(self, line: bytes) -> tuple[RegionHolder, Any]:
        """Receive and scan a push; return the holder of its region, and its fields."""
        holder = RegionHolder(self.arena)
        region = holder.fill()
        region.view[: len(line)] = line
        region.used = len(line)
        node = finish(scan(region.view, 0, len(line)))
        assert node[0] == OBJECT
        return holder, node[3]

    def push_line(self, line: bytes) -> int:
        """Push a line; return the number of steps."""
        holder, fields = self.receive(line)
        steps = 0
        try:
            expires = fields.get("expires")
            for _ in self.store.load(holder, fields.get("secrets"), fields.get("secrets_b64"), NOW, expires):
                steps += 1
        finally:
            holder.release()
        return steps

    def push(self, secrets: Any = None, secrets_b64: Any = None, *, ensure_ascii: bool = True) -> int:
        document = {"secrets": {} if secrets is None else secrets}
        if secrets_b64 is not None:
            document["secrets_b64"] = secrets_b64
        return self.push_line(json.dumps(document, ensure_ascii=ensure_ascii).encode())

    def snapshot(self) -> Snapshot:
        assert self.store.snapshot is not None
        return self.store.snapshot

    def literal(self, name: str) -> bytes:
        """The secret's bytes between the head and the tail of a reply."""
        snapshot = self.snapshot()
        region, start, end, _ = snapshot.secrets[name]
        return bytes(snapshot.views[region][start:end])

    def value(self, name: str) -> str:
        value = json.loads(self.literal(name))
        assert isinstance(value, str)
        return value

    def refused(self, secrets: Any = None, secrets_b64: Any = None) -> str:
        """Make a push that must be refused; return the message."""
        before = self.store.snapshot, self.store.generation, self.store.epoch
        with pytest.raises(Refused) as raised:
            self.push(secrets, secrets_b64)
        assert (self.store.snapshot, self.store.generation, self.store.epoch) == before
        assert (raised.value.code, raised.value.reason, raised.value.fatal) == ("invalid_payload", "bad_value", False)
        return raised.value.message
