"""The ops that read a registered project's manifest again: `reload` and `preview`."""

from __future__ import annotations

from remo_broker.broker import registrations
from remo_broker.broker.decisions import info_fits
from remo_broker.broker.manifest_changes import ManifestChange
from remo_broker.broker.manifest_child import Allowed
from remo_broker.broker.refusals import Refused
from remo_broker.protocol.audit_records import Event
from remo_broker.protocol.codes import Code, Reason
from remo_broker.protocol.message import encode
from remo_broker.protocol.names import counted
from remo_broker.protocol.replies import Difference, Reloaded
from remo_broker.protocol.shared_limits import MAX_MESSAGE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from typing import Any

    from remo_broker.broker.decisions import Decisions
    from remo_broker.broker.loop import KeyLocks, Later
    from remo_broker.broker.manifest_child import ManifestReader
    from remo_broker.broker.projects import Project, Registration
    from remo_broker.broker.sockets.admin import AdminCall, Steps
    from remo_broker.broker.sockets.connection import Peer
    from remo_broker.broker.sockets.project_listeners import ProjectListeners
    from remo_broker.broker.sockets.watch import Watchers
    from remo_broker.protocol.ops import Preview, Reload

# The lock for changing and saving the registrations. All other locks are for one project's
# manifest, by project name; this is not a project name.
CHANGES = registrations.FILE_NAME

# How many of a project's manifests are remembered: more than are looked at between an operator's
# question and the answer.
MAX_READINGS = 16


class ManifestOperations:
    """The part of `Operations` that reads manifests again; `Operations` sets the attributes."""

    _broker: Decisions
    _listeners: ProjectListeners
    _locks: KeyLocks
    _reader: ManifestReader
    _watchers: Watchers
    _record: Callable[..., None]
    _save: Callable[[dict[str, Registration | None]], Generator[Later | None, Any, None]]

    def reload(self, request: Reload, call: AdminCall) -> Steps:
        change = yield from self._reread(request.name, call.peer, request.sha256, adopt=True, widen=True)
        return Reloaded(allowlist=list(change.fresh.allowlist))

    def preview(self, request: Preview, call: AdminCall) -> Steps:
        change = yield from self._reread(request.name, call.peer, None, adopt=request.adopt_narrower, widen=False)
        whole = difference(change, change.new_bindings(), change.new_hosts())
        return whole if len(encode(whole.to_json())) <= MAX_MESSAGE else difference(change)

    def adopt_narrower(self, name: str, peer: Peer) -> Generator[Later | None, Any, None]:
        """What SIGHUP does: adopt what the manifest removes; what it adds waits for an operator."""
        yield from self._reread(name, peer, None, adopt=True, widen=False)

    def _reread(
        self, project_name: str, peer: Peer, sha256: str | None, *, adopt: bool, widen: bool
    ) -> Generator[Later | None, Any, ManifestChange]:
        """Read a manifest and adopt it: all of it with `widen`, otherwise only what removes
        something. Raises `Refused`.

        One at a time for each project, so that the last manifest read takes effect.
        """
        name = self._known(project_name).name
        yield from self._locks.acquire(name)
        try:
            project = self._known(name)
            before = project.registration
            allowed = yield from self._read(before.project_path, name, peer, any_name=before.any_name)
            yield from self._locks.acquire(CHANGES)
            try:
                if self._broker.projects.get(name) is not project or project.registration is not before:
                    # Another directory may have been registered in the meantime.
                    raise Refused(
                        Code.PROJECT_UNKNOWN,
                        None,
                        "the project was unregistered or replaced meanwhile; try again if it is registered",
                    )
                fresh = before.with_manifest(
                    allowed.allowlist, allowed.ttl_seconds, allowed.max_entries, allowed.source
                )
                self._check_reading(project, allowed, peer)
                if sha256 is not None and sha256 != allowed.source.sha256:
                    raise Refused(
                        Code.MANIFEST_INVALID,
                        Reason.MANIFEST_CHANGED,
                        "the manifest has changed since it was shown; review it again",
                    )
                self._check_info(fresh, peer)
                change = ManifestChange(before, fresh)
                adopted = before if not adopt else fresh if widen else change.narrowed()
                # Of a thousand manifests, most have not changed, and each save writes and syncs the
                # whole file.
                if adopted is not before:
                    yield from self._save({name: adopted})
                    project.reload(adopted)
                    self._watchers.reloaded(project)
                if adopt and (widen or adopted is not before):
                    self._record(
                        Event.RELOADED,
                        f"The manifest of project {name} was reloaded with {counted(len(adopted.allowlist), 'name')}.",
                        peer,
                        project=name,
                        allowlist_size=len(adopted.allowlist),
                    )
                self._record_if_waiting(project, change, peer, waits=change.widens and adopted is not fresh)
                if adopt:
                    # Before another registration of the name: it must not serve what is made for this one.
                    yield from self._listeners.repair(name, before.project_path)
            finally:
                self._locks.release(CHANGES)
        finally:
            self._locks.release(name)
        return change

    def _record_if_waiting(self, project: Project, change: ManifestChange, peer: Peer, *, waits: bool) -> None:
        if waits and not project.manifest_waits:
            more = f"{counted(len(change.added), 'new name')}" if change.added else "more than before"
            self._record(
                Event.MANIFEST_WAITS,
                f"The manifest of project {project.name} would allow {more}; this waits for an operator.",
                peer,
                project=project.name,
                allowlist_size=len(change.fresh.allowlist),
            )
        project.manifest_waits = waits

    # --- shared with the other ops

    def _known(self, name: str) -> Project:
        project = self._broker.projects.get(name)
        if project is None:
            raise Refused(
                Code.PROJECT_UNKNOWN, None, "no such project is registered; 'remo-brokerctl list' shows those that are"
            )
        return project

    def _read(self, path: str, name: str, peer: Peer, *, any_name: bool) -> Generator[Later | None, Any, Allowed]:
        result = yield self._reader.read(path, None if any_name else name)
        if isinstance(result, Refused):
            self._manifest_refused(name, result, peer)
            raise result
        assert isinstance(result, Allowed)
        return result

    def _check_reading(self, project: Project, allowed: Allowed, peer: Peer) -> None:
        """The SHA-256 that an operator approves comes from a reader. A file that compromised its
        reader could report the same hash for other content, so each hash stands for one content."""
        readings, sha256 = project.readings, allowed.source.sha256
        # Only this process can work out the number, and so find another content with the same.
        rules = tuple(allowed.allowlist), allowed.ttl_seconds, allowed.max_entries
        found = hash((*rules, frozenset(allowed.source.hosts.items()), allowed.source.bindings))
        if readings.setdefault(sha256, found) != found:
            refusal = Refused(
                Code.MANIFEST_INVALID,
                Reason.MANIFEST_CHANGED,
                "two readings of one manifest differ; the file may be crafted to break its reader: run 'remo-brokerctl check'",
            )
            self._manifest_refused(project.name, refusal, peer)
            raise refusal
        if len(readings) > MAX_READINGS:
            del readings[next(iter(readings))]

    def _check_info(self, registration: Registration, peer: Peer) -> None:
        if not info_fits(registration):
            refusal = Refused(
                Code.MANIFEST_INVALID, None, "allowlist: too many names for one answer; name fewer secrets"
            )
            self._manifest_refused(registration.name, refusal, peer)
            raise refusal

    def _manifest_refused(self, name: str, refusal: Refused, peer: Peer) -> None:
        self._record(
            Event.MANIFEST_INVALID,
            f"The manifest of project {name} was refused: {refusal.message}",
            peer,
            project=name,
            reason=str(refusal.code),
        )


def difference(
    change: ManifestChange, bindings: dict[str, Any] | None = None, hosts: dict[str, str] | None = None
) -> Difference:
    """The reply to `preview`; `bindings` and `hosts` are what the manifest says of those that
    change."""
    before, fresh = change.before, change.fresh
    return Difference(
        manifest_path=fresh.source.path if fresh.source else "",
        sha256=fresh.source.sha256 if fresh.source else "",
        widens=change.widens,
        changed=fresh is not before,
        added=change.added,
        removed=change.removed,
        changed_bindings=change.bindings,
        changed_hosts=change.hosts,
        ttl_seconds=fresh.ttl_seconds,
        max_entries=fresh.max_entries,
        ttl_seconds_now=before.ttl_seconds,
        max_entries_now=before.max_entries,
        new_bindings=bindings,
        new_hosts=hosts,
    )
