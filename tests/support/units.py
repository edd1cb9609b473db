"""Socket units, with the test in systemd's role."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.support.broker import listen

if TYPE_CHECKING:
    import pathlib
    import socket


class Units:
    """Listening sockets by descriptor name, held by this process."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.directory = directory / "s"
        self.directory.mkdir(exist_ok=True)
        self.sockets: dict[str, socket.socket] = {}

    def add(self, name: str) -> None:
        kind, _, project = name.partition("-")
        path = self.directory / f"{project or kind}.sock"
        if kind == "mount":
            path = self.directory / "mount" / project / "broker.sock"
            path.parent.parent.mkdir(0o750, exist_ok=True)  # the gate
            path.parent.mkdir(exist_ok=True)
        self.sockets[name] = listen(path)

    def close(self) -> None:
        for one in self.sockets.values():
            one.close()
