"""`./run demo`: the whole of the broker's work in a directory of its own, each step with the
command a user would type.

Nothing here is staged. The sockets are opened first, as socket units do, and the broker is started
by the first connect with the descriptors handed over; the commands are the installed programs; the
audit lines are what the broker wrote. The system is not touched, and the directory is removed at
the end, however the demo ends."""

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
import textwrap
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import remo_broker.bus  # noqa: F401 - before the first import of dbus-next: see there
from remo_broker.protocol.audit_records import Decision, Event
from tests.support.broker import LAUNCH
from tests.support.bus import unix_address

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PROGRAMS = Path(sys.executable).parent
MANIFEST = """\
schema_version = 1
[project]
name = "myrepo"
[allowlist]
secrets = ["GITHUB_TOKEN", "aws"]
"""
# What a sidecar would have fetched from wherever the host's credentials are. Made up, as everything
# here.
SECRETS = {
    "GITHUB_TOKEN": "demo-token-of-nobody",
    "NPM_TOKEN": "demo-token-that-myrepo-does-not-name",
    "aws": {"aws_access_key_id": "DEMO", "aws_secret_access_key": "demo-key-of-nobody"},
}
# A step that takes longer has failed.
STEP_SECONDS = 30
# The longest path that a Unix socket may have.
SOCKET_PATH_BYTES = 107
# Wide enough for every table here, and no wider than what can be read.
MAX_COLUMNS = 100
INTERRUPTIONS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class DemoFailed(Exception):
    """The demo cannot continue; one line that says why."""


class SocketUnits:
    """What `remo-broker-admin.socket` and its like do: listen, and start the service when somebody
    connects."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.broker: subprocess.Popen[bytes] | None = None
        self.log = directory / "audit.log"
        self._listening = {name: self._listen(f"{name}.sock") for name in ("admin", "status")}
        self._stop, self._stopped = socket.socketpair()
        self._watch()

    def _watch(self) -> None:
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
        directories = ["--socket-dir", str(self.directory), "--state-dir", str(self.directory / "state")]
        broker = [str(PROGRAMS / "remo-broker"), *directories, "--audit", "stderr"]
        with self.log.open("ab") as log:
            self.broker = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", LAUNCH, ",".join(map(str, descriptors)), *broker],
                stderr=log,
                env={**os.environ, "LISTEN_FDS": str(len(descriptors)), "LISTEN_FDNAMES": ":".join(self._listening)},
                pass_fds=descriptors,
                start_new_session=True,  # Ctrl-C is for the demo, which then stops the broker
            )

    def kill_broker(self) -> None:
        """As a crash: without a message, and the sockets stay."""
        assert self.broker is not None
        self.broker.kill()
        self.broker.wait(STEP_SECONDS)
        self._thread.join()
        self._watch()

    def stop_broker(self) -> None:
        if self.broker is not None:
            self.broker.terminate()
            self.broker.wait(STEP_SECONDS)

    def close(self) -> None:
        self._stop.send(b"x")
        self._thread.join()
        self.stop_broker()
        for one in [*self._listening.values(), self._stop, self._stopped]:
            one.close()


class Presentation:
    """Says what is done, does it, and shows what it answers, in lines that the terminal need not
    break."""

    def __init__(self, directory: Path, signals: Sequence[int]) -> None:
        self._directory = directory
        self._signals = signals
        self._columns = min(shutil.get_terminal_size().columns, MAX_COLUMNS) - 1
        self._bold, self._plain = ("\033[1m", "\033[0m") if sys.stdout.isatty() else ("", "")
        self._steps = 0
        self.failed = False

    def go_on(self) -> None:
        """End the demo if it was told to end. Asked between steps, so that nothing is ever half
        started."""
        if self._signals:
            raise SystemExit(128 + self._signals[0])

    def say(self, text: str) -> None:
        self.go_on()
        self._steps += 1
        number = f"{self._steps}. "
        folded = textwrap.fill(
            text,
            self._columns,
            initial_indent=number,
            subsequent_indent=" " * len(number),
            break_on_hyphens=False,
        )
        print(f"\n{self._bold}{folded}{self._plain}", flush=True)

    def answer(self, text: str) -> None:
        for line in text.replace(str(self._directory), "$DEMO").splitlines():
            rest = " " * (5 + len(line) - len(line.lstrip()))
            folded = textwrap.fill(
                line,
                self._columns,
                initial_indent="     ",
                subsequent_indent=rest,
                drop_whitespace=len(line) > self._columns - 5,
                break_on_hyphens=False,
            )
            print(folded, flush=True)

    def run(self, *command: str, given: str | None = None, shown: str | None = None, expect: int = 0) -> None:
        """Run a program. `shown` is the command as a user would type it, where that differs."""
        own_path = str(self._directory)
        words = (one.replace(own_path, "$DEMO") if own_path in one else shlex.quote(one) for one in command)
        typed = shown.replace(own_path, "$DEMO") if shown else " ".join(words)
        lines = textwrap.wrap(typed, self._columns - 7, break_long_words=False, break_on_hyphens=False)
        print("   $ " + " \\\n       ".join(lines), flush=True)
        own = PROGRAMS / command[0]
        try:
            done = subprocess.run(
                [str(own) if own.exists() else command[0], *command[1:]],
                input=given,
                capture_output=True,
                text=True,
                timeout=STEP_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise DemoFailed(f"no answer within {STEP_SECONDS} s") from None
        self.go_on()
        self.answer(done.stdout + done.stderr)
        if done.returncode != expect:
            self.failed = True
            self.answer(f"(exit status {done.returncode}; {expect} was expected)")
        elif done.returncode:
            self.answer(f"(exit status {done.returncode})")


def main() -> int:
    """Returns 0 if every step succeeded."""
    signals: list[int] = []
    for number in INTERRUPTIONS:
        signal.signal(number, lambda number, _frame: signals.append(number))
    try:
        with _directory() as directory:
            show = Presentation(directory, signals)
            _all_steps(show, directory)
        print(
            f"\nThe directory is removed. {'The demo failed.' if show.failed else 'Next: ./run install; see README.md.'}"
        )
    except (DemoFailed, OSError) as error:
        with contextlib.suppress(OSError):  # the reader of the output may have left
            print(f"demo: {error}", file=sys.stderr, flush=True)
        os._exit(1)  # the interpreter would report once more that its output is not read
    return int(show.failed)


@contextlib.contextmanager
def _directory() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="remo-broker-demo."))
    try:
        if len(os.fsencode(directory / "myrepo.sock")) > SOCKET_PATH_BYTES:
            raise DemoFailed(f"{directory} is too long a path for sockets; try TMPDIR=/tmp ./run demo")
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _all_steps(show: Presentation, directory: Path) -> None:
    (directory / "state").mkdir(mode=0o700)
    manifest = directory / "projects" / "myrepo" / ".devcontainer" / "remo-broker.toml"
    manifest.parent.mkdir(parents=True)
    manifest.write_text(MANIFEST)
    with contextlib.closing(SocketUnits(directory)) as units:
        _steps(show, units, manifest)


def _steps(show: Presentation, units: SocketUnits, manifest: Path) -> None:
    directory = units.directory
    control = ("remo-brokerctl", f"--socket={directory}/admin.sock")
    secret = ("remo-secret", f"--socket={directory}/myrepo.sock")

    print(f"The demo runs in its own directory: DEMO={directory}")
    print("Its control sockets are open, as by socket units. No broker is running yet.")
    show.say("A project's manifest, in its own directory, names the secrets that it may fetch:")
    show.run("cat", str(manifest))
    show.say("An operator registers it. This is the first connection, so it starts the broker:")
    project = manifest.parent.parent
    show.run(*control, "register", str(project), "--no-enable", shown=f"remo-brokerctl register {project}")
    if units.broker is not None:
        show.answer(f"(the broker is process {units.broker.pid}; its sockets were handed over to it)")
    show.say("Nothing has been pushed yet, so there is nothing to fetch:")
    show.run(*secret, "get", "GITHUB_TOKEN", shown="remo-secret get GITHUB_TOKEN", expect=4)
    show.say(
        "A sidecar, here the demo, pushes all secrets that the host has for containers. They go over standard input, and"
        " into the broker's memory alone:"
    )
    show.run(*control, "push", given=json.dumps(SECRETS), shown="sidecar | remo-brokerctl push")
    show.say("The project fetches what its manifest names: a string, and a bundle of strings.")
    show.run(*secret, "get", "GITHUB_TOKEN", shown="remo-secret get GITHUB_TOKEN")
    show.run(*secret, "get", "aws", shown="remo-secret get aws")
    show.say("A command gets them in its environment, which ends with it:")
    inner = ("exec", "--", "sh", "-c", "echo a token of ${#GITHUB_TOKEN} letters")
    show.run(*secret, *inner, shown=f"remo-secret {shlex.join(inner)}")
    show.say("The broker holds NPM_TOKEN too, but the manifest does not name it, so it is denied:")
    show.run(*secret, "get", "NPM_TOKEN", shown="remo-secret get NPM_TOKEN", expect=3)
    show.say("Broker status, without names of secrets:")
    show.run(*control, "status", shown="remo-brokerctl status")
    _bus(show, directory)
    with _supplied(show, units, secret):
        show.say("An operator clears the secrets, so the sidecar does not push them again:")
        show.run(*control, "clear", shown="remo-brokerctl clear")
    show.run(*secret, "get", "GITHUB_TOKEN", shown="remo-secret get GITHUB_TOKEN", expect=4)
    show.say(
        "Every fetch was recorded before it was answered, with the peer and without the value. On a host the records are"
        " in the journal, for `remo-brokerctl audit`; here they are lines of JSON:"
    )
    show.run("grep", f'"REMO_DECISION": "{Decision.DENY}"', str(units.log))
    show.say("A summary of all fetches:")
    _audit(show, units.log)
    show.say("On SIGTERM, the broker finishes the requests in flight and erases its secrets:")
    assert units.broker is not None
    print("   $ systemctl stop remo-broker        # here: kill", units.broker.pid, flush=True)
    units.stop_broker()


@contextlib.contextmanager
def _supplied(show: Presentation, units: SocketUnits, secret: Sequence[str]) -> Iterator[None]:
    """The broker is killed and supplied again, without manual steps; the sidecar runs on in the
    block."""
    directory = units.directory
    vault = directory / "vault.json"
    vault.write_text(json.dumps(SECRETS))
    show.say("On a host, remo-sidecar pushes by itself, at its start and whenever a source changes.")
    sidecar = ("remo-sidecar", f"--socket={directory}/admin.sock", "run", "--file", str(vault))
    print("   $ remo-sidecar run --file $DEMO/vault.json &", flush=True)
    with _running(str(PROGRAMS / sidecar[0]), *sidecar[1:]):
        vault.write_text(json.dumps(SECRETS | {"GITHUB_TOKEN": "demo-token-that-was-renewed"}))
        deadline = time.monotonic() + STEP_SECONDS
        get = [str(PROGRAMS / "remo-secret"), *secret[1:], "get", "GITHUB_TOKEN"]
        while b"renewed" not in subprocess.run(get, capture_output=True, check=False).stdout:
            if time.monotonic() > deadline:
                raise DemoFailed("the sidecar does not push")
            show.go_on()
            time.sleep(0.1)
        show.run(*secret, "get", "GITHUB_TOKEN", shown="remo-secret get GITHUB_TOKEN")
        show.say("The broker crashes and loses its secrets. The sidecar detects that and supplies the next broker:")
        assert units.broker is not None
        before = units.broker.pid
        print(f"   $ kill -KILL {before}", flush=True)
        units.kill_broker()
        show.run(*secret, "wait", shown="remo-secret wait")
        show.run(*secret, "get", "GITHUB_TOKEN", shown="remo-secret get GITHUB_TOKEN")
        show.answer(f"(from process {units.broker.pid})")
        yield


def _bus(show: Presentation, directory: Path) -> None:
    """The status on a private bus, where this machine has what that takes."""
    if not (shutil.which("dbus-daemon") and shutil.which("busctl")):
        show.say("No dbus-daemon or busctl here: the status on the bus is skipped.")
        return
    show.say("Every user on the host can read the same counts on the system bus; the demo uses a private bus:")
    address = unix_address(directory / "bus")
    config = directory / "bus.conf"
    config.write_text(
        f"<busconfig><type>session</type><listen>{address}</listen><auth>EXTERNAL</auth>"
        "<policy context='default'><allow send_destination='*' eavesdrop='true'/><allow eavesdrop='true'/>"
        "<allow own='*'/></policy></busconfig>"
    )
    service = [str(PROGRAMS / "remo-broker-bus"), "--bus-address", address]
    name, path = "io.get2know.RemoBroker1", "/io/get2know/RemoBroker1"
    ask = ("busctl", f"--address={address}", "--timeout=5")
    with _running("dbus-daemon", f"--config-file={config}", "--nofork", "--print-address") as daemon:
        assert daemon.stdout is not None
        daemon.stdout.readline()  # it listens from here on
        with _running(*service, "--status-socket", f"{directory}/status.sock"):
            ping = [*ask, "call", name, path, "org.freedesktop.DBus.Peer", "Ping"]
            deadline = time.monotonic() + STEP_SECONDS
            while subprocess.run(ping, capture_output=True, check=False).returncode != 0:
                if time.monotonic() > deadline:
                    raise DemoFailed("the status service does not come up on the bus")
                show.go_on()
                time.sleep(0.1)
            get = ("get-property", name, path, f"{name}.Manager", "SecretCount", "FetchesAllowed", "FetchesDenied")
            show.run(*ask, *get, shown=f"busctl {shlex.join(get)}")


@contextlib.contextmanager
def _running(*command: str) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
    ) as process:
        try:
            yield process
        finally:
            process.terminate()


def _audit(show: Presentation, log: Path) -> None:
    names = ("REMO_DECISION", "REMO_OUTCOME", "REMO_REASON", "REMO_SECRET", "REMO_PEER_UID")
    rows = [names]
    for line in log.read_text().splitlines():
        with contextlib.suppress(ValueError):  # other lines are not JSON either
            record = json.loads(line)
            if record.get("REMO_EVENT") == Event.FETCH.word:
                rows.append(tuple(record[name] for name in names))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        show.answer("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


if __name__ == "__main__":
    sys.exit(main())
