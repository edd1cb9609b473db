"""A listener that only claims to be a broker has always one more page of its status."""

from __future__ import annotations

import json
import socketserver
import threading
from itertools import count
from typing import TYPE_CHECKING

import pytest

from remo_broker import client
from remo_broker.client.admin import MAX_STATUS_PAGES
from tests.support.hostile_peer import ADMIN_REPLIES

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Callable, Iterator

    from tests.process.client.conftest import Open

# More pages than any client should ask for; after them it ends, so that the test does too.
TOO_MANY = 10 * MAX_STATUS_PAGES


class Pages(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True

    def __init__(self, path: str, following: Callable[[int], str]) -> None:
        """`following` names the last project of the page with that number."""
        super().__init__(path, _Connection)
        self.following = following
        self.number = count(1)
        self.asked = 0


class _Connection(socketserver.StreamRequestHandler):
    server: Pages

    def handle(self) -> None:
        for _ in self.rfile:
            self.server.asked = next(self.server.number)
            last = self.server.following(self.server.asked) if self.server.asked < TOO_MANY else None
            page = {"ok": True, **ADMIN_REPLIES["status"], "projects_next": last}
            self.wfile.write(json.dumps(page).encode() + b"\n")


@pytest.fixture
def serve_pages(directory: pathlib.Path) -> Iterator[Callable[[Callable[[int], str]], Pages]]:
    servers: list[Pages] = []

    def serve(following: Callable[[int], str]) -> Pages:
        server = Pages(str(directory / "pages.sock"), following)
        servers.append(server)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return server

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("kind", ["AdminClient", "StatusClient"])
@pytest.mark.parametrize(
    ("following", "at_most"),
    [
        (lambda number: f"p{number:06d}", MAX_STATUS_PAGES),
        (lambda _: "same", 2),
        (lambda number: "even" if number % 2 else "odd", 3),
    ],
    ids=["one more", "the same", "in a circle"],
)
def test_a_status_without_end_is_a_malformed_reply(
    serve_pages: Callable[[Callable[[int], str]], Pages],
    open_client: Open,
    kind: str,
    following: Callable[[int], str],
    at_most: int,
) -> None:
    server = serve_pages(following)
    with pytest.raises(client.BadReply, match=r"pages|advance"):
        open_client(kind, str(server.server_address)).status()
    assert server.asked <= at_most
