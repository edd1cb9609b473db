"""The text of `--help`, built from the tables."""

from __future__ import annotations

import textwrap
from itertools import groupby

from remo_broker.cli.options import Command, Option, Program

# Fits every terminal.
WIDTH = 80
# Column where the explanations begin: after the longest left part, up to this limit.
WIDEST_LEFT = 34


def program_help(program: Program) -> str:
    lines = [f"{program.name} [OPTION...] COMMAND ...", "", program.summary, "", "Commands:"]
    lines += _columns([(command.synopsis, command.summary) for command in program.commands.values()])
    lines += ["", "Options:", *_columns([(shown(option), option.help) for option in program.options])]
    lines += ["", f"See '{program.name} COMMAND --help' for a command's options.", "", *_prose(program.epilog)]
    return "\n".join(lines) + "\n"


def command_help(program: Program, command: Command) -> str:
    lines = [f"{program.name} {command.synopsis.replace(command.name, command.name + ' [OPTION...]', 1)}", ""]
    lines.append(command.summary)
    if command.details:
        lines += ["", *_prose(command.details)]
    if command.options:
        lines += ["", "Options:", *_columns([(shown(option), option.help) for option in command.options])]
    lines += ["", f"For the options of all commands, see '{program.name} --help'."]
    return "\n".join(lines) + "\n"


def shown(option: Option) -> str:
    """`-n --lines=N`, as in systemd's tools."""
    short = next((name for name in option.names if not name.startswith("--")), "")
    long = next((name for name in option.names if name.startswith("--")), "")
    value = "|".join(option.choices) if option.choices else option.value
    if value:
        value = f"={value}" if option.bare is None else f"[={value}]"
    return f"{short:2} {long}".rstrip() + value


def _prose(text: str) -> list[str]:
    """Paragraphs as lines. Indented text is a table and stays unchanged."""
    lines: list[str] = []
    for indented, group in groupby(text.strip("\n").split("\n"), key=lambda line: line[:1] in ("", " ")):
        part = list(group)
        lines += part if indented else _wrapped(" ".join(part), WIDTH)
    return lines


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, break_on_hyphens=False)


def _columns(rows: list[tuple[str, str]]) -> list[str]:
    width = min(WIDEST_LEFT, max(len(left) for left, _ in rows))
    lines = []
    for left, right in rows:
        text = _wrapped(right, WIDTH - width - 4)
        first = "" if len(left) > width else text.pop(0)
        lines.append(f"  {left:{width}}  {first}".rstrip())
        lines += [f"  {'':{width}}  {line}" for line in text]
    return lines
