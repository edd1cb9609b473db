"""The rules of command lines, and the help made from the same tables."""

from __future__ import annotations

import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remo_broker.cli.help import command_help, program_help
from remo_broker.cli.options import HELP, VERSION, Arguments, Command, Operand, Option, Program, Usage, parse
from remo_broker.cli.program import load
from remo_broker.cli.text import escaped, is_plain
from remo_broker.ctl.commands import PROGRAM as BROKERCTL
from remo_broker.secret.commands import PROGRAM as SECRET

WHERE = Option("--where", value="PLACE", help="Where")
QUIET = Option("-q", "--quiet", help="Say less")
COUNT = Option("-n", "--count", value="N", help="How many")
LIST = Option("--list", value="THING,...", empty=True, help="Which of them")
MODE = Option("--mode", value="MODE", choices=("a", "b"), help="Which")

TOOL = Program(
    "tool",
    "Do things.",
    options=[WHERE, QUIET, HELP, VERSION],
    commands=[
        Command(
            "show", "Show", run="x:y", operands=[Operand("THING"), Operand("MORE", optional=True)], options=[COUNT]
        ),
        Command("many", "Many", run="x:y", operands=[Operand("THING", many=True)], options=[MODE]),
        Command("run", "Run", run="x:y", operands=[Operand("COMMAND", rest=True)], options=[COUNT, LIST]),
    ],
    epilog="The end.",
)


def read(*argv: str) -> Arguments:
    return parse(TOOL, argv)


@pytest.mark.parametrize(
    "argv",
    [
        ("--where", "x", "-q", "show", "-n", "5", "thing"),
        ("--where=x", "-qh", "show", "-n5", "thing"),
        ("show", "thing", "--count=5", "--where=x", "--quiet"),
        ("show", "--count", "5", "-q", "--where", "x", "--", "thing"),
        ("show", "-qn5", "thing", "--where=y", "--where=x"),
    ],
)
def test_options_may_be_anywhere(argv: tuple[str, ...]) -> None:
    arguments = read(*argv)
    assert arguments.command is TOOL.commands["show"]
    assert arguments.operands == ["thing"]
    assert arguments.flag(QUIET)
    assert arguments.value(WHERE) == "x"
    assert arguments.number(COUNT, 1, 9) == 5


def test_operands_that_look_like_options() -> None:
    assert read("show", "-").operands == ["-"]
    assert read("show", "--", "-q").operands == ["-q"]
    assert read("show", "--where", "--", "x").value(WHERE) == "--"
    assert read("run", "--list=", "x").values(LIST) == []
    assert read("show", "x", "--where=a=b").value(WHERE) == "a=b"


def test_options_of_another_program_are_not_parsed() -> None:
    assert read("run", "-n1", "make", "-n", "--where", "--").operands == ["make", "-n", "--where", "--"]
    assert read("run", "--", "make", "-q").operands == ["make", "-q"]
    assert not read("run", "make", "-q").flag(QUIET)
    assert read("run", "--", "--", "x").operands == ["--", "x"]
    assert read("run", "make", "").operands == ["make", ""]


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (("shwo",), "unknown command: 'shwo'"),
        (("-n5", "show", "x"), "unknown option before the command: '-n'"),
        (("show", "--mode=a", "x"), "unknown option for 'show': '--mode'"),
        (("many", "--mode=c", "x"), "--mode must be a or b, not 'c'"),
        (("show",), "'show' requires THING [MORE]"),
        (("show", "a", "b", "c"), "'show' takes THING [MORE], not 3 operands"),
        (("many",), r"'many' requires THING\.\.\."),
        (("many", "a", ""), "THING must not be empty"),
        (("run", "--"), r"'run' requires COMMAND\.\.\."),
        (("--quiet=yes", "show", "x"), "--quiet takes no value"),
        (("show", "x", "-n"), "-n requires a value: N"),
        # An unset variable of a script: the value would mean nothing given, or anything.
        (("show", "x", "--where="), "--where requires a value: PLACE"),
        (("show", "x", "-n", ""), "-n requires a value: N"),
    ],
)
def test_misuse(argv: tuple[str, ...], says: str) -> None:
    with pytest.raises(Usage, match=says.replace("[", r"\[").replace("]", r"\]")):
        read(*argv)


@pytest.mark.parametrize("text", ["0", "10", "-1", "1.0", "\uff11", "1e1", " 1", "9" * 5000])
def test_numbers(text: str) -> None:
    with pytest.raises(Usage, match="--count must be an integer from 1 to 9"):
        read("show", "x", "--count", text).number(COUNT, 1, 9)


def test_too_many_operands_are_not_repeated() -> None:
    """One of them may be a secret given by mistake."""
    with pytest.raises(Usage) as raised:
        read("show", "a", "b", "zqSecretzq")
    assert "zqSecretzq" not in str(raised.value)


def test_help_takes_precedence() -> None:
    assert read("show", "-h").flag(HELP)
    assert read("-h").command is None


@given(st.lists(st.text(max_size=8) | st.sampled_from(["show", "run", "--", "-q", "--where", "-n", "--mode=a"])))
def test_any_line_is_read_or_refused_in_one_line(argv: list[str]) -> None:
    try:
        read(*argv)
    except Usage as usage:
        assert "\n" not in escaped(str(usage))  # noqa: PT017 - it is about the text


# --- both programs


@pytest.mark.parametrize("program", [BROKERCTL, SECRET], ids=lambda program: program.name)
def test_tables(program: Program) -> None:
    """Every function exists, no option is ambiguous, and everything has an explanation."""
    text = program_help(program)
    for command in program.commands.values():
        assert callable(load(command.run))
        names = [name for option in (*program.options, *command.options) for name in option.names]
        assert len(names) == len(set(names)), command.name
        assert command.synopsis in text
        assert not command.summary.endswith(".")
        own = command_help(program, command)
        for option in command.options:
            assert option.name in own
            assert not option.help.endswith(".")
    for option in program.options:
        assert option.name in text


def test_synopses() -> None:
    assert SECRET.commands["exec"].synopsis == "exec -- COMMAND..."
    assert BROKERCTL.commands["push"].synopsis == "push [FILE...]"
    assert "remo-secret exec [OPTION...] -- COMMAND..." in command_help(SECRET, SECRET.commands["exec"])


# --- text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain äöü 中", "plain äöü 中"),
        ("\x1b[31m", r"\x1b[31m"),
        ("a\nb\tc\r", r"a\nb\tc\r"),
        ("\u202egpj.exe", r"\u202egpj.exe"),
        ("\u200b\u2028\x9b\x7f\x00", r"\u200b\u2028\x9b\x7f\x00"),
        ("\udcff", r"\udcff"),
        ("\U000e0041", r"\U000e0041"),
    ],
)
def test_control_characters_are_escaped(text: str, shown: str) -> None:
    assert escaped(text) == shown


# Control, format, surrogate and private characters, and separators.
OBEYED = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp", "Zs"}


@given(st.text())
def test_escaped_text_is_printable(text: str) -> None:
    assert not any(unicodedata.category(one) in OBEYED and one != " " for one in escaped(text))


def test_every_control_or_invisible_character_is_escaped() -> None:
    """By this Python's version of Unicode; unassigned characters are harmless and shown."""
    every = (chr(code) for code in range(sys.maxunicode + 1))
    assert not [hex(ord(one)) for one in every if unicodedata.category(one) in OBEYED and one != " " and is_plain(one)]
