"""`./run demo`: the whole of the broker's work in a directory of its own, each step with the command a user would type.

Nothing here is staged. The sockets are opened first, as socket units do, and the broker is started by the first connect
with the descriptors handed over; the commands are the installed programs; the audit lines are what the broker wrote.
The system is not touched, and the directory is removed at the end.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from remo_broker.audit import Event

PROGRAMS = Path(sys.executable).parent
MANIFEST = """\
schema_version = 1
[project]
name = "myrepo"
[allowlist]
secrets = ["GITHUB_TOKEN", "aws"]
"""
# What a sidecar would have fetched from wherever the host's credentials are. Made up, as everything here.
SECRETS = {
    "GITHUB_TOKEN": "demo-token-of-nobody",
    "NPM_TOKEN": "demo-token-that-myrepo-does-not-name",
    "aws": {"aws_access_key_id": "DEMO", "aws_secret_access_key": "demo-key-of-nobody"},
}
# What systemd does between fork and exec: the sockets from descriptor 3 on, and LISTEN_PID, which must be the broker's own.
HAND_OVER = """
import os, sys
split = sys.argv.index("--")
copies = [os.dup(int(number)) for number in sys.argv[1:split]]
for number, copy in enumerate(copies, 3):
    os.dup2(copy, number)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.argv[split + 1], sys.argv[split + 1 :])
"""
# A step that takes longer has failed.
STEP_SECONDS = 30


class SocketUnits:
    """What `remo-broker-admin.socket` and its like do: listen, and start the service when somebody connects."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.broker: subprocess.Popen[bytes] | None = None
        self.log = directory / "audit.log"
        self._listening = {name: self._listen(f"{name}.sock") for name in ("admin", "status")}
        self._stop, self._stopped = socket.socketpair()
        self._thread = threading.Thread(target=self._wait_for_connect)
        self._thread.start()

    def _listen(self, name: str) -> socket.socket:
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listening.bind(str(self.directory / name))
        listening.listen()
        return listening

    def _wait_for_connect(self) -> None:
        ready, _, _ = select.select([*self._listening.values(), self._stopped], [], [])
        if self._stopped not in ready:
            self._start()

    def _start(self) -> None:
        descriptors = [one.fileno() for one in self._listening.values()]
        environment = dict(os.environ, LISTEN_FDS=str(len(descriptors)), LISTEN_FDNAMES=":".join(self._listening))
        directories = ["--socket-dir", str(self.directory), "--state-dir", str(self.directory / "state")]
        broker = [str(PROGRAMS / "remo-broker"), *directories, "--audit", "stderr"]
        with self.log.open("wb") as log:
            self.broker = subprocess.Popen(
                [sys.executable, "-c", HAND_OVER, *map(str, descriptors), "--", *broker],
                stderr=log,
                env=environment,
                pass_fds=descriptors,
            )

    def close(self) -> None:
        self._stop.send(b"x")
        self._thread.join()
        if self.broker is not None:
            self.broker.send_signal(signal.SIGTERM)
            self.broker.wait(STEP_SECONDS)
        for one in [*self._listening.values(), self._stop, self._stopped]:
            one.close()


class Show:
    """Says what is done, does it, and shows what it answers."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._bold, self._plain = ("\033[1m", "\033[0m") if sys.stdout.isatty() else ("", "")
        self._steps = 0
        self.failed = False

    def say(self, text: str) -> None:
        self._steps += 1
        print(f"\n{self._bold}{self._steps}. {text}{self._plain}", flush=True)

    def run(self, *command: str, given: str | None = None, shown: str | None = None, expect: int = 0) -> str:
        """Run one of the programs. `shown` is the command as a user would type it, where that differs."""
        typed = shown or shlex.join(command)
        print(f"   $ {typed.replace(str(self._directory), '$DEMO')}", flush=True)
        done = subprocess.run(
            [str(PROGRAMS / command[0]), *command[1:]],
            input=given,
            capture_output=True,
            text=True,
            timeout=STEP_SECONDS,
            check=False,
        )
        for line in (done.stdout + done.stderr).splitlines():
            print(f"     {line.replace(str(self._directory), '$DEMO')}", flush=True)
        if done.returncode != expect:
            self.failed = True
            print(f"     exit status {done.returncode}, {expect} was expected", flush=True)
        elif done.returncode:
            print(f"     (exit status {done.returncode})", flush=True)
        return done.stdout


def main() -> int:
    """Returns 0 when every step went as it should."""
    directory = Path(tempfile.mkdtemp(prefix="remo-broker-demo."))
    show = Show(directory)
    units = None
    try:
        (directory / "state").mkdir(mode=0o700)
        project = directory / "projects" / "myrepo"
        (project / ".devcontainer").mkdir(parents=True)
        (project / ".devcontainer" / "remo-broker.toml").write_text(MANIFEST)
        units = SocketUnits(directory)
        _steps(show, units, project)
    finally:
        if units is not None:
            units.close()
        shutil.rmtree(directory, ignore_errors=True)
    print(f"\nThe broker has stopped and {directory} is removed." if not show.failed else "\nThe demo failed.")
    return int(show.failed)


def _steps(show: Show, units: SocketUnits, project: Path) -> None:
    directory = units.directory
    print(f"The demo has a directory of its own: DEMO={directory}. Its sockets are open; no broker runs yet.")
    control = ("remo-brokerctl", f"--socket={directory}/admin.sock")
    secret = ("remo-secret", f"--socket={directory}/myrepo.sock")

    show.say("The project's manifest names what it may fetch:")
    for line in MANIFEST.splitlines():
        print(f"     {line}")
    show.say("An operator registers the project. The connect starts the broker, as a socket unit would:")
    show.run(*control, "register", str(project), "--no-enable", shown=f"remo-brokerctl register {project}")
    show.say("Nothing has been pushed yet, so there is nothing to fetch:")
    show.run(*secret, "get", "GITHUB_TOKEN", shown="remo-secret get GITHUB_TOKEN", expect=4)
    show.say("The sidecar pushes all secrets of the host, on standard input:")
    show.run(*control, "push", given=json.dumps(SECRETS), shown="sidecar | remo-brokerctl push")
    show.say("The project fetches what its manifest names, a string and a bundle:")
    show.run(*secret, "get", "GITHUB_TOKEN", shown="remo-secret get GITHUB_TOKEN")
    show.run(*secret, "get", "aws", shown="remo-secret get aws")
    show.say("A program gets them in its environment, and they are gone with it:")
    inner = ("exec", "--only", "GITHUB_TOKEN", "--", "sh", "-c", 'echo "the token has ${#GITHUB_TOKEN} letters"')
    show.run(*secret, *inner, shown=f"remo-secret {shlex.join(inner)}")
    show.say("The broker holds NPM_TOKEN too, but the manifest does not name it:")
    show.run(*secret, "get", "NPM_TOKEN", shown="remo-secret get NPM_TOKEN", expect=3)
    show.say("How the broker is:")
    show.run(*control, "status", shown="remo-brokerctl status")
    _bus(show, directory)
    show.say("The secrets are taken back:")
    show.run(*control, "clear", shown="remo-brokerctl clear")
    show.run(*secret, "get", "GITHUB_TOKEN", shown="remo-secret get GITHUB_TOKEN", expect=4)
    show.say("Every fetch was recorded before it was answered (on a host: remo-brokerctl audit, or journalctl):")
    _audit(units)


def _bus(show: Show, directory: Path) -> None:
    """The status on a private bus, where this machine has what that takes."""
    if not (shutil.which("dbus-daemon") and shutil.which("busctl")):
        show.say("No dbus-daemon or busctl here: the status on the bus is left out.")
        return
    show.say("The same on a bus (a private one here), without any way to a secret:")
    address = f"unix:path={directory}/bus"
    config = directory / "bus.conf"
    config.write_text(
        f"<busconfig><type>session</type><listen>{address}</listen><auth>EXTERNAL</auth>"
        "<policy context='default'><allow send_destination='*' eavesdrop='true'/><allow eavesdrop='true'/>"
        "<allow own='*'/></policy></busconfig>"
    )
    daemon = subprocess.Popen(
        ["dbus-daemon", f"--config-file={config}", "--nofork", "--print-address"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    service = None
    try:
        assert daemon.stdout is not None
        daemon.stdout.readline()  # it listens from here on
        service = subprocess.Popen(
            [PROGRAMS / "remo-broker-bus", "--bus-address", address, "--status-socket", f"{directory}/status.sock"],
            stderr=subprocess.DEVNULL,
        )
        wait = ["busctl", f"--address={address}", "--timeout=5", "call", "io.get2know.RemoBroker1"]
        for _ in range(50):
            found = subprocess.run(
                [*wait, "/io/get2know/RemoBroker1", "org.freedesktop.DBus.Peer", "Ping"],
                capture_output=True,
                check=False,
            )
            if found.returncode == 0:
                break
            time.sleep(0.1)
        for name in ("SecretCount", "FetchesAllowed", "FetchesDenied"):
            what = ("io.get2know.RemoBroker1", "/io/get2know/RemoBroker1", "io.get2know.RemoBroker1.Manager", name)
            print(f"   $ busctl get-property {' '.join(what)}")
            done = subprocess.run(
                ["busctl", f"--address={address}", "get-property", *what], capture_output=True, text=True, check=False
            )
            print(f"     {(done.stdout or done.stderr).strip()}")
            show.failed |= done.returncode != 0
    finally:
        for process in (service, daemon):
            if process is not None:
                process.terminate()
                process.wait(STEP_SECONDS)
        if daemon.stdout is not None:
            daemon.stdout.close()


def _audit(units: SocketUnits) -> None:
    for line in units.log.read_text().splitlines():
        with contextlib.suppress(ValueError):
            record = json.loads(line)
            if record.get("REMO_EVENT") == Event.FETCH.word:
                names = ("REMO_PROJECT", "REMO_SECRET", "REMO_DECISION", "REMO_OUTCOME", "REMO_REASON", "REMO_PEER_UID")
                print("     " + " ".join(f"{name}={record[name]}" for name in names))


if __name__ == "__main__":
    sys.exit(main())
