"""The idle exit, with the test in systemd's role."""

from __future__ import annotations

import contextlib
import json
import pathlib
import socket
import time
from typing import TYPE_CHECKING

from remo_broker.broker.daemon import IDLE_STATUS
from tests.support.broker import Broker, Link, registration, short_directory
from tests.support.machine import poll
from tests.support.units import Units

if TYPE_CHECKING:
    pass


def test_idle_brokers_exit_and_others_stay(directory: pathlib.Path) -> None:
    """All at once, to save time: brokers that may exit do so after a second, the others stay."""
    with contextlib.ExitStack() as stack:

        def started(*, handed_over: bool = True, seconds: int = 1, **options: object) -> Broker:
            place = stack.enter_context(short_directory())
            listeners: dict[str, socket.socket] = {}
            if handed_over:
                units = stack.enter_context(contextlib.closing(Units(place)))
                for name in ("admin", "status", "client-held", "mount-held"):
                    units.add(name)
                listeners = units.sockets
            broker = Broker(place, listeners=listeners, idle_exit_seconds=seconds, **options)  # type: ignore[arg-type]
            stack.callback(broker.close)
            return broker.start()

        free = started()
        registered = started(projects=[registration("held", "A")])
        watched = started()
        watcher = stack.enter_context(Link(watched.status_socket))
        watcher.send({"op": "watch"})
        emptied = started()
        emptied.push({"A": "a"})
        emptied.ask({"op": "clear-creds"})
        going = [free, registered, watched, emptied]

        secrets = started()
        secrets.push({"A": "a"})
        client = started(projects=[registration("held", "A")])
        stack.enter_context(Link(client.project("held")))
        operator = started()
        stack.enter_context(Link(operator.admin)).ask({"op": "watch"})
        own_listener = started(projects=[registration("own", "A")])
        own_sockets = started(handed_over=False)
        never = started(seconds=0)
        busy = started()
        staying = [secrets, client, operator, own_listener, own_sockets, never, busy]
        for broker in staying:  # before that, SIGTERM at the end of the test would kill one that is slow to start
            broker.status()

        def gone() -> bool:
            busy.status()
            return all(broker.process.poll() is not None for broker in going)

        poll("those who may go", gone)
        until = time.monotonic() + 1
        poll("another second", lambda: gone() and time.monotonic() > until)
        assert [broker.wait() for broker in going] == [IDLE_STATUS] * len(going)
        events = [json.loads(line) for line in watcher.rest().splitlines()]
        assert events[-1] == {"event": "stopping", "idle": True}
        assert [broker.process.poll() for broker in staying] == [None] * len(staying)
        assert all((broker.sockets / "admin.sock").exists() for broker in going)

        secrets.ask({"op": "clear-creds"})
        assert secrets.wait() == busy.wait() == IDLE_STATUS
