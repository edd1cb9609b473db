"""psql, with a password in the file that `exec` renders."""

from __future__ import annotations

import contextlib
import shutil
import socket
import struct
import threading
from typing import TYPE_CHECKING

from tests.process.secret.tools.conftest import ToolSetup
from tests.support.broker import registration
from tests.support.machine import REPOSITORY, unavailable

if TYPE_CHECKING:
    import pathlib

    from tests.conftest import StartBroker


class Database:
    """A minimal PostgreSQL server: it records user and password, and refuses them."""

    def __init__(self) -> None:
        self.logins: list[tuple[str, str]] = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            with connection, connection.makefile("rb") as stream, contextlib.suppress(OSError, struct.error):
                while True:
                    size, version = struct.unpack("!ii", stream.read(8))
                    startup = stream.read(size - 8)
                    if version == 196_608:
                        break
                    connection.sendall(b"N")  # no TLS, no GSSAPI
                connection.sendall(b"R" + struct.pack("!ii", 8, 3))
                _, size = struct.unpack("!ci", stream.read(5))
                password = stream.read(size - 4).rstrip(b"\0").decode()
                words = startup.split(b"\0")
                self.logins.append((words[words.index(b"user") + 1].decode(), password))
                refusal = b"SFATAL\0C28P01\0Mno\0\0"
                connection.sendall(b"E" + struct.pack("!i", len(refusal) + 4) + refusal)

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join()


def test_the_recipe_for_psql(start_broker: StartBroker, directory: pathlib.Path, memory: pathlib.Path) -> None:
    if shutil.which("psql") is None:
        unavailable("psql is not installed: ./run test installs it")
    page = (REPOSITORY / "man/remo-secret-tools.7").read_text()
    recipe = page.partition("[secrets.db]\n")[2].partition(".Ed")[0].replace("\\en", "\\n")
    with contextlib.closing(Database()) as database:
        recipe = recipe.replace("db.example.org:5432", f"127.0.0.1:{database.port}")
        manifest = f'schema_version = 1\nproject = "myrepo"\n[secrets.db]\n{recipe}'
        broker = start_broker(projects=[registration("myrepo", manifest=manifest)])
        broker.push({"db": {"username": "zq:user", "password": "zq\\p:w"}})
        place = ToolSetup(broker, directory, memory, "")
        argv = ["psql", "-h", "127.0.0.1", "-p", str(database.port), "-U", "zq:user", "-d", "x", "-c", "select 1"]
        done = place.remo("exec", "--", *argv)
        assert database.logins == [("zq:user", "zq\\p:w")], done.stderr
        place.remo("render", "--remove")
