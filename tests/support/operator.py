"""Operate a broker in a test machine, as an operator and a project's tools do."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from remo_broker.protocol import paths
from tests.support.late import patiently

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Sequence

    from tests.support.machine import Machine

ADMIN = f"{paths.SOCKET_DIR}/{paths.ADMIN_SOCKET}"
STATUS = f"{paths.SOCKET_DIR}/{paths.STATUS_SOCKET}"
SERVICE = "remo-broker.service"
PROJECTS = "/home/dev/projects"
# argv: the path of a socket to connect to.
CONNECT = "import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])"


class Operator:
    """Talks to the sockets of `machine`. `do` requires success, `ask` accepts any reply."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    def ask(self, op: str, **fields: Any) -> dict[str, Any]:
        return patiently(lambda: self.machine.ask(ADMIN, {"op": op, **fields}))

    def do(self, op: str, **fields: Any) -> dict[str, Any]:
        reply = self.ask(op, **fields)
        assert reply["ok"] is True, reply
        return reply

    def command(
        self, *arguments: str, user: str | None = None, stdin: str = "", check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """`remo-brokerctl` with `arguments`."""
        argv = ["remo-brokerctl", *arguments]
        done = patiently(lambda: self.machine.run(argv, user=user, stdin=stdin, check=False))
        if check:
            done.check_returncode()
        return done

    def manifest(self, project: str, names: Sequence[str], parent: str = PROJECTS) -> str:
        """Write a project's manifest; return its directory."""
        directory = f"{parent}/{project}"
        self.machine.write(
            f"{directory}/.devcontainer/remo-broker.toml",
            f'schema_version = 1\n[project]\nname = "{project}"\n[allowlist]\nsecrets = {json.dumps(list(names))}\n',
        )
        return directory

    def register(self, project: str, names: Sequence[str], **fields: Any) -> str:
        """Register a project that may fetch `names`; return its socket's path."""
        path: str = self.do("register", name=project, project_path=self.manifest(project, names), **fields)[
            "socket_path"
        ]
        assert path == self.socket(project)
        return path

    def push(
        self, secrets: dict[str, str | dict[str, str]], secrets_b64: dict[str, str] | None = None
    ) -> dict[str, Any]:
        return self.do("push-creds", secrets=secrets, secrets_b64=secrets_b64 or {})

    def review(self, *arguments: str) -> list[dict[str, Any]]:
        """The records that `remo-brokerctl audit` shows, once journald has written everything."""
        self.machine.run(["journalctl", "--sync"])
        return [json.loads(line) for line in self.command("audit", "-j", *arguments).stdout.splitlines()]

    def get(self, project: str, name: str, user: str | None = None) -> dict[str, Any]:
        return self.machine.ask(self.socket(project), {"op": "get", "name": name}, user=user)

    def member(self) -> str:
        """A user who may use the projects' sockets."""
        self.machine.run(["useradd", "--no-create-home", "member"], check=False)
        # Again, because an uninstallation removes the group.
        self.machine.run(["usermod", "--append", "--groups", "remo-broker", "member"])
        return "member"

    def outsider(self) -> str:
        """A user of the host who is in none of our groups."""
        self.machine.run(["useradd", "--no-create-home", "outsider"], check=False)
        self.machine.run(["usermod", "--groups", "", "outsider"])  # a test may have put it into one
        return "outsider"

    @staticmethod
    def socket(project: str) -> str:
        return paths.project_socket(paths.SOCKET_DIR, project)

    @staticmethod
    def mount(project: str) -> str:
        return paths.mount_socket(paths.SOCKET_DIR, project)

    def main_pid(self) -> int:
        """The broker's process id in the machine, 0 if it is not running."""
        return int(self.machine.show(SERVICE, "MainPID")["MainPID"])

    @property
    def store_is_preserved(self) -> bool:
        """Whether the descriptor store outlives a stop, as since systemd 254."""
        name = "FileDescriptorStorePreserve"
        return self.machine.show(SERVICE, name).get(name) == "yes"

    def stop_for_good(self) -> None:
        """Stop the broker and empty its descriptor store, as a shutdown of the machine does."""
        self.machine.systemctl("stop", SERVICE)
        if self.store_is_preserved:
            self.machine.systemctl("clean", "--what=fdstore", SERVICE)

    def inode(self, path: str) -> int:
        return self.machine.path(path).stat().st_ino

    def configure(self, text: str) -> None:
        """Write the configuration file. Takes effect at the next start."""
        self.machine.write(paths.CONFIG_FILE, text)

    def override(self, unit: str, text: str) -> None:
        """Write a drop-in for a unit, as `systemctl edit` does. Lost at the next boot or reset."""
        self.machine.write(f"/run/systemd/system/{unit}.d/test.conf", text)
        self.machine.systemctl("daemon-reload")
