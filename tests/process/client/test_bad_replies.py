"""The listener of a socket may not be a broker, may have another version, or may not run."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import socket
import subprocess
import sys
from functools import partial
from typing import TYPE_CHECKING

import pytest

from remo_broker import client
from remo_broker.client.trust import FIRST_ORDINARY_UID, UID_VARIABLE, is_broker
from remo_broker.protocol.ops import Info
from remo_broker.protocol.replies import ProjectInfo
from tests.support.broker import NOBODY, listen
from tests.support.machine import unavailable
from tests.support.programs import environment

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Callable, Iterator

    from tests.process.client.conftest import Open, Serve

VALUE = "zqMarkerqz"
PONG = b'{"ok":true,"broker_version":"2.0.0","protocol_version":2,"project":"x"}\n'


def pong(version: object) -> bytes:
    return json.dumps({"ok": True, "broker_version": "9", "protocol_version": version, "project": "x"}).encode() + b"\n"


@pytest.mark.parametrize(("version", "advice"), [(1, "upgrade the broker"), (3, "upgrade the client")])
def test_another_version_is_named(serve: Serve, open_client: Open, version: int, advice: str) -> None:
    """Before its reply to the request itself is parsed."""
    value = json.dumps({"ok": True, "value": VALUE, "ttl_seconds": 1, "generation": 1}).encode() + b"\n"
    other = serve(pong(version) + value)
    with pytest.raises(client.WrongVersion, match=f"version {version}") as raised:
        open_client("Client", other.path).get("TOKEN")
    assert raised.value.theirs == version
    assert raised.value.hint == advice


@pytest.mark.parametrize("odd", [b'{"ok":true,"done":1}\n', b'{"ok":false,"code":"protocol_error","message":"m"}\n'])
def test_another_version_is_named_on_the_admin_socket(serve: Serve, open_client: Open, odd: bytes) -> None:
    """This socket has no ping: after a malformed reply the client asks for the status."""
    with pytest.raises(client.WrongVersion, match="version 3"):
        open_client("AdminClient", serve(odd, pong(3)).path).show("x")


@pytest.mark.parametrize("then", [pong(2), b"", b"HTTP/1.1\n"])
def test_a_malformed_reply_is_reported_if_the_version_is_not_the_cause(
    serve: Serve, open_client: Open, then: bytes
) -> None:
    with pytest.raises(client.BadReply, match="'name' is missing"):
        open_client("AdminClient", serve(b'{"ok":true}\n', then).path).show("x")


def test_status_of_another_version(serve: Serve, open_client: Open) -> None:
    with pytest.raises(client.WrongVersion):
        open_client("AdminClient", serve(pong(3)).path).status()


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"[]\n",
        b"{}\n",
        b'{"ok":1}\n',
        b'{"ok":true}\n',
        b'{"ok":false}\n',
        b'{"ok":false,"code":7,"message":"m"}\n',
        b"\xff\xfe\n",
        b"[" * 60_000 + b"\n",
        PONG + b'{"ok":true,"value":["' + VALUE.encode() + b'"],"ttl_seconds":1,"generation":1}\n',
        PONG
        + b'{"ok":true,"value":"'
        + VALUE.encode()
        + b'","ttl_seconds":"'
        + VALUE.encode()
        + b'","generation":1}\n',
        PONG + b'{"ok":true,"value":"' + VALUE.encode() + b'","ttl_seconds":true,"generation":1}\n',
        PONG + b'{"ok":true,"value_b64":"' + VALUE.encode() + b'!","ttl_seconds":1,"generation":1}\n',
        PONG + b'{"ok":true,"value_b64":"AAAA!","ttl_seconds":1,"generation":1}\n',
        PONG + b'{"ok":true,"value_b64":"\\u00e9","ttl_seconds":1,"generation":1}\n',
        PONG + b'{"ok":true,"value":"","ttl_seconds":' + b"7" * 5000 + b',"generation":1}\n',
        PONG + b'{"ok":true,"value":"' + VALUE.encode() + b"\n",
        PONG + b"x" * 70_000 + b"\n",
        PONG + b"x" * 70_000,
    ],
)
def test_a_reply_outside_the_protocol(serve: Serve, open_client: Open, answer: bytes) -> None:
    with pytest.raises(client.BadReply) as raised:
        open_client("Client", serve(answer).path).get("TOKEN")
    error: BaseException | None = raised.value
    while error is not None:
        assert VALUE not in str(error) + repr(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


@pytest.mark.parametrize("answer", [b"", PONG, PONG[:20], PONG + b'{"ok":true'])
def test_closed_before_the_answer(serve: Serve, open_client: Open, answer: bytes) -> None:
    with pytest.raises(client.ConnectionLost):
        open_client("Client", serve(answer).path).get("TOKEN")


def test_an_answer_in_small_pieces(serve: Serve, open_client: Open) -> None:
    value = b'{"ok":true,"value":"whole","ttl_seconds":1,"generation":1}\n'
    assert open_client("Client", serve(PONG + value, slow=True).path).get("TOKEN").reveal() == "whole"


def test_a_reply_before_the_whole_request_was_read(serve: Serve, open_client: Open) -> None:
    """A broker that refuses a long request early closes the connection while it is still being
    sent."""
    answer = b'{"ok":false,"code":"payload_too_large","message":"too much"}\n'
    with pytest.raises(client.PayloadTooLarge, match="too much"):
        open_client("AdminClient", serve(answer).path).push_creds({"TOKEN": "x" * 4_000_000})


def test_no_answer_in_time(serve: Serve, open_client: Open) -> None:
    other = serve(PONG, hold=True)
    with pytest.raises(client.TimedOut, match=r"0\.2 s"):
        open_client("Client", other.path, timeout=0.2).get("TOKEN")


def test_unknown_code_is_a_broker_error(serve: Serve, open_client: Open) -> None:
    answer = (
        b'{"ok":false,"code":"brand_new","message":"what to do","reason":"why","retry_after_seconds":3,"more":[]}\n'
    )
    with pytest.raises(client.BrokerError) as raised:
        open_client("Client", serve(PONG + answer).path).get("TOKEN")
    assert type(raised.value) is client.BrokerError
    assert (raised.value.code, raised.value.reason, raised.value.retry_after_seconds) == ("brand_new", "why", 3)
    assert str(raised.value) == "what to do"


def test_a_full_backlog_is_waited_for(directory: pathlib.Path, open_client: Open) -> None:
    """Connecting without blocking fails with EAGAIN then, and the client tries again."""
    path = directory / "full.sock"
    with listen(path, backlog=0) as listening, socket.socket(socket.AF_UNIX) as first:
        first.connect(str(path))
        project = open_client("Client", path, timeout=0.3)
        with pytest.raises(client.TimedOut):
            project.ping()
        accepted, _ = listening.accept()
        accepted.close()
        with pytest.raises((client.TimedOut, client.ConnectionLost)):
            project.ping()  # connected now; nobody answers


@pytest.mark.parametrize("form", ["sync", "async"])
def test_a_watch_that_cannot_start(directory: pathlib.Path, form: str) -> None:
    """Both forms raise the library's own error."""

    async def follow(path: pathlib.Path) -> None:
        async for _ in client.AsyncStatusClient(path, timeout=0.2).watch():
            pass

    path = directory / "full.sock"
    with listen(path, backlog=0), socket.socket(socket.AF_UNIX) as first:
        first.connect(str(path))
        begin: partial[object] = partial(next, client.StatusClient(path, timeout=0.2).watch())
        if form == "async":
            begin = partial(asyncio.run, follow(path))
        with pytest.raises(client.TimedOut, match=r"no reply within 0\.2 s"):
            begin()


@pytest.mark.parametrize("text", ["\ud800", "zq\udfff", "\udcc3\udca9"])
def test_half_of_a_surrogate_pair_is_not_sent(open_client: Open, text: str) -> None:
    """It is refused before connecting; no broker is asked for its version."""
    project, admin = open_client("Client", "/nowhere"), open_client("AdminClient", "/nowhere")
    with pytest.raises(client.Unsendable):
        project.get(text)
    with pytest.raises(client.Unsendable):
        admin.push_creds({"TOKEN": text})


# --- who listens


@pytest.mark.takes_root("running as another user")
@pytest.mark.parametrize("kind", ["Client", "AdminClient", "StatusClient"])
def test_a_listener_of_another_user_is_sent_nothing(directory: pathlib.Path, open_client: Open, kind: str) -> None:
    directory.chmod(0o777)
    path = directory / "x.sock"
    with listened(path, FIRST_ORDINARY_UID) as received:
        with pytest.raises(client.Untrusted) as raised:
            open_client(kind, path).ask(Info(), ProjectInfo)
        assert raised.value.uid == FIRST_ORDINARY_UID
        assert f"REMO_BROKER_UID={FIRST_ORDINARY_UID}" in str(raised.value.hint)
        assert received() == b""


@pytest.mark.takes_root("running as another user")
def test_a_listener_whose_uid_the_user_allows(
    directory: pathlib.Path, open_client: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory.chmod(0o777)
    monkeypatch.setenv(UID_VARIABLE, str(FIRST_ORDINARY_UID))
    with listened(directory / "x.sock", FIRST_ORDINARY_UID) as received:
        with pytest.raises(client.ConnectionLost):
            open_client("Client", directory / "x.sock").ping()
        assert b"ping" in received()


@contextlib.contextmanager
def listened(path: pathlib.Path, uid: int) -> Iterator[Callable[[], bytes]]:
    """A socket with a listener of `uid`; yields what that receives on its first connection."""
    code = (
        "import socket, sys\n"
        "s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(); print('up', flush=True)\n"
        "c = s.accept()[0]; sys.stdout.buffer.write(c.recv(9999))\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE, user=uid) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield lambda: process.communicate(timeout=60)[0]
        process.kill()


def test_who_may_be_the_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(UID_VARIABLE, raising=False)
    for admin in (False, True):
        assert is_broker(0, admin=admin)
        assert is_broker(os.geteuid(), admin=admin)
        assert not is_broker(FIRST_ORDINARY_UID + 12, admin=admin)
    assert not is_broker(999, admin=True), "the broker's own user does not own the admin socket"


@pytest.mark.takes_root("mapping another user")
def test_in_a_user_namespace_an_unmapped_listener_may_be_root(directory: pathlib.Path) -> None:
    """As in a rootless container: the host's root has no uid there and appears as nobody."""
    if subprocess.run(["unshare", "-U", "true"], capture_output=True, check=False).returncode:
        unavailable("no user namespaces here")
    code = "from remo_broker.client.trust import is_broker; print(is_broker(65534, admin=True))"
    inside = ["unshare", "-U", "--map-user=1000", sys.executable, "-c", code]
    outside = [sys.executable, "-c", code]
    for argv, expected in ((inside, "True\n"), (outside, "False\n")):
        done = subprocess.run(argv, env=environment(), capture_output=True, text=True, check=False)
        assert done.stdout == expected, done


# --- what names are taken from a socket


@pytest.mark.parametrize("name", ["A=B", "\u00e9", "A\u0000", "", "\u001b]0;x\u0007", "$(id)", "A B", "x" * 129])
def test_a_name_that_no_broker_would_accept(serve: Serve, open_client: Open, name: str) -> None:
    info = {"ok": True, "project": "x", "allowlist": [name], "schema_version": 1}
    pong = {"ok": True, "broker_version": "2", "protocol_version": 2, "project": name + "/.."}
    bindings = {"ok": True, "bindings": {name: []}}
    answers = [PONG + json.dumps(info).encode(), json.dumps(pong).encode(), PONG + json.dumps(bindings).encode()]
    path = serve(*(one + b"\n" for one in answers)).path
    for method in ("info", "ping", "bindings"):
        with pytest.raises(client.BadReply):
            getattr(open_client("Client", path), method)()


@pytest.mark.parametrize("event", [[], {}, ["broker"], 7, None])
def test_an_event_whose_kind_is_no_text_is_of_a_newer_broker(serve: Serve, event: object) -> None:
    path = serve(json.dumps({"event": event}).encode() + b'\n{"event":"removed","name":"x"}\n').path

    async def collect() -> list[object]:
        return [one async for one in client.AsyncStatusClient(path).watch()]

    assert len(list(client.StatusClient(path).watch())) == 1
    assert len(asyncio.run(collect())) == 1


# --- who cannot be reached


def test_a_path_that_is_not_there(directory: pathlib.Path, open_client: Open) -> None:
    with pytest.raises(client.Unreachable, match=r"x\.sock does not exist") as raised:
        open_client("Client", directory / "x.sock").ping()
    assert raised.value.temporary
    # A project that is registered already cannot be registered again.
    assert "'remo-brokerctl register' or 'reload'" in str(raised.value.hint)
    with pytest.raises(client.Unreachable, match=r"admin\.sock does not exist \(nor does .*/a\)") as raised:
        open_client("AdminClient", directory / "a/b/admin.sock").status()
    assert "systemctl enable --now remo-broker-admin.socket" in str(raised.value.hint)
    for kind, name in (("AdminClient", "admin"), ("StatusClient", "status")):
        with pytest.raises(client.Unreachable, match=r"x\.sock does not exist") as raised:
            open_client(kind, directory / "x.sock").status()
        assert f"/run/remo-broker/{name}.sock" in str(raised.value.hint)
    with pytest.raises(client.Unreachable) as raised:
        open_client("Client", f"{directory}/x/").ping()
    assert "remo-brokerctl register" in str(raised.value.hint)


def test_a_socket_without_a_listener(directory: pathlib.Path, open_client: Open) -> None:
    path = directory / "old.sock"
    listen(path).close()
    path.chmod(0o660)
    # Names, or numbers: not every user of a container has a name.
    command = ["stat", "--format=%U %u %G %g", str(path)]
    user, uid, group, gid = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.split()
    owner = ":".join(re.escape(number if name == "UNKNOWN" else name) for name, number in ((user, uid), (group, gid)))
    with pytest.raises(client.Unreachable, match=rf"nothing listens on this socket \(mode 0660, {owner}\)") as raised:
        open_client("Client", path).ping()
    assert raised.value.temporary


def test_no_socket(directory: pathlib.Path, open_client: Open) -> None:
    path = directory / "file"
    path.write_text("")
    with pytest.raises(client.Unreachable, match="is not a socket") as raised:
        open_client("Client", path).ping()
    assert not raised.value.temporary
    with pytest.raises(client.Unreachable, match="is a directory") as raised:
        open_client("Client", directory).ping()
    assert "rmdir" in str(raised.value.hint)


def test_a_path_that_is_too_long(directory: pathlib.Path, open_client: Open) -> None:
    with pytest.raises(client.Unreachable, match="107 bytes"):
        open_client("Client", directory / ("x" * 120)).ping()


@pytest.mark.takes_root("running as another user")
@pytest.mark.parametrize(
    ("call", "name", "shut", "advice"),
    [
        ("Client.ping", "admin.sock", "socket", "sudo, or join the group remo-broker-admin"),
        ("AdminClient.status", "x.sock", "socket", "sudo, or join the group remo-broker-admin"),
        ("Client.ping", "x.sock", "socket", "join the group that owns the socket"),
        ("Client.ping", "x.sock", "directory", "mode 0700, root:root; you are nobody"),
    ],
)
def test_no_permission(directory: pathlib.Path, call: str, name: str, shut: str, advice: str) -> None:
    (directory / "d").mkdir()
    path = directory / "d" / name
    code = (
        "import sys\n"
        "from remo_broker import client\n"
        "kind, method = sys.argv[1].split('.')\n"
        "try: getattr(getattr(client, kind)(sys.argv[2]), method)()\n"
        "except client.Unreachable as error: print(error.temporary, error, error.hint)\n"
    )
    with listen(path):
        path.chmod(0o660)
        if shut == "directory":
            (directory / "d").chmod(0o700)
        done = subprocess.run(
            [sys.executable, "-c", code, call, path],
            env=environment(),
            user=NOBODY,
            group=NOBODY,
            extra_groups=[],
            capture_output=True,
            text=True,
            check=True,
        )
    assert done.stdout.startswith("False "), done
    assert advice in done.stdout
