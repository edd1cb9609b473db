"""`remo-brokerctl` on projects, the broker's state, and what both look like."""

from __future__ import annotations

import json
import os
import re
import signal
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from tests.process.ctl.conftest import CommandLine, write_project
from tests.support import programs
from tests.support.broker import NOBODY, Link, registration
from tests.support.machine import poll
from tests.support.programs import refused

if TYPE_CHECKING:
    import pathlib

    from tests.conftest import StartBroker

TIME = r"\w{3} \d{4}-\d\d-\d\d \d\d:\d\d:\d\d \S+; \d+\S* ago"


# --- status


def test_status_of_a_running_broker(operator: CommandLine) -> None:
    text = operator.says("status")
    assert re.fullmatch(
        rf"""● remo-broker 2\.0\.0
   State: running since {TIME}
Protocol: 2
 Secrets: none; waiting for a push
  Memory: \S+, .+
   Audit: healthy, to stderr
Projects: 0
 Fetches: 0 handed out, 0 not there, 0 denied
""",
        text,
    ), text
    operator.broker.push({"TOKEN": "x"})
    assert re.search(rf"Secrets: 1 since {TIME}, generation 1\n", operator.says("status"))


def test_status_as_json_is_that_of_the_protocol(operator: CommandLine) -> None:
    found = operator.json("status")
    wanted = operator.broker.status()
    del wanted["ok"]
    assert found.pop("state") == "running"
    assert found.keys() == wanted.keys()
    assert found["audit"] == wanted["audit"]


def test_status_of_what_does_not_run(operator: CommandLine) -> None:
    operator.broker.process.kill()
    operator.broker.wait()
    operator.broker.process.returncode = 0  # this end was wanted
    assert operator.says("status", status=3).startswith("○ remo-broker\n State: stopped; ")
    assert operator.json("status", status=3) == {"state": "stopped", "socket_path": str(operator.broker.admin)}
    operator.broker.admin.unlink()
    assert "Hint: run 'systemctl enable --now" in refused(operator.run("status"), 4)


@pytest.mark.skipif(os.geteuid() != 0, reason="takes another user")
def test_status_that_cannot_be_told(operator: CommandLine) -> None:
    operator.broker.admin.chmod(0o660)
    done = programs.run(programs.BROKERCTL, f"--socket={operator.broker.admin}", "status", uid=NOBODY)
    assert "use sudo, or join the group remo-broker-admin" in refused(done, 4)


def test_a_broker_that_hangs(operator: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    """It listens and does not answer: that is not idle."""
    from remo_broker.client import connection
    from remo_broker.ctl import main

    monkeypatch.setattr(connection.BaseClient.__init__, "__kwdefaults__", {"timeout": 0.3})
    operator.broker.signal(signal.SIGSTOP)
    try:
        assert main.main([f"--socket={operator.broker.admin}", "status"]) == 4
    finally:
        operator.broker.signal(signal.SIGCONT)


# --- register and what follows


def test_from_register_to_unregister(operator: CommandLine, directory: pathlib.Path) -> None:
    path = write_project(directory, "myrepo", "TOKEN", "aws", extra="[cache]\nttl_seconds = 60\nmax_entries = 2\n")
    socket = operator.broker.project()
    text = operator.says("register", path)
    assert str(socket) in text
    assert "TOKEN, aws" in text
    operator.broker.push({"TOKEN": "x"})
    operator.broker.get("TOKEN")
    operator.broker.get("OTHER")
    header, row, empty, count = operator.says("list").splitlines()
    assert header.split() == [
        "PROJECT",
        "NAMES",
        "LEASES",
        "CONNECTIONS",
        "ALLOWED",
        "DENIED",
        "LAST",
        "FETCH",
    ]
    assert re.fullmatch(r"myrepo +2 +1 +0 +1 +1 +\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", row)
    assert max(map(len, (header, row))) <= 80
    assert (empty, count) == ("", "1 project listed.")
    assert operator.says("list", "--no-legend") == row + "\n"
    assert operator.json("list")[0]["allowlist_size"] == 2
    text = operator.says("show", "myrepo")
    assert re.fullmatch(
        rf"""    Project: myrepo
  Directory: {path}
     Socket: {socket}
      Users: anybody who can open the socket
     Leases: 60 s, at most 2; 1 live
Connections: 0
    Fetches: 1 handed out, 0 not there, 1 denied, last {TIME}
      Names: TOKEN
             aws
""",
        text,
    ), text
    assert operator.json("show", "myrepo")["allowlist"] == ["TOKEN", "aws"]
    write_project(directory, "myrepo", "OTHER")
    assert operator.says("reload", "--yes", "myrepo") == "Reloaded myrepo: OTHER\n"
    assert operator.json("reload", "myrepo") == {"name": "myrepo", "allowlist": ["OTHER"]}
    assert operator.says("unregister", "myrepo") == "Unregistered myrepo.\n"
    assert operator.json("list") == []


def test_register_a_relative_path_for_some_users(operator: CommandLine, directory: pathlib.Path) -> None:
    path = write_project(directory, "myrepo", "TOKEN")
    done = operator.run("register", ".", "--allow-uid", "0,nobody,0", "--allow-uid=7", "-j", cwd=path)
    assert json.loads(done.stdout) == {
        "name": "myrepo",
        "socket_path": str(operator.broker.project()),
        "allowlist": ["TOKEN"],
        "unit": None,
        "unit_enabled": False,
    }
    assert operator.json("show", "myrepo")["allowed_uids"] == [0, NOBODY, 7]
    assert re.search(r"Users: 0 \(root\), 65534 \(nobody\), 7", operator.says("show", "myrepo"))


def test_a_symlink_to_a_project_is_the_project(operator: CommandLine, directory: pathlib.Path) -> None:
    (directory / "link").symlink_to(write_project(directory, "myrepo", "TOKEN"))
    operator.says("register", directory / "link/")
    assert operator.json("show", "myrepo")["project_path"] == str(directory / "myrepo")


def test_what_cannot_be_registered(operator: CommandLine, directory: pathlib.Path) -> None:
    path = write_project(directory, "myrepo", "TOKEN")
    assert "--name" in refused(operator.run("register", directory / "No Project"), 1)
    assert "there is no such directory" in refused(operator.run("register", directory / "nowhere"), 1)
    assert "unknown user: 'nemo'" in refused(operator.run("register", path, "--allow-uid", "nemo"), 2)
    assert "--allow-uid requires a user" in refused(operator.run("register", path, "--allow-uid=,"), 2)
    assert "--allow-uid requires a value" in refused(operator.run("register", path, "--allow-uid="), 2)
    assert "unknown user: '4294967295'" in refused(operator.run("register", path, "--allow-uid=4294967295"), 2)
    operator.says("register", path)
    assert "'remo-brokerctl reload myrepo'" in refused(operator.run("register", path), 1)
    write_project(directory, "broken", "NO NAME")
    line = refused(operator.run("register", directory / "broken"), 1)
    assert line.startswith(f"remo-brokerctl: {directory}/broken: allowlist.secrets[0]: ")
    (directory / "file").write_text("")
    line = refused(operator.run("register", directory / "file"), 1)
    assert line.startswith(f"remo-brokerctl: {directory}/file: a regular file, not a directory; ")
    write_project(directory / "caf\udce9", "latin", "TOKEN")
    line = refused(operator.run("register", directory / "caf\udce9/latin"), 1)
    assert r"/caf\udce9/latin: a name, path or value in the request is not UTF-8" in line
    assert "reserved" in refused(operator.run("register", directory / "status"), 1)
    for command in ("register", "check"):
        assert "PATH must not be empty" in refused(operator.run(command, "", cwd=path), 2)


def test_reload_all(operator: CommandLine, directory: pathlib.Path) -> None:
    for name in ("one", "two", "three"):
        operator.says("register", write_project(directory, name, "TOKEN"))
    write_project(directory, "three", "OTHER")
    (directory / "one/.devcontainer/remo-broker.toml").write_text("nonsense")
    done = operator.run("reload", "--all")
    assert done.returncode == 1
    assert done.stdout.startswith(b"Reloaded three: no names")
    assert done.stdout.endswith(b"Reloaded two: TOKEN\n")
    assert re.fullmatch(rb"remo-brokerctl: one: not TOML .*\n", done.stderr)
    found = json.loads(operator.run("reload", "--all", "--json=short").stdout)
    assert [(one["name"], "error" in one, one.get("widens")) for one in found] == [
        ("one", True, None),
        ("three", False, True),
        ("two", False, False),
    ]
    assert operator.json("show", "one")["allowlist"] == ["TOKEN"], "what fails leaves the old list"


def test_a_second_directory_of_the_name_is_told_who_has_it(operator: CommandLine, directory: pathlib.Path) -> None:
    """`reload`, the advice for the same directory, would read the other one's manifest."""
    first = write_project(directory / "a", "myrepo", "TOKEN")
    operator.says("register", first)
    text = refused(operator.run("register", write_project(directory / "b", "myrepo", "TOKEN")), 1)
    assert str(first) in text
    assert "reload" not in text


def test_a_project_that_is_not_served_is_marked(operator: CommandLine, directory: pathlib.Path) -> None:
    for name in ("myrepo", "other"):
        operator.says("register", write_project(directory, name, "TOKEN"))
    socket = operator.broker.project()
    assert operator.json("list")[0]["served"] is True
    socket.unlink()
    for kind in ("nothing", "a directory", "a file"):
        if kind == "a directory":
            socket.mkdir()
        elif kind == "a file":
            socket.rmdir()
            socket.touch()
        assert f"{socket}" in operator.says("status", status=1)
        assert list(operator.json("status", status=1)["unserved"]) == ["myrepo"]
        rows = operator.says("list").splitlines()
        assert str(socket) in rows[1]
        assert rows[2].endswith("served")
        assert operator.json("show", "myrepo")["served"] is False
        assert [one["served"] for one in operator.json("list")] == [False, True]
    socket.unlink()
    operator.says("reload", "myrepo")
    operator.says("status")


def test_unknown_projects(operator: CommandLine) -> None:
    for command in ("show", "unregister", "reload"):
        assert "'remo-brokerctl list' shows" in refused(operator.run(command, "nowhere"), 1)


# --- explain


def test_explain(operator: CommandLine, directory: pathlib.Path) -> None:
    path = write_project(directory, "myrepo", "TOKEN", "OTHER")
    operator.says("register", path, "--allow-uid=nobody")

    def no(*arguments: str) -> list[str]:
        return operator.says("explain", *arguments, status=1).splitlines()

    lines = no("myrepo", "TOKEN")
    assert lines[0] == "myrepo would not be given TOKEN: no_snapshot"
    assert lines[-2:] == ["  ✗ secrets have been pushed", "Have the sidecar push, or: remo-brokerctl push FILE."]
    operator.broker.push({"TOKEN": "x"})
    assert operator.says("explain", "myrepo", "TOKEN").splitlines() == [
        "myrepo would be given TOKEN",
        "  ✓ the project is registered",
        "  ✓ the user may connect: one of 65534 (nobody)",
        "  ✓ the name is one that a secret can have",
        "  ✓ the manifest, as last loaded, has the name",
        "  ✓ secrets have been pushed",
        "  ✓ the last push had it",
        "  ✓ it has not expired",
    ]
    assert no("myrepo", "OTHER")[-2:] == ["  ✗ the last push had it", "Add it to what the sidecar pushes."]
    assert no("myrepo", "TOKEN", "--uid=root")[2] == "  ✗ the user may connect: 0 (root)"
    assert no("myrepo", "NEW")[-1] == "Add it to the manifest, then: remo-brokerctl reload myrepo."
    write_project(directory, "myrepo", "TOKEN", "OTHER", "NEW")
    assert no("myrepo", "NEW")[-1] == "The manifest on disk has it by now: remo-brokerctl reload myrepo."
    assert no("myrepo", "a\x1b[31mb")[0] == r"myrepo would not be given a\x1b[31mb: invalid_name"
    assert no("nowhere", "TOKEN")[1:] == [
        "  ✗ the project is registered",
        "Register its directory: remo-brokerctl register PATH.",
    ]
    found = operator.json("explain", "myrepo", "OTHER", status=1)
    assert (found["served"], found["reason"], found["uid"]) == (False, "not_in_snapshot", None)
    assert operator.json("explain", "myrepo", "TOKEN")["served"] is True
    at = (datetime.now(UTC) + timedelta(seconds=1)).isoformat(timespec="milliseconds")
    assert operator.broker.ask({"op": "push-creds", "secrets": {"TOKEN": "x"}, "expires": {"TOKEN": at}})["ok"]
    poll("it to expire", lambda: operator.run("explain", "myrepo", "TOKEN").returncode)
    assert no("myrepo", "TOKEN")[-2] == "  ✗ it has not expired"
    assert not operator.broker.records("fetch"), "nothing is fetched"


# --- how it looks


def test_no_terminal_no_colour(operator: CommandLine, directory: pathlib.Path) -> None:
    operator.says("register", write_project(directory, "myrepo", "TOKEN"))
    for arguments in (["status"], ["list"], ["show", "myrepo"], ["explain", "myrepo", "TOKEN"], ["--help"]):
        assert b"\x1b" not in operator.run(*arguments, env={"TERM": "xterm-256color"}).stdout


def test_colour_on_a_terminal(operator: CommandLine) -> None:
    assert "\x1b[0;1;32mrunning\x1b[0m" in operator.on_terminal("status").text
    for quiet in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        assert "\x1b" not in operator.on_terminal("status", env=quiet).text
    assert "\x1b[0;1;32m" in operator.on_terminal("status", env={"NO_COLOR": ""}).text, "empty is not set"


def test_json_modes(operator: CommandLine) -> None:
    short, pretty = operator.says("status", "--json=short"), operator.says("status", "--json=pretty")
    assert short.count("\n") == 1
    assert pretty.count("\n\t") > 10
    assert json.loads(short).keys() == json.loads(pretty).keys()
    assert operator.says("-j", "status").count("\n") == 1
    assert operator.on_terminal("status", "-j").text.count("\n\t") > 10
    assert operator.says("status", "--json=off").startswith("●")
    for said in (["-j", "--json=off"], ["--json=short", "-j", "--json=off"]):
        assert operator.says("status", *said).startswith("●"), "the last one counts"
    assert operator.says("status", "--json=pretty", "-j").count("\n") == 1
    for bare in (["status", "--json"], ["--json", "status"], ["--json", "short", "status"]):
        assert operator.says(*bare).count("\n") == 1


def test_output_in_another_encoding(operator: CommandLine, directory: pathlib.Path) -> None:
    write_project(directory, "myrepo", "TOKEN")
    operator.says("register", directory / "myrepo")
    done = operator.run("explain", "myrepo", "TOKEN", env={"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"})
    assert b"  yes the project is registered\n" in done.stdout


# --- misuse


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "no command given"),
        (["start"], "unknown command: 'start'"),
        (["show"], "'show' requires PROJECT"),
        (["show", "No!"], "not a valid name for a project"),
        (["list", "x"], "'list' takes no operands, not 1 operand"),
        (["list", "--jso"], "unknown option for 'list': '--jso'"),
        (["--json"], "no command given"),
        (["--json", "long", "list"], "unknown command: 'long'"),
        (["--json=long", "list"], "--json must be short, pretty or off, not 'long'"),
        (["--no-legend=1", "list"], "--no-legend takes no value"),
        (["-jx", "list"], "unknown option before the command: '-x'"),
        (["reload"], "'reload' takes either a PROJECT or --all"),
        (["reload", "--all", "x"], "'reload' takes either a PROJECT or --all"),
        (["register", "/x", "--allow-uid"], "--allow-uid requires a value: UID,..."),
        (["audit", "--lines=many"], "--lines must be an integer from 0"),
        (
            ["audit", "--since", "whenever"],
            "--since: not a time from 1970 to 9998",
        ),
        (["audit", "--until=@1e30"], "--until: not a time from 1970 to 9998"),
        (["audit", "--since=today", "--until=yesterday"], "--since is later than --until"),
        (["audit", "--project=No!"], "not a valid name for a project"),
        (["audit", "--project="], "--project requires a value: PROJECT"),
        (["audit", "--directory="], "--directory requires a value: DIR"),
        (["list", "--socket="], "--socket requires a value: PATH"),
        (["explain", "x", "Y", "--uid=0,1"], "--uid wants one user; ask for each"),
        (["explain", "x"], "NAME is missing: the secret to explain"),
        (["audit", "--follow", "--summary"], "--follow and --summary exclude each other"),
        (["audit", "--follow", "--until=now"], "--follow and --until exclude each other"),
        (["audit", "--verify", "--by=who"], "--verify and --summary exclude each other"),
        (["audit", "--verify", "--denied"], "--denied leaves records out, which --verify would miss"),
        (["audit", "--directory=/", "--namespace=x"], "--directory and --namespace exclude each other"),
        (["audit", "--all", "--summary"], "--all shows events that are no fetches, which are not counted"),
        (["push", "--format=xml"], "--format must be json or dotenv, not 'xml'"),
    ],
)
def test_misuse_says_what_is_wrong_and_what_to_do(arguments: list[str], says: str) -> None:
    line = refused(programs.run(programs.BROKERCTL, *arguments), 2)
    assert line.startswith(f"remo-brokerctl: {says}"), line
    assert "\nHint: " in line


def test_help_and_version() -> None:
    from remo_broker.ctl.commands import PROGRAM

    for arguments in (["-h"], *([name, "--help"] for name in PROGRAM.commands)):
        done = programs.run(programs.BROKERCTL, *arguments)
        assert (done.returncode, done.stderr) == (0, b"")
        assert done.stdout.startswith(b"remo-brokerctl ")
        assert max(map(len, done.stdout.decode().splitlines())) <= 80
    assert programs.run(programs.BROKERCTL, "--version").stdout == b"remo-brokerctl 2.0.0 (protocol 2)\n"


@pytest.mark.parametrize("command", [["list"], ["show", "x"], ["clear"], ["reload", "--all"], ["explain", "x", "Y"]])
def test_nobody_there(directory: pathlib.Path, command: list[str]) -> None:
    line = refused(programs.run(programs.BROKERCTL, f"--socket={directory}/admin.sock", *command), 1)
    assert "Hint: run 'systemctl enable --now" in line


def test_a_project_socket_is_no_admin_socket(start_broker: StartBroker) -> None:
    broker = start_broker(projects=[registration("myrepo", "TOKEN")])
    done = programs.run(programs.BROKERCTL, f"--socket={broker.project()}", "clear")
    line = refused(done, 1)
    assert line.startswith(f"remo-brokerctl: {broker.project()}: unknown op")
    assert "get, ping, info, ready" in line
    with Link(broker.project()) as link:
        assert link.ask({"op": "ping"})["ok"]


def test_an_internal_error_shows_no_text(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A bug's message or traceback may hold a secret: what a report needs is where it was."""
    from remo_broker.ctl import main, session

    def broken(_: object) -> None:
        raise RuntimeError("zqSecretzq")

    monkeypatch.setattr(session, "socket_path", broken)
    assert main.main(["list"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("remo-brokerctl: internal error: RuntimeError in tests.process.ctl.test_projects:")
    assert "zqSecretzq" not in err
    assert err.splitlines()[1].startswith("Hint: ")
