"""The decisions: what a project gets in reply to a request. No sockets, no clock; changes only the
broker's own state.

The answer to a get is a pair: the reply and the head of its audit record. The reply is bytes, or
for a granted secret a list of buffers; the middle one is in secret memory and must be sent before
the store changes. Other ops are not audited; their answer is the reply alone. Times are seconds of
the loop's monotonic clock.
"""

from __future__ import annotations

from remo_broker import MANIFEST_SCHEMA_VERSION, PROTOCOL_VERSION, __version__
from remo_broker.broker.credentials import Credentials
from remo_broker.broker.projects import Projects
from remo_broker.broker.refusals import Refused
from remo_broker.broker.secrets.store import BINARY_HEAD, EXPIRING_TAIL, VALUE_HEAD, VALUE_TAIL, Store
from remo_broker.protocol import audit_records
from remo_broker.protocol.audit_records import Backend, Decision, Outcome
from remo_broker.protocol.clock import timestamp
from remo_broker.protocol.codes import Code, Reason
from remo_broker.protocol.message import encode
from remo_broker.protocol.names import counted, is_secret_name
from remo_broker.protocol.replies import Explanation, Pong, ProjectInfo, Readiness
from remo_broker.protocol.shared_limits import MAX_MESSAGE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeAlias

    from remo_broker.broker.projects import Grant, Project, Registration
    from remo_broker.protocol.config import Config

    Reply: TypeAlias = bytes | list[bytes | memoryview]
    Answer: TypeAlias = tuple[Reply, bytes]

NO_SNAPSHOT_RETRY_SECONDS = 1


class Verdict:
    """The outcome of a get, in the words of its audit record and of `explain`."""

    __slots__ = ("decision", "outcome", "reason")

    def __init__(self, decision: Decision, outcome: Outcome, reason: str) -> None:
        self.decision = decision
        self.outcome = outcome
        self.reason = reason

    def __repr__(self) -> str:
        return f"Verdict({self.decision}, {self.outcome}, {self.reason})"


SERVED = Verdict(Decision.ALLOW, Outcome.OK, audit_records.IN_MANIFEST)
UID_NOT_ALLOWED = Verdict(Decision.DENY, Outcome.DENIED, Reason.UID_NOT_ALLOWED.value)
NOT_IN_MANIFEST = Verdict(Decision.DENY, Outcome.DENIED, Reason.NOT_IN_MANIFEST.value)
INVALID_NAME = Verdict(Decision.DENY, Outcome.DENIED, Reason.INVALID_NAME.value)
ENDED = Verdict(Decision.DENY, Outcome.DENIED, Reason.NOT_REGISTERED.value)
NO_SNAPSHOT = Verdict(Decision.ALLOW, Outcome.NOT_FOUND, Reason.NO_SNAPSHOT.value)
EXPIRED = Verdict(Decision.ALLOW, Outcome.NOT_FOUND, Reason.EXPIRED.value)
NOT_IN_SNAPSHOT = Verdict(Decision.ALLOW, Outcome.NOT_FOUND, Reason.NOT_IN_SNAPSHOT.value)

NOT_REGISTERED = Refused(
    Code.DENIED,
    Reason.NOT_REGISTERED,
    "no project is registered for this socket; ask an operator to run 'remo-brokerctl register'",
).line()
# By verdict: the reply to a get of an allowed name that has no value.
MISSING_REPLIES = {
    ENDED: NOT_REGISTERED,
    NO_SNAPSHOT: Refused(
        Code.NOT_FOUND,
        Reason.NO_SNAPSHOT,
        "the broker holds no secrets yet; try again when the sidecar has pushed",
        retry_after_seconds=NO_SNAPSHOT_RETRY_SECONDS,
    ).line(),
    EXPIRED: Refused(
        Code.NOT_FOUND, Reason.EXPIRED, "the secret has expired; try again when the sidecar has pushed"
    ).line(),
    NOT_IN_SNAPSHOT: Refused(
        Code.NOT_FOUND,
        Reason.NOT_IN_SNAPSHOT,
        "the manifest allows this name, but the last push did not contain it; add it to what the sidecar pushes",
    ).line(),
}
INVALID_NAME_REPLY = Refused(
    Code.DENIED, Reason.INVALID_NAME, "no secret can have this name; names are letters, digits and _, at most 128"
).line()
AUDIT_UNAVAILABLE = Refused(
    Code.INTERNAL_ERROR,
    Reason.AUDIT_UNAVAILABLE,
    "journald did not accept the audit record, so the secret is not given out; see 'systemctl status systemd-journald'",
    retry_after_seconds=1,
).line()
PEER_UNEXPECTED = Refused(
    Code.PEER_UNEXPECTED,
    Reason.UID_NOT_ALLOWED,
    "your uid may not use this project's socket; ask an operator to register the project with --allow-uid",
).line()


def not_in_manifest(project: str) -> bytes:
    """The same bytes whether or not the broker holds such a secret."""
    return Refused(
        Code.DENIED,
        Reason.NOT_IN_MANIFEST,
        f"not in the manifest of {project}; add it there and ask an operator to run 'remo-brokerctl reload {project}'",
    ).line()


class Decisions:
    """The store, the projects, and the decisions that follow from both."""

    def __init__(self, config: Config, store: Store) -> None:
        self.config = config
        self.store = store
        self.credentials = Credentials(config.credentials, store)
        self.projects = Projects(config.rate_limit_per_second, config.rate_limit_burst)

    # --- the project socket

    def ping(self, project: Project) -> bytes:
        pong = Pong(broker_version=__version__, protocol_version=PROTOCOL_VERSION, project=project.name)
        return encode(pong.to_json())

    def info(self, project: Project) -> bytes:
        if not project.info_line:
            project.info_line = encode(info(project.registration).to_json())
        return project.info_line

    def bindings(self, project: Project) -> bytes:
        if not project.bindings_line:
            source = project.registration.source
            project.bindings_line = b'{"ok":true,"bindings":%b}\n' % (source.bindings if source is not None else b"{}")
        return project.bindings_line

    def ready(self) -> bytes:
        ready = Readiness(ready=self.store.snapshot is not None, generation=self.store.generation)
        return encode(ready.to_json())

    def verdict(self, project: Project, name: str, uid: int | None = None) -> Verdict:
        """What a get of `name` would lead to now: the rules of `get`, for callers that do not
        fetch.

        `uid` is the peer's. None means a peer that the project admits, as it does on every open
        connection.
        """
        if uid is not None and not project.registration.admits(uid):
            return UID_NOT_ALLOWED
        if name not in project.grants:
            return NOT_IN_MANIFEST if is_secret_name(name) else INVALID_NAME
        if project.last_generation not in (None, self.store.generation):
            return ENDED
        snapshot = self.store.snapshot
        if snapshot is None:
            return NO_SNAPSHOT
        if name in snapshot.secrets:
            return SERVED
        return EXPIRED if name in snapshot.expired else NOT_IN_SNAPSHOT

    def get(self, project: Project, name: str, now: float) -> Answer:
        grant = project.grants.get(name)
        if grant is not None:
            return self.fetch(grant, now)
        project.fetches_denied += 1
        project.last_fetch = now
        verdict = self.verdict(project, name)
        reply = INVALID_NAME_REPLY if verdict is INVALID_NAME else not_in_manifest(project.name)
        return reply, self._head(project, name, verdict)

    def fetch(self, grant: Grant, now: float) -> Answer:
        """A get of a name that the manifest allows. The hot path: see HACKING.md before adding to
        it."""
        store = self.store
        if grant.epoch != store.epoch:
            self._prepare(grant)
        project = grant.project
        project.fetches_allowed += 1
        project.last_fetch = now
        at_most = None
        if grant.may_miss:
            missing = grant.missing
            # Even within a lease. After the clock was set or the machine suspended, the lease is too
            # long, and this get may come before the timer's event.
            if missing is None and grant.expiry is not None:
                at_most = store.clocks.usec_left(grant.expiry) / 1e6
                if at_most <= 0:
                    missing = self._miss(grant, EXPIRED)
            if missing is not None:
                project.fetches_not_found += 1
                return missing, grant.from_store
        left = project.leases.until.get(grant.name, 0.0) - now
        if left > 0:
            head = grant.from_cache
            if at_most is not None and at_most < left:
                left = at_most
        else:
            left = project.leases.begin(grant.name, now, at_most)
            head = grant.from_store
        literal = store.snapshot.literals[grant.name]  # type: ignore[union-attr]  # not missing, so there is one
        seconds = int(left)
        if seconds != grant.seconds:
            grant.seconds = seconds
            grant.tail_now = grant.tail % seconds
        return [grant.head, literal, grant.tail_now], head

    def _prepare(self, grant: Grant) -> None:
        """Bring a grant up to date with the store."""
        store = self.store
        project, name = grant.project, grant.name
        grant.epoch = store.epoch
        verdict = self.verdict(project, name)
        if verdict is not SERVED:
            self._miss(grant, verdict)
            return
        snapshot = store.snapshot
        assert snapshot is not None
        region, start, end, binary = snapshot.secrets[name]
        grant.missing = None
        if name not in snapshot.literals:
            snapshot.literals[name] = snapshot.views[region][start:end]
        grant.head = BINARY_HEAD if binary else VALUE_HEAD
        grant.tail = VALUE_TAIL % store.generation
        grant.seconds = -1
        grant.expiry = snapshot.expiries.get(name)
        grant.may_miss = grant.expiry is not None
        if grant.expiry is not None:
            grant.tail = EXPIRING_TAIL % (store.generation, timestamp(grant.expiry.wall_usec).encode("ascii"))
        grant.from_store = self._head(project, name, verdict, Backend.STORE)
        grant.from_cache = self._head(project, name, verdict, Backend.CACHE)

    def _miss(self, grant: Grant, verdict: Verdict) -> bytes:
        """Answer gets of an allowed name as missing until the store changes."""
        grant.missing = MISSING_REPLIES[verdict]
        grant.may_miss = True
        backend = Backend.STORE if verdict.decision is Decision.ALLOW else None
        grant.from_store = self._head(grant.project, grant.name, verdict, backend)
        return grant.missing

    def expire(self) -> int:
        """End the secrets that have expired. Returns how many.

        Ends the leases of every secret that has an expiry: if the wall clock was set, they are too
        long.
        """
        ended = self.store.expire()
        snapshot = self.store.snapshot
        self.projects.end_leases_of([*ended, *(snapshot.expiries if snapshot else ())])
        return len(ended)

    def _head(self, project: Project, name: str, verdict: Verdict, backend: Backend | None = None) -> bytes:
        """The head of the audit record of a get."""
        return audit_records.fetch_head(
            project.name, name, verdict.decision, verdict.outcome, verdict.reason, self.store.generation, backend
        )

    def not_audited(self, grant: Grant, record: bytes) -> bytes:
        """journald did not take `record`, so the get is denied: return the head of the replacement
        record."""
        if record.startswith(grant.from_store):
            grant.project.leases.end(grant.name)
        grant.project.fetches_allowed -= 1
        grant.project.fetches_denied += 1
        reason = Reason.AUDIT_UNAVAILABLE.value
        return audit_records.fetch_head(
            grant.project.name, grant.name, Decision.DENY, Outcome.DENIED, reason, self.store.generation
        )

    def rate_limited(self, project: Project) -> bytes:
        """The reply to a request over the rate limit."""
        bucket = project.bucket
        return Refused(
            Code.RATE_LIMITED,
            Reason.TOO_MANY_REQUESTS,
            f"more than {counted(bucket.per_second, 'request')} a second; fetch less often, or ask an operator to raise the limit",
            retry_after_seconds=bucket.retry_after_seconds(),
        ).line()

    def explain(self, project: Project, secret: str, uid: int | None) -> Explanation:
        """What the answer to a get would be. Fetches nothing."""
        verdict = self.verdict(project, secret, uid)
        return Explanation(
            decision=str(verdict.decision),
            outcome=str(verdict.outcome),
            reason=verdict.reason,
            generation=self.store.generation,
        )


def info(registration: Registration) -> ProjectInfo:
    source = registration.source
    return ProjectInfo(
        project=registration.name,
        allowlist=list(registration.allowlist),
        schema_version=MANIFEST_SCHEMA_VERSION,
        manifest_path=source.path if source is not None else None,
        manifest_sha256=source.sha256 if source is not None else None,
        hosts=source.hosts or None if source is not None else None,
    )


# The fields that a `watch` line has and the answer to `info` does not, with the longest numbers and
# event.
WATCH_FIELDS = len(b',"start_usec":1000000000000000,"generation":1000000000000000,"ready":false,"event":"reloaded"')


def info_fits(registration: Registration) -> bool:
    """Whether the answers to `info` and `watch` fit in a message. If not, the manifest is
    refused."""
    return len(encode(info(registration).to_json())) + WATCH_FIELDS <= MAX_MESSAGE
