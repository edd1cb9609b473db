"""Pages as their readers see them, and as they are written."""

from __future__ import annotations

import re
import shutil
import subprocess
from functools import cache

from tests.support.machine import REPOSITORY, unavailable

# What a page is set with in place of the ASCII one.
DASHES = str.maketrans({"\u2010": "-", "\u2212": "-"})


@cache
def page(name: str) -> str:
    """A page as its reader sees it, on one line, without the overstrikes of bold and underline."""
    mandoc = shutil.which("mandoc")
    if mandoc is None:
        unavailable("mandoc is not installed; './run test' installs it")
    path = REPOSITORY / "man" / name
    text = subprocess.run(
        [mandoc, "-T", "utf8", "-O", "width=500", path], capture_output=True, text=True, check=True
    ).stdout
    return re.sub(r"\s+", " ", re.sub(r".\x08", "", text)).translate(DASHES)


def missing(name: str, words: list[str]) -> list[str]:
    """Which of `words` do not stand in a page as words of their own."""
    text = page(name)
    return [word for word in words if not re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", text)]


def source(name: str) -> str:
    return (REPOSITORY / "man" / name).read_text()


def section(name: str, title: str) -> str:
    """The source of one section."""
    return source(name).split(f".Sh {title}\n", 1)[1].split("\n.Sh ", 1)[0] + "\n"


def arguments(text: str, macro: str) -> set[str]:
    """What stands behind a macro such as `Fl` or `Cm`, in whichever line it is called."""
    found = set()
    for line in text.splitlines():
        taking = False
        for word in line.removeprefix(".").split() if line.startswith(".") else ():
            if re.fullmatch("[A-Z][a-z]", word):
                taking = word == macro
            elif taking and word not in ",.;:()|":
                found.add(word)
    return found


def flags(text: str) -> set[str]:
    """The options that a page names: `Fl a , -all` are `-a` and `--all`."""
    return {f"-{word}" for word in arguments(text, "Fl")} - {"--"}
