"""The registered projects: what each may fetch, and what it has done so far. `Projects` is their
registry."""

from __future__ import annotations

import itertools

from remo_broker.broker.leases import Leases
from remo_broker.broker.rate import Bucket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from remo_broker.broker.secrets.expiry import Expiry
    from remo_broker.protocol.config import Config

# The broker recognises request lines that a project has sent before by their bytes, so it parses
# each get once. Each project has its own table, so that no project can evict another's lines; a
# full table is emptied.
KNOWN_LINES = 1024
LONGEST_KNOWN_LINE = 256
# What a project's requests that are unknown, or arrive several at once, may cost in one turn of the
# loop; the rest wait for the next turn. A unit is some 20 µs, the time to parse one request, so a
# turn gives a project some 2 ms.
SHARE = 128


_serials = itertools.count(1)


class ManifestSource:
    """What a registration keeps of its manifest besides the rules: its path, its SHA-256, and what
    it says to clients.

    `hosts` maps servers to secret names. `bindings` is JSON that the broker hands out and never
    interprets.
    """

    __slots__ = ("bindings", "hosts", "path", "sha256")

    def __init__(self, path: str, sha256: str, hosts: dict[str, str], bindings: bytes) -> None:
        self.path = path
        self.sha256 = sha256
        self.hosts = hosts
        self.bindings = bindings

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ManifestSource) and (self.path, self.sha256) == (other.path, other.sha256)

    __hash__ = None  # type: ignore[assignment]


class Registration:
    """What the broker keeps of a project across restarts: the manifest's content when it was last
    validated."""

    __slots__ = (
        "allowed_uids",
        "allowlist",
        "any_name",
        "encoded",
        "max_entries",
        "name",
        "project_path",
        "source",
        "ttl_seconds",
    )

    def __init__(
        self,
        name: str,
        project_path: str,
        allowlist: Sequence[str],
        ttl_seconds: int,
        max_entries: int,
        allowed_uids: Sequence[int],
        source: ManifestSource | None = None,
        *,
        any_name: bool = False,
    ) -> None:
        self.any_name = any_name
        """The operator chose the name; the manifest and directory may have another."""
        self.name = name
        self.source = source
        self.project_path = project_path
        self.allowlist = tuple(allowlist)
        self.ttl_seconds = ttl_seconds
        self.max_entries = max_entries
        self.allowed_uids = tuple(allowed_uids)
        self.encoded = b""
        """Its entry in the registrations file, once written."""

    def admits(self, uid: int) -> bool:
        """Whether a peer with `uid` may use the project's socket."""
        return not self.allowed_uids or uid in self.allowed_uids

    def with_manifest(
        self, allowlist: Sequence[str], ttl_seconds: int, max_entries: int, source: ManifestSource | None = None
    ) -> Registration:
        """The same project after its manifest was read again; `self` if nothing in it has
        changed."""
        before = (self.allowlist, self.ttl_seconds, self.max_entries, self.source)
        if before == (tuple(allowlist), ttl_seconds, max_entries, source):
            return self
        return Registration(
            self.name,
            self.project_path,
            allowlist,
            ttl_seconds,
            max_entries,
            self.allowed_uids,
            source,
            any_name=self.any_name,
        )

    def __repr__(self) -> str:
        return f"Registration({self.name!r}, {len(self.allowlist)} names)"


class Grant:
    """A name that a project may fetch, with everything in the reply and record that stays constant
    between two pushes.

    `decisions` fills it in when `epoch` is not the store's.
    """

    __slots__ = (
        "epoch",
        "expiry",
        "from_cache",
        "from_store",
        "head",
        "may_miss",
        "missing",
        "name",
        "project",
        "seconds",
        "tail",
        "tail_now",
    )

    def __init__(self, project: Project, name: str) -> None:
        self.project = project
        self.name = name
        self.epoch = -1
        self.head = b""
        self.tail = b""
        """What follows the value; a format for the time left of the lease."""
        self.seconds = -1
        self.tail_now = b""
        """`tail` with `seconds` left; -1 if there is none yet."""
        self.expiry: Expiry | None = None
        self.missing: bytes | None = None
        """The whole reply while the broker does not hold the secret."""
        self.may_miss = False
        """Whether it has an `expiry` or is `missing`: most have neither."""
        self.from_store = b""
        self.from_cache = b""

    def __repr__(self) -> str:
        return f"Grant({self.project.name!r}, {self.name!r})"


class Project:
    """One registered project."""

    __slots__ = (
        "_last_fetch_shown",
        "bindings_line",
        "bucket",
        "connections",
        "fetches_allowed",
        "fetches_denied",
        "fetches_not_found",
        "grants",
        "info_line",
        "last_fetch",
        "last_generation",
        "leases",
        "lines",
        "manifest_waits",
        "reader",
        "readings",
        "registration",
        "serial",
        "share",
        "state_lines",
        "unread_bytes",
    )

    def __init__(self, registration: Registration, rate_per_second: int, rate_burst: int) -> None:
        self.registration = registration
        self.leases = Leases(registration.ttl_seconds, registration.max_entries)
        self.grants = {name: Grant(self, name) for name in registration.allowlist}
        self.lines: dict[bytes, Grant] = {}
        """Well-formed gets of allowed names, by their bytes, newline included."""
        self.info_line = b""
        """The cached reply to `info`. It may be long, and a flood of requests for it must stay
        cheap. Replies that wait for their readers share it."""
        self.bindings_line = b""
        """The cached reply to `bindings`, for the same reasons."""
        self.state_lines: dict[tuple[int, bool, str | None], bytes] = {}
        """The cached lines of `watch`, for the same reasons; by generation, whether there are
        secrets, and event."""
        self.bucket = Bucket(rate_per_second, rate_burst)
        self.share = SHARE
        """What its requests may still cost in this turn."""
        self.reader: object = None
        """The connection whose long line is being read, one at a time: reading a line takes thirty
        times its bytes."""
        self.connections = 0
        self.unread_bytes = 0
        """Bytes of unfinished requests buffered for its connections."""
        self.fetches_allowed = 0
        self.fetches_denied = 0
        self.fetches_not_found = 0
        """Allowed fetches for which the broker held no secret."""
        self.manifest_waits = False
        """Its manifest allows more than the registration; only an operator can adopt that."""
        self.readings: dict[str, int] = {}
        """By the SHA-256 of its manifest: a hash of what the last readings said of it."""
        self.serial = next(_serials)
        """Changes with each change of the registration, for the status stream."""
        self._last_fetch_shown: tuple[float, int] = (0.0, 0)
        """`last_fetch` when it was last shown, and the microseconds since 1970 shown for it: the
        two clocks drift apart, and a past time must not move."""
        self.last_generation: int | None = None
        """The last generation of secrets for it, once it is dismissed: what it has sent until then
        is still answered, and a slow peer must not get what is pushed meanwhile."""
        self.last_fetch: float | None = None
        """When a get was last answered, on the loop's clock."""

    @property
    def name(self) -> str:
        return self.registration.name

    @property
    def dismissed(self) -> bool:
        """Whether it is being unregistered, or was replaced: no client is accepted any more."""
        return self.last_generation is not None

    def reload(self, registration: Registration) -> None:
        """Replace the allowlist in one step; leases stay."""
        self.registration = registration
        self.manifest_waits = False
        self.serial = next(_serials)
        self.leases.resize(registration.ttl_seconds, registration.max_entries)
        self.grants = {name: Grant(self, name) for name in registration.allowlist}
        self.lines = {}
        self.info_line = self.bindings_line = b""
        self.state_lines = {}

    def last_fetch_usec(self, now: float, now_usec: int) -> int:
        """When a get was last answered, in microseconds since 1970; 0 for never. `now` and
        `now_usec` are the same moment on the loop's clock and on the wall clock."""
        last = self.last_fetch
        if last is not None and self._last_fetch_shown[0] != last:
            self._last_fetch_shown = last, now_usec - int((now - last) * 1e6)
        return self._last_fetch_shown[1]

    def remember_line(self, line: bytes, grant: Grant) -> None:
        if len(line) <= LONGEST_KNOWN_LINE:
            if len(self.lines) >= KNOWN_LINES:
                self.lines.clear()
            self.lines[line] = grant

    def __repr__(self) -> str:
        return f"Project({self.name!r})"


class Projects(dict[str, Project]):
    """The registry: every registered project by its name. Change it only with its methods."""

    def __init__(self, rate_per_second: int, rate_burst: int) -> None:
        super().__init__()
        self._rate_per_second = rate_per_second
        self._rate_burst = rate_burst
        # Fetches by projects that have since been unregistered: the broker's own counters never
        # fall.
        self._gone_allowed = 0
        self._gone_denied = 0
        self._gone_not_found = 0

    def register(self, registration: Registration) -> Project:
        project = Project(registration, self._rate_per_second, self._rate_burst)
        self[registration.name] = project
        return project

    def replace(self, registration: Registration) -> Project:
        """Begin to serve a registered project under other rules. Returns its former object, which
        keeps the former rules for the peers that are connected."""
        former = self[registration.name]
        project = self.register(registration)
        project.fetches_allowed = former.fetches_allowed
        project.fetches_denied = former.fetches_denied
        project.fetches_not_found = former.fetches_not_found
        project.last_fetch = former.last_fetch
        project.readings = former.readings
        project.last_generation = former.last_generation
        return former

    def unregister(self, name: str) -> Project | None:
        """Returns the project that was registered, if any."""
        project = self.pop(name, None)
        if project is not None:
            self._gone_allowed += project.fetches_allowed
            self._gone_denied += project.fetches_denied
            self._gone_not_found += project.fetches_not_found
        return project

    def registrations(self) -> dict[str, Registration | None]:
        return {name: project.registration for name, project in self.items()}

    def end_leases(self) -> None:
        """End every project's leases together with the snapshot that they were based on."""
        for project in self.values():
            project.leases.clear()

    def end_leases_of(self, names: Collection[str]) -> None:
        for project in self.values():
            for name in names:
                project.leases.end(name)

    @property
    def fetches_allowed(self) -> int:
        return self._gone_allowed + sum(project.fetches_allowed for project in self.values())

    @property
    def fetches_denied(self) -> int:
        return self._gone_denied + sum(project.fetches_denied for project in self.values())

    @property
    def fetches_not_found(self) -> int:
        return self._gone_not_found + sum(project.fetches_not_found for project in self.values())


def within_limits(one: Registration, config: Config) -> Registration:
    """The registration, limited by the configuration in force, which may be stricter than when it
    was saved."""
    ttl = min(one.ttl_seconds, config.cache_default_ttl_seconds)
    entries = min(one.max_entries, config.cache_default_max_entries)
    return Registration(
        one.name, one.project_path, one.allowlist, ttl, entries, one.allowed_uids, one.source, any_name=one.any_name
    )
