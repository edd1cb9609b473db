"""Start and exit: flags, files, signals."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import signal
import stat
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from remo_broker.broker.sockets.connection import PEER_SECONDS
from remo_broker.protocol.hardening import MEMORY_ENVIRONMENT
from tests.support.broker import WAIT_SECONDS, Broker, Link, inside, registration, run_to_end
from tests.support.host_memory import of_this_host
from tests.support.machine import REPOSITORY, poll
from tests.support.projects import allowlist, make_project
from tests.support.slow_reader import a_reader_is_slow, slow_parser
from tests.support.timing import shortest

if TYPE_CHECKING:
    from tests.conftest import StartBroker

GET = b'{"op":"get","name":"A"}\n'


def refused_start(*arguments: str) -> str:
    """The one line that a failed start leaves."""
    done = run_to_end(*arguments)
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("remo-broker: ")
    return line


# --- start


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("rate_limit_per_second = -1", "rate_limit_per_second: "),
        ("rate_limit_burst = 1.5", "rate_limit_burst: "),
        ('audit_failure = "ignore"', "audit_failure: "),
        ('socket_dir = "relative"', "socket_dir: "),
        ("[socket_dir]", "socket_dir: "),
        ("ratelimit = 5", "ratelimit: unknown"),
        ("rate_limit_per_second = 5\n\n[more]\nx = 1", "more: unknown"),
        ("rate_limit_per_second", "not TOML"),
        ("\0", "not TOML"),
        (
            "rate_limit_burst = 5\nidle_exit_seconds = 1\nrate_limit_burst = 6",
            "not TOML: duplicate key rate_limit_burst",
        ),
    ],
)
def test_a_mistake_in_the_file_stops_the_start(directory: pathlib.Path, content: str, says: str) -> None:
    path = directory / "config.toml"
    path.write_text(content)
    said = refused_start("--config", str(path), "--socket-dir", str(directory / "s"))
    assert said.startswith(f"remo-broker: {path}: {says}")
    assert not (directory / "s").exists()


def test_a_flag_does_not_hide_a_mistake_in_the_file(directory: pathlib.Path) -> None:
    path = directory / "config.toml"
    path.write_text("rate_limit_burst = -1\n")
    assert "rate_limit_burst" in refused_start("--config", str(path), "--rate-limit-burst", "5")


def test_a_file_given_by_flag_must_exist(directory: pathlib.Path) -> None:
    assert "no such file" in refused_start("--config", str(directory / "none.toml"))


def test_a_mistake_in_a_flag(directory: pathlib.Path) -> None:
    assert "max_connections_admin: " in refused_start("--max-connections-admin", "0")
    assert "state_dir: " in refused_start("--state-dir", "relative")
    for arguments in (["--nonsense"], ["--rate-limit-burst", "many"], ["--audit", "nowhere"], ["more"]):
        done = run_to_end(*arguments)
        assert done.returncode == 2
        assert done.stderr.splitlines()[0] == "usage: remo-broker [OPTION...]"
        assert len(done.stderr.splitlines()) == 2


def test_options_cannot_be_abbreviated() -> None:
    """An abbreviation could become ambiguous with the next option."""
    assert "unrecognized arguments: --idle" in run_to_end("--idle", "5").stderr


def test_version_and_help() -> None:
    assert run_to_end("--version").stdout == "remo-broker 2.0.0\n"
    text = run_to_end("--help").stdout
    assert "--rate-limit-per-second" in text
    assert "--audit" in text


def test_flags_override_the_file(start_broker: StartBroker, directory: pathlib.Path) -> None:
    path = directory / "config.toml"
    path.write_text("cache_default_ttl_seconds = 50\nrate_limit_per_second = 1\nrate_limit_burst = 1\n")
    broker = start_broker(
        projects=[registration("myrepo", "A")], flags=["--config", str(path)], rate_limit_per_second=0
    )
    broker.push({"A": "a"})
    for _ in range(5):
        assert broker.get("A")["ttl_seconds"] in (49, 50)


def test_only_its_own_user_may_use_control_sockets_that_it_creates(start_broker: StartBroker) -> None:
    """The broker's group contains all projects' users, who must not push."""
    broker = start_broker(projects=[registration("myrepo", "A")])
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (broker.admin, broker.status_socket, broker.project())]
    assert modes == [0o600, 0o600, 0o660]


# The broker starts with it, and pauses after each socket that it has bound.
SLOW_BIND = """
import time
from remo_broker.binder import files

def slow(*arguments, bound=files.listen):
    listening = bound(*arguments)
    time.sleep(0.5)
    return listening

files.listen = slow
"""


def test_a_broker_that_listens_ends_as_it_should(start_broker: StartBroker, directory: pathlib.Path) -> None:
    """Whoever waited for the admin socket may stop it at once."""
    (directory / "sitecustomize.py").write_text(SLOW_BIND)
    broker = start_broker(environment={"PYTHONPATH": f"{directory}:{REPOSITORY}"})
    broker.signal(signal.SIGTERM)
    assert broker.wait() == 0
    assert not broker.admin.exists()


def test_two_brokers_on_one_directory(start_broker: StartBroker) -> None:
    """The second one does not touch the first one's files."""
    broker = start_broker(projects=[registration("myrepo", "A")])
    assert broker.status()["ok"]  # so it has started, and written all that it does
    broker.project().unlink()
    (broker.state / "registrations.json").write_text("damaged")
    kept = {path.name: path.read_text() for path in broker.state.iterdir()}
    said = refused_start("--socket-dir", str(broker.sockets), "--state-dir", str(broker.state), "--audit", "stderr")
    assert f"cannot listen on {broker.status_socket}" in said
    assert not broker.project().exists()
    assert {path.name: path.read_text() for path in broker.state.iterdir()} == kept
    assert broker.status()["ok"]


def test_two_brokers_with_one_state(start_broker: StartBroker, directory: pathlib.Path) -> None:
    """Each would save its own registrations over the other's."""
    broker = start_broker()
    said = refused_start("--socket-dir", str(directory / "other"), "--state-dir", str(broker.state))
    assert said == f"remo-broker: state_dir: {broker.state}: another broker uses it; give each its own"
    broker.process.kill()
    broker.process.wait()
    assert start_broker().status()["ok"]


def test_a_directory_that_cannot_be_created(directory: pathlib.Path) -> None:
    (directory / "file").write_text("")
    path = directory / "file" / "s"
    assert refused_start("--socket-dir", str(path)) == f"remo-broker: socket_dir: {path}: Not a directory"


def test_without_a_state_directory_it_serves_and_reports_it(start_broker: StartBroker, directory: pathlib.Path) -> None:
    (directory / "file").write_text("")
    broker = start_broker(flags=["--state-dir", str(directory / "file" / "state")])
    assert broker.status()["ok"]
    assert any(str(directory / "file" / "state") in note for note in broker.notes())
    path = make_project(directory / "myrepo", "A")
    refusal = broker.ask({"op": "register", "name": "myrepo", "project_path": str(path)})
    assert refusal["reason"] == "state_unwritable"


def test_files_left_by_a_crash_do_not_prevent_a_start(start_broker: StartBroker) -> None:
    broker = start_broker(projects=[registration("myrepo", "A")])
    broker.process.kill()
    broker.process.wait()
    assert broker.admin.exists()
    broker = start_broker()
    assert broker.status()["project_count"] == 1
    assert broker.get("A")["reason"] == "no_snapshot"
    assert broker.notes() == []


def test_a_missing_library_is_named(directory: pathlib.Path) -> None:
    """systemd started it, and systemd-python is missing."""
    done = subprocess.run(
        [sys.executable, "-S", "-m", "remo_broker", f"--socket-dir={directory}/s", f"--state-dir={directory}/state"],
        env={"PYTHONPATH": str(REPOSITORY), **MEMORY_ENVIRONMENT, "LISTEN_FDS": "1"},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "systemd-python" in line


def test_it_applies_the_allocators_settings_itself(directory: pathlib.Path) -> None:
    """Started without them, it executes itself with them: the same process, without a warning."""
    process = subprocess.Popen(
        [sys.executable, "-m", "remo_broker", "--socket-dir", str(directory), "--state-dir", str(directory)],
        env={"PYTHONPATH": str(REPOSITORY), "PATH": os.defpath},
        stderr=subprocess.PIPE,
    )
    try:
        poll("the broker to listen", (directory / "admin.sock").exists)
        environment = inside(process.pid, "environ").read_bytes()
        assert b"PYTHONMALLOC=malloc" in environment
        assert b"glibc.malloc.tcache_count=0" in environment
    finally:
        process.terminate()
        _, said = process.communicate(timeout=60)
    assert process.returncode == 0
    records = [json.loads(line) for line in said.splitlines()]
    events = [one["REMO_EVENT"] for one in records if not of_this_host(one)]
    assert events == ["broker.started", "broker.stopped"]


HEAVY = "argparse asyncio dataclasses inspect logging pydantic dbus_next subprocess tempfile tomllib traceback typing"


def test_modules_that_it_does_not_import() -> None:
    """This saves start-up time and memory, and keeps out of the process what a get does not
    need."""
    code = "import remo_broker.broker.daemon, sys; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        env={"PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        text=True,
        timeout=20,
        check=True,
    )
    assert set(done.stdout.split()) & set(HEAVY.split()) == set()


# --- end


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_answers_requests_that_have_arrived(start_broker: StartBroker, number: int) -> None:
    """Gets with unread replies, a long push, a request without a newline: all are answered, then
    closed."""
    broker = start_broker(projects=[registration("myrepo", "A", "B")], rate_limit_per_second=0)
    broker.push({"A": "a" * 1000})
    push = json.dumps({"op": "push-creds", "secrets": {f"N{item}": "x" * 1000 for item in range(150)}}).encode() + b"\n"
    with (
        Link(broker.project()) as busy,
        Link(broker.project()) as brief,
        Link(broker.project()) as idle,
        Link(broker.admin) as operator,
        Link(broker.admin) as quiet,
        Link(broker.status_socket) as watcher,
    ):
        watcher.send({"op": "watch"})
        watcher.line()
        busy.send(GET * 2000)
        brief.send(GET[:-1])
        operator.send(push)
        broker.signal(number)
        assert operator.rest().startswith(b'{"ok":true,"loaded_at":')
        assert brief.rest().count(b"\n") == 1
        assert idle.rest() == quiet.rest() == b""
        assert json.loads(watcher.rest().splitlines()[-1]) == {"event": "stopping", "idle": False}
        assert broker.process.poll() is None  # it waits for the busy connection
        assert busy.rest().count(b'"ok":true') >= 1  # later gets came after the push had replaced the store
        assert broker.wait() == 0
    assert len(broker.records("fetch")) == 2001
    assert not broker.admin.exists()
    assert not broker.status_socket.exists()
    (stopped,) = broker.records("broker.stopped")
    assert (stopped["REMO_DROPPED"], stopped["PRIORITY"]) == ("0", "5")
    (started,) = broker.records("broker.started")
    assert started["REMO_PROJECT_COUNT"] == "1"


def test_a_request_truncated_by_the_exit_is_not_reported_as_malformed(start_broker: StartBroker) -> None:
    """A client does not retry after `protocol_error`, but without a reply it does."""
    broker = start_broker(projects=[registration("myrepo", "A")])
    push = b'{"op":"push-creds","secrets":{"A":"' + b"a" * 100_000
    with contextlib.ExitStack() as stack:
        halves = []
        for path, half in (
            (broker.project(), GET[:-5]),
            (broker.project(), b" " * 500 + GET[:-5]),
            (broker.admin, push),
        ):
            halves.append(stack.enter_context(Link(path)))
            halves[-1].socket.sendall(half)
        wrong = stack.enter_context(Link(broker.project()))
        wrong.socket.sendall(GET[:-5] + b"\n")  # complete and malformed
        broker.signal(signal.SIGTERM)
        assert [link.rest() for link in halves] == [b""] * len(halves)
        assert b'"invalid_json"' in wrong.rest()
        assert broker.wait() == 0


def test_a_client_that_does_not_read_delays_the_exit_by_five_seconds_at_most(start_broker: StartBroker) -> None:
    broker = start_broker(projects=[registration("myrepo", "A")], rate_limit_per_second=0)
    broker.push({"A": "a" * 60_000})
    with Link(broker.project()) as client:
        client.send(GET * 100)
        poll("the gets to be under way", lambda: len(broker.records("fetch")) >= 3)
        broker.signal(signal.SIGTERM)
        broker.signal(signal.SIGTERM)  # a second signal changes nothing
        assert broker.wait(PEER_SECONDS + WAIT_SECONDS) == 0
        with pytest.raises(OSError, match=r"refused|No such file"):
            Link(broker.project())


def test_a_project_registered_during_the_exit_accepts_no_clients(
    start_broker: StartBroker, directory: pathlib.Path
) -> None:
    """Its manifest was being read when the broker was stopped: it is registered for the next
    broker."""
    broker = start_broker(
        projects=[registration("slow", "A")], rate_limit_per_second=0, environment=slow_parser(directory)
    )
    broker.push({"A": "a" * 60_000})
    path = make_project(directory / "myrepo", "SLOW")
    with Link(broker.project("slow")) as reader, Link(broker.admin) as operator:
        reader.send(GET * 100)  # a client that does not read its replies delays the end
        operator.send({"op": "register", "name": "myrepo", "project_path": str(path)})
        poll("the manifest's reader", lambda: a_reader_is_slow(broker))
        broker.signal(signal.SIGTERM)
        assert operator.reply()["ok"]
        assert broker.process.poll() is None
        with pytest.raises(ConnectionRefusedError):
            Link(broker.project())
        reader.rest()
    assert broker.wait() == 0
    assert allowlist(start_broker()) == ["SLOW"]


def test_a_reload_during_the_exit_is_answered(start_broker: StartBroker, directory: pathlib.Path) -> None:
    path = make_project(directory / "myrepo", "SLOW")
    broker = start_broker(
        projects=[registration("myrepo", "A", project_path=str(path))], environment=slow_parser(directory)
    )
    with Link(broker.admin) as operator:
        operator.send({"op": "reload", "name": "myrepo"})
        poll("the manifest's reader", lambda: a_reader_is_slow(broker))
        broker.signal(signal.SIGTERM)
        assert operator.reply()["allowlist"] == ["SLOW"]
    assert broker.wait() == 0


def test_a_silent_peer_does_not_delay_a_stop(start_broker: StartBroker) -> None:
    def stopped_after() -> float:
        broker = start_broker(projects=[registration("myrepo", "A", allowed_uids=[2**32 - 2])])
        with Link(broker.project()), Link(broker.admin):
            broker.status()
            began = time.monotonic()
            broker.stop()
            return time.monotonic() - began

    assert shortest(stopped_after, below=PEER_SECONDS) < PEER_SECONDS


def test_a_stop_logs_no_internal_error(start_broker: StartBroker) -> None:
    broker: Broker = start_broker()
    assert broker.notes() == []
    broker.stop()
    assert broker.notes() == []
