"""What the clients do: a mix of every op, from a seed, each answer checked."""

from __future__ import annotations

import base64
import collections
import contextlib
import json
import random
import socket
import time
from typing import TYPE_CHECKING, Any

from tests.bench.generator import Failed

if TYPE_CHECKING:
    from tests.bench.broker import BenchBroker

# Of 10,000 operations. A reload and a registration start a process each, so more of them would be a
# test of that.
WEIGHTS = {"get": 8_896, "ping": 500, "info": 500, "push": 100, "reload": 2, "register": 2}
# Names that projects may fetch; the last is never pushed. NOBODYS is in no manifest.
STRINGS = tuple(f"STRING_{number}" for number in range(8))
BUNDLE, BINARY, ABSENT, NOBODYS = "BUNDLE", "BINARY", "ABSENT", "NOBODYS"
ALLOWED = (*STRINGS, BUNDLE, BINARY, ABSENT)
NAMES = (*ALLOWED, NOBODYS)

# Requests under way at once at the most; one per connection.
VOLLEY = 20
# Lengths of pushed values: mostly short, sometimes the longest that fits.
SHORT, LONG = (8, 400), (20_000, 60_000)
LONG_PUSHES = 0.02
TIMEOUT_SECONDS = 30
PROBES = 100


class ProjectLink:
    """One connection to one project's socket."""

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(TIMEOUT_SECONDS)
        self._socket.connect(path)
        self._lines = self._socket.makefile("rb")

    def send(self, request: dict[str, str]) -> None:
        self._socket.sendall(json.dumps(request).encode() + b"\n")

    def receive(self) -> dict[str, Any]:
        line = self._lines.readline()
        if not line:
            raise Failed("the broker closed a connection")
        reply: dict[str, Any] = json.loads(line)
        return reply

    def close(self) -> None:
        self._lines.close()
        self._socket.close()


class Workload:
    """Registers its projects, keeps a connection to each, and counts what it did."""

    def __init__(self, broker: BenchBroker, projects: int, seed: int = 1) -> None:
        self.done: collections.Counter[str] = collections.Counter()
        """Operations by kind."""
        self.gets = 0
        """Gets in all, those of the probes and of registrations included: as many records must
        there be."""
        self._broker = broker
        self._random = random.Random(seed)
        self._guests = 0
        self._expected: dict[str, dict[str, str]] = {}
        self._names = [f"project-{number:02}" for number in range(projects)]
        for name in self._names:
            broker.register(name, ALLOWED)
        self._clients = [ProjectLink(broker.project_socket(name)) for name in self._names]
        self._push()

    def close(self) -> None:
        for client in self._clients:
            client.close()

    def run(self, operations: int) -> None:
        """So many operations. Raises Failed at the first answer that is not as it should be."""
        kinds = self._random.choices(list(WEIGHTS), list(WEIGHTS.values()), k=operations)
        self.done.update(kinds)
        volley: list[str] = []
        size = self._random.randint(1, VOLLEY)
        for kind in kinds:
            if kind in {"get", "ping", "info"}:
                volley.append(kind)
            else:
                getattr(self, f"_{kind}")()
            if len(volley) == min(size, len(self._clients)):
                self._ask(volley)
                volley = []
                size = self._random.randint(1, VOLLEY)
        self._ask(volley)

    def probe(self) -> list[int]:
        """Nanoseconds of single gets, one after another, as this client sees them."""
        client, took = self._clients[0], []
        for _ in range(PROBES):
            begun = time.perf_counter_ns()
            client.send({"op": "get", "name": STRINGS[0]})
            client.receive()
            took.append(time.perf_counter_ns() - begun)
        self.gets += PROBES
        return took

    def _ask(self, kinds: list[str]) -> None:
        """One request on each of several connections, then all the answers."""
        clients = self._random.sample(self._clients, len(kinds))
        requests = [self._request(kind) for kind in kinds]
        for client, request in zip(clients, requests, strict=True):
            client.send(request)
        for client, request in zip(clients, requests, strict=True):
            self._check(request, client.receive())

    def _request(self, kind: str) -> dict[str, str]:
        if kind != "get":
            return {"op": kind}
        self.gets += 1
        return {"op": "get", "name": self._random.choice(NAMES)}

    def _check(self, request: dict[str, str], reply: dict[str, Any]) -> None:
        if request["op"] == "get":
            expected = self._expected.get(request["name"])
            if expected is None:
                expected = {"code": "denied" if request["name"] == NOBODYS else "not_found"}
        else:
            expected = {"protocol_version": 2} if request["op"] == "ping" else {"allowlist": list(ALLOWED)}  # type: ignore[dict-item]
        if any(reply.get(key) != value for key, value in expected.items()):
            # The reply may hold a secret: only its shape is reported.
            raise Failed(f"{request} was answered with {sorted(reply)}, code {reply.get('code')}")

    # --- the admin socket

    def _push(self) -> None:
        bounds = LONG if self._random.random() < LONG_PUSHES else SHORT
        strings = {name: self._value(*(bounds if name == STRINGS[0] else SHORT)) for name in STRINGS}
        bundle = {field: self._value(*SHORT) for field in ("user", "password")}
        binary = base64.b64encode(self._random.randbytes(self._random.randint(*SHORT))).decode()
        secrets = {**strings, BUNDLE: bundle}
        push = {"op": "push-creds", "secrets": secrets, "secrets_b64": {BINARY: binary}}
        self._broker.ask(json.dumps(push).encode() + b"\n")
        self._expected = {name: {"value": value} for name, value in strings.items()}
        self._expected[BUNDLE] = {"value": json.dumps(bundle, separators=(",", ":"))}
        self._expected[BINARY] = {"value_b64": binary}

    def _value(self, shortest: int, longest: int) -> str:
        return self._random.randbytes(self._random.randint(shortest, longest) // 2).hex()

    def _reload(self) -> None:
        name = self._random.choice(self._names)
        self._broker.ask(json.dumps({"op": "reload", "name": name}).encode() + b"\n")

    def _register(self) -> None:
        """A project that comes, fetches and goes."""
        self._guests += 1
        name = f"guest-{self._guests}"
        self._broker.register(name, ALLOWED)
        with contextlib.closing(ProjectLink(self._broker.project_socket(name))) as client:
            request = self._request("get")
            client.send(request)
            self._check(request, client.receive())
        self._broker.ask(json.dumps({"op": "unregister", "name": name}).encode() + b"\n")
