"""Clients of the host's sockets: the admin socket, and the bus service's status socket."""

from __future__ import annotations

from remo_broker.client.connection import BaseClient, watch
from remo_broker.client.errors import BadReply, ConnectionLost
from remo_broker.client.exchange import build, check_version, encode, parse_object, refusal_in
from remo_broker.protocol import paths
from remo_broker.protocol.clock import monotonic
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
    Watch,
    WatchStore,
)
from remo_broker.protocol.replies import (
    EVENTS,
    BrokerStatus,
    Difference,
    Done,
    Explanation,
    ProjectDetail,
    Pushed,
    Registered,
    Reloaded,
    StoreState,
    UnitCredentials,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from remo_broker.protocol.message import Message


# Of a status. A page has fifteen projects if their sockets have the longest paths, and hundreds as a
# rule; systemd keeps some two thousand projects for a broker. A listener that only claims to be one could
# go on without end.
MAX_STATUS_PAGES = 1000


class StatusClient(BaseClient):
    """A client of the status socket."""

    SOCKET = paths.STATUS_SOCKET

    def status(self) -> BrokerStatus:
        """The broker and all its projects, in as many requests as that takes."""
        pages = StatusPages(self.path)
        while pages.incomplete:
            pages.add(self._status_page(pages.after))
        return pages.status()

    def _status_page(self, after: str | None) -> BrokerStatus:
        exchange = self._exchange(Status(after=after))
        check_version(self.path, exchange.reply)
        return exchange.result(BrokerStatus)

    def watch(self) -> Iterator[Message]:
        """Yield events (see `ops.EVENTS`) until the broker closes the stream.

        Opens its own connection and waits for each event without a timeout.
        """
        watcher = type(self)(self.path, timeout=self.timeout)
        try:
            watcher._send(encode(Watch()), monotonic() + self.timeout)
            while True:
                try:
                    line = watcher._read_line(None)
                except ConnectionLost:
                    return
                fields = parse_object(self.path, line)
                if "ok" in fields:
                    raise refusal_in(self.path, fields)
                kind = EVENTS.get(str(fields.get("event", "")))
                if kind is not None:  # ignore the events of newer brokers
                    yield build(self.path, kind, fields)
        finally:
            watcher.close()


class StatusPages:
    """The pages of a status, as they come; raises `BadReply` if they would not end."""

    def __init__(self, path: str) -> None:
        self.incomplete = True
        self.after: str | None = None
        """What to ask for next."""
        self._path = path
        self._pages: list[BrokerStatus] = []

    def add(self, page: BrokerStatus) -> None:
        self._pages.append(page)
        before, self.after = self.after, page.projects_next
        self.incomplete = self.after is not None
        if self.after is not None and before is not None and self.after <= before:
            raise BadReply(self._path, "'projects_next' does not advance")
        if self.incomplete and len(self._pages) >= MAX_STATUS_PAGES:
            raise BadReply(self._path, f"the status has more than {MAX_STATUS_PAGES} pages")

    def status(self) -> BrokerStatus:
        projects = [project for page in self._pages for project in page.projects]
        return BrokerStatus(**(self._pages[0].__dict__ | {"projects": projects, "projects_next": None}))


class AdminClient(StatusClient):
    """A client of the admin socket, for the sidecar and the operator."""

    SOCKET = paths.ADMIN_SOCKET

    def watch(self) -> Iterator[StoreState]:
        """Yield the store's state now and at each change, until the broker closes the stream.

        Opens its own connection and waits for each state without a timeout.
        """
        return watch(self, WatchStore(), StoreState)

    def register(
        self,
        name: str,
        project_path: str,
        allowed_uids: Sequence[int] = (),
        *,
        replace: bool = False,
        any_name: bool = False,
    ) -> str:
        """Make a project's socket live; return its path.

        Raises `ProjectExists` or a `Manifest…` error.

        With `replace`, replace a registered project of that name and keep its sockets. With
        `any_name`, the manifest and the directory may have other names.
        """
        return self.ask(register_request(name, project_path, allowed_uids, replace, any_name), Registered).socket_path

    def unregister(self, name: str) -> None:
        """Stop serving a project. Raises `ProjectUnknown`."""
        self.ask(Unregister(name=name), Done)

    def reload(self, name: str, sha256: str | None = None) -> list[str]:
        """Read a project's manifest again; return its allowlist.

        Raises `ProjectUnknown` or a `Manifest…` error.

        With `sha256`, adopt only a manifest with that hash.
        """
        return self.ask(Reload(name=name, sha256=sha256), Reloaded).allowlist

    def preview(self, name: str, *, adopt_narrower: bool = False) -> Difference:
        """Compare a project's manifest with the registered one. Raises as `reload` does."""
        return self.ask(Preview(name=name, adopt_narrower=adopt_narrower), Difference)

    def push_creds(
        self,
        secrets: Mapping[str, str | Mapping[str, str]],
        binaries: Mapping[str, bytes] | None = None,
        expires: Mapping[str, str] | None = None,
        *,
        changes: bool = False,
    ) -> Pushed:
        """Replace every secret that the broker holds, in one step.

        Raises `InvalidPayload` or `PayloadTooLarge`.

        `expires` maps names to times (RFC 3339), at which the broker stops handing out the secret.
        With `changes`, the reply says what was added, removed and changed.
        """
        return self.ask(push_request(secrets, binaries or {}, expires or {}, changes=changes), Pushed)

    def clear_creds(self) -> None:
        """Empty the store."""
        self.ask(ClearCreds(), Done)

    def show(self, name: str) -> ProjectDetail:
        """Everything about one project. Raises `ProjectUnknown`."""
        return self.ask(Show(name=name), ProjectDetail)

    def explain(self, name: str, secret: str, uid: int | None = None) -> Explanation:
        """What the broker would reply to a `get` of `secret` by project `name`. Not audited."""
        return self.ask(Explain(name=name, secret=secret, uid=uid), Explanation)

    def explain_unit(self, unit: str) -> UnitCredentials:
        """The credentials configured for a systemd unit, and whether it can get them now."""
        return self.ask(ExplainUnit(unit=unit), UnitCredentials)


def register_request(
    name: str, project_path: str, allowed_uids: Sequence[int], replace: bool, any_name: bool
) -> Register:
    return Register(
        name=name, project_path=project_path, allowed_uids=list(allowed_uids), replace=replace, any_name=any_name
    )


def push_request(
    secrets: Mapping[str, str | Mapping[str, str]],
    binaries: Mapping[str, bytes],
    expires: Mapping[str, str],
    *,
    changes: bool = False,
) -> PushCreds:
    import binascii

    return PushCreds(
        secrets={name: value if isinstance(value, str) else dict(value) for name, value in secrets.items()},
        secrets_b64={name: binascii.b2a_base64(data, newline=False).decode("ascii") for name, data in binaries.items()},
        expires=dict(expires),
        changes=changes,
    )
