"""A hostile listener on a project's socket: valid JSON, and text that a terminal obeys wherever the
protocol has text.

Also a standalone script with only the standard library, for other users in a test machine:

    python hostile_peer.py SOCKET [NAMES]

prints `up`, then each line that it receives, and ends with its standard input. NAMES is a JSON list
of what it says that the project may fetch.
"""

from __future__ import annotations

import json
import os
import socketserver
import sys
import threading
from typing import Any

# An escape sequence, its one-byte form, and what turns text around.
HOSTILE = "99\x1b]0;title\x07\x9b31m\u202eright"
OBEYED = [one.encode() for one in ("\x1b", "\x07", "\x9b", "\u202e")]
REPLIES: dict[str, dict[str, Any]] = {
    "ping": {"broker_version": HOSTILE, "protocol_version": 2, "project": "app"},
    "info": {
        "project": "app",
        "allowlist": ["A"],
        "schema_version": 1,
        "manifest_path": HOSTILE,
        "manifest_sha256": HOSTILE,
        "hosts": {HOSTILE: "A", "registry.example": "A"},
    },
    "ready": {"ready": True, "generation": 1},
    "bindings": {"bindings": {"A": [{"env_var": "A"}]}},
    "peek": {
        **dict.fromkeys(("decision", "outcome", "reason", "project", "name"), HOSTILE),
        **dict.fromkeys(("generation", "ttl_seconds"), 1),
    },
    "get": {"value": "v", "ttl_seconds": 1, "generation": 1, "expires_at": HOSTILE},
}
# What is run against it, and what some of it reads from standard input.
COMMANDS = [
    *(["doctor"], ["list"], ["check"], ["env"], ["exec", "--", "true"], ["render"], ["get", "A"]),
    *(["setup", "git", "docker", "--dry-run"], ["docker-credential", "get"], ["docker-credential", "list"]),
    *(["git-credential", "get"], ["keyring", "get", "https://registry.example", "x"], ["aws-credentials", "A"]),
]
# Those that write a secret, to a program as a rule.
ANSWERS = [
    *(["get", "A"], ["env"], ["env", "--format=shell"], ["env", "--format=json"], ["git-credential", "get"]),
    *(["docker-credential", "get"], ["keyring", "get", "https://registry.example"], ["aws-credentials", "A"]),
    *(["keyring", "get", "--mode=creds", "--output=json", "https://registry.example"], ["kubernetes", "A"]),
]
REQUESTS = {"git-credential": b"protocol=https\nhost=registry.example\n\n", "docker-credential": b"registry.example"}


class Listener(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    fails = escapes = shows = False

    def __init__(self, path: str) -> None:
        super().__init__(path, _Connection)


class _Connection(socketserver.StreamRequestHandler):
    server: Listener

    def handle(self) -> None:
        for line in self.rfile:
            if self.server.shows:
                print(line.decode(), end="", flush=True)
            reply = {"ok": True, **REPLIES.get(json.loads(line)["op"], {})}
            if self.server.fails:
                reply = {"ok": False, "code": HOSTILE, "reason": HOSTILE, "message": HOSTILE}
            self.wfile.write(json.dumps(reply, ensure_ascii=self.server.escapes).encode() + b"\n")


def main(path: str, names: str = '["A"]') -> None:
    REPLIES["info"]["allowlist"] = json.loads(names)
    REPLIES["bindings"]["bindings"] = {}
    with Listener(path) as listener:
        listener.shows = listener.escapes = True
        os.chmod(path, 0o666)
        threading.Thread(target=listener.serve_forever, daemon=True).start()
        print("up", flush=True)
        sys.stdin.read()
        os.unlink(path)


if __name__ == "__main__":
    main(*sys.argv[1:])
