"""What people would use instead to hand a secret to a local process: each does its own
equivalent of one fetch."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import os
import socket
import struct
import subprocess
from typing import TYPE_CHECKING

from tests.bench import original
from tests.bench.contestant import SECRET, Contestant, Missing, Place, program
from tests.bench.generator import FetchCommand, OwnClient, Target

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    Peer = Callable[[Place], AbstractContextManager[list[Contestant]]]

# draft-miller-ssh-agent
_SSH_LIST_REQUEST = 11
_SSH_SIGN_REQUEST = 13


@contextlib.contextmanager
def gpg_agent(place: Place) -> Iterator[list[Contestant]]:
    """A passphrase put into the agent's cache, asked for as gpg does."""
    agent, gpgconf = program("gpg-agent", "gpg-agent"), program("gpgconf", "gpgconf")
    home = place.directory("gpg-agent")
    lists = [gpgconf, "--homedir", str(home), "--list-dirs", "agent-socket"]
    path = subprocess.run(lists, capture_output=True, text=True, check=True).stdout.strip()
    start = [agent, "--homedir", str(home), "--allow-preset-passphrase", "--daemon"]
    # It puts itself into the background, hence no place.server.
    subprocess.run(place.pinned(start), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    try:
        _assuan(path, f"PRESET_PASSPHRASE remo-bench -1 {SECRET.encode().hex()}")
        target = Target(path, b"GET_PASSPHRASE --no-ask remo-bench X X X\n", expect="OK ", greeting=True)
        does = "GET_PASSPHRASE of a preset one"
        yield [Contestant("gpg-agent", does, "none", "none", "locked", target)]
    finally:
        _assuan(path, "KILLAGENT")


def _assuan(path: str, command: str) -> None:
    """One command of gpg-agent's protocol."""
    with socket.socket(socket.AF_UNIX) as client, client.makefile("rwb") as stream:
        client.settimeout(10)
        client.connect(path)
        stream.readline()
        stream.write(command.encode() + b"\n")
        stream.flush()
        answer = stream.readline()
    if not answer.startswith(b"OK"):
        raise Missing(f"gpg-agent answered {answer[:100]!r}")


@contextlib.contextmanager
def ssh_agent(place: Place) -> Iterator[list[Contestant]]:
    """A list of keys, and a signature by one: the agent never hands a key out."""
    agent, add, keygen = (program(name, "openssh-client") for name in ("ssh-agent", "ssh-add", "ssh-keygen"))
    home = place.directory("ssh-agent")
    path, key = home / "agent.sock", home / "key"
    subprocess.run([keygen, "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    with place.server([agent, "-D", "-a", str(path)], path):
        environment = {**os.environ, "SSH_AUTH_SOCK": str(path)}
        subprocess.run([add, "-q", key], env=environment, check=True)
        blob = base64.b64decode(key.with_suffix(".pub").read_text().split()[1])
        sign = struct.pack(">BI", _SSH_SIGN_REQUEST, len(blob)) + blob
        sign += struct.pack(">I", len(SECRET)) + SECRET.encode() + struct.pack(">I", 0)
        requests = {"list of keys, no secret": bytes([_SSH_LIST_REQUEST]), "signature (ed25519)": sign}
        yield [
            Contestant(
                "ssh-agent",
                does,
                "none",
                "none",
                "shielded, no dump",
                Target(str(path), struct.pack(">I", len(body)) + body, reply="length32"),
            )
            for does, body in requests.items()
        ]


@contextlib.contextmanager
def git_credential_cache(place: Place) -> Iterator[list[Contestant]]:
    """A password kept by git's own cache: by its socket, and by the command that git runs."""
    git = program("git", "git")
    path = place.directory("git-credential-cache") / "cache.sock"
    core = subprocess.run([git, "--exec-path"], capture_output=True, text=True, check=True).stdout.strip()
    with place.server([f"{core}/git-credential-cache--daemon", str(path)], path):
        which = b"protocol=https\nhost=git.example\n"
        command = [git, "credential-cache", "--socket", str(path), "--timeout", "3600"]
        password = f"username=me\npassword={SECRET}\n\n"
        subprocess.run([*command, "store"], input=which + password.encode(), check=True)
        target = Target(str(path), b"action=get\ntimeout=3600\n" + which, reply="eof", expect="username=", fresh=True)
        yield [
            Contestant("git credential-cache", "connect, get", "none", "none", "plain", target),
            Contestant(
                "git credential-cache get",
                "the program, as git starts it",
                "none",
                "none",
                "plain",
                FetchCommand((*command, "get"), which + b"\n"),
            ),
        ]


@contextlib.contextmanager
def redis(place: Place) -> Iterator[list[Contestant]]:
    """GET over a Unix socket."""
    home = place.directory("redis")
    path, server = home / "redis.sock", home / "redis-server"
    # The server is in redis-tools too, under another name; the package redis-server would start one on this host.
    server.symlink_to(program("redis-check-rdb", "redis-tools"))
    options = ["--port", "0", "--unixsocket", str(path), "--save", "", "--appendonly", "no", "--dir", str(home)]
    with place.server([str(server), *options], path):
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(10)
            client.connect(str(path))
            client.sendall(_resp("SET", "TOKEN", SECRET))
            if client.recv(64) != b"+OK\r\n":
                raise Missing("redis did not take a value")
        reply = f"${len(SECRET)}\r\n{SECRET}\r\n"
        target = Target(str(path), _resp("GET", "TOKEN"), reply=f"bytes:{len(reply)}", expect=f"${len(SECRET)}")
        yield [Contestant("redis", "GET", "none", "per user, if set up", "plain", target)]


def _resp(*words: str) -> bytes:
    """A command in redis' protocol."""
    return f"*{len(words)}\r\n".encode() + b"".join(f"${len(word)}\r\n{word}\r\n".encode() for word in words)


@contextlib.contextmanager
def secret_service(place: Place) -> Iterator[list[Contestant]]:
    """GetSecret from gnome-keyring over a session bus of its own, by a native D-Bus client."""
    bus, keyring = program("dbus-daemon", "dbus-daemon"), program("gnome-keyring-daemon", "gnome-keyring")
    if place.programs.secret_service is None:
        raise Missing("its client was not compiled (Debian: libsystemd-dev, pkg-config)")
    home = place.directory("secret-service")
    path, control = home / "bus.sock", home / "control"
    environment = {"HOME": str(home), "XDG_RUNTIME_DIR": str(home), "DBUS_SESSION_BUS_ADDRESS": f"unix:path={path}"}
    start = [keyring, "--foreground", "--components=secrets", f"--control-directory={control}"]
    with (
        place.server([bus, "--session", "--nofork", f"--address=unix:path={path}"], path),
        place.server(start, control, environment),
    ):
        settings = [f"{name}={value}" for name, value in environment.items()]
        client = OwnClient(tuple(place.pinned(["env", *settings, str(place.programs.secret_service)])))
        does = "GetSecret over D-Bus, client included"
        yield [Contestant("gnome-keyring", does, "none", "none", "locked", client)]


@contextlib.contextmanager
def rust_broker(place: Place) -> Iterator[list[Contestant]]:
    """The daemon in Rust that this broker replaces."""
    with original.running(place) as daemon, place.holding(daemon.pid, place.server_cpu):
        kept = "every get, to a file, may lose some"
        fresh = dataclasses.replace(daemon.get, fresh=True)
        yield [
            Contestant("Rust original 0.1.0", "get", kept, "per project", "plain", daemon.get),
            Contestant("Rust original 0.1.0, connecting", "connect, get, close", kept, "per project", "plain", fresh),
        ]


PEERS: dict[str, Peer] = {
    "gpg-agent": gpg_agent,
    "ssh-agent": ssh_agent,
    "git-credential-cache": git_credential_cache,
    "redis": redis,
    "secret-service": secret_service,
    "rust-broker": rust_broker,
}
