"""`run`: when it pushes, and when it does not."""

from __future__ import annotations

import os
import pathlib
import signal
import socket
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from remo_broker.sidecar.source_watch import QUIET_SECONDS
from tests.process.sidecar.test_sources import VALUE, script, source
from tests.support.broker import inside, settle
from tests.support.cores import cores_piped_to
from tests.support.machine import poll
from tests.support.processes import processor_seconds

if TYPE_CHECKING:
    from tests.process.sidecar.conftest import Supplied


@pytest.fixture
def file(supplied: Supplied) -> pathlib.Path:
    path = supplied.directory / "vault.env"
    path.write_text("A=1\n")
    return path


def replace(path: pathlib.Path, text: str) -> None:
    """Replace the file by a rename, as editors and vaults do."""
    new = path.with_name("new")
    new.write_text(text)
    new.replace(path)


def test_it_pushes_at_its_start_and_reports_it(supplied: Supplied, file: pathlib.Path) -> None:
    supplied.broker.push({"A": "somebody's"})
    supplied.start("--file", file)
    supplied.serves("1")
    poll("the status", lambda: "Last push: 1 secret, generation 2" in supplied.status())
    assert f"fine: source 1 ({file})" in supplied.status()
    supplied.stop()
    assert any("STOPPING" in one for one in supplied.notified.read())


def test_a_change_is_pushed_however_it_is_made(supplied: Supplied, file: pathlib.Path) -> None:
    supplied.start("--file", file)
    supplied.serves("1")
    replace(file, "A=2\n")
    supplied.serves("2")
    file.write_text("A=3\n")  # truncates, then writes
    supplied.serves("3")
    with file.open("r+") as opened:
        opened.write("A=4\n")
        opened.flush()
        supplied.serves("4")  # before it is closed
    other = file.with_name("other.env")
    other.write_text("A=5\n")
    file.unlink()
    file.symlink_to(other)
    supplied.serves("5")
    replace(other, "A=6\n")  # behind the link
    supplied.serves("6")
    file.unlink()
    poll("the failure", lambda: "No such file" in supplied.logged() and "failed: source 1 (" in supplied.status())
    assert supplied.broker.get("A")["value"] == "6"
    file.write_text("A=7\n")
    supplied.serves("7")


def test_a_directory_that_does_not_exist_yet(supplied: Supplied) -> None:
    directory = supplied.directory / "run" / "secrets"
    supplied.start("--directory", directory)
    poll("the failure", lambda: "No such file" in supplied.logged() and "failed: source 1 (" in supplied.status())
    made = supplied.directory / "run.new" / "secrets"
    made.mkdir(parents=True)
    (made / "A").write_text("1")
    made.parent.rename(directory.parent)
    supplied.serves("1")
    # As Kubernetes does for a mounted secret.
    data = directory / "..2"
    data.mkdir()
    (data / "A").write_text("2")
    (directory / "..data").symlink_to("..2")
    (directory / "A").unlink()
    (directory / "A").symlink_to("..data/A")
    supplied.serves("2")
    (directory / "..3").mkdir()
    (directory / "..3" / "A").write_text("3")
    (directory / "..next").symlink_to("..3")
    (directory / "..next").rename(directory / "..data")
    supplied.serves("3")


def test_a_change_to_a_watched_path_runs_the_command(supplied: Supplied) -> None:
    """A directory is watched with its subdirectories, as in a password store."""
    store = supplied.directory / "store"
    (store / "inner").mkdir(parents=True)
    (store / "inner" / "A").write_text("1")
    command = script(supplied, f"print('A=' + open({str(store / 'inner' / 'A')!r}).read())")
    supplied.start("--command", command, "--watch", store)
    supplied.serves("1")
    replace(store / "inner" / "A", "2")
    supplied.serves("2")


def test_a_command_that_changes_its_own_watched_path_does_not_loop(supplied: Supplied) -> None:
    counter = supplied.directory / "count"
    counter.write_text("")
    command = script(supplied, f"open({str(counter)!r}, 'a').write('x'); print('A=1')")
    supplied.start("--command", command, "--watch", counter)
    supplied.serves("1")
    began = time.monotonic()
    settle(2)
    # Its pauses double: 0.2 s, 0.4 s and so on.
    assert len(counter.read_text()) < 6 + (time.monotonic() - began)


def test_unchanged_secrets_are_not_pushed_again(supplied: Supplied, file: pathlib.Path) -> None:
    supplied.start("--file", file)
    supplied.serves("1")
    os.utime(file)
    replace(file, "A=1\n")
    supplied.hangup()
    settle(0.6)
    assert supplied.broker.status()["generation"] == 1
    replace(file, "A=2\n")
    supplied.serves("2")
    assert supplied.broker.status()["generation"] == 2


def test_a_broker_that_does_not_answer_does_not_delay_the_boot(supplied: Supplied, file: pathlib.Path) -> None:
    """It accepts the connection, as systemd does for one that is stopped or hangs."""
    os.kill(supplied.broker.pid, signal.SIGSTOP)
    try:
        supplied.start("--file", file)
        assert "does not answer" in supplied.status()
        assert "does not answer" in supplied.logged()
    finally:
        os.kill(supplied.broker.pid, signal.SIGCONT)
    supplied.serves("1")
    poll("the status", lambda: "does not answer" not in supplied.status())


def test_a_burst_of_changes_is_one_push(supplied: Supplied, file: pathlib.Path) -> None:
    supplied.start("--file", file)
    supplied.serves("1")
    began = time.monotonic()
    for number in range(100):
        file.write_text(f"A={number}\n")
    supplied.serves("99")
    # On a slow host the burst lasts longer and causes more.
    assert supplied.broker.status()["generation"] < 10 + (time.monotonic() - began) / QUIET_SECONDS


def test_a_manager_with_a_full_queue_does_not_delay_it(supplied: Supplied, file: pathlib.Path) -> None:
    supplied.start("--file", file)
    supplied.notified.fill()
    replace(file, "A=2\n")
    supplied.serves("2")
    supplied.notified.read()
    poll("the status", lambda: "generation 2" in supplied.status())


def test_after_ten_changes_a_second_the_last_is_served(supplied: Supplied, file: pathlib.Path) -> None:
    supplied.start("--file", file)
    supplied.serves("1")
    for number in range(20):
        replace(file, f"A={number}\n")
        time.sleep(0.1)
    supplied.serves("19")


def test_refresh(supplied: Supplied) -> None:
    command = script(supplied, "print('A=%d' % time.time())")
    supplied.start("--command", command, "--refresh-seconds=1")
    first = poll("the first push", lambda: supplied.broker.get("A").get("value"))
    poll("another value", lambda: supplied.broker.get("A")["value"] != first)


def test_a_restarted_broker_is_supplied(supplied: Supplied, file: pathlib.Path) -> None:
    supplied.start("--file", file)
    supplied.serves("1")
    for _ in range(3):
        supplied.broker.process.kill()
        supplied.broker.wait()
        supplied.broker.start()
        supplied.serves("1")
    assert supplied.alive()


def test_a_broker_that_starts_later(supplied: Supplied, file: pathlib.Path) -> None:
    supplied.broker.stop()
    supplied.start("--file", file)
    assert "no broker" in supplied.status()
    supplied.broker.start()
    supplied.serves("1")
    poll("the status", lambda: "no broker" not in supplied.status())


@pytest.mark.parametrize("act", ["clear", "push"])
def test_a_push_by_another_process_stays_in_force(supplied: Supplied, file: pathlib.Path, act: str) -> None:
    """Until a source changes, or SIGHUP makes the sidecar push."""
    supplied.start("--file", file, "--refresh-seconds=1")
    supplied.serves("1")

    def somebody_acts() -> None:
        if act == "clear":
            supplied.broker.ask({"op": "clear-creds"})
        else:
            supplied.broker.push({"A": "theirs"})
        poll("the sidecar to see it", lambda: f"another process's {act}" in supplied.status())

    somebody_acts()
    os.utime(file)
    settle(1.5)  # beyond refresh_seconds
    assert supplied.broker.get("A").get("value") == (None if act == "clear" else "theirs")
    replace(file, "A=2\n")
    supplied.serves("2")
    somebody_acts()
    supplied.hangup()
    supplied.serves("2")
    somebody_acts()
    supplied.broker.process.kill()
    supplied.broker.wait()
    supplied.broker.start()
    supplied.serves("2")


def test_a_source_that_fails_is_tried_again(supplied: Supplied) -> None:
    flag = supplied.directory / "flag"
    body = f"sys.exit(4) if not os.path.exists({str(flag)!r}) else print('A=1')"
    supplied.start("--command", script(supplied, body))
    assert "failed: source 1 (vault); " in supplied.status()
    assert "source 1 (vault): exit status 4" in supplied.logged()
    assert "next try within 1 s" in supplied.status()
    flag.touch()
    supplied.serves("1")
    poll("the status", lambda: "failed" not in supplied.status())


def test_an_operators_push_while_a_source_fails_stays_in_force(supplied: Supplied) -> None:
    flag = supplied.directory / "flag"
    body = f"sys.exit(4) if not os.path.exists({str(flag)!r}) else print('A=1')"
    supplied.start("--command", script(supplied, body))
    supplied.broker.push({"A": "theirs"})
    poll("the sidecar to see it", lambda: "another process's push" in supplied.status())
    flag.touch()
    settle(2.5)
    assert supplied.broker.get("A")["value"] == "theirs"


def test_an_operators_clear_while_sources_are_read_stays_in_force(supplied: Supplied) -> None:
    """The command prints another value each time, so that there is something to push."""
    pause, reading = supplied.directory / "pause", supplied.directory / "reading"
    body = (
        f"pause, reading = {str(pause)!r}, {str(reading)!r}\n"
        "if os.path.exists(pause):\n    open(reading, 'w').close()\n"
        "while os.path.exists(pause): time.sleep(0.01)\nprint('A=%d' % time.time_ns())"
    )
    supplied.start("--command", script(supplied, body), "--refresh-seconds=1")
    poll("the first push", lambda: supplied.broker.get("A").get("value"))
    pause.touch()
    poll("the sources to be read", reading.exists)
    supplied.broker.ask({"op": "clear-creds"})
    pause.unlink()
    poll("the sidecar to see it", lambda: "another process's clear" in supplied.status())
    settle(1.5)  # beyond refresh_seconds
    assert supplied.broker.get("A")["reason"] == "no_snapshot"
    supplied.hangup()
    poll("the push that is asked for", lambda: supplied.broker.get("A").get("value"))


def test_waiting_for_a_silent_broker_takes_no_processor_time(supplied: Supplied, file: pathlib.Path) -> None:
    supplied.broker.stop()
    supplied.start("--file", file)
    with socket.socket(socket.AF_UNIX) as silent:
        supplied.broker.admin.unlink(missing_ok=True)
        silent.bind(str(supplied.broker.admin))
        silent.listen(4)
        silent.settimeout(20)
        connection, _ = silent.accept()
        with connection:
            before = processor_seconds(supplied.process.pid)
            settle(1)
            assert processor_seconds(supplied.process.pid) - before < 0.3
    supplied.broker.admin.unlink()


def test_a_child_that_outlives_its_command_is_killed_at_the_timeout(supplied: Supplied) -> None:
    pid = supplied.directory / "pid"
    body = f"import subprocess; p = subprocess.Popen(['sleep', '600'])\nopen({str(pid)!r}, 'w').write(str(p.pid))\nprint('A=1')"
    config = supplied.configure(source(command=[script(supplied, body)], timeout_seconds=1))
    supplied.start(f"--config={config}")
    assert "timed out after 1 s and was killed" in supplied.logged()
    child = pid.read_text()
    poll("the end of its child", lambda: not pathlib.Path(f"/proc/{child}").exists() or _is_zombie(child))


def test_sighup_reads_the_configuration_again(supplied: Supplied, file: pathlib.Path) -> None:
    config = supplied.configure(source(file=str(file)))
    environment = f"--config={config}"
    supplied.start(environment)
    supplied.serves("1")
    supplied.configure("nonsense = 1\n")
    supplied.hangup()
    poll("the mistake to be logged", lambda: "nonsense" in supplied.logged())
    replace(file, "A=2\n")
    supplied.serves("2")
    other = file.with_name("b.env")
    other.write_text("A=3\n")
    supplied.configure(source(file=str(other)))
    supplied.hangup()
    supplied.serves("3")


def test_it_stops_at_once_together_with_its_commands(supplied: Supplied) -> None:
    pid = supplied.directory / "pid"
    body = f"import subprocess; p = subprocess.Popen(['sleep', '600'])\nopen({str(pid)!r}, 'w').write(str(p.pid)); p.wait()"
    config = supplied.configure(source(command=["echo", "A=1"]))
    supplied.start(f"--config={config}")
    supplied.serves("1")
    supplied.configure(source(command=[script(supplied, body)], timeout_seconds=600))
    supplied.hangup()
    child = poll("the command to run", lambda: pid.read_text() if pid.exists() else "")
    supplied.stop()
    poll("the end of its child", lambda: not pathlib.Path(f"/proc/{child}").exists() or _is_zombie(child))


def _is_zombie(pid: str) -> bool:
    return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def test_killed_at_any_moment_it_leaves_the_old_or_the_new_secrets(supplied: Supplied, file: pathlib.Path) -> None:
    def write(number: int) -> None:
        replace(file, "".join(f"{name}={number}\n" for name in ("A", "B", "KEY")))

    write(0)
    supplied.start("--file", file)
    supplied.serves("0", "KEY")
    for number in range(1, 15):
        write(number)
        time.sleep(0.004 * number)
        supplied.process.send_signal(signal.SIGKILL)
        supplied.process.wait()
        assert len({supplied.broker.get(name)["value"] for name in ("A", "B", "KEY")}) == 1
        supplied.start("--file", file)


def test_no_value_is_left_in_its_memory_or_log(supplied: Supplied, file: pathlib.Path) -> None:
    file.write_text(f"A={VALUE}1\nB={VALUE}2\n")
    supplied.start("--file", file)
    supplied.serves(f"{VALUE}1")
    pid = supplied.process.pid
    assert VALUE not in supplied.logged() + supplied.status()
    settle(0.2)
    found = 0
    memory = inside(pid, "mem")
    with memory.open("rb", buffering=0) as opened:
        for line in inside(pid, "maps").read_text().splitlines():
            place, access = line.split()[:2]
            if not access.startswith("rw"):
                continue
            begin, end = (int(part, 16) for part in place.split("-"))
            try:
                opened.seek(begin)
                found += opened.read(end - begin).count(VALUE.encode())
            except (OSError, ValueError):
                continue
    assert found == 0
    assert VALUE.encode() not in inside(pid, "environ").read_bytes() + inside(pid, "cmdline").read_bytes()
    handler = supplied.directory / "handler"
    handler.write_text(f"#!/bin/sh\ncat >{supplied.directory}/core.$1\n")
    handler.chmod(0o755)
    with cores_piped_to(handler), subprocess.Popen(["sleep", "60"]) as other:
        for process in (other, supplied.process):
            process.send_signal(signal.SIGSEGV)
            assert process.wait() == -signal.SIGSEGV
        poll("the other's core", (supplied.directory / f"core.{other.pid}").exists)
        assert not (supplied.directory / f"core.{pid}").exists()
