"""The credentials socket when the broker is killed or its manager is busy, and peers that delay it.

A unit uses whatever it has read when the stream ends, so the stream must not end too early.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from functools import partial
from typing import TYPE_CHECKING

from remo_broker.broker.credential_refusal import REFUSAL_BYTES
from remo_broker.broker.sockets.connection import hung_up
from remo_broker.broker.sockets.credentials import MAX_CONNECTIONS, MAX_SILENT
from tests.support.broker import WAIT_SECONDS, Broker
from tests.support.credential_peer import VALUE, Systemd, is_refusal, launch, rest, restart
from tests.support.machine import poll

if TYPE_CHECKING:
    import pathlib

    from tests.conftest import StartBroker
    from tests.support.notify import NotifySocket
    from tests.support.units import Units


# Enough for several attempts of a broker that cannot start, a second each.
ATTEMPTS_SECONDS = 60.0


def read_now(client: socket.socket) -> bytes:
    """All that has been sent so far."""
    data = b""
    client.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while part := client.recv(1 << 20):
            data += part
    client.settimeout(WAIT_SECONDS)
    return data


def has_ended(client: socket.socket) -> bool:
    """Whether the peer has closed without an answer."""
    client.setblocking(False)
    try:
        return client.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True
    finally:
        client.settimeout(WAIT_SECONDS)


def settled(systemd: Systemd, notify: NotifySocket) -> int:
    """How many descriptors the broker has open once it has served a unit."""
    systemd.broker.push({"PASSWORD": VALUE})
    systemd.load()
    poll("the end of the first", lambda: notify.read() and not notify.stored)
    systemd.broker.ask({"op": "clear-creds"})
    return systemd.broker.descriptors()


def test_no_value_follows_the_partial_answer_of_a_killed_broker(
    systemd: Systemd, start_broker: StartBroker, units: Units, notify: NotifySocket
) -> None:
    """systemd reads at once, so the socket itself does not show that an answer had begun."""
    client = systemd.connect("user")
    systemd.broker.push({"PASSWORD": VALUE})
    poll("the refusal", lambda: systemd.broker.status()["credentials_refused"] == 1)
    systemd.broker.signal(signal.SIGSTOP)
    first = read_now(client)
    assert 0 < len(first) < REFUSAL_BYTES
    restart(systemd, start_broker, units, notify).push({"aws": {"user": VALUE}})
    assert len(first + rest(client)) >= REFUSAL_BYTES
    assert systemd.records()[-1]["REMO_REASON"] == "not_started"


def test_no_value_follows_the_partial_refusal_of_a_broker_that_did_not_start(
    systemd: Systemd, start_broker: StartBroker, units: Units, notify: NotifySocket, credential_rules: pathlib.Path
) -> None:
    client = systemd.connect()
    notify.wait_for(FDSTORE="1")
    systemd.broker.process.kill()
    systemd.broker.wait()
    rules = credential_rules.read_text()
    credential_rules.write_text("nonsense = 1\n")
    with contextlib.closing(launch(systemd, units, notify)) as broken:
        assert broken.wait() == 1
    first = read_now(client)
    assert first
    credential_rules.write_text(rules)
    restart(systemd, start_broker, units, notify).push({"PASSWORD": VALUE})
    assert len(first + rest(client)) >= REFUSAL_BYTES


def test_a_unit_that_fails_while_no_broker_runs_is_not_refused_again(
    systemd: Systemd, start_broker: StartBroker, units: Units, notify: NotifySocket
) -> None:
    client = systemd.connect("other")
    notify.wait_for(FDSTORE="1")
    poll("the refusal", lambda: systemd.broker.status()["credentials_refused"] == 1)
    systemd.broker.signal(signal.SIGSTOP)
    client.close()
    restart(systemd, start_broker, units, notify)
    poll("it to be dropped", lambda: notify.read() and not notify.stored)
    assert systemd.broker.status()["credentials_refused"] == 0


def test_a_kill_while_the_manager_is_busy_gives_no_unit_an_empty_credential(
    systemd: Systemd, start_broker: StartBroker, units: Units, notify: NotifySocket
) -> None:
    notify.neglect()
    notify.fill()
    clients = [systemd.connect() for _ in range(40)]
    assert systemd.broker.status()["secret_count"] == 0  # it is past the first one
    systemd.broker.process.kill()
    systemd.broker.wait()
    assert not any(map(has_ended, clients))
    notify.attend()
    restart(systemd, start_broker, units, notify).push({"PASSWORD": VALUE})
    assert {rest(client) for client in clients} == {VALUE.encode()}


def test_a_failed_start_while_the_manager_is_busy_gives_no_unit_an_empty_credential(
    systemd: Systemd, units: Units, notify: NotifySocket, credential_rules: pathlib.Path
) -> None:
    systemd.broker.process.kill()
    systemd.broker.wait()
    clients = [systemd.connect() for _ in range(15)]
    credential_rules.write_text("nonsense = 1\n")
    notify.neglect()
    notify.fill()
    with contextlib.closing(launch(systemd, units, notify)) as broken:
        assert broken.wait() == 1
    assert not any(map(has_ended, clients))
    notify.attend()
    refused: set[socket.socket] = set()

    def status_of(broken: Broker) -> int | None:
        refused.update(client for client in clients if read_now(client))
        return broken.process.poll()

    end = time.monotonic() + ATTEMPTS_SECONDS
    while len(refused) < len(clients):  # each attempt refuses as many as the manager's queue has room for
        assert time.monotonic() < end
        with contextlib.closing(launch(systemd, units, notify)) as broken:
            assert poll("it to end", partial(status_of, broken)) == 1
        status_of(broken)


def test_a_refused_peer_other_than_systemd_is_closed_at_once(systemd: Systemd, notify: NotifySocket) -> None:
    before = settled(systemd, notify)
    silent = [systemd.connect(address=b"nosuffix/password") for _ in range(100)]
    poll("the refusals", lambda: systemd.broker.status()["credentials_refused"] == len(silent))
    poll("them to be closed", lambda: systemd.broker.descriptors() <= before)
    assert len([one for one in notify.read() if "FDSTORE" in one]) == 1  # the unit's before


# Leaves connections that their maker no longer holds.
LEAVE = """
import os, socket, sys
clients = [socket.socket(socket.AF_UNIX) for _ in range(int(sys.argv[3]))]
for number, client in enumerate(clients):
    client.bind(b"\\0%x%x/unit/" % (os.getpid(), number) + sys.argv[2].encode())
    client.connect(sys.argv[1])
socket.send_fds(socket.socket(fileno=0), [b"x"], [client.fileno() for client in clients])
"""


def test_a_limited_number_of_refused_peers_outside_their_units_is_kept(systemd: Systemd, notify: NotifySocket) -> None:
    before, number = settled(systemd, notify), MAX_SILENT + 50
    here, there = socket.socketpair()
    systemd.broker.signal(signal.SIGSTOP)
    with here, there, contextlib.ExitStack() as stack:
        command = [sys.executable, "-I", "-S", "-c", LEAVE, str(systemd.path), f"{systemd.unit}/password", str(number)]
        subprocess.run(command, stdin=there.fileno(), check=True, timeout=WAIT_SECONDS)
        _, descriptors, _, _ = socket.recv_fds(here, 1, number)
        for descriptor in descriptors:
            stack.callback(os.close, descriptor)
        systemd.broker.signal(signal.SIGCONT)
        poll("the refusals", lambda: systemd.broker.status()["credentials_refused"] == number)
        assert {one["REMO_REASON"] for one in systemd.records(outcome="denied")} == {"unit_mismatch"}
        poll("the oldest to be closed", lambda: systemd.broker.descriptors() <= before + MAX_SILENT)


def test_units_beyond_the_connection_limit_wait_in_the_queue(systemd: Systemd, notify: NotifySocket) -> None:
    """They are not refused, and take no descriptor that others need."""
    before = settled(systemd, notify)
    clients = [systemd.connect() for _ in range(MAX_CONNECTIONS + 20)]
    poll("the first", lambda: len(notify.stored) == MAX_CONNECTIONS)
    assert systemd.broker.descriptors() <= before + MAX_CONNECTIONS + 5
    assert len(notify.stored) == MAX_CONNECTIONS
    systemd.broker.push({"PASSWORD": VALUE})
    assert {rest(client) for client in clients} == {VALUE.encode()}
    assert systemd.broker.status()["credentials_refused"] == 0


def test_a_refusal_read_late_is_complete(systemd: Systemd) -> None:
    """For a peer in its own unit, even after every deadline."""
    systemd.broker.push({"PASSWORD": VALUE})
    client, other = systemd.connect("other"), systemd.connect(address=b"nosuffix/password")
    poll(
        "the deadline of the other",
        lambda: systemd.broker.status()["credentials_refused"] == 2 and hung_up(other.fileno()),
    )
    assert is_refusal(rest(client))
