"""How both forms of the library handle a broker's replies."""

from __future__ import annotations

import pathlib
import threading
from typing import TYPE_CHECKING

import pytest

from remo_broker import client
from remo_broker.protocol.replies import BrokerEvent, ProjectEvent, StoppingEvent, SyncedEvent
from tests.process.client.conftest import ALLOWED, SECRETS
from tests.support.broker import NOBODY, registration
from tests.support.late import patiently
from tests.support.machine import poll

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import StartBroker
    from tests.process.client.conftest import Open
    from tests.support.broker import Broker


def write_manifest(directory: pathlib.Path, name: str, *secrets: str) -> pathlib.Path:
    project = directory / name
    (project / ".remo").mkdir(parents=True)
    tables = "".join(f"[secrets.{secret}]\n" for secret in secrets)
    (project / ".remo/manifest.toml").write_text(f'schema_version = 1\nproject = "{name}"\n{tables}')
    return project


# --- a project's socket


def test_get_string(broker: Broker, open_client: Open) -> None:
    value = open_client("Client", broker.project()).get("GITHUB_TOKEN")
    assert value.reveal() == SECRETS["GITHUB_TOKEN"]
    assert value.reveal_bytes() == b"ghp_zq8Kexample"
    assert value.reveal_fields() is None
    assert not value.binary
    assert 0 < value.ttl_seconds <= 900
    assert value.generation == 1


def test_get_bundle(broker: Broker, open_client: Open) -> None:
    fields = open_client("Client", broker.project()).get("aws").reveal_fields()
    assert fields == SECRETS["aws"]
    assert list(fields) == ["id", "key"]


def test_get_binary(broker: Broker, open_client: Open) -> None:
    value = open_client("Client", broker.project()).get("KEYSTORE")
    assert value.binary
    assert value.reveal_bytes() == b"\xde\xad\xbe\xef"
    assert value.reveal_fields() is None
    with pytest.raises(TypeError):
        value.reveal()


def test_denied_and_not_found(broker: Broker, open_client: Open) -> None:
    project = open_client("Client", broker.project())
    with pytest.raises(client.Denied) as denied:
        project.get("OTHER")
    assert (denied.value.code, denied.value.reason) == ("denied", "not_in_manifest")
    with pytest.raises(client.Denied) as invalid:
        project.get("no such\nname")
    assert invalid.value.reason == "invalid_name"
    with pytest.raises(client.NotFound) as missing:
        project.get("MISSING")
    assert (missing.value.code, missing.value.reason) == ("not_found", "not_in_snapshot")
    assert project.get("GITHUB_TOKEN").reveal(), "a refusal leaves the connection usable"


def test_no_snapshot(start_broker: StartBroker, open_client: Open) -> None:
    broker = start_broker(projects=[registration("myrepo", "TOKEN")])
    project = open_client("Client", broker.project())
    with pytest.raises(client.NotFound) as missing:
        project.get("TOKEN")
    assert (missing.value.reason, missing.value.retry_after_seconds) == ("no_snapshot", 1)
    assert not project.ready().ready
    broker.push({})
    assert project.ready().ready
    assert len(broker.records("fetch")) == 1, "ready is not a fetch"


def test_ping_and_info(broker: Broker, open_client: Open) -> None:
    project = open_client("Client", broker.project())
    assert project.info().allowlist == list(ALLOWED)
    pong = project.ping()
    assert (pong.project, pong.protocol_version) == ("myrepo", 2)


def test_rate_limited(start_broker: StartBroker, open_client: Open) -> None:
    broker = start_broker(projects=[registration("myrepo", "TOKEN")], rate_limit_per_second=1, rate_limit_burst=3)
    project = open_client("Client", broker.project())

    def flood() -> None:
        for _ in range(10_000):
            project.ping()

    with pytest.raises(client.RateLimited) as limited:
        flood()
    assert limited.value.retry_after_seconds is not None
    assert limited.value.retry_after_seconds >= 1


def test_peer_unexpected(start_broker: StartBroker, open_client: Open) -> None:
    broker = start_broker(projects=[registration("myrepo", "TOKEN", allowed_uids=[NOBODY])])
    with pytest.raises(client.PeerUnexpected):
        open_client("Client", broker.project()).get("TOKEN")


def test_a_connection_is_kept(broker: Broker, open_client: Open) -> None:
    project = open_client("Client", broker.project())
    project.ping()
    [before] = [one for one in broker.status()["projects"] if one["name"] == "myrepo"]
    project.get("GITHUB_TOKEN")
    [after] = [one for one in broker.status()["projects"] if one["name"] == "myrepo"]
    assert before["connections"] == after["connections"] == 1


def test_a_restart_of_the_broker_is_invisible(start_broker: StartBroker, open_client: Open) -> None:
    broker = start_broker(projects=[registration("myrepo", "TOKEN")])
    project, admin = open_client("Client", broker.project()), open_client("AdminClient", broker.admin)
    admin.push_creds({"TOKEN": "first"})
    assert project.get("TOKEN").reveal() == "first"
    broker.stop()
    broker.start()
    assert not project.ready().ready
    assert admin.status().secret_count == 0


def test_a_request_that_changes_something_is_not_repeated(start_broker: StartBroker, open_client: Open) -> None:
    """The broker may have executed it before it exited: only the caller can decide whether to try
    again."""
    broker = start_broker()
    admin = open_client("AdminClient", broker.admin)
    admin.status()
    broker.stop()
    broker.start()
    with pytest.raises(client.ConnectionLost):
        admin.clear_creds()
    admin.clear_creds()


# --- the admin socket


def in_time(call: Callable[..., object], *arguments: object) -> object:
    """The result of a call that makes the broker read a manifest."""

    def once() -> object:
        try:
            return call(*arguments)
        except client.ManifestUnreadable as error:
            return error

    result = patiently(once)
    if isinstance(result, client.ManifestUnreadable):
        raise result
    return result


def test_projects(start_broker: StartBroker, open_client: Open, directory: pathlib.Path) -> None:
    broker = start_broker()
    admin = open_client("AdminClient", broker.admin)
    path = write_manifest(directory, "myrepo", "TOKEN")
    assert in_time(admin.register, "myrepo", str(path), [NOBODY, 0]) == str(broker.project())
    with pytest.raises(client.ProjectExists):
        in_time(admin.register, "myrepo", str(path))
    detail = admin.show("myrepo")
    assert (detail.project_path, detail.allowlist, detail.allowed_uids) == (str(path), ["TOKEN"], [NOBODY, 0])
    assert (detail.ttl_seconds, detail.max_entries) == (900, 64)
    (path / ".remo/manifest.toml").write_text('schema_version = 1\nproject = "myrepo"\n[secrets.OTHER]\n')
    assert in_time(admin.reload, "myrepo") == ["OTHER"]
    (path / ".remo/manifest.toml").write_text('schema_version = 2\nproject = "myrepo"\n')
    with pytest.raises(client.ManifestInvalid, match="schema_version"):
        in_time(admin.reload, "myrepo")
    (path / ".remo/manifest.toml").unlink()
    with pytest.raises(client.ManifestNotFound):
        in_time(admin.reload, "myrepo")
    (path / ".remo/manifest.toml").mkdir()
    with pytest.raises(client.ManifestUnreadable):
        in_time(admin.reload, "myrepo")
    admin.unregister("myrepo")
    for call in (admin.unregister, admin.reload, admin.show):
        with pytest.raises(client.ProjectUnknown):
            call("myrepo")
    with pytest.raises(client.ProjectUnknown):
        admin.explain("myrepo", "OTHER")


def test_explain(start_broker: StartBroker, open_client: Open) -> None:
    broker = start_broker(projects=[registration("myrepo", "TOKEN", "OTHER", allowed_uids=[NOBODY])])
    admin = open_client("AdminClient", broker.admin)

    def explain(name: str, uid: int | None = None) -> tuple[str, str, str]:
        found = admin.explain("myrepo", name, uid)
        return found.decision, found.outcome, found.reason

    assert explain("TOKEN") == ("allow", "not_found", "no_snapshot")
    admin.push_creds({"TOKEN": "value"})
    assert explain("TOKEN") == ("allow", "ok", "in_manifest")
    assert explain("TOKEN", NOBODY) == ("allow", "ok", "in_manifest")
    assert explain("TOKEN", 0) == ("deny", "denied", "uid_not_allowed")
    assert explain("OTHER") == ("allow", "not_found", "not_in_snapshot")
    assert explain("ELSE") == ("deny", "denied", "not_in_manifest")
    assert explain("no name") == ("deny", "denied", "invalid_name")
    assert not broker.records("fetch"), "nothing is fetched"


def test_push(start_broker: StartBroker, open_client: Open) -> None:
    broker = start_broker(projects=[registration("myrepo", "TOKEN", "KEY", "bundle")])
    admin, project = open_client("AdminClient", broker.admin), open_client("Client", broker.project())
    pushed = admin.push_creds({"TOKEN": "é\n\0", "bundle": {"b": "2", "a": "1"}}, {"KEY": bytes(range(256))})
    assert (pushed.secret_count, pushed.generation) == (3, 1)
    assert project.get("TOKEN").reveal() == "é\n\0"
    assert project.get("KEY").reveal_bytes() == bytes(range(256))
    assert list(project.get("bundle").reveal_fields()) == ["b", "a"]
    with pytest.raises(client.InvalidPayload):
        admin.push_creds({"no name": "x"})
    assert project.get("TOKEN").generation == 1, "a push with a fault changes nothing"
    admin.clear_creds()
    assert admin.status().secrets_loaded_at is None


def test_the_longest_answer(start_broker: StartBroker, open_client: Open) -> None:
    """64 KiB including the newline, which may take several reads."""
    broker = start_broker(projects=[registration("myrepo", "LONG")])
    around = len(b'{"ok":true,"value":"","ttl_seconds":86400,"generation":9999}\n')
    value = "x" * (64 * 1024 - around)
    open_client("AdminClient", broker.admin).push_creds({"LONG": value})
    assert open_client("Client", broker.project()).get("LONG").reveal() == value


def test_a_push_that_is_too_large_is_refused(broker: Broker, open_client: Open) -> None:
    """Although the broker closes the connection before it has read everything."""
    with pytest.raises(client.PayloadTooLarge):
        open_client("AdminClient", broker.admin).push_creds({f"N{number}": "x" * 60_000 for number in range(40)})


def test_status_has_all_pages(start_broker: StartBroker, open_client: Open) -> None:
    names = [f"project-{number:04}" for number in range(700)]
    broker = start_broker(projects=[registration(name, "TOKEN") for name in names])
    for kind, path in (("AdminClient", broker.admin), ("StatusClient", broker.status_socket)):
        status = open_client(kind, path).status()
        assert [project.name for project in status.projects] == names
        assert status.project_count == len(names)
        assert status.projects_next is None


def test_watch(start_broker: StartBroker) -> None:
    broker = start_broker(projects=[registration("myrepo", "TOKEN")])
    seen: list[object] = []

    def follow() -> None:
        seen.extend(client.StatusClient(broker.status_socket).watch())

    thread = threading.Thread(target=follow)
    thread.start()
    poll("the stream to begin", lambda: any(isinstance(one, SyncedEvent) for one in seen))
    broker.push({"TOKEN": "value"})
    broker.stop()
    thread.join()
    kinds = [type(event) for event in seen]
    assert kinds[:3] == [BrokerEvent, ProjectEvent, SyncedEvent]
    assert isinstance(seen[-1], StoppingEvent)
    assert any(isinstance(event, BrokerEvent) and event.secret_count == 1 for event in seen)


def test_watch_async(start_broker: StartBroker) -> None:
    import asyncio

    broker = start_broker(projects=[registration("myrepo", "TOKEN")])

    async def follow() -> list[object]:
        seen: list[object] = []
        async for event in client.AsyncStatusClient(broker.status_socket).watch():
            seen.append(event)
            if isinstance(event, SyncedEvent):
                await asyncio.to_thread(broker.stop)
        return seen

    seen = asyncio.run(follow())
    assert isinstance(seen[-1], StoppingEvent)


def test_watch_the_store_and_a_project(start_broker: StartBroker) -> None:
    broker = start_broker(projects=[registration("myrepo", "TOKEN")])
    states = client.AdminClient(broker.admin).watch()
    projects = client.Client(broker.project()).watch()
    assert (next(states).generation, next(projects).project) == (0, "myrepo")
    broker.push({"TOKEN": "x"})
    assert (next(states).event, next(projects).ready) == ("pushed", True)
    broker.stop()
    assert (list(states), list(projects)) == ([], [])


def test_watch_the_store_and_a_project_async(start_broker: StartBroker) -> None:
    import asyncio

    broker = start_broker(projects=[registration("myrepo", "TOKEN")])

    async def follow() -> list[str | None]:
        states = client.AsyncAdminClient(broker.admin).watch()
        projects = client.AsyncClient(broker.project()).watch()
        admin = client.AsyncAdminClient(broker.admin)
        seen = [(await anext(states)).event, (await anext(projects)).event]
        await admin.push_creds({"TOKEN": "x"})
        admin.close()
        seen += [(await anext(states)).event, (await anext(projects)).event]
        await asyncio.to_thread(broker.stop)
        return seen + [one.event async for one in states] + [one.event async for one in projects]

    assert asyncio.run(follow()) == [None, None, "pushed", "pushed"]


def test_a_value_knows_when_it_expires(start_broker: StartBroker) -> None:
    broker = start_broker(projects=[registration("myrepo", "TOKEN")])
    with client.AdminClient(broker.admin) as admin:
        admin.push_creds({"TOKEN": "x"}, {"KEY": b"\0"}, {"TOKEN": "2126-05-31T02:30:00.9Z"})
    with client.Client(broker.project()) as project:
        assert project.get("TOKEN").expires_at == "2126-05-31T02:30:00Z"
