"""Dotenv: a value on which bash, python-dotenv and node's dotenv agree, or an error with its
line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remo_broker.cli.dotenv import assignments
from remo_broker.cli.input_fault import InputFault
from remo_broker.cli.program import Problem
from remo_broker.cli.secrets_file import Secrets, parse

VALUE = "zqMarkerqz"


def dotenv(text: str) -> dict[str, str | dict[str, str]]:
    secrets = Secrets()
    parse(text.encode(), "f", "/nowhere", "dotenv", secrets)
    assert not secrets.binaries
    return secrets.texts


def fault(text: str) -> Problem:
    with pytest.raises(Problem) as raised:
        parse(text.encode(), "f", "/nowhere", "dotenv", Secrets())
    shown = f"{raised.value} {raised.value.hint}"
    assert VALUE not in shown
    assert "\n" not in shown
    return raised.value


def test_all_rules() -> None:
    text = r"""# a comment
PLAIN=value # and a comment
export EXPORTED=x
EMPTY=
EMPTY_TOO=""  # comment
  INDENTED=padded   
SINGLE='literal \n # $HOME `x`'
DOUBLE="a\tb\n\"q\" \$HOME \\ \x \`"   # comment
SEVERAL="one
two
  three"
AT='@not a file'
EQUALS=a=b==
URL=https://user:p%40ss@host:5432/db?x=[1]

LAST=end"""  # noqa: W291 - blanks after a value are not part of it
    assert dotenv(text) == {
        "PLAIN": "value",
        "EXPORTED": "x",
        "EMPTY": "",
        "EMPTY_TOO": "",
        "INDENTED": "padded",
        "SINGLE": r"literal \n # $HOME `x`",
        "DOUBLE": 'a\tb\n"q" $HOME \\ \\x `',
        "SEVERAL": "one\ntwo\n  three",
        "AT": "@not a file",
        "EQUALS": "a=b==",
        "URL": "https://user:p%40ss@host:5432/db?x=[1]",
        "LAST": "end",
    }
    assert list(dotenv("B=1\r\nA=2\r\n").items()) == [("B", "1"), ("A", "2")]
    assert dotenv("# none\n\n") == {}


# bash 5.2, python-dotenv 1.2 and node's dotenv 17 read each of these differently.
@pytest.mark.parametrize(
    "value",
    [
        "#secret",
        "a#b",
        "a# b",
        " # comment",
        "two words",
        " padded",
        "a\tb",
        "`date`",
        "a`b",
        "pa$word",
        "$HOME",
        "${HOME}x",
        "$(date)",
        "a\\b",
        "a\\",
        "it's",
        'say"so"',
        "a'b'",
        "x&y=1",
        "a;b",
        "a|b",
        "a<b",
        "(a)",
        "~/key",
        "a:~/b",
        '"x"y',
        "'x'y",
        '"x"#comment',
        "'x'#comment",
        '"a$HOME"',
        '"a${HOME}"',
        '"$(date)"',
        '"`date`"',
        '"C:\\bin"',
        '"a\\\nb"',
        '"it\\\'s"',
        "'ends with \\'",
        "a\u00a0",
        "a\u3000b",
        "1\rB=2\r",
        "'a\rb'",
        '"a\rb"',
    ],
)
def test_what_readers_read_differently_is_an_error_that_asks_for_quotes(value: str) -> None:
    with pytest.raises(InputFault) as raised:
        list(assignments(f"FIRST=1\nA={value}\nLAST=2\n", "f"))
    found = raised.value
    assert found.line == 2
    assert found.hint is not None
    if value[0] not in "\"'" and "\r" not in value and not value.startswith(" p"):
        assert "quotes" in found.hint


@given(
    st.dictionaries(
        st.from_regex(r"\A[A-Za-z0-9_]{1,12}\Z"),
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\0")),
    )
)
def test_any_value_can_be_written_in_double_quotes(values: dict[str, str]) -> None:
    def quoted(value: str) -> str:
        for sign in '\\"$`':
            value = value.replace(sign, "\\" + sign)
        return f'"{value}"'

    for end in ("\n", "\r\n"):
        assert dotenv("".join(f"{name}={quoted(value)}{end}" for name, value in values.items())) == values


def test_line_ends_in_quotes_are_kept() -> None:
    text = "A='one\r\ntwo\r\n'\r\nB=\"one\r\ntwo\" # comment\r\nC=bare\r\n\r\nD=''\r\nE='x'"
    assert dotenv(text) == {"A": "one\r\ntwo\r\n", "B": "one\r\ntwo", "C": "bare", "D": "", "E": "x"}


def test_byte_order_marks_are_not_part_of_a_name() -> None:
    """At the start of a file, and where files that begin with one were joined."""
    assert dotenv("\ufeffA=1\n\ufeffB=2\n\ufeff# comment\n\ufeff\n") == {"A": "1", "B": "2"}
    with pytest.raises(InputFault, match="UTF-16"):
        parse("A=1".encode("utf-16"), "f", None, None, Secrets())


@given(st.text(st.characters(codec="utf-8"), max_size=200) | st.text("A='\"\\\n\r #@{}$`\ufeff", max_size=40))
def test_any_text_is_secrets_or_a_one_line_error(text: str) -> None:
    try:
        parse(text.encode(), "f", None, None, Secrets())
    except Problem as found:
        assert "\n" not in str(found)  # noqa: PT017 - it is about the text


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        (f"A=1\n{VALUE}\n", 2, "not NAME=value"),
        (f'A="{VALUE}\n', 1, "quotes around A are not closed"),
        (f"{VALUE}-='x\n", 1, "quotes around the value are not closed"),
        (f"A='\n\n'\nA={VALUE}\n", 4, "A is also given by f"),
        (f"{VALUE}-x=1\n", 1, "not a valid name"),
        (f"A=@{VALUE}\n", 1, "the file for A: No such file"),
        (f"{VALUE}-=@{VALUE}\n", 1, "not a valid name"),
        ("A=@\n", 1, "the file for A"),
        (f"A='{VALUE}' {VALUE}\n", 1, "after the closing quote of A"),
        (f"A = {VALUE}\n", 1, "blanks around the = of A"),
        (f"A= {VALUE}\n", 1, "blanks around the = of A"),
        (f"A: {VALUE}\n", 1, "YAML"),
        (f"---\nA: {VALUE}\n", 1, "YAML"),
        (f"%YAML 1.2\n---\nA: {VALUE}\n", 1, "YAML"),
        (f"[secrets]\nA={VALUE}\n", 1, "TOML"),
        (f'// {VALUE}\n{{"A": "{VALUE}"}}\n', 1, "JSONC"),
        (f"/* {VALUE} */ {{}}\n", 1, "JSONC"),
        ("A='\0'\n", 1, "NUL"),
    ],
)
def test_faults_name_the_line_and_no_value(text: str, line: int, says: str) -> None:
    found = fault(text)
    assert str(found).startswith(f"f:{line}: ")
    assert says in str(found)
    assert found.hint


def test_an_at_sign_in_a_commands_output_is_part_of_the_value() -> None:
    secrets = Secrets()
    parse(b"A=@/etc/passwd\n", "f", None, None, secrets)
    assert secrets.texts == {"A": "@/etc/passwd"}
