"""Dotenv files: accept only `NAME=value` lines that all readers understand alike.

bash, python-dotenv and node's dotenv agree on little. A value without quotes is accepted only if
all three read it the same; where they differ (blanks, `#`, `$`, backslashes, quotes in the middle,
...) the line is an error that asks for quotes. In quotes the rules are these:

- single quotes: literal, up to the next single quote;
- double quotes: `\\n` `\\t` `\\r` are a newline, a tab and a carriage return; `\\"` `\\\\` `\\$`
  and a backtick after a backslash stand for the second character. An expansion's `$` and a backtick
  are errors without a backslash, because bash would expand them. So are escapes that only some
  readers know;
- either may span several lines, whose line ends are kept.

A comment begins with `#` at the start of a line, or after a value and a blank.
"""

from __future__ import annotations

import re

from remo_broker.cli.input_fault import InputFault
from remo_broker.protocol.names import is_secret_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

IN_QUOTES = "put it in single quotes"
# A byte-order mark inside the file, at the start of a line, comes from joined files.
_start = re.compile(r"\ufeff?[ \t]*(?:export[ \t]+)?").match
_name = re.compile(r"([^\s=#:'\"]+)([ \t]*)=([ \t]*)").match
_line = re.compile(r"[^\n]*").match
# Possessive: the regex never backtracks into a value, however long it is.
_double = re.compile(r'"((?:[^"\\]|\\.)*+)"', re.DOTALL).match
_single = re.compile(r"'([^']*+)'").match
_after_quotes = re.compile(r"(?:[ \t]+#[^\n]*|[ \t]*\r?)(?:\n|\Z)").match
# From the first blank of a run only: from each one would take time that grows with its square.
_comment = re.compile(r"(?<![ \t])[ \t]+#.*", re.DOTALL).search
# What bash expands: a name, a parameter, a substitution.
_expansion = re.compile(r"\$[A-Za-z0-9_{(\[*@#?!$'\"-]|`").search
_escape = re.compile(r"\\(.)|(\$[A-Za-z0-9_{(\[*@#?!$-]|`)", re.DOTALL).sub
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", '"': '"', "\\": "\\", "$": "$", "`": "`"}
# python-dotenv decodes these; bash joins a line that ends with a backslash to the next.
_UNCERTAIN_ESCAPES = frozenset("abfv'\n\r")
# Characters that only bash treats as special; unprintable ones are checked separately.
_uncertain = re.compile(r"[\s#$`\\'\"&|;<>()]").search
_home = re.compile(r"(?:^|[:=])~").search
_like_yaml = re.compile(r"(?:%YAML\s|---\s*$|-\s|[\w.\"'-]+:(?:\s|$))").match
_like_toml = re.compile(r"\[+[\w.\"-]+\]+\s*(?:#.*)?$").match


class Assignment:
    """One line of the file. `quoted`: the value was in quotes, so a leading `@` has no meaning."""

    __slots__ = ("line", "name", "quoted", "value")

    def __init__(self, line: int, name: str, value: str, quoted: bool) -> None:
        self.line = line
        self.name = name
        self.value = value
        self.quoted = quoted


def assignments(text: str, source: str) -> Iterator[Assignment]:
    """Every assignment in order. Raises `InputFault`."""
    position, line = 0, 1
    while position < len(text):
        end = _line(text, position).end()  # type: ignore[union-attr]  # it always matches
        content = text[position:end]
        start = _start(text, position).end()  # type: ignore[union-attr]  # it always matches
        if not content.strip(" \t\r\ufeff") or text.startswith("#", start):
            if "\r" in content.removesuffix("\r"):
                raise _carriage_return(source, line)
            position, line = end + 1, line + 1
            continue
        found = _name(text, start)
        if found is None:
            raise _no_assignment(content.strip("\ufeff\r"), source, line)
        name, before, after = found.groups()
        sign = text[found.end() : found.end() + 1]
        if before or (after and sign not in ("", "\n", "\r")):
            hint = _empty_hint(name) if sign == "#" else "remove the blanks"
            raise InputFault(source, f"blanks around the = of {_called(name)}", line=line, hint=hint)
        if sign in ("'", '"'):
            value, following = _in_quotes(text, found.end(), name, source, line)
            yield Assignment(line, name, value, quoted=True)
        else:
            value, following = _bare(text[found.end() : end], name, source, line), end + 1
            yield Assignment(line, name, value, quoted=False)
        line += text.count("\n", position, following)
        position = following


def _in_quotes(text: str, position: int, name: str, source: str, line: int) -> tuple[str, int]:
    """The value that begins with a quote at `position`, and where the next line begins."""
    sign = text[position]
    quoted = (_double if sign == '"' else _single)(text, position)
    if quoted is None:
        what = f"the quotes around {_called(name)} are not closed"
        raise InputFault(source, what, line=line, hint=f"end the value with {sign}")
    after = _after_quotes(text, quoted.end())
    if after is None:
        what = f"text after the closing quote of {_called(name)}"
        hint = "a comment needs a blank before its #; a value that contains both kinds of quotes is written in JSON"
        raise InputFault(source, what, line=line, hint=hint)
    value = quoted.group(1)
    if "\r" in value.replace("\r\n", ""):
        raise _carriage_return(source, line)
    if "\0" in value:
        raise InputFault(source, f"{_called(name)} contains a NUL byte", line=line, hint="push it with NAME=@FILE")
    if sign == "'":
        if value.endswith("\\"):
            what = f"the value of {_called(name)} ends with a backslash, which some readers take for an escaped quote"
            raise InputFault(
                source, what, line=line, hint=f"write it in double quotes, with {2 * chr(92)} for each backslash"
            )
        return value, after.end()

    def unescaped(found: re.Match[str]) -> str:
        letter, expansion = found.groups()
        if expansion:
            what = f"{_called(name)} contains an expansion ($ or a backtick), which bash would carry out"
            raise InputFault(source, what, line=line, hint=f"{IN_QUOTES}, or put a backslash before the sign")
        if letter in _UNCERTAIN_ESCAPES:
            what = f"{_called(name)} contains an escape that not every reader of dotenv files knows"
            raise InputFault(source, what, line=line, hint=f"{IN_QUOTES}, or write \\\\ for a backslash")
        return _ESCAPES.get(letter, found.group())

    return _escape(unescaped, value), after.end()


def _bare(content: str, name: str, source: str, line: int) -> str:
    """A value without quotes, on which all readers agree."""
    content = content.removesuffix("\r")
    comment = _comment(content)
    value = (content if comment is None else content[: comment.start()]).rstrip(" \t")
    if comment is not None and not value:
        what = f"{_called(name)} is empty, or the # belongs to it"
        raise InputFault(source, what, line=line, hint=_empty_hint(name))
    if "\r" in value:
        raise _carriage_return(source, line)
    found = _uncertain(value) or _home(value)
    if found is not None or not value.isprintable():
        shown = {" ": "a blank", "\t": "a tab"}.get(found.group()[-1], found.group()[-1]) if found else ""
        shown = shown if shown.isprintable() and shown else "a character that is not printable"
        what = f"{_called(name)} contains {shown}, which bash, python-dotenv and node's dotenv read differently"
        raise InputFault(source, what, line=line, hint=IN_QUOTES)
    return value


def _empty_hint(name: str) -> str:
    return f'write {_called(name)}="" for an empty value; if the # belongs to the value, {IN_QUOTES}'


def _called(name: str) -> str:
    """A name for an error message.

    An invalid name is not shown: it may be part of a multi-line value.
    """
    return name if is_secret_name(name) else "the value"


def _carriage_return(source: str, line: int) -> InputFault:
    hint = "end lines with a newline; to keep a carriage return in a value, put it in double quotes as \\r"
    return InputFault(source, "a carriage return inside a line", line=line, hint=hint)


def _no_assignment(content: str, source: str, line: int) -> InputFault:
    if _like_yaml(content.strip()):
        hint = "convert YAML to JSON: yq -o=json FILE | remo-brokerctl push"
        return InputFault(source, "not NAME=value; this looks like YAML", line=line, hint=hint)
    if _like_toml(content.strip()):
        hint = "write NAME=value lines without sections, or JSON"
        return InputFault(source, "not NAME=value; this looks like TOML or INI", line=line, hint=hint)
    if content.strip().startswith(("//", "/*")):
        hint = "JSON and dotenv have no such comments: remove them; in dotenv, # begins a comment"
        return InputFault(source, "a comment with // or /*, as in JSONC", line=line, hint=hint)
    hint = "write NAME=value on each line, with quotes around a value of several lines; or write JSON"
    return InputFault(source, "not NAME=value", line=line, hint=hint)
