"""Long output on a terminal, and the pager."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

from remo_broker.cli import terminal
from tests.process.ctl.conftest import CommandLine
from tests.support.broker import registration
from tests.support.machine import unavailable

if TYPE_CHECKING:
    import pathlib

    from tests.conftest import StartBroker


# So that the user's pager is used even as root.
TRUSTED = {"SYSTEMD_PAGERSECURE": "1"}
NOBODY = 65534


@pytest.fixture
def projects(start_broker: StartBroker) -> CommandLine:
    """More projects than a terminal has lines."""
    return CommandLine(start_broker(projects=[registration(f"project-{number:03}", "TOKEN") for number in range(200)]))


def test_long_output_is_paged(projects: CommandLine, directory: pathlib.Path) -> None:
    pager = directory / "pager"
    pager.write_text('#!/bin/sh\necho paged; echo "$1 $LESS $LESSSECURE"; exec cat\n')
    pager.chmod(0o755)
    shown = projects.on_terminal("list", env={"SYSTEMD_PAGER": f"{pager} 'an option'", "PAGER": "false"} | TRUSTED)
    assert shown.text.startswith("paged\r\nan option FRSXMK 1\r\n")
    assert "project-199" in shown.text
    assert "\x1b[0;4mPROJECT" in shown.text
    assert projects.on_terminal("list", env={"PAGER": str(pager)} | TRUSTED).text.startswith("paged")
    for none in ({"SYSTEMD_PAGER": "", "PAGER": str(pager)}, {"PAGER": "cat"}):
        assert "paged" not in projects.on_terminal("list", env=none | TRUSTED).text
    assert "paged" not in projects.on_terminal("list", "--no-pager", env={"PAGER": str(pager)} | TRUSTED).text
    assert b"paged" not in projects.run("list", env={"PAGER": str(pager)}).stdout


def test_quitting_the_pager_early(start_broker: StartBroker) -> None:
    """While there is more output than its pipe holds."""
    names = [f"project-{number:04}" for number in range(1500)]
    many = CommandLine(start_broker(projects=[registration(name, "TOKEN") for name in names]))
    shown = many.on_terminal("list", env={"PAGER": "head -n 3", "NO_COLOR": "1"} | TRUSTED)
    assert shown.text.count("\n") == 3
    assert shown.status == 0


def test_with_less(projects: CommandLine) -> None:
    if shutil.which("less") is None:
        unavailable("less is not installed: ./run test installs it")
    shown = projects.on_terminal("list", env={"PAGER": "less"}, keys=b"q")
    assert "project-000" in shown.text
    assert "project-199" not in shown.text
    assert shown.status == 0


@pytest.mark.takes_root("root's pager")
def test_roots_pager_runs_no_command(projects: CommandLine, directory: pathlib.Path) -> None:
    """A user who may run this by sudo could otherwise run anything, through the pager's commands or
    by naming the pager."""
    tools = directory / "tools"
    tools.mkdir()
    for name in ("pager", "more", "mine", "less"):
        (tools / name).write_text(f'#!/bin/sh\necho "ran {name} $LESSSECURE$LESSSECURE_ALLOW"\ncat >/dev/null\n')
        (tools / name).chmod(0o755)
    path = {"PATH": f"{tools}:/usr/bin:/bin", "PAGER": "mine"}
    assert projects.on_terminal("list", env=path | {"LESSSECURE_ALLOW": "shell"}).text == "ran less 1\r\n"
    assert projects.on_terminal("list", env=path).text == "ran less 1\r\n"
    assert projects.on_terminal("list", env=path | {"SYSTEMD_PAGERSECURE": "true"}).text == "ran mine 1\r\n"
    assert projects.on_terminal("list", env=path | {"SYSTEMD_PAGERSECURE": "no"}).text == "ran mine \r\n"
    assert (
        projects.on_terminal("list", env=path | {"PAGER": "none", "SYSTEMD_PAGERSECURE": "no"}).text == "ran pager \r\n"
    )
    (tools / "less").unlink()
    only_more = path | {"PATH": str(tools)}
    assert "project-199" in projects.on_terminal("list", env=only_more).text


def test_users_choose_their_pager(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: NOBODY)
    monkeypatch.setattr(os, "getuid", lambda: NOBODY)
    assert not terminal._elevated()
    monkeypatch.setattr(os, "getuid", lambda: 0)
    assert terminal._elevated()


def script(directory: pathlib.Path, text: str) -> dict[str, str]:
    """Settings with the shell script `text` as the pager."""
    path = directory / "pager"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return {"PAGER": str(path)} | TRUSTED


@pytest.mark.parametrize("pager", ["/nowhere/pager", "less 'unclosed", "/", "''", "/etc/passwd"])
def test_a_pager_that_cannot_be_started(projects: CommandLine, pager: str) -> None:
    """Another one is used, or none: a wrong setting must not hide the output."""
    shown = projects.on_terminal("list", env={"PAGER": pager, "PATH": "/nowhere"} | TRUSTED)
    assert "project-199" in shown.text
    assert (shown.status, "remo-brokerctl:" in shown.text) == (0, False)
    assert "project-000" in projects.on_terminal("list", env={"PAGER": pager} | TRUSTED, keys=b"q").text


@pytest.mark.parametrize("pager", ["", " ", "cat", " cat "])
def test_an_empty_pager_means_none(projects: CommandLine, pager: str) -> None:
    shown = projects.on_terminal("list", env={"PAGER": pager})
    assert shown.text.endswith("200 projects listed.\r\n")
    assert shown.status == 0


def test_a_pager_that_fails_does_not_change_the_status(projects: CommandLine, directory: pathlib.Path) -> None:
    (directory / "secrets").write_text("OTHER=x\n")
    for command, status in (["list"], 0), (["push", "--dry-run", f"{directory}/secrets"], 1):
        shown = projects.on_terminal(*command, env={"PAGER": "false"} | TRUSTED)
        assert (shown.text, shown.status) == ("", status)


def test_interrupted_while_the_pager_shows_it_all(projects: CommandLine, directory: pathlib.Path) -> None:
    """^C reaches both processes: the command waits for the pager, otherwise pager and shell would
    both read from the terminal."""
    env = script(directory, "cat >/dev/null; kill -INT $PPID; sleep 1; echo still here")
    shown = projects.on_terminal("list", env=env)
    assert "still here" in shown.text
    assert shown.status == 0


def test_interrupted_while_there_is_more(start_broker: StartBroker, directory: pathlib.Path) -> None:
    names = [f"project-{number:04}" for number in range(1500)]
    many = CommandLine(start_broker(projects=[registration(name, "TOKEN") for name in names]))
    env = script(directory, "read line; kill -INT $PPID; cat >/dev/null; sleep 1; echo seen")
    shown = many.on_terminal("list", env=env)
    assert shown.text == "seen\r\n", "what was not shown yet is not thrown at the terminal afterwards"
    assert shown.status == 130
