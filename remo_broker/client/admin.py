"""The sockets of the host, as classes: the admin socket, and the status socket that the bus service follows."""

from __future__ import annotations

import time

from remo_broker.client.connection import Connection, watch
from remo_broker.client.errors import ConnectionLost
from remo_broker.client.exchange import build, check_version, encode, parse_object, refusal_in
from remo_broker.protocol import paths
from remo_broker.protocol.ops import (
    EVENTS,
    BrokerStatus,
    ClearCreds,
    Difference,
    Done,
    Explain,
    ExplainUnit,
    Explanation,
    Preview,
    ProjectDetail,
    PushCreds,
    Pushed,
    Register,
    Registered,
    Reload,
    Reloaded,
    Show,
    Status,
    StoreState,
    UnitCredentials,
    Unregister,
    Watch,
    WatchStore,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from remo_broker.protocol.message import Message


class StatusClient(Connection):
    """What may be asked on the status socket."""

    SOCKET = paths.STATUS_SOCKET

    def status(self) -> BrokerStatus:
        """The broker and all its projects, however many answers that takes."""
        first = page = self._status_page(None)
        projects = list(first.projects)
        while page.projects_next is not None:
            page = self._status_page(page.projects_next)
            projects += page.projects
        return BrokerStatus(**(first.__dict__ | {"projects": projects, "projects_next": None}))

    def _status_page(self, after: str | None) -> BrokerStatus:
        exchange = self._exchange(Status(after=after))
        check_version(self.path, exchange.reply)
        return exchange.result(BrokerStatus)

    def watch(self) -> Iterator[Message]:
        """Events as they come, for ever: see `messages.EVENTS`. Ends when the broker closes the stream.

        Takes a connection of its own and waits for each event as long as it takes.
        """
        watcher = type(self)(self.path, timeout=self.timeout)
        try:
            watcher._send(encode(Watch()), time.monotonic() + self.timeout)
            while True:
                try:
                    line = watcher._read_line(None)
                except ConnectionLost:
                    return
                fields = parse_object(self.path, line)
                if "ok" in fields:
                    raise refusal_in(self.path, fields)
                kind = EVENTS.get(fields.get("event", ""))
                if kind is not None:  # an event that is not known yet is none of ours
                    yield build(self.path, kind, fields)
        finally:
            watcher.close()


class AdminClient(StatusClient):
    """What the sidecar and the operator may ask."""

    SOCKET = paths.ADMIN_SOCKET

    def watch(self) -> Iterator[StoreState]:
        """The store now, then whenever it changes; ends when the broker closes the stream.

        Takes a connection of its own and waits for each state as long as it takes.
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
        """Make a project's socket live; returns its path. Raises `ProjectExists` or one of the `Manifest…` errors.

        With `replace`, a registered project of the name is replaced under its sockets. With `any_name`, manifest and
        directory need not have the name.
        """
        return self.ask(register_request(name, project_path, allowed_uids, replace, any_name), Registered).socket_path

    def unregister(self, name: str) -> None:
        """Stop serving a project. Raises `ProjectUnknown`."""
        self.ask(Unregister(name=name), Done)

    def reload(self, name: str, sha256: str | None = None) -> list[str]:
        """Read a project's manifest again; returns its allowlist. Raises `ProjectUnknown` or a `Manifest…` error.

        With `sha256`, only a manifest with that hash is adopted.
        """
        return self.ask(Reload(name=name, sha256=sha256), Reloaded).allowlist

    def preview(self, name: str, *, adopt_narrower: bool = False) -> Difference:
        """Compare a project's manifest with what the broker goes by. Raises as `reload` does."""
        return self.ask(Preview(name=name, adopt_narrower=adopt_narrower), Difference)

    def push_creds(
        self,
        secrets: Mapping[str, str | Mapping[str, str]],
        binaries: Mapping[str, bytes] | None = None,
        expires: Mapping[str, str] | None = None,
    ) -> Pushed:
        """Replace every secret that the broker holds, in one step. Raises `InvalidPayload` or `PayloadTooLarge`.

        `expires` has times (RFC 3339) from which on secrets are not given out.
        """
        return self.ask(push_request(secrets, binaries or {}, expires or {}), Pushed)

    def clear_creds(self) -> None:
        """Empty the store."""
        self.ask(ClearCreds(), Done)

    def show(self, name: str) -> ProjectDetail:
        """Everything about one project. Raises `ProjectUnknown`."""
        return self.ask(Show(name=name), ProjectDetail)

    def explain(self, name: str, secret: str, uid: int | None = None) -> Explanation:
        """What a `get` of `secret` by project `name` would be answered, without one: it is not audited."""
        return self.ask(Explain(name=name, secret=secret, uid=uid), Explanation)

    def explain_unit(self, unit: str) -> UnitCredentials:
        """Which credentials the broker's configuration gives a systemd unit, and whether it would get them now."""
        return self.ask(ExplainUnit(unit=unit), UnitCredentials)


def register_request(
    name: str, project_path: str, allowed_uids: Sequence[int], replace: bool, any_name: bool
) -> Register:
    return Register(
        name=name, project_path=project_path, allowed_uids=list(allowed_uids), replace=replace, any_name=any_name
    )


def push_request(
    secrets: Mapping[str, str | Mapping[str, str]], binaries: Mapping[str, bytes], expires: Mapping[str, str]
) -> PushCreds:
    import binascii

    return PushCreds(
        secrets={name: value if isinstance(value, str) else dict(value) for name, value in secrets.items()},
        secrets_b64={name: binascii.b2a_base64(data, newline=False).decode("ascii") for name, data in binaries.items()},
        expires=dict(expires),
    )
