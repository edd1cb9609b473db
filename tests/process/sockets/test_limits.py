"""Who may connect, the rate of requests, and the number of connections."""

from __future__ import annotations

import array
import contextlib
import json
import os
import signal
import socket
import time
from typing import TYPE_CHECKING

import pytest

from remo_broker.broker.sockets.connection import PEER_SECONDS
from tests.support.broker import NOBODY, Broker, Link, ask, registration
from tests.support.machine import poll, unavailable
from tests.support.other_user import ask_as

if TYPE_CHECKING:
    from tests.conftest import StartBroker

PING = b'{"op":"ping"}\n'
STATUS = b'{"op":"status"}\n'
GET = b'{"op":"get","name":"A"}\n'


@pytest.fixture
def needs_root() -> None:
    if os.geteuid() != 0:
        unavailable("connecting as another user takes root")


# --- peers


@pytest.mark.usefixtures("needs_root")
class TestPeers:
    """`allowed_uids`, with a client that really runs as another user."""

    @pytest.fixture
    def broker(self, start_broker: StartBroker) -> Broker:
        broker = start_broker(
            projects=[
                registration("mine", "A", allowed_uids=[os.getuid()]),
                registration("nobodys", "A", allowed_uids=[5, NOBODY]),
                registration("open", "A"),
            ]
        )
        broker.push({"A": "a"})
        for name in ("mine", "nobodys", "open"):
            broker.project(name).chmod(0o666)
        return broker

    @pytest.mark.parametrize("request_line", [GET, PING, b'{"op":"info"}\n', b"garbage\n", b"{", b'{"op":"get"}\n' * 3])
    def test_a_uid_that_is_not_allowed_gets_peer_unexpected_for_any_request(
        self, broker: Broker, request_line: bytes
    ) -> None:
        (answer,) = ask_as(NOBODY, broker.project("mine"), request_line).splitlines()
        refusal = json.loads(answer)
        assert (refusal["ok"], refusal["code"], refusal["reason"]) == (False, "peer_unexpected", "uid_not_allowed")
        assert len(broker.records("peer.refused")) == 1

    def test_listed_and_unlisted_uids(self, broker: Broker) -> None:
        assert json.loads(ask_as(NOBODY, broker.project("nobodys"), GET))["value"] == "a"
        assert json.loads(ask_as(NOBODY, broker.project("open"), GET))["value"] == "a"
        assert broker.get("A", "mine")["value"] == "a"
        assert broker.get("A", "open")["value"] == "a"
        assert broker.get("A", "nobodys")["code"] == "peer_unexpected"  # not even root
        assert {one["REMO_PROJECT"] for one in broker.records("peer.refused")} == {"nobodys"}

    def test_refused_uids_are_audited(self, broker: Broker) -> None:
        ask_as(NOBODY, broker.project("mine"), GET)
        (record,) = broker.records("peer.refused")
        assert (record["REMO_PROJECT"], record["REMO_PEER_UID"], record["REMO_PEER_GID"], record["PRIORITY"]) == (
            "mine",
            str(NOBODY),
            str(NOBODY),
            "4",
        )
        assert broker.records("fetch") == []
        ask_as(NOBODY, broker.project("nobodys"), GET)
        (fetch,) = broker.records("fetch")
        assert fetch["REMO_PEER_UID"] == str(NOBODY)

    def test_a_flood_of_refused_peers_is_counted(self, broker: Broker) -> None:
        """The first is recorded at once, the others together; beyond a rate they are closed without
        a reply."""
        for _ in range(400):
            with Link(broker.project("nobodys")) as client, contextlib.suppress(OSError, EOFError):
                client.ask(PING)
        ask_as(NOBODY, broker.project("mine"), PING)
        assert broker.get("A", "open")["value"] == "a"

        def counts(uid: int) -> list[int]:
            return [int(one["REMO_COUNT"]) for one in broker.records("peer.refused", peer_uid=str(uid))]

        poll("all to be recorded", lambda: sum(counts(os.getuid())) == 400)
        assert len(counts(os.getuid())) < 20
        assert counts(NOBODY) == [1]

    def test_a_silent_refused_peer_is_recorded(self, broker: Broker) -> None:
        with contextlib.ExitStack() as stack:
            for _ in range(20):
                stack.enter_context(Link(broker.project("nobodys")))
            poll("a record", lambda: broker.records("peer.refused", project="nobodys", count="1"))


# --- rates


def test_a_project_that_exceeds_its_rate_limit(start_broker: StartBroker) -> None:
    broker = start_broker(
        projects=[registration("myrepo", "A"), registration("other", "A")],
        rate_limit_per_second=20,
        rate_limit_burst=50,
    )
    broker.push({"A": "a"})
    with Link(broker.project()) as client, Link(broker.project()) as same:
        client.send(GET * 500)
        replies = [client.reply() for _ in range(500)]
        assert [one["ok"] for one in replies[:50]] == [True] * 50
        refusal = next(one for one in replies if not one["ok"])
        assert (refusal["code"], refusal["reason"], refusal["retry_after_seconds"]) == (
            "rate_limited",
            "too_many_requests",
            1,
        )
        assert "20 requests" in refusal["message"]

        def same_is_refused() -> bool:
            """Any request on any connection is refused; on a slow host it may gain a token
            meanwhile."""
            client.send(GET * 50)
            replies.extend(client.reply() for _ in range(50))
            return same.ask(PING).get("code") == "rate_limited"

        poll("the project's other connection to be refused", same_is_refused)
        assert broker.get("A", "other")["ok"]
        poll("a token", lambda: client.ask(GET)["ok"])
    served = sum(one["ok"] for one in replies) + 1
    limited = broker.records("fetch.rate_limited")
    assert {(one["REMO_PROJECT"], one["PRIORITY"]) for one in limited} == {("myrepo", "4")}
    assert len(broker.records("fetch", outcome="ok", project="myrepo")) == served


def test_refusals_are_recorded_once_a_second_and_all_are_counted(start_broker: StartBroker) -> None:
    broker = start_broker(projects=[registration("myrepo", "A")], rate_limit_per_second=1, rate_limit_burst=1)
    began = time.monotonic()
    refused = 0
    with Link(broker.project()) as client:
        while time.monotonic() - began < 1.5:
            client.send(GET * 20)
            refused += sum(client.reply()["code"] == "rate_limited" for _ in range(20))

    def counts() -> list[int]:
        return [int(one["REMO_COUNT"]) for one in broker.records("fetch.rate_limited")]

    # The last refusals are recorded even without further requests.
    poll("the last record", lambda: sum(counts()) == refused)
    assert counts()[0] == 1
    assert 2 <= len(counts()) <= time.monotonic() - began + 1
    (last,) = broker.records("fetch.rate_limited", count=str(counts()[-1]))[-1:]
    assert last["REMO_PEER_PID"] == str(os.getpid())


@pytest.mark.parametrize("limits", [{"rate_limit_per_second": 0}, {"rate_limit_burst": 0}])
def test_no_rate_limit(start_broker: StartBroker, limits: dict[str, int]) -> None:
    broker = start_broker(projects=[registration("myrepo", "A")], **limits)
    with Link(broker.project()) as client:
        client.send(PING * 5000)
        assert all(client.reply()["ok"] for _ in range(5000))


def test_malformed_requests_count_too(start_broker: StartBroker) -> None:
    broker = start_broker(projects=[registration("myrepo", "A")], rate_limit_per_second=1, rate_limit_burst=10)
    with Link(broker.project()) as client:
        client.send(b"{\n" * 30)
        codes = [client.reply()["code"] for _ in range(30)]
    assert codes[:10] == ["protocol_error"] * 10
    assert codes.count("rate_limited") >= 15


# --- connections


def test_connections_of_a_project(start_broker: StartBroker) -> None:
    broker = start_broker(
        projects=[registration("myrepo", "A"), registration("other", "A")], max_connections_per_project=3
    )
    with contextlib.ExitStack() as stack:
        links = [stack.enter_context(Link(broker.project())) for _ in range(3)]
        assert all(link.ask(PING)["ok"] for link in links)
        with Link(broker.project()) as fourth:
            refusal = json.loads(fourth.rest())  # at once, and then closed
            assert (refusal["code"], refusal["reason"]) == ("rate_limited", "too_many_connections")
            assert refusal["retry_after_seconds"] == 1
        assert ask(broker.project("other"), PING)["ok"]
        assert broker.status()["projects"][0]["connections"] == 3
        links[0].close()
        poll("room", lambda: connects(broker))
        assert all(link.ask(PING)["ok"] for link in links[1:])


def connects(broker: Broker) -> bool:
    with Link(broker.project()) as link, contextlib.suppress(OSError, EOFError):
        return bool(link.ask(PING)["ok"])
    return False


def test_peers_that_waited_for_a_stalled_broker_are_served(start_broker: StartBroker) -> None:
    """More than may be connected at a time, but each disconnects after one reply."""
    broker = start_broker(projects=[registration("myrepo", "A")], max_connections_per_project=3)
    broker.push({"A": "a"})
    broker.signal(signal.SIGSTOP)
    with contextlib.ExitStack() as stack:
        links = [stack.enter_context(Link(broker.project())) for _ in range(60)]
        for link in links:
            link.send(GET)
            link.socket.shutdown(socket.SHUT_WR)
        broker.signal(signal.SIGCONT)
        assert [link.reply().get("value") for link in links] == ["a"] * 60
    poll("them to be gone", lambda: broker.status()["projects"][0]["connections"] == 0)


def test_a_flood_of_connections_leaves_nothing_behind(start_broker: StartBroker) -> None:
    broker = start_broker(projects=[registration("myrepo", "A")], max_connections_per_project=50)
    with Link(broker.project()) as link:
        link.ask({"op": "ping"})  # the broker keeps the /proc files of the last peer
    poll("the connection to be closed", lambda: broker.status()["projects"][0]["connections"] == 0)
    before = broker.descriptors()
    with contextlib.ExitStack() as stack:
        for _ in range(200):
            stack.enter_context(Link(broker.project()))
        poll("the limit to be reached", lambda: broker.status()["projects"][0]["connections"] == 50)
    poll("them to be gone", lambda: broker.descriptors() <= before)
    assert broker.status()["projects"][0]["connections"] == 0


def test_the_limit_on_admin_connections(start_broker: StartBroker) -> None:
    broker = start_broker(max_connections_admin=2)
    with Link(broker.admin) as one, Link(broker.admin) as two:
        assert one.ask({"op": "status"})["ok"]
        assert two.ask({"op": "status"})["ok"]
        with Link(broker.admin) as three:
            refusal = json.loads(three.rest())
            assert (refusal["code"], refusal["reason"]) == ("internal_error", "too_many_connections")
    poll("room", lambda: ask(broker.admin, {"op": "status"})["ok"])


def test_the_limit_on_status_connections(start_broker: StartBroker) -> None:
    broker = start_broker()
    with contextlib.ExitStack() as stack:
        for _ in range(8):
            link = stack.enter_context(Link(broker.status_socket))
            assert link.ask({"op": "status"})["ok"]
        with Link(broker.status_socket) as ninth:
            assert json.loads(ninth.rest())["reason"] == "too_many_connections"
        assert broker.status()["ok"]


# --- time


def test_unfinished_requests_are_closed_after_five_seconds(start_broker: StartBroker) -> None:
    """All cases with a limit of five seconds at once: half requests on each socket, and a refused
    peer that sends no request. An admitted, silent client may stay."""
    broker = start_broker(projects=[registration("myrepo", "A"), registration("closed", "A", allowed_uids=[2**32 - 2])])
    with contextlib.ExitStack() as stack:
        paths = [broker.project(), broker.admin, broker.status_socket]
        idle = [stack.enter_context(Link(path)) for path in paths]
        slow = [stack.enter_context(Link(path)) for path in paths]
        refused = stack.enter_context(Link(broker.project("closed")))
        began = time.monotonic()
        for link in slow:
            link.send(b'{"op":"st')
        for link in slow[:2]:
            assert json.loads(link.rest())["reason"] == "too_slow"
        assert slow[2].rest() == b""
        assert refused.rest() == b""
        assert time.monotonic() - began > PEER_SECONDS - 0.1
        for link, line in zip(idle, (PING, STATUS, STATUS), strict=True):
            assert link.ask(line)["ok"]
    assert len(broker.records("peer.refused")) == 1


def test_descriptors_that_are_passed_are_refused_or_closed(start_broker: StartBroker) -> None:
    broker = start_broker(projects=[registration("myrepo", "A")])
    for path in (broker.project(), broker.admin, broker.status_socket):
        with Link(path) as link:
            link.ask(b'{"op":"status"}\n')
            before = broker.descriptors()
            passed = array.array("i", [0] * 50)
            for _ in range(20):
                with contextlib.suppress(PermissionError):
                    link.socket.sendmsg([b'{"op":"x"}\n'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, passed)])
                    assert link.reply()["reason"] == "unknown_op"
            assert broker.descriptors() <= before
