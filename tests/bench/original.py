"""The daemon in Rust that this broker replaces, version 0.1.0; its audit is a line in a file in
memory."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import socket
import tempfile
import time
from typing import TYPE_CHECKING

from tests.bench.contestant import SECRET, Missing
from tests.bench.generator import Target

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.bench.contestant import Place

# Names its binary, which is not ours to ship.
RUST_BROKER = "RUST_BROKER"
PROJECT = "rp"
# Another task writes its records, some time after the replies.
QUIET_SECONDS = 1.0


@dataclasses.dataclass(frozen=True)
class Original:
    get: Target
    pid: int
    audit: pathlib.Path

    def records(self) -> int:
        """How many fetches it has recorded, once it writes no more."""
        size = -1
        while size != (size := self.audit.stat().st_size):
            time.sleep(QUIET_SECONDS)
        with self.audit.open("rb") as file:
            return sum(1 for line in file if b'"T"' in line)


@contextlib.contextmanager
def running(place: Place) -> Iterator[Original]:
    """It runs until the block ends, on any processor: it takes as many threads as it may use
    processors when it starts."""
    binary = os.environ.get(RUST_BROKER)
    if binary is None:
        raise Missing(f"{RUST_BROKER} names no binary")
    home = pathlib.Path(tempfile.mkdtemp(prefix="original-", dir=place.work))
    project, sockets = home / PROJECT, home / "s"
    (project / ".remo").mkdir(parents=True)
    manifest = f'schema_version = 1\n[project]\nname = "{PROJECT}"\n[allowlist]\nsecrets = ["T"]\n'
    (project / ".remo/broker.toml").write_text(manifest)
    provider = (
        f'[providers]\nplain = {{ type = "plain" }}\n[secrets]\nT = {{ provider = "plain", value = "{SECRET}" }}\n'
    )
    for name, text in {"tok": "tok", "fnox.toml": provider, "config.toml": ""}.items():
        (home / name).write_text(text)
    options = ["--config", home / "config.toml", "--bootstrap-token-path", home / "tok"]
    options += ["--fnox-config", home / "fnox.toml", "--socket-dir", sockets]
    with (
        tempfile.NamedTemporaryFile(dir="/dev/shm", prefix="remo-bench-") as audit,
        place.server(
            [binary, *map(str, options), "--audit-log-path", audit.name], sockets / "admin.sock", pinned=False
        ) as process,
    ):
        with socket.socket(socket.AF_UNIX) as admin:
            admin.settimeout(10)
            admin.connect(str(sockets / "admin.sock"))
            register = {"op": "register", "name": PROJECT, "project_path": str(project)}
            admin.sendall(json.dumps(register).encode() + b"\n")
            answer = admin.recv(4096)
        if b'"ok":true' not in answer:
            raise Missing(f"it did not register a project: {answer[:200]!r}")
        get = Target(str(sockets / f"{PROJECT}.sock"), b'{"op":"get","name":"T"}\n', expect='{"ok":true')
        yield Original(get, process.pid, pathlib.Path(audit.name))
