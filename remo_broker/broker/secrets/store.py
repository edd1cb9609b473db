"""The secrets: one snapshot at a time, replaced in one step.

A push is received into a region (`memory`) and read in place (`strict_json`). If it is valid, that
region becomes the new snapshot, which keeps for each value the position of its JSON literal. A
`get` sends the literal unchanged, between a head and a tail. Only bundles are rewritten, as the
JSON string of their JSON, into a second region.

When a snapshot is replaced or cleared, its memory is overwritten as soon as no reply is being sent
from it.
"""

from __future__ import annotations

from functools import partial

from remo_broker.broker.secrets.bundles import Bundles
from remo_broker.broker.secrets.changes import compare
from remo_broker.broker.secrets.expiry import Clocks, Expiry, parse_time
from remo_broker.broker.secrets.secret_rules import check_fields, check_name, invalid, is_base64, too_long
from remo_broker.broker.secrets.strict_json import OBJECT, STEP_BUDGET, STRING, text
from remo_broker.protocol.shared_limits import MAX_MESSAGE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator
    from typing import TypeAlias

    from remo_broker.broker.secrets.memory import Arena, Region, RegionHolder
    from remo_broker.broker.secrets.strict_json import Node
    from remo_broker.protocol.replies import PushChanges

    # Index of the region, start and end of the literal with its quotes, whether it is base64. A
    # tuple: see `strict_json`.
    Secret: TypeAlias = tuple[int, int, int, bool]

# The parts of the reply to a get; the literal goes between them.
VALUE_HEAD = b'{"ok":true,"value":'
BINARY_HEAD = b'{"ok":true,"value_b64":'
# The generation is filled in per snapshot, the time left of the lease per reply.
VALUE_TAIL = b',"ttl_seconds":%%d,"generation":%d}\n'
EXPIRING_TAIL = b',"ttl_seconds":%%d,"generation":%d,"expires_at":"%s"}\n'
# How much `expires_at` adds to the tail.
EXPIRES_LENGTH = len(b',"expires_at":"2026-05-31T02:30:00Z"')

# Rewriting this many bytes of a bundle costs at worst (every second byte an escape) some 0.6 µs,
# one unit of a step.
BUNDLE_BYTES_PER_UNIT_SHIFT = 2

# Parsing a time takes some 3 µs.
TIMES_PER_STEP = 128

# The least that a bundle's field takes in the reply, `\\"a\\":\\"\\"`: if a bundle has more fields
# than fit, none is read.
SHORTEST_FIELD = 10


class Snapshot:
    """All secrets of one push. `readers` counts half-sent replies; the memory stays until they are
    done."""

    __slots__ = (
        *("arena", "changes", "expired", "expiries", "generation", "literals", "loaded_usec"),
        *("readers", "regions", "retired", "secrets", "stale", "views"),
    )

    def __init__(
        self,
        arena: Arena,
        regions: list[Region],
        secrets: dict[str, Secret],
        generation: int,
        loaded_usec: int,
        expiries: dict[str, Expiry] | None = None,
    ) -> None:
        self.arena = arena
        self.regions = regions
        self.views = [region.view for region in regions]
        self.secrets = secrets
        self.literals: dict[str, memoryview] = {}
        """The literals of the secrets that were fetched, in the regions."""
        self.generation = generation
        self.loaded_usec = loaded_usec
        self.expiries = expiries or {}
        """The expiries of those secrets that have one."""
        self.expired: set[str] = set()
        """Names of the secrets that have expired."""
        self.stale: list[Secret] = []
        """Expired secrets that a reply may still be sent from."""
        self.readers = 0
        self.retired = False
        self.changes: PushChanges | None = None
        """What the push changed, if its sender asked."""

    def retire(self) -> None:
        """Allow no new readers; wipe now or when the last reader is done."""
        self.retired = True
        self._release_if_unread()

    def finished_reading(self) -> None:
        self.readers -= 1
        if not self.readers:
            self.blank_stale()
        self._release_if_unread()

    def end(self, name: str) -> None:
        """Expire a secret: drop its entry, and overwrite it unless a reply is half sent."""
        del self.expiries[name]
        self.stale.append(self.secrets.pop(name))
        self.expired.add(name)
        if not self.readers:
            self.blank_stale()

    def blank_stale(self) -> None:
        """Overwrite what has expired. Replies begun before that must have been sent, or their
        connections closed."""
        if self.regions:  # otherwise everything has been overwritten
            for region, start, end, _ in self.stale:
                self.regions[region].blank(start, end)
        self.stale.clear()

    def _release_if_unread(self) -> None:
        if self.retired and not self.readers:
            self.literals.clear()
            self.views.clear()
            while self.regions:
                self.arena.give_back(self.regions.pop())

    def __repr__(self) -> str:
        return f"Snapshot(generation={self.generation}, secrets={len(self.secrets)})"


class Store:
    """The current snapshot, if any. `epoch` changes whenever an answer prepared earlier may be
    wrong."""

    def __init__(self, arena: Arena, max_ttl_seconds: int, clocks: Clocks | None = None) -> None:
        self.clocks = clocks or Clocks()
        self.snapshot: Snapshot | None = None
        self.generation = 0
        self.epoch = 0
        self.outdated: list[dict[str, Secret]] = []
        """The entries of former snapshots, for a caller with time to `forget` them."""
        self.arena = arena
        self._max_ttl_seconds = max_ttl_seconds

    @property
    def secret_count(self) -> int:
        return len(self.snapshot.secrets) if self.snapshot else 0

    @property
    def loaded_usec(self) -> int:
        """When the secrets were pushed, in microseconds since 1970; 0 for none."""
        return self.snapshot.loaded_usec if self.snapshot else 0

    def next_expiry(self) -> Expiry | None:
        """The earliest time on each clock; None if no secret expires."""
        if self.snapshot is None or not self.snapshot.expiries:
            return None
        expiries = self.snapshot.expiries.values()
        return Expiry(min(one.wall_usec for one in expiries), min(one.boot_usec for one in expiries))

    def expire(self) -> list[str]:
        """End the secrets that have expired. Returns their names."""
        if self.snapshot is None:
            return []
        left = self.clocks.usec_left
        ended = [name for name, expiry in self.snapshot.expiries.items() if left(expiry) <= 0]
        for name in ended:
            self.snapshot.end(name)
        if ended:
            self.epoch += 1
        return ended

    def clear(self) -> None:
        old, self.snapshot = self.snapshot, None
        self.epoch += 1
        self._retire(old)

    def _retire(self, old: Snapshot | None) -> None:
        if old:
            old.retire()
            self.outdated.append(old.secrets)

    def load(
        self,
        holder: RegionHolder,
        secrets: Node | None,
        secrets_b64: Node | None,
        loaded_usec: int,
        expires: Node | None = None,
        *,
        changes: bool = False,
    ) -> Generator[None, None, Snapshot]:
        """Validate the push in the region of `holder` and make it the snapshot, in steps; all or
        nothing. With `changes`, compare it with the one that it replaces.

        On success the holder has handed its region over. Otherwise raises `Refused`
        (`invalid_payload`) and changes nothing.
        """
        region = holder.region
        assert region is not None
        generation = self.generation + 1
        found: dict[str, Secret] = {}
        limits = _Limits(generation, self._max_ttl_seconds)
        bundles: Bundles | None = None
        budget = STEP_BUDGET
        try:
            for position, (name, node) in enumerate((secrets[3] if secrets else {}).items(), 1):
                check_name(name, position, "secrets")
                kind, start, end, fields = node
                if kind == STRING:
                    limits.check(name, VALUE_HEAD, end - start)
                    found[name] = (0, start, end, False)
                elif kind == OBJECT:
                    bundles = bundles or Bundles(self.arena)
                    limits.check(name, VALUE_HEAD, len(fields) * SHORTEST_FIELD)
                    check_fields(name, fields)
                    begin, after = start, end
                    start, end = bundles.write(name, region.view, fields)
                    region.blank(begin, after)  # one copy is enough
                    limits.check(name, VALUE_HEAD, end - start)
                    found[name] = (len(bundles.regions), start, end, False)
                    budget -= end - start >> BUNDLE_BYTES_PER_UNIT_SHIFT
                else:
                    raise invalid(f"secret {name}: must be a string or an object of strings")
                budget -= 1
                if budget <= 0:
                    budget = STEP_BUDGET
                    yield
            for position, (name, node) in enumerate((secrets_b64[3] if secrets_b64 else {}).items(), 1):
                check_name(name, position, "secrets_b64")
                if name in found:
                    raise invalid(f"secret {name} is in both secrets and secrets_b64; send it once")
                kind, start, end, _ = node
                if kind == STRING:
                    limits.check(name, BINARY_HEAD, end - start)
                if kind != STRING or not is_base64(region.view, start, end):
                    raise invalid(f"secret {name}: must be a base64 string with padding")
                found[name] = (0, start, end, True)
                budget -= 1
                if budget <= 0:
                    budget = STEP_BUDGET
                    yield
            expiries = yield from self._expiries(region, expires, found, limits)
            compared = None
            if changes:
                views = [region.view, *(other.view for other in (bundles.regions if bundles else ()))]
                compared = yield from self._compare(found, views)
            if generation != self.generation + 1:  # another push began later and finished earlier
                generation = self.generation + 1
                if limits.grow(generation):
                    for name, (_, start, end, binary) in found.items():
                        limits.check(name, BINARY_HEAD if binary else VALUE_HEAD, end - start, expires=name in expiries)
        except BaseException:  # GeneratorExit too: the client may disconnect in mid-push
            for other in bundles.regions if bundles else ():
                self.arena.give_back(other)
            raise
        old = self.snapshot
        regions = [holder.hand_over(), *(bundles.regions if bundles else ())]
        self.snapshot = Snapshot(self.arena, regions, found, generation, loaded_usec, expiries)
        self.snapshot.changes = compared
        self.generation = generation
        self.epoch += 1
        self._retire(old)
        return self.snapshot

    def _compare(self, found: dict[str, Secret], views: list[memoryview]) -> Generator[None, None, PushChanges]:
        """What a push changes, in steps. Starts over if another push replaces the snapshot."""
        while True:
            old = self.snapshot
            if old is None:
                steps = compare(found, views, {}, [], lambda: self.snapshot is not None)
            else:
                steps = compare(found, views, old.secrets, old.views, partial(getattr, old, "retired"))
            changes = yield from steps
            if changes is not None and self.snapshot is old:
                return changes

    def _expiries(
        self, region: Region, expires: Node | None, found: dict[str, Secret], limits: _Limits
    ) -> Generator[None, None, dict[str, Expiry]]:
        """The expiries of a push, in steps. Raises `Refused` for a time that is malformed, past, or
        for an unknown secret."""
        expiries: dict[str, Expiry] = {}
        for position, (name, (kind, begin, after, _)) in enumerate((expires[3] if expires else {}).items(), 1):
            check_name(name, position, "expires")
            if name not in found:
                raise invalid(f"expires has a time for {name}, which is not among the secrets; send both or neither")
            at_usec = parse_time(text(region.view, begin, after)) if kind == STRING else None
            if at_usec is None:
                raise invalid(f"secret {name}: expires must be a time such as 2026-05-31T02:30:00Z")
            expiry = self.clocks.expiry(at_usec)
            if expiry is None:
                raise invalid(f"secret {name}: expires is past; push it with a later time, or leave it out")
            _, start, end, binary = found[name]
            limits.check(name, BINARY_HEAD if binary else VALUE_HEAD, end - start, expires=True)
            expiries[name] = expiry
            if position % TIMES_PER_STEP == 0:
                yield
        return expiries


class _Limits:
    """Checks that the reply to a get fits in a message, at the longest lease the value can be
    served under."""

    def __init__(self, generation: int, max_ttl_seconds: int) -> None:
        self._max_ttl_seconds = max_ttl_seconds
        self._tail = 0
        self.grow(generation)

    def grow(self, generation: int) -> bool:
        """Switch to another generation. Returns whether the limits became narrower."""
        before, self._tail = self._tail, len(VALUE_TAIL % generation % self._max_ttl_seconds)
        return self._tail > before

    def check(self, name: str, head: bytes, literal: int, *, expires: bool = False) -> None:
        tail = self._tail + EXPIRES_LENGTH if expires else self._tail
        if len(head) + literal + tail > MAX_MESSAGE:
            raise too_long(name)
