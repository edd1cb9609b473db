"""The pages of the two commands against their tables, in both directions."""

from __future__ import annotations

import re

import pytest

from remo_broker.cli.options import Option, Program
from remo_broker.cli.program import EXIT_FAILURE, EXIT_INTERRUPTED, EXIT_USAGE
from remo_broker.ctl.commands import (
    ADMIN_SOCKET,
    DEFAULT_FOLLOW_LINES,
    EXIT_FAILED,
    EXIT_IDLE,
    EXIT_UNKNOWN,
)
from remo_broker.ctl.commands import PROGRAM as CTL
from remo_broker.secret import commands as secret
from remo_broker.secret.commands import PROGRAM as SECRET
from tests.contract.man.pages import flags, page, section

BOTH = pytest.mark.parametrize(
    ("program", "name"),
    [(CTL, "remo-brokerctl.1"), (SECRET, "remo-secret.1")],
    ids=lambda one: getattr(one, "name", one),
)


def names(options: tuple[Option, ...]) -> set[str]:
    return {name for option in options for name in option.names}


def entries(name: str) -> dict[str, str]:
    """Each command's own part of a page's source."""
    parts = re.split(r"^\.It Cm (\S+)", section(name, "COMMANDS"), flags=re.MULTILINE)
    return {command: f".It {text}" for command, text in zip(parts[1::2], parts[2::2], strict=True)}


@BOTH
def test_every_command_has_an_entry_with_its_options(program: Program, name: str) -> None:
    """No more and no less: the page does not promise a removed option."""
    found = entries(name)
    assert set(found) == set(program.commands)
    everywhere = names(program.options)
    for word, command in program.commands.items():
        own, described = names(command.options), flags(found[word])
        assert own <= described, word
        # One of another command may be referred to by that command's name.
        assert described <= own | everywhere | ({"--remove"} if word == "exec" else set()), word


@BOTH
def test_every_option_of_all_commands(program: Program, name: str) -> None:
    assert flags(section(name, "OPTIONS")) == names(program.options)


@BOTH
def test_values_and_operands(program: Program, name: str) -> None:
    text = page(name)
    for option in (*program.options, *(option for command in program.commands.values() for option in command.options)):
        if option.choices:
            assert f"{option.name}={' | '.join(option.choices)}" in text, option.name
        elif option.value:
            value = f"={option.value.partition(',')[0]}"
            assert option.name + (value if option.bare is None else f"[{value}]") in text, option.name
    for word, command in program.commands.items():
        heading = entries(name)[word].split("\n", 1)[0]
        for operand in command.operands:
            assert re.search(rf"Ar .*\b{operand.name}\b", heading), (word, operand.name)


def test_defaults_and_exit_statuses() -> None:
    text = page("remo-brokerctl.1")
    for promise in (
        f"{ADMIN_SOCKET} by default",
        f"{DEFAULT_FOLLOW_LINES} by default",
        f"{EXIT_FAILED} when it has failed, cannot start or does not serve a project, {EXIT_IDLE} when it is idle or stopped",
        f"and {EXIT_UNKNOWN} when",
        f"0 on success, {EXIT_FAILURE} on failure",
        f"{EXIT_USAGE} on wrong usage",
        f"{EXIT_INTERRUPTED} when interrupted",
    ):
        assert promise in text, promise
    statuses = section("remo-secret.1", "EXIT STATUS")
    told = {int(number) for number in re.findall(r"^\.It (\d+)", statuses, re.MULTILINE)}
    assert {value for word, value in vars(secret).items() if word.startswith("EXIT_")} <= told
    assert f"{secret.DEFAULT_WAIT_SECONDS} seconds by default" in page("remo-secret.1")


def test_what_the_environment_says() -> None:
    """Every variable that affects the output."""
    import inspect

    from remo_broker.cli import terminal

    heeded = set(re.findall(r'"((?:SYSTEMD_|NO_|TERM|PAGER)[A-Z]*)"', inspect.getsource(terminal)))
    assert heeded >= {"SYSTEMD_PAGER", "PAGER", "NO_COLOR", "TERM"}
    text = page("remo-brokerctl.1").partition(" ENVIRONMENT ")[2].partition(" EXIT STATUS ")[0]
    assert [one for one in heeded if not re.search(rf"\b{one}\b", text)] == []
