"""The decisions: what a project gets for what it asks. No sockets, no clock, no effects but on the broker's own state.

An answer is a pair of the reply and the head of its audit record. The reply is bytes, or for a granted secret a list
of buffers whose middle one lies in secret memory, to be sent before the store changes. The head is None for what is
not audited. Times are seconds of the loop's monotonic clock.
"""

from __future__ import annotations

from remo_broker import MANIFEST_SCHEMA_VERSION, PROTOCOL_VERSION, __version__
from remo_broker.broker.projects import Grant, Project
from remo_broker.broker.refusals import Refused
from remo_broker.broker.secrets.store import BINARY_HEAD, VALUE_HEAD, VALUE_TAIL, Store
from remo_broker.protocol import paths, records
from remo_broker.protocol.message import encode
from remo_broker.protocol.names import counted, is_secret_name
from remo_broker.protocol.ops import (
    MAX_MESSAGE,
    Code,
    Explanation,
    Pong,
    ProjectInfo,
    ProjectStatus,
    Readiness,
    Reason,
)
from remo_broker.protocol.records import Backend, Decision, Outcome

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeAlias

    from remo_broker.broker.projects import Registration
    from remo_broker.protocol.config import Config

    Reply: TypeAlias = bytes | list[bytes | memoryview]
    Answer: TypeAlias = tuple[Reply, bytes | None]

NO_SNAPSHOT_RETRY_SECONDS = 1
# Requests over a project's rate are told to the audit once in so many seconds.
REFUSALS_SECONDS = 1.0

INVALID_NAME = Refused(
    Code.DENIED, Reason.INVALID_NAME, "no secret can have such a name; names are letters, digits and _, at most 128"
).line()
NOT_IN_SNAPSHOT = Refused(
    Code.NOT_FOUND,
    Reason.NOT_IN_SNAPSHOT,
    "the manifest allows it, but the last push did not bring it; add it to what the sidecar pushes",
).line()
NO_SNAPSHOT = Refused(
    Code.NOT_FOUND,
    Reason.NO_SNAPSHOT,
    "the broker holds no secrets yet; try again when the sidecar has pushed",
    retry_after_seconds=NO_SNAPSHOT_RETRY_SECONDS,
).line()
NOT_REGISTERED = Refused(
    Code.DENIED,
    Reason.NOT_REGISTERED,
    "no project is registered for this socket; have an operator run 'remo-brokerctl register'",
).line()
AUDIT_UNAVAILABLE = Refused(
    Code.INTERNAL_ERROR,
    Reason.AUDIT_UNAVAILABLE,
    "the audit record was not taken, so the secret is not given out; see 'systemctl status systemd-journald'",
    retry_after_seconds=1,
).line()
PEER_UNEXPECTED = Refused(
    Code.PEER_UNEXPECTED,
    Reason.UID_NOT_ALLOWED,
    "your uid may not use this project's socket; have an operator register it with --allow-uid",
).line()


def not_in_manifest(project: str) -> bytes:
    """The same bytes whether or not the broker holds such a secret."""
    return Refused(
        Code.DENIED,
        Reason.NOT_IN_MANIFEST,
        f"not in the manifest of {project}; add it there and have an operator run 'remo-brokerctl reload {project}'",
    ).line()


class Broker:
    """The store, the projects, and what follows from the two."""

    def __init__(self, config: Config, store: Store) -> None:
        self.config = config
        self.store = store
        self.projects: dict[str, Project] = {}
        # What projects that are gone have fetched, so that the broker's own counters never fall.
        self.gone_allowed = 0
        self.gone_denied = 0

    # --- projects

    def add(self, registration: Registration) -> Project:
        config = self.config
        project = Project(registration, config.rate_limit_per_second, config.rate_limit_burst)
        self.projects[registration.name] = project
        return project

    def remove(self, name: str) -> Project:
        project = self.projects.pop(name)
        self.gone_allowed += project.fetches_allowed
        self.gone_denied += project.fetches_denied
        return project

    def end_leases(self) -> None:
        """Every project's leases end with the snapshot that they were on."""
        for project in self.projects.values():
            project.leases.clear()

    # --- the project socket

    def ping(self, project: Project) -> bytes:
        pong = Pong(broker_version=__version__, protocol_version=PROTOCOL_VERSION, project=project.name)
        return encode(pong.to_json())

    def info(self, project: Project) -> bytes:
        if not project.info_line:
            project.info_line = encode(info(project.registration).to_json())
        return project.info_line

    def ready(self) -> bytes:
        ready = Readiness(ready=self.store.snapshot is not None, generation=self.store.generation)
        return encode(ready.to_json())

    def get(self, project: Project, name: str, now: float) -> Answer:
        grant = project.grants.get(name)
        if grant is not None:
            return self.fetch(grant, now)
        project.fetches_denied += 1
        project.last_fetch = now
        valid = is_secret_name(name)
        reason = Reason.NOT_IN_MANIFEST if valid else Reason.INVALID_NAME
        head = records.fetch_head(
            project.name, name, Decision.DENY, Outcome.DENIED, reason.value, self.store.generation
        )
        return (not_in_manifest(project.name) if valid else INVALID_NAME), head

    def fetch(self, grant: Grant, now: float) -> Answer:
        """A get of a name that the manifest allows. The hot path: see HACKING.md before adding to it."""
        store = self.store
        if grant.epoch != store.epoch:
            self._prepare(grant)
        project = grant.project
        project.fetches_allowed += 1
        project.last_fetch = now
        if grant.missing is not None:
            return grant.missing, grant.from_store
        left = project.leases.until.get(grant.name, 0.0) - now
        if left > 0:
            head = grant.from_cache
        else:
            left = project.leases.begin(grant.name, now)
            head = grant.from_store
        region, start, end = grant.secret
        view = store.snapshot.views[region][start:end]  # type: ignore[union-attr]  # not missing, so there is one
        return [grant.head, view, VALUE_TAIL % (left, grant.generation)], head

    def _prepare(self, grant: Grant) -> None:
        """Bring a grant up to date with the store."""
        store = self.store
        project, name = grant.project.name, grant.name
        grant.epoch = store.epoch
        secret = store.snapshot.secrets.get(name) if store.snapshot else None
        if secret is None:
            reason = Reason.NOT_IN_SNAPSHOT if store.snapshot else Reason.NO_SNAPSHOT
            grant.missing = NOT_IN_SNAPSHOT if store.snapshot else NO_SNAPSHOT
            grant.from_store = records.fetch_head(
                project, name, Decision.ALLOW, Outcome.NOT_FOUND, reason.value, store.generation, Backend.STORE
            )
            return
        *where, binary = secret
        grant.missing = None
        grant.secret = tuple(where)  # type: ignore[assignment]
        grant.generation = store.generation
        grant.head = BINARY_HEAD if binary else VALUE_HEAD
        ok = (project, name, Decision.ALLOW, Outcome.OK, records.IN_MANIFEST, store.generation)
        grant.from_store = records.fetch_head(*ok, Backend.STORE)
        grant.from_cache = records.fetch_head(*ok, Backend.CACHE)

    def not_audited(self, grant: Grant, record: bytes) -> bytes:
        """The head of the record that a get has instead of `record`, which was not taken, where that denies it."""
        if record.startswith(grant.from_store):
            grant.project.leases.end(grant.name)
        grant.project.fetches_allowed -= 1
        grant.project.fetches_denied += 1
        reason = Reason.AUDIT_UNAVAILABLE.value
        return records.fetch_head(
            grant.project.name, grant.name, Decision.DENY, Outcome.DENIED, reason, self.store.generation
        )

    def rate_limited(self, project: Project) -> bytes:
        """The reply to a request over the rate."""
        bucket = project.bucket
        return Refused(
            Code.RATE_LIMITED,
            Reason.TOO_MANY_REQUESTS,
            f"more than {counted(bucket.per_second, 'request')} a second; keep what you fetched, or have the limit raised",
            retry_after_seconds=bucket.retry_after_seconds(),
        ).line()

    def rate_limited_record(self, project: Project, now: float) -> bytes | None:
        """The record of all requests over the rate since the last record; None while that is too soon."""
        bucket = project.bucket
        if not bucket.refused or now < bucket.told_at + REFUSALS_SECONDS:
            return None
        count, bucket.refused, bucket.told_at = bucket.refused, 0, now
        message = f"Project {project.name} made {counted(count, 'request')} more than it may."
        return records.record(records.Event.RATE_LIMITED, message, project=project.name, count=count)

    def explain(self, project: Project, secret: str, uid: int | None) -> Explanation:
        """What a get would be answered, by the same rules, without doing it."""
        allowed_uids = project.registration.allowed_uids
        decision, outcome, reason = Decision.ALLOW, Outcome.OK, records.IN_MANIFEST
        if uid is not None and allowed_uids and uid not in allowed_uids:
            decision, outcome, reason = Decision.DENY, Outcome.DENIED, Reason.UID_NOT_ALLOWED
        elif secret not in project.grants:
            reason = Reason.NOT_IN_MANIFEST if is_secret_name(secret) else Reason.INVALID_NAME
            decision, outcome = Decision.DENY, Outcome.DENIED
        elif self.store.snapshot is None:
            outcome, reason = Outcome.NOT_FOUND, Reason.NO_SNAPSHOT
        elif secret not in self.store.snapshot.secrets:
            outcome, reason = Outcome.NOT_FOUND, Reason.NOT_IN_SNAPSHOT
        return Explanation(
            decision=str(decision), outcome=str(outcome), reason=str(reason), generation=self.store.generation
        )

    # --- what there is to tell

    def project_status(self, project: Project, now: float, now_usec: int) -> ProjectStatus:
        """`now` and `now_usec` are one moment on the loop's clock and in microseconds since 1970."""
        last = project.last_fetch
        if last is not None and project.last_fetch_told[0] != last:
            project.last_fetch_told = last, now_usec - int((now - last) * 1e6)
        return ProjectStatus(
            name=project.name,
            socket_path=paths.project_socket(self.config.socket_dir, project.name),
            allowlist_size=len(project.grants),
            cache_entries=project.leases.live(now),
            connections=project.connections,
            fetches_allowed=project.fetches_allowed,
            fetches_denied=project.fetches_denied,
            last_fetch_usec=project.last_fetch_told[1],
        )


def info(registration: Registration) -> ProjectInfo:
    return ProjectInfo(
        project=registration.name,
        allowlist=list(registration.allowlist),
        schema_version=MANIFEST_SCHEMA_VERSION,
    )


def info_fits(registration: Registration) -> bool:
    """Whether the answer to `info` has room in a message; a manifest whose names do not fit is refused."""
    return len(encode(info(registration).to_json())) <= MAX_MESSAGE
