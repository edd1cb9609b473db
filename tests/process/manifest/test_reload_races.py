"""Operators' requests that come while a reload waits for one of the broker's helpers."""

from __future__ import annotations

import os
import resource
import signal
import threading
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.broker import Link, registration
from tests.support.machine import poll
from tests.support.played_helpers import SHOWN

if TYPE_CHECKING:
    from tests.conftest import StartBroker
    from tests.support.broker import Broker
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
            with pytest.raises((EOFError, ConnectionError)):
                container.ask({"op": "get", "name": "PRECIOUS"})
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
