"""A hostile listener on a project's socket, or on the admin socket: valid JSON, and text that a
terminal obeys wherever the protocol has text.

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
# A broker that somebody has taken over answers the operator on the admin socket.
HOSTILE_NUMBER = 10**400
PROJECT = {
    "name": "app",
    "socket_path": HOSTILE,
    "unserved": f"{HOSTILE}\0",
    "manifest_waits": True,
    **dict.fromkeys(("cache_entries", "connections", "fetches_allowed", "fetches_denied"), HOSTILE_NUMBER),
    "last_fetch_usec": HOSTILE_NUMBER,
    "fetches_not_found": 1,
}
ADMIN_REPLIES: dict[str, dict[str, Any]] = {
    "status": {
        **dict.fromkeys(("broker_version", "secrets_loaded_at", "memory_protection"), HOSTILE),
        "unsaved": [HOSTILE],
        **dict.fromkeys(("uptime_seconds", "start_usec", "secrets_loaded_usec", "secret_count"), HOSTILE_NUMBER),
        "protocol_version": 2,
        "generation": 1,
        "fetches_allowed": 1,
        "fetches_denied": 1,
        "project_count": 1,
        "projects": [{**PROJECT, "allowlist_size": 1}],
        "audit": {
            "healthy": False,
            "sink": HOSTILE,
            "queued": 1,
            "dropped": 1,
            "namespace": HOSTILE,
            "reason": HOSTILE,
        },
    },
    "show": {
        **PROJECT,
        "project_path": f"{HOSTILE}\0",
        "allowlist": ["A"],
        "ttl_seconds": 1,
        "max_entries": 1,
        "allowed_uids": [HOSTILE_NUMBER],
    },
    "register": {"socket_path": HOSTILE},
    "reload": {"allowlist": ["A"]},
    "preview": {
        "manifest_path": HOSTILE,
        "sha256": HOSTILE,
        "widens": False,
        "changed": True,
        "added": ["A"],
        "removed": ["B"],
        "changed_bindings": ["C"],
        "changed_hosts": [HOSTILE],
        **dict.fromkeys(("ttl_seconds", "max_entries"), HOSTILE_NUMBER),
        "ttl_seconds_now": 1,
        "max_entries_now": 1,
        "new_hosts": {HOSTILE: HOSTILE},
        "new_bindings": {"A": [{"env_var": HOSTILE}], "C": [{"fetch_as": "file", "file_path": HOSTILE}]},
    },
    "push-creds": {
        "loaded_at": HOSTILE,
        "secret_count": HOSTILE_NUMBER,
        "generation": HOSTILE_NUMBER,
        "changes": {
            **dict.fromkeys(("added_count", "removed_count", "changed_count"), HOSTILE_NUMBER),
            **{kind: ["A"] for kind in ("added_names", "removed_names", "changed_names")},
        },
    },
    "explain": {**dict.fromkeys(("decision", "outcome", "reason"), HOSTILE), "generation": 1},
    "explain-unit": {
        "unit": HOSTILE,
        "credentials": [
            dict.fromkeys(("credential", "secret", "pattern", "decision", "outcome", "reason"), HOSTILE),
        ],
        "rules": HOSTILE_NUMBER,
    },
}
# Where such a reply has names, which these are not: the fields, by operation.
NAMES: dict[str, list[tuple[str | int, ...]]] = {
    "status": [("projects", 0, "name")],
    "show": [("name",), ("allowlist", 0)],
    "reload": [("allowlist", 0)],
    "preview": [("added", 0), ("removed", 0), ("changed_bindings", 0)],
    "push-creds": [("changes", f"{kind}_names", 0) for kind in ("added", "removed", "changed")],
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
            op = json.loads(line)["op"]
            reply = {"ok": True, **(REPLIES.get(op) or ADMIN_REPLIES.get(op, {}))}
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
