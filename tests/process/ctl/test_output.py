"""The format of `remo-brokerctl`'s output, and its errors for wrong usage."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.process.ctl.conftest import CommandLine, write_project
from tests.support import programs
from tests.support.broker import Link, registration
from tests.support.programs import refused

if TYPE_CHECKING:
    import pathlib

    from tests.conftest import StartBroker


def test_no_colour_without_a_terminal(operator: CommandLine, directory: pathlib.Path) -> None:
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
        (["explain", "x", "Y", "--uid=0,1"], "--uid takes one user; ask for each"),
        (["explain", "x"], "NAME is missing: the name of the secret to explain"),
        (["audit", "--follow", "--summary"], "--follow and --summary cannot be combined"),
        (["audit", "--follow", "--until=now"], "--follow and --until cannot be combined"),
        (["audit", "--verify", "--by=who"], "--verify and --summary cannot be combined"),
        (["audit", "--verify", "--denied"], "--denied excludes records, which --verify would report as missing"),
        (["audit", "--directory=/", "--namespace=x"], "--directory and --namespace cannot be combined"),
        (["audit", "--all", "--summary"], "--all adds events other than fetches, which are not counted"),
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
def test_without_a_broker(directory: pathlib.Path, command: list[str]) -> None:
    line = refused(programs.run(programs.BROKERCTL, f"--socket={directory}/admin.sock", *command), 1)
    assert "Hint: run 'systemctl enable --now" in line


def test_a_project_socket_is_refused_as_admin_socket(start_broker: StartBroker) -> None:
    broker = start_broker(projects=[registration("myrepo", "TOKEN")])
    done = programs.run(programs.BROKERCTL, f"--socket={broker.project()}", "clear")
    line = refused(done, 1)
    assert line.startswith(f"remo-brokerctl: {broker.project()}: unknown op")
    assert "get, ping, info, ready" in line
    with Link(broker.project()) as link:
        assert link.ask({"op": "ping"})["ok"]


def test_an_internal_error_shows_no_text(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A bug's message or traceback may hold a secret; a report needs only its place."""
    from remo_broker.ctl import main, session

    def broken(_: object) -> None:
        raise RuntimeError("zqSecretzq")

    monkeypatch.setattr(session, "socket_path", broken)
    assert main.main(["list"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("remo-brokerctl: internal error: RuntimeError in tests.process.ctl.test_output:")
    assert "zqSecretzq" not in err
    assert err.splitlines()[1].startswith("Hint: ")
