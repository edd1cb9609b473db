"""The credentials socket with the test in systemd's role: it connects, and reads to the end."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from remo_broker.broker.credential_refusal import REFUSAL_BYTES
from tests.support.broker import NOBODY, WAIT_SECONDS, Broker, inside
from tests.support.credential_peer import VALUE, Systemd, is_refusal, launch, rest, restart
from tests.support.machine import poll, unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import StartBroker
    from tests.support.notify import NotifySocket
    from tests.support.stderr_pipe import Pipe
    from tests.support.units import Units


def test_each_credential_is_the_bytes_of_its_secret(systemd: Systemd) -> None:
    systemd.broker.push({"PASSWORD": VALUE, "aws": {"user": "me\n", "key": "k"}})
    assert systemd.load() == VALUE.encode()
    assert systemd.load("whole") == b'{"user":"me\\n","key":"k"}'
    assert systemd.load("user") == b"me\n"
    assert is_refusal(systemd.load("field-of-none"))
    assert is_refusal(systemd.load("other"))
    assert [(one["REMO_CREDENTIAL"], one["REMO_REASON"]) for one in systemd.records()] == [
        ("password", "in_configuration"),
        ("whole", "in_configuration"),
        ("user", "in_configuration"),
        ("field-of-none", "no_such_field"),
        ("other", "not_in_configuration"),
    ]


@pytest.mark.parametrize("half", [True, False])
@pytest.mark.parametrize("credential", ["password", "other"])
def test_the_broker_closes_a_connection_whose_answer_was_read(systemd: Systemd, credential: str, *, half: bool) -> None:
    systemd.broker.push({"PASSWORD": VALUE})
    systemd.load(credential)
    before = systemd.broker.descriptors()
    clients = [systemd.connect(credential, half=half) for _ in range(20)]
    for client in clients:
        with client.makefile("rb") as stream:
            assert stream.read()
    poll("the connections to be closed", lambda: systemd.broker.descriptors() <= before)


def test_a_refusal_waits_for_its_peer_without_the_value(systemd: Systemd) -> None:
    """The broker had copied the secret to search it for the field. Each region of secret memory is
    a mapping."""
    systemd.broker.push({"PASSWORD": {"other": VALUE}})
    assert is_refusal(systemd.load("field-of-none"))
    before = regions(systemd.broker)
    waiting = [systemd.connect("field-of-none") for _ in range(20)]
    poll("the refusals", lambda: systemd.broker.status()["credentials_refused"] == 1 + len(waiting))
    assert regions(systemd.broker) <= before
    assert all(is_refusal(rest(client)) for client in waiting)


def regions(broker: Broker) -> int:
    """The number of its mappings that have no file."""
    lines = inside(broker.pid, "maps").read_text().splitlines()
    return sum("secretmem" in line or len(line.split()) == 5 for line in lines)


@pytest.fixture
def unheard(
    units: Units, credential_rules: pathlib.Path, pipe: Pipe, request: pytest.FixtureRequest
) -> Iterator[Systemd]:
    """Records are not accepted, and secrets are not handed out without: `audit_failure =
    "deny"`."""
    if os.geteuid() != 0:
        unavailable("systemd is root")
    units.add("credentials")
    broker = Broker(
        units.directory.parent,
        listeners=units.sockets,
        stderr=pipe.write_end,
        audit_failure="deny",
        credentials_wait_seconds=request.param,
        flags=("--config", str(credential_rules)),
    )
    with contextlib.closing(broker), contextlib.closing(Systemd(units, broker)) as systemd:
        broker.start()
        broker.push({"PASSWORD": VALUE})
        pipe.stop()
        yield systemd
        pipe.flow()


@pytest.mark.parametrize("unheard", [30], indirect=True)
def test_under_deny_a_unit_waits_for_journald(unheard: Systemd, pipe: Pipe) -> None:
    clients = [unheard.connect() for _ in range(3)]
    poll("the trouble to be found", lambda: not unheard.broker.status()["audit"]["healthy"])
    assert unheard.broker.status()["credentials_served"] == 0
    explained = unheard.broker.ask({"op": "explain-unit", "unit": unheard.unit})["credentials"]
    assert [one["reason"] for one in explained if one["credential"] == "password"] == ["audit_unavailable"]
    pipe.flow()
    assert {rest(client) for client in clients} == {VALUE.encode()}
    poll("the records", lambda: len([one for one in pipe.records("fetch") if one["REMO_OUTCOME"] == "ok"]) == 3)


@pytest.mark.parametrize("unheard", [0], indirect=True)
def test_under_deny_a_unit_is_refused_if_its_record_is_not_accepted(unheard: Systemd, pipe: Pipe) -> None:
    answers = [rest(unheard.connect()) for _ in range(3)]
    assert all(map(is_refusal, answers))
    pipe.flow()
    poll("the records", lambda: len(pipe.records("fetch")) == 3)
    assert {(one["REMO_REASON"], one["REMO_DECISION"], one["REMO_OUTCOME"]) for one in pipe.records("fetch")} == {
        ("audit_unavailable", "deny", "denied")
    }


def test_refusals_of_peers_that_never_read_take_no_memory(systemd: Systemd) -> None:
    systemd.broker.push({"PASSWORD": VALUE})
    before = systemd.broker.resident_kib()
    for _ in range(100):
        systemd.connect("other")
    poll("the refusals", lambda: systemd.broker.status()["credentials_refused"] == 100)
    assert systemd.broker.resident_kib() - before < 20 * 1024
    assert systemd.load() == VALUE.encode()


def test_five_hundred_at_once(systemd: Systemd) -> None:
    clients = [systemd.connect() for _ in range(500)]
    systemd.broker.push({"PASSWORD": VALUE})
    assert {rest(client) for client in clients} == {VALUE.encode()}
    assert len(systemd.records(outcome="ok")) == 500


@pytest.mark.parametrize(
    ("address", "reason", "named"),
    [
        (b"a%i.service/password", "bad_value", ""),
        (b"a\n.service/password", "bad_value", ""),
        (b"a/b.service/password", "bad_value", ""),
        (b"nosuffix/password", "bad_value", ""),
        (b"a.service/pass/word", "bad_value", ""),
        (b"a.service/pass\nword", "bad_value", ""),
        (b"a.service/" + b"x" * 70, "not_in_configuration", "a.service"),
        (b"a.service/no-secret.name", "not_in_configuration", "a.service"),
        (b"x" * 60 + b".service/no-secret-name", "not_in_configuration", "x" * 60 + ".service"),
    ],
)
def test_a_request_that_systemd_would_not_make_is_refused_and_recorded(
    systemd: Systemd, address: bytes, reason: str, named: str
) -> None:
    if named and systemd.unit != "load.service":
        reason = "unit_mismatch"
    systemd.broker.push({"PASSWORD": VALUE})
    assert is_refusal(rest(systemd.connect(address=address)))
    [record] = systemd.broker.records("fetch")
    assert (record["REMO_REASON"], record["REMO_DECISION"], record["REMO_OUTCOME"]) == (reason, "deny", "denied")
    assert (record["REMO_UNIT"], record["REMO_PEER_UID"]) == (named, "0")
    assert "REMO_SECRET" not in record


CHILD = """
import os, socket, sys
client = socket.socket(socket.AF_UNIX)
client.bind("\\0abc/unit/" + sys.argv[2])
if len(sys.argv) > 3:
    os.setgroups([]); os.setgid(int(sys.argv[3])); os.setuid(int(sys.argv[3]))
client.connect(sys.argv[1])
socket.send_fds(socket.socket(fileno=0), [b"x"], [client.fileno()])
"""


def connected_by_another(systemd: Systemd, *arguments: str) -> socket.socket:
    """A connection of a process that has exited."""
    here, there = socket.socketpair()
    with here, there:
        command = [sys.executable, "-I", "-S", "-c", CHILD, str(systemd.path), f"{systemd.unit}/password", *arguments]
        subprocess.run(command, stdin=there.fileno(), check=True, timeout=WAIT_SECONDS)
        _, [descriptor], _, _ = socket.recv_fds(here, 1, 1)
    client = socket.socket(fileno=descriptor)
    client.settimeout(WAIT_SECONDS)
    return client


def test_another_user_gets_nothing_under_the_same_address(systemd: Systemd) -> None:
    """Even if an operator has opened the socket to all users."""
    systemd.broker.push({"PASSWORD": VALUE})
    for path in (systemd.path, systemd.path.parent, systemd.path.parent.parent):
        path.chmod(0o777)
    assert is_refusal(rest(connected_by_another(systemd, str(NOBODY))))
    [record] = systemd.records()
    assert (record["REMO_REASON"], record["REMO_PEER_UID"]) == ("uid_not_allowed", str(NOBODY))


def test_an_exited_peer_gets_nothing(systemd: Systemd) -> None:
    """Its unit can no longer be determined; systemd's own peers wait for the answer."""
    systemd.broker.push({"PASSWORD": VALUE})
    systemd.broker.signal(signal.SIGSTOP)
    client = connected_by_another(systemd)
    systemd.broker.signal(signal.SIGCONT)
    assert is_refusal(rest(client))
    assert [one["REMO_REASON"] for one in systemd.records()] == ["unit_mismatch"]


def test_a_unit_that_waits_is_answered_by_the_next_broker(
    systemd: Systemd, start_broker: StartBroker, units: Units, notify: NotifySocket
) -> None:
    client = systemd.connect()
    notify.wait_for(FDSTORE="1")
    restart(systemd, start_broker, units, notify).push({"PASSWORD": VALUE})
    assert rest(client) == VALUE.encode()
    poll("it to be dropped", lambda: notify.read() and not notify.stored)


def test_a_refusal_interrupted_by_a_kill_remains_a_refusal(
    systemd: Systemd, start_broker: StartBroker, units: Units, notify: NotifySocket
) -> None:
    """The next broker's data is appended to this one's."""
    client = systemd.connect("user")
    systemd.broker.push({"PASSWORD": VALUE})
    poll("the refusal", lambda: systemd.broker.status()["credentials_refused"] == 1)
    restart(systemd, start_broker, units, notify).push({"aws": {"user": VALUE}})
    answer = rest(client)
    assert len(answer) > REFUSAL_BYTES
    assert VALUE.encode() not in answer
    assert [one["REMO_REASON"] for one in systemd.records()] == ["not_in_snapshot", "not_started"]


def test_a_broker_that_does_not_start_refuses_every_unit(
    systemd: Systemd, units: Units, notify: NotifySocket, credential_rules: pathlib.Path
) -> None:
    """Units that an earlier broker had accepted, and those in the queue; slow ones at its next
    attempt."""
    held = systemd.connect()
    notify.wait_for(FDSTORE="1")
    systemd.broker.process.kill()
    systemd.broker.wait()
    silent, queued = systemd.connect("user"), systemd.connect("whole")
    credential_rules.write_text("nonsense = 1\n")

    def attempt(*clients: socket.socket) -> list[bytes]:
        with contextlib.closing(launch(systemd, units, notify)) as broken:
            answers = [rest(client) for client in clients]
            assert broken.wait() == 1
        return answers

    answers = attempt(held, queued)
    assert all(map(is_refusal, answers))
    poll("the silent one alone to be kept", lambda: notify.read() and len(notify.stored) == 1)
    [answer] = attempt(silent)
    assert len(answer) > REFUSAL_BYTES
    poll("it to be dropped", lambda: notify.read() and not notify.stored)
    found = systemd.records()
    assert sorted(one["REMO_CREDENTIAL"] for one in found) == ["password", "user", "whole"]
    assert {(one["REMO_UNIT"], one["REMO_REASON"], one["REMO_DECISION"], one["REMO_PEER_UID"]) for one in found} == {
        (systemd.unit, "not_started", "deny", "0")
    }
    assert all(one["REMO_PEER_COMM"] for one in found)
