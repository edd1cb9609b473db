"""What comes while an operator's request waits for one of the broker's helpers: other requests, and
a stop."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import threading
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.broker import WAIT_SECONDS, Link, ask, registration
from tests.support.machine import poll
from tests.support.played_helpers import SHOWN
from tests.support.units import Units

if TYPE_CHECKING:
    import pathlib

    from tests.conftest import StartBroker
    from tests.support.broker import Broker
    from tests.support.notify import NotifySocket
    from tests.support.played_helpers import Helpers

# How long another request may overtake the reload, which it must not.
OVERTAKING_SECONDS = 1.0


def asked(broker: Broker, request: dict[str, Any]) -> threading.Thread:
    thread = threading.Thread(target=broker.ask, args=(request,))
    thread.start()
    return thread


def connected(path: str) -> Link | None:
    """None until a socket listens there, which is made first."""
    try:
        return Link(path)
    except (FileNotFoundError, ConnectionRefusedError):
        return None


@pytest.mark.parametrize("request_after", ["replace", "unregister"])
def test_a_socket_that_a_reload_makes_is_not_served_for_another_registration(
    start_broker: StartBroker, helpers: Helpers, request_after: str
) -> None:
    """A container has the directory mounted in which the reload makes a new socket."""
    broker = start_broker(projects=[registration("app", "A", project_path="/one/app")])
    broker.push({"A": "a", "PRECIOUS": "p"})
    mounted = os.open(broker.mount("app").parent, os.O_PATH)
    try:
        broker.mount("app").unlink()
        helpers.says = SHOWN | {"allowlist": ["A"], "hosts": {}, "bindings": {}}
        helpers.hold()
        reload = asked(broker, {"op": "reload", "name": "app"})
        inside = f"/proc/self/fd/{mounted}/broker.sock"
        container = poll("the reload to make a socket", lambda: connected(inside))
        assert container is not None
        with container:
            helpers.says = SHOWN | {"allowlist": ["PRECIOUS"], "hosts": {}, "bindings": {}}
            register = {"op": "register", "name": "app", "project_path": "/two/app", "replace": True}
            if request_after == "unregister":
                first = asked(broker, {"op": "unregister", "name": "app"})
                first.join(OVERTAKING_SECONDS)
            another = asked(broker, register)
            another.join(OVERTAKING_SECONDS)
            helpers.go_on.set()
            another.join()
            reload.join()
            assert broker.get("PRECIOUS", "app")["value"] == "p"
            with contextlib.suppress(EOFError, ConnectionError):
                # Accepted while its project was being unregistered, if at all.
                assert container.ask({"op": "get", "name": "PRECIOUS"})["reason"] == "not_registered"
    finally:
        os.close(mounted)


@pytest.mark.parametrize("has_file", [True, False], ids=["at its path", "elsewhere"])
def test_a_unit_s_socket_is_not_served_for_what_is_registered_while_the_broker_stops(
    start_broker: StartBroker, helpers: Helpers, notify: NotifySocket, directory: pathlib.Path, has_file: bool
) -> None:
    """systemd passes it to the next broker, and a container of the former project has it mounted."""
    with contextlib.closing(Units(directory)) as units:
        for name in ("admin", "status", "client-app"):
            units.add(name)
        notify.attend()
        first = registration("app", "A", project_path="/one/app")
        broker = start_broker(projects=[first], listeners=units.sockets, notify=notify)
        mounted = os.open(broker.project("app"), os.O_PATH)
        try:
            helpers.says = SHOWN | {"allowlist": ["A"], "hosts": {}, "bindings": {}}
            if not has_file:
                broker.project("app").unlink()
                assert broker.ask({"op": "reload", "name": "app"})["ok"]
            helpers.says |= {"allowlist": ["PRECIOUS"]}
            helpers.hold_reader()
            register = {"op": "register", "name": "app", "project_path": "/two/app", "replace": True}
            another = asked(broker, register)
            assert helpers.reads.wait(WAIT_SECONDS)
            broker.signal(signal.SIGTERM)
            notify.wait_for(STOPPING="1")
            helpers.go_on.set()
            another.join()
            assert broker.wait() == 0
            broker = start_broker(listeners=[*units.sockets.items(), *notify.listeners()], notify=notify)
            broker.push({"PRECIOUS": "p"})
            assert broker.get("PRECIOUS", "app")["value"] == "p"
            with pytest.raises(ConnectionRefusedError):
                ask(f"/proc/self/fd/{mounted}", {"op": "get", "name": "PRECIOUS"})
        finally:
            os.close(mounted)


def test_without_free_descriptors_a_reload_says_so_and_the_next_one_works(
    start_broker: StartBroker, helpers: Helpers
) -> None:
    helpers.says = SHOWN | {"allowlist": ["A"], "hosts": {}, "bindings": {}}
    broker = start_broker(projects=[registration("app", "A")])
    limits = resource.prlimit(broker.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(broker.pid, resource.RLIMIT_NOFILE, (3, limits[1]))
    broker.signal(signal.SIGHUP)
    poll("the reload to fail", lambda: "manifest of app was not reloaded" in broker.log.read_text())
    resource.prlimit(broker.pid, resource.RLIMIT_NOFILE, limits)
    assert broker.ask({"op": "reload", "name": "app"})["ok"]
