"""What the broker reports about itself: the answer to `status`, in pages, and the line for
`systemctl status`."""

from __future__ import annotations

from remo_broker import PROTOCOL_VERSION, __version__
from remo_broker.broker.audit.trail import NOT_STORED
from remo_broker.protocol import paths
from remo_broker.protocol.clock import now_usec, timestamp
from remo_broker.protocol.message import encode
from remo_broker.protocol.names import counted
from remo_broker.protocol.replies import AuditStatus, BrokerEvent, BrokerStatus, ProjectDetail, ProjectStatus
from remo_broker.protocol.shared_limits import MAX_MESSAGE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from typing import Any

    from remo_broker.broker.audit.trail import AuditTrail
    from remo_broker.broker.decisions import Decisions
    from remo_broker.broker.loop import Loop
    from remo_broker.broker.projects import Project

# Projects considered for one page; an entry has at least 170 bytes, so that more never fit.
PAGE_PROJECTS = 400
# Unregistered projects that are named because they are still on disk: a message has room for the
# longest names, and what keeps one there keeps all.
UNSAVED_PROJECTS = 64


class StatusReport:
    """Counts and times, no secret names. Cheap enough to build for each request."""

    def __init__(
        self,
        loop: Loop,
        broker: Decisions,
        trail: AuditTrail,
        memory_protection: str,
        start_usec: int,
        unserved: Callable[[str], str | None],
    ) -> None:
        """`unserved` returns the socket of a project that clients cannot connect to, if there is
        one."""
        self._loop = loop
        self._broker = broker
        self._trail = trail
        self._memory_protection = memory_protection
        self._unserved = unserved
        self._started = loop.now
        self._start_usec = start_usec
        self.unsaved: Collection[str] = ()
        """Projects that were unregistered, and would be served again from the next start on."""

    def page(self, after: str | None) -> BrokerStatus:
        """The projects after `after` in the order of their names, as many as fit in a message."""
        broker, trail = self._broker, self._trail
        names = sorted(name for name in broker.projects if after is None or name > after)
        moment = now_usec()
        projects = [self._project(broker.projects[name], moment) for name in names[:PAGE_PROJECTS]]
        status = BrokerStatus(
            **self._facts(),
            uptime_seconds=int(self._loop.now - self._started),
            secrets_loaded_at=timestamp(broker.store.loaded_usec) if broker.store.snapshot else None,
            projects=projects,
            audit=AuditStatus(
                healthy=trail.trouble is None,
                sink=trail.sink,
                queued=trail.queued,
                dropped=trail.dropped,
                serial=trail.serial,
                start_id=trail.start_id,
                namespace=trail.namespace,
                reason=trail.trouble,
            ),
            project_count=len(broker.projects),
            unserved_count=sum(self._unserved(name) is not None for name in broker.projects),
            unsaved=sorted(self.unsaved)[:UNSAVED_PROJECTS] or None,
            projects_next=names[len(projects) - 1] if len(names) > len(projects) else None,
        )
        while len(encode(status.to_json())) > MAX_MESSAGE:
            del projects[-max(1, len(projects) // 8) :]
            status.__dict__["projects_next"] = projects[-1].name
        return status

    def event(self) -> BrokerEvent:
        """The broker's current state, for watchers."""
        return BrokerEvent(
            **self._facts(), audit_healthy=self._trail.trouble is None, audit_dropped=self._trail.dropped
        )

    def _facts(self) -> dict[str, Any]:
        """The fields of `BrokerFacts`."""
        store, projects = self._broker.store, self._broker.projects
        return {
            "broker_version": __version__,
            "protocol_version": PROTOCOL_VERSION,
            "start_usec": self._start_usec,
            "secrets_loaded_usec": store.loaded_usec,
            "secret_count": store.secret_count,
            "generation": store.generation,
            "memory_protection": self._memory_protection,
            "fetches_allowed": projects.fetches_allowed,
            "fetches_denied": projects.fetches_denied,
            "fetches_not_found": projects.fetches_not_found,
            "credentials_served": self._broker.credentials.served,
            "credentials_refused": self._broker.credentials.refused,
        }

    def project(self, name: str) -> ProjectStatus:
        return self._project(self._broker.projects[name], now_usec())

    def detail(self, project: Project) -> ProjectDetail:
        registration = project.registration
        return ProjectDetail(
            **self._project_facts(project, now_usec()),
            project_path=registration.project_path,
            allowlist=list(registration.allowlist),
            ttl_seconds=registration.ttl_seconds,
            max_entries=registration.max_entries,
            allowed_uids=list(registration.allowed_uids),
        )

    def _project(self, project: Project, moment: int) -> ProjectStatus:
        return ProjectStatus(**self._project_facts(project, moment), allowlist_size=len(project.grants))

    def _project_facts(self, project: Project, moment: int) -> dict[str, Any]:
        """The fields of `ProjectFacts`; `moment` is now, in microseconds since 1970."""
        now = self._loop.now
        return {
            "name": project.name,
            "socket_path": paths.project_socket(self._broker.config.socket_dir, project.name),
            "cache_entries": project.leases.live(now),
            "connections": project.connections,
            "fetches_allowed": project.fetches_allowed,
            "fetches_denied": project.fetches_denied,
            "fetches_not_found": project.fetches_not_found,
            "last_fetch_usec": project.last_fetch_usec(now, moment),
            "manifest_waits": True if project.manifest_waits else None,
            "unserved": self._unserved(project.name),
        }

    def has(self, name: str) -> bool:
        return name in self._broker.projects

    def standing(self) -> tuple[int, ...]:
        """Changes when anything in `event` except a counter changes."""
        store = self._broker.store
        return store.generation, store.secret_count, store.loaded_usec, self._trail.trouble is None

    def serials(self) -> list[tuple[str, int]]:
        """For each project, a number that changes when anything in its status except a counter
        changes."""
        return [(name, one.serial) for name, one in self._broker.projects.items()]

    def counters(self, name: str) -> tuple[int, ...]:
        """The counters in a project's status; far cheaper than the whole status."""
        one = self._broker.projects[name]
        return one.fetches_allowed, one.fetches_denied, one.connections, one.leases.live(self._loop.now)

    def line(self) -> str:
        """The line for `systemctl status`."""
        broker, trail = self._broker, self._trail
        count, projects = broker.store.secret_count, len(broker.projects)
        held = (
            f"{counted(count, 'secret')} (generation {broker.store.generation})"
            if broker.store.snapshot
            else "no secrets yet"
        )
        audit = ""
        if trail.trouble == NOT_STORED:
            audit = "; audit degraded, the journal does not store its records"
        elif not trail.healthy:
            audit = f"; audit degraded, {trail.queued} records waiting, {trail.dropped} lost"
        unsaved = len(self.unsaved)
        left = f"; {counted(unsaved, 'unregistered project')} still on disk" if unsaved else ""
        return f"Serving {counted(projects, 'project')}, {held}, memory {self._memory_protection}{audit}{left}"
