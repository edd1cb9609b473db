"""What the ops of the admin socket do, and the table of them.

A handler is a generator that the loop runs as part of a job. It may `yield None` to let other jobs
run, wait with `yield later`, raise `Refused`, and return its reply, or a `Stream` that goes on
sending. A handler that does none of this is an ordinary function, wrapped by `_at_once` in the
table.
"""

from __future__ import annotations

import os

from remo_broker.broker.expiry_timer import ExpiryTimer
from remo_broker.broker.handlers import table
from remo_broker.broker.loop import KeyLocks
from remo_broker.broker.manifest_operations import CHANGES, ManifestOperations
from remo_broker.broker.projects import Registration
from remo_broker.broker.refusals import Refused, protocol_error
from remo_broker.broker.secrets.memory import trim
from remo_broker.broker.secrets.strict_json import forget
from remo_broker.broker.sockets.watch import StoreStream
from remo_broker.broker.unsaved import Unsaved
from remo_broker.protocol import audit_records, paths
from remo_broker.protocol.audit_records import Event
from remo_broker.protocol.clock import now_usec, timestamp
from remo_broker.protocol.codes import ADMIN, ANY_OP_CODES, Code, Reason
from remo_broker.protocol.names import REFUSED_PROJECT_NAMES, counted, is_project_name
from remo_broker.protocol.ops import (
    ClearCreds,
    Explain,
    ExplainUnit,
    Preview,
    PushCreds,
    Register,
    Reload,
    Show,
    Status,
    Unregister,
    WatchStore,
)
from remo_broker.protocol.replies import (
    BrokerStatus,
    Done,
    Explanation,
    ProjectDetail,
    Pushed,
    Registered,
    UnitCredentials,
)
from remo_broker.protocol.shared_limits import MAX_PATH, MAX_UID, MAX_UIDS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from typing import Any, TypeAlias

    from remo_broker.broker.audit.trail import AuditTrail
    from remo_broker.broker.decisions import Decisions
    from remo_broker.broker.loop import Job, Later, Loop
    from remo_broker.broker.manifest_child import ManifestReader
    from remo_broker.broker.projects import Project
    from remo_broker.broker.registrations import Writer
    from remo_broker.broker.secrets.store import Secret
    from remo_broker.broker.sockets.admin import AdminCall, Steps
    from remo_broker.broker.sockets.connection import Peer, Stream
    from remo_broker.broker.sockets.project_listeners import ProjectListeners
    from remo_broker.broker.status import StatusReport
    from remo_broker.protocol.ops import Request
    from remo_broker.protocol.replies import Reply

    Handler: TypeAlias = Callable[["Operations", Any, AdminCall], Steps]

# From this many freed secrets on, it pays to return their memory to the kernel, which takes up to a
# few milliseconds.
MANY_SECRETS = 10_000


class Operations(ManifestOperations):
    """The ops that change or show the broker. Each that changes it calls `changed` afterwards."""

    def __init__(
        self,
        loop: Loop,
        broker: Decisions,
        project_listeners: ProjectListeners,
        reader: ManifestReader,
        writer: Writer,
        trail: AuditTrail,
        report: StatusReport,
        changed: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._broker = broker
        self._listeners = project_listeners
        self._reader = reader
        self._writer = writer
        self._trail = trail
        self._report = report
        self._changed = changed
        self._locks = KeyLocks(loop)
        self.unsaved = report.unsaved = Unsaved(loop, self._locks, lambda: self._save({}))
        self._watchers = project_listeners.server.watchers
        self._expiry = ExpiryTimer(loop, broker, changed)

    def perform(self, request: Request, call: AdminCall) -> Steps:
        """Do what a request on the admin socket asks for. Raises `Refused`."""
        try:
            return (yield from HANDLERS[type(request)](self, request, call))
        except Refused as refusal:
            if refusal.code not in request.CODES and refusal.code not in ANY_OP_CODES[ADMIN]:
                # The client is better off with this reply than with none, but its schema does not
                # have it.
                self._loop.on_bug(LookupError(f"{refusal.code} is not declared for {request.OP}"))
            raise

    # --- projects

    def register(self, request: Register, call: AdminCall) -> Steps:
        peer = call.peer
        name, path = request.name, request.project_path
        if not is_project_name(name):
            raise protocol_error(
                Reason.INVALID_NAME,
                "field name: must be 1 to 64 of a-z, 0-9, _ and -, and start with a letter or digit",
            )
        if not os.path.isabs(path) or "\0" in path or len(os.fsencode(path)) > MAX_PATH:
            raise protocol_error(
                Reason.BAD_VALUE, f"field project_path: must be an absolute path of at most {MAX_PATH} bytes"
            )
        uids = request.allowed_uids
        if len(uids) > MAX_UIDS or any(uid > MAX_UID for uid in uids):
            raise protocol_error(
                Reason.BAD_VALUE, f"field allowed_uids: must have at most {MAX_UIDS} uids, none above {MAX_UID}"
            )
        if name in REFUSED_PROJECT_NAMES:
            taken = ", ".join(sorted(REFUSED_PROJECT_NAMES))
            raise Refused(
                Code.PROJECT_EXISTS, Reason.NAME_TAKEN, f"the names {taken} are reserved for the broker; choose another"
            )
        self._may_register(request)
        allowed = yield from self._read(path, name, peer, any_name=request.any_name)
        registration = Registration(
            name,
            path,
            allowed.allowlist,
            allowed.ttl_seconds,
            allowed.max_entries,
            uids,
            allowed.source,
            any_name=request.any_name,
        )
        self._check_info(registration, peer)
        yield from self._locks.acquire(CHANGES)
        try:
            self._may_register(request)  # another request may have registered it in the meantime
            known = self._broker.projects.get(name)
            if known is not None and known.registration.project_path != path:
                # Another project, and containers of the former one have its sockets mounted.
                yield from self._save({name: None})
                yield from self._end(known, peer)
                known = None
            if known is None:
                yield from self._add(registration)
            else:
                yield from self._replace(known, registration)
        finally:
            self._locks.release(CHANGES)
        self._record(
            Event.REGISTERED,
            f"Project {name} was registered with {counted(len(allowed.allowlist), 'name')}.",
            peer,
            project=name,
            allowlist_size=len(allowed.allowlist),
        )
        return Registered(socket_path=paths.project_socket(self._broker.config.socket_dir, name))

    def _add(self, registration: Registration) -> Generator[Later | None, Any, None]:
        name, path = registration.name, registration.project_path
        yield from self._listeners.prepare(name, path)
        try:
            yield from self._save({name: registration})
        except Refused:
            yield from self._withdraw(name, path)
            raise
        self._broker.projects.register(registration)
        self._listeners.serve(name)

    def _replace(self, project: Project, registration: Registration) -> Generator[Later | None, Any, None]:
        """Keep the same sockets, which the project's containers have mounted."""
        admitted = project.registration.allowed_uids
        yield from self._save({registration.name: registration})
        if admitted == registration.allowed_uids:
            project.reload(registration)
            self._watchers.reloaded(project)
        else:
            # Other users were admitted, and what they have sent so far gets what they were allowed.
            self._listeners.server.dismiss(self._broker.projects.replace(registration))
        yield from self._listeners.repair(registration.name, registration.project_path)

    def unregister(self, request: Unregister, call: AdminCall) -> Steps:
        name = request.name
        project = self._broker.projects.get(name)
        if project is not None:
            # At once: it may keep the disk busy, which a request that has the lock may wait for.
            self._listeners.server.dismiss(project)
        yield from self._locks.acquire(CHANGES)
        try:
            if name not in self.unsaved:
                # Before it is saved: what fills the disk, or keeps it busy, may be the project.
                yield from self._end(self._known(name), call.peer)
                self.unsaved.add(name)
            try:
                yield from self._save({})
            except Refused as refusal:
                self.unsaved.save_later()
                raise Refused(
                    refusal.code,
                    refusal.reason,
                    f"project {name} is not served any more, but would be after a restart until that is saved: {refusal.message}",
                ) from None
        finally:
            self._locks.release(CHANGES)
        return Done()

    def _end(self, project: Project, peer: Peer) -> Generator[Later | None, Any, None]:
        """Stop serving a project. Call this with the lock on `CHANGES`."""
        name, registration = project.name, project.registration
        yield from self._withdraw(name, registration.project_path)
        self._record(
            Event.UNREGISTERED,
            f"Project {name} was unregistered.",
            peer,
            project=name,
            allowlist_size=len(registration.allowlist),
        )

    def _withdraw(self, name: str, path: str) -> Generator[Later | None, Any, None]:
        """Undo everything set up so far to serve project `name`."""
        project = self._broker.projects.unregister(name)
        if project is not None:
            self._listeners.server.dismiss(project)
        yield from self._listeners.close(name, path)

    def show(self, request: Show, _call: AdminCall) -> ProjectDetail:
        return self._report.detail(self._known(request.name))

    def explain(self, request: Explain, _call: AdminCall) -> Explanation:
        return self._broker.explain(self._known(request.name), request.secret, request.uid)

    def explain_unit(self, request: ExplainUnit, _call: AdminCall) -> UnitCredentials:
        return self._broker.credentials.explain(request.unit, withheld=self._trail.withholds)

    def status(self, request: Status, _call: AdminCall) -> BrokerStatus:
        return self._report.page(request.after)

    # --- secrets

    def push(self, request: PushCreds, call: AdminCall) -> Steps:
        """Replace the store with the push in the call's region; the store then owns the region."""
        secrets, secrets_b64 = call.members.get("secrets"), call.members.get("secrets_b64")
        if secrets is None and secrets_b64 is None:
            raise protocol_error(Reason.MISSING_FIELD, "field secrets is missing; push-creds needs it or secrets_b64")
        expires = call.members.get("expires")
        snapshot = yield from self._broker.store.load(
            call.memory, secrets, secrets_b64, now_usec(), expires, changes=request.changes
        )
        self._end_of_snapshot()
        self._watchers.pushed()
        count = len(snapshot.secrets)
        self._record(
            Event.PUSHED,
            f"Generation {snapshot.generation} was pushed, with {counted(count, 'secret')}.",
            call.peer,
            secret_count=count,
            generation=snapshot.generation,
        )
        return Pushed(
            loaded_at=timestamp(snapshot.loaded_usec),
            secret_count=count,
            generation=snapshot.generation,
            changes=snapshot.changes,
        )

    def clear(self, _request: ClearCreds, call: AdminCall) -> Done:
        store = self._broker.store
        count = store.secret_count
        store.clear()
        self._end_of_snapshot()
        self._watchers.cleared()
        self._record(
            Event.CLEARED,
            f"The store was cleared of {counted(count, 'secret')}.",
            call.peer,
            secret_count=count,
            generation=store.generation,
        )
        return Done()

    def watch(self, _request: WatchStore, call: AdminCall) -> Stream:
        return StoreStream(self._watchers, call.connection)

    def _end_of_snapshot(self) -> None:
        self._broker.projects.end_leases()
        self._expiry.arm()
        outdated = self._broker.store.outdated
        while outdated:
            self._loop.start(_forget(outdated.pop()))

    # --- shared

    def _may_register(self, request: Register) -> None:
        name = request.name
        if name in self._broker.projects and not request.replace:
            raise Refused(
                Code.PROJECT_EXISTS,
                None,
                f"project {name} is registered; 'remo-brokerctl reload {name}' reads its manifest again",
            )

    def _save(self, change: dict[str, Registration | None]) -> Generator[Later | None, Any, None]:
        """Save the registrations with `change` applied; None removes one. Raises `Refused` with
        nothing changed, on disk or in memory: a change takes effect once it is saved."""
        state = self._broker.projects.registrations() | change
        done = self._loop.later()
        self._writer.save([one for one in state.values() if one is not None], done.set)
        error = yield done
        if error is None:
            if self.unsaved:
                self.unsaved.clear()
                self._changed()
            return
        raise Refused(
            Code.INTERNAL_ERROR,
            Reason.STATE_UNWRITABLE,
            f"{self._broker.config.state_dir}: the registration could not be saved ({os.strerror(error.errno or 0)}); "
            "free space or fix its permissions, then try again",
        )

    def _record(self, event: Event, message: str, peer: Peer, **fields: str | int) -> None:
        self._trail.write_or_keep(audit_records.record(event, message, priority=None, **fields) + peer.fields)
        self._changed()


def _at_once(handler: Callable[[Operations, Any, AdminCall], Reply | Stream]) -> Handler:
    """Wrap a handler that neither waits nor yields as a generator."""

    def steps(operations: Operations, request: Request, call: AdminCall) -> Steps:
        yield from ()  # makes it a generator
        return handler(operations, request, call)

    return steps


HANDLERS: dict[type[Request], Handler] = table(
    ADMIN,
    {
        Register: Operations.register,
        Unregister: Operations.unregister,
        Reload: Operations.reload,
        Preview: Operations.preview,
        PushCreds: Operations.push,
        ClearCreds: _at_once(Operations.clear),
        Status: _at_once(Operations.status),
        Show: _at_once(Operations.show),
        Explain: _at_once(Operations.explain),
        WatchStore: _at_once(Operations.watch),
        ExplainUnit: _at_once(Operations.explain_unit),
    },
)


def _forget(secrets: dict[str, Secret]) -> Job:
    many = len(secrets) > MANY_SECRETS
    yield from forget(secrets)
    if many:
        trim()
