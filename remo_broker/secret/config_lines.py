"""Add lines to INI, TOML and npmrc files and remove them again, changing nothing else."""

from __future__ import annotations

from remo_broker.cli.program import Problem

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
    begun = text.removeprefix("\ufeff")
    byte_order_mark = text[: len(text) - len(begun)]
    lines = _split(begun)
    begin, end = _section(lines, section)
    for one in lines[begin:end] if begin >= 0 else []:
        if one.strip() == line:
            return text  # as the manual page says
        if one.partition("=")[0].strip() == key:
            raise AlreadySet(path, key)
    added = [MARK, line]
    if begin < 0:
        added = [MARK, f"[{section}]", MARK, line]
        begin = len(lines)
    ending = "\r\n" if "\r\n" in text else "\n"
    before, after = lines[:begin], lines[begin:]
    if before and not before[-1].endswith("\n"):
        before[-1] += ending
    result = "".join([*before, *(one + ending for one in added), *after])
    if path.endswith(".toml"):
        _check_toml(path, result)
    return byte_order_mark + result


def remove_lines(text: str, keys: set[str]) -> str:
    """`text` without the marked lines, and without an added section that is now empty.

    A mark before a key not in `keys` is a mark whose line the user has removed: that line stays.
    """
    lines = _split(text)
    kept: list[str] = []
    number = 0
    while number < len(lines):
        if lines[number].strip() != MARK:
            kept.append(lines[number])
            number += 1
            continue
        marked = lines[number + 1 : number + 2]
        number += 2
        is_head = bool(marked) and _head(marked[0]) is not None
        if not _empty_after(lines, number, keys) if is_head else marked and not _has_key(marked[0], keys):
            kept += marked
    return "".join(kept)


def _split(text: str) -> list[str]:
    """The lines with their ends; unlike `splitlines`, at line feeds only."""
    lines = text.split("\n")
    return [f"{line}\n" for line in lines[:-1]] + ([lines[-1]] if lines[-1] else [])


def _head(line: str) -> str | None:
    """The name in a section's header, without a comment after it."""
    line = line.strip()
    if not line.startswith("[") or "]" not in line:
        return None
    return line[1:].partition("]")[0].strip()


def _has_key(line: str, keys: set[str]) -> bool:
    return line.partition("=")[0].strip() in keys


def _empty_after(lines: list[str], number: int, keys: set[str]) -> bool:
    """Whether the section that begins before `number` has only marked lines."""
    while number < len(lines) and _head(lines[number]) is None:
        if lines[number].strip() == MARK:
            number += 1
            if number < len(lines) and _has_key(lines[number], keys):
                number += 1
        elif lines[number].strip():
            return False
        else:
            number += 1
    return True


def _section(lines: list[str], section: str | None) -> tuple[int, int]:
    """The line after a section's header, and the line after the section; -1 if there is no such
    section.
    """
    heads = [number for number, line in enumerate(lines) if _head(line) is not None]
    if section is None:
        return 0, heads[0] if heads else len(lines)
    for number in heads:
        if _head(lines[number]) == section:
            return number + 1, next((one for one in heads if one > number), len(lines))
    return -1, -1


def _check_toml(path: str, text: str) -> None:
    """Refuse a result that is not TOML: the file has the table in a form that is not known here."""
    try:
        import tomllib
    except ImportError:  # Python 3.10 or earlier
        return
    try:
        tomllib.loads(text.encode("utf-8", "surrogateescape").decode("utf-8"))
    except ValueError:
        raise Problem(f"{path}: cannot add a line", hint="see remo-secret-tools(7) and add it by hand") from None
