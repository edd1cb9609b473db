"""Add lines to INI, TOML and npmrc files and remove them again, changing nothing else."""

from __future__ import annotations

MARK = "# added by remo-secret setup"


class AlreadySet(Exception):
    """The user's file already has the key."""

    def __init__(self, path: str, key: str) -> None:
        super().__init__(f"{path}: {key}")
        self.path = path
        self.key = key


def add_line(path: str, text: str, section: str | None, line: str) -> str:
    """`text` with `line` in `[section]`, or before the first section. Raises `AlreadySet`."""
    key = line.partition("=")[0].strip()
    lines = text.splitlines()
    begin, end = _section(lines, section)
    if any(one.partition("=")[0].strip() == key for one in lines[begin:end]):
        raise AlreadySet(path, key)
    added = [MARK, line]
    if begin < 0:
        added = [MARK, f"[{section}]", MARK, line]
        begin = len(lines)
    return "\n".join([*lines[:begin], *added, *lines[begin:]]) + "\n"


def remove_lines(text: str) -> str:
    """`text` without the marked lines, and without an added section that is now empty."""
    lines = text.splitlines()
    kept: list[str] = []
    number = 0
    while number < len(lines):
        if lines[number] != MARK:
            kept.append(lines[number])
            number += 1
            continue
        marked = lines[number + 1 : number + 2]
        number += 2
        if marked and marked[0].startswith("[") and not _empty_after(lines, number):
            kept += marked
    return "\n".join(kept) + "\n" if kept else ""


def _empty_after(lines: list[str], number: int) -> bool:
    """Whether the section that begins before `number` has only marked lines."""
    while number < len(lines) and not lines[number].startswith("["):
        if lines[number] == MARK:
            number += 2
        elif lines[number].strip():
            return False
        else:
            number += 1
    return True


def _section(lines: list[str], section: str | None) -> tuple[int, int]:
    """The line after a section's header, and the line after the section; -1 if there is no such
    section.
    """
    heads = [number for number, line in enumerate(lines) if line.strip().startswith("[")]
    if section is None:
        return 0, heads[0] if heads else len(lines)
    for number in heads:
        if lines[number].strip().replace(" ", "") == f"[{section}]":
            return number + 1, next((one for one in heads if one > number), len(lines))
    return -1, -1
