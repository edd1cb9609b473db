"""Output as systemd's tools have it: colour and a pager on a terminal only, tables for people, JSON for programs.

Honoured are `NO_COLOR`, `TERM=dumb`, `SYSTEMD_PAGER`, `PAGER`, `SYSTEMD_LESS` and `SYSTEMD_LESSCHARSET`.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from contextlib import contextmanager, suppress
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from remo_broker.cli.text import escaped

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# What systemd's tools give to less: end at once where one screen is enough, show colours, do not clear the screen.
LESS_OPTIONS = "FRSXMK"
PAGERS = ("pager", "less", "more")


class Colour(StrEnum):
    """What a cell or a word means, as far as a colour tells."""

    RED = "\x1b[0;1;31m"
    GREEN = "\x1b[0;1;32m"
    YELLOW = "\x1b[0;1;33m"
    GREY = "\x1b[0;38;5;245m"
    BOLD = "\x1b[0;1;39m"
    UNDERLINE = "\x1b[0;4m"


RESET = "\x1b[0m"


class Output:
    """Standard output, as the options and the terminal want it.

    `json` is `short`, `pretty` or `off`. Cells of a `table` are escaped here; whoever calls `line` or `pairs`, which may
    hold colours, does it himself.
    """

    def __init__(self, *, json_mode: str, legend: bool, pager: bool) -> None:
        self.json = json_mode
        self.legend = legend
        self._terminal = sys.stdout.isatty()
        self._pager = pager and self._terminal
        self.colours = self._terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"

    def paint(self, text: str, colour: Colour | None) -> str:
        return f"{colour}{text}{RESET}" if colour is not None and self.colours else text

    def mark(self, good: bool) -> str:
        """A tick or a cross, or words where the encoding has neither."""
        unicode = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
        text = ("✓" if good else "✗") if unicode else ("yes" if good else "no")
        return self.paint(text, Colour.GREEN if good else Colour.RED)

    def line(self, text: str = "") -> None:
        print(text)

    def show_json(self, value: Any) -> None:
        """One JSON value, on one line or indented."""
        if self.json == "pretty":
            print(json.dumps(value, indent="\t"))
        else:
            print(json.dumps(value, separators=(",", ":")))

    def pairs(self, rows: Sequence[tuple[str, str]]) -> None:
        """`Key: value` lines with the colons below one another, as `systemctl status` has them."""
        width = max(len(key) for key, _ in rows)
        for key, value in rows:
            print(f"{key:>{width}}{':' if key else ' '} {value}")

    def table(self, header: Sequence[str], rows: Sequence[Sequence[str]], counted: str) -> None:
        """A table; `counted` is the line below it: `2 projects listed.` Cells are escaped, header and all aligned."""
        shown = [[escaped(cell) for cell in row] for row in rows]
        widths = [max(len(cell) for cell in column) for column in zip(header, *shown, strict=True)]
        if self.legend:
            print(self.paint("  ".join(map(str.ljust, header, widths)), Colour.UNDERLINE))
        for row in shown:
            print("  ".join(map(str.ljust, row, widths)).rstrip())
        if self.legend:
            print(f"\n{counted}")

    @contextmanager
    def paged(self) -> Iterator[None]:
        """Send standard output through a pager while the block runs, if it goes to a terminal and nobody forbade it."""
        pager = _start_pager() if self._pager else None
        if pager is None:
            yield
            return
        assert pager.stdin is not None
        sys.stdout.flush()
        terminal = os.dup(1)
        os.dup2(pager.stdin.fileno(), 1)
        pager.stdin.close()
        try:
            yield
            sys.stdout.flush()
        except (BrokenPipeError, KeyboardInterrupt) as error:
            # The reader has seen enough; what is still buffered is for nobody.
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, 1)
            os.close(nowhere)
            sys.stdout.flush()
            if isinstance(error, KeyboardInterrupt):
                raise
        finally:
            # From here on ^C is the pager's, which may stay: two programs would read from the terminal if this one ended.
            before = signal.signal(signal.SIGINT, signal.SIG_IGN)
            # The pager's input ends with the last copy of it.
            os.dup2(terminal, 1)
            os.close(terminal)
            pager.wait()
            signal.signal(signal.SIGINT, before)


def _start_pager() -> subprocess.Popen[bytes] | None:
    """The first that can be started, as with systemd's tools: a setting that names none that is there hides nothing."""
    environment = os.environ | {
        "LESS": os.environ.get("SYSTEMD_LESS") or LESS_OPTIONS,
        "LESSCHARSET": os.environ.get("SYSTEMD_LESSCHARSET") or "utf-8",
        # No shell and no other file from within the pager: whoever runs this may be root only by way of sudo.
        "LESSSECURE": "1",
    }
    for command in _pagers():
        with suppress(OSError):
            return subprocess.Popen(command, stdin=subprocess.PIPE, env=environment)
    return None


def _pagers() -> Iterator[list[str]]:
    """The command that is set, then those that are commonly installed; none where it is set to none."""
    given = next((os.environ[name] for name in ("SYSTEMD_PAGER", "PAGER") if name in os.environ), None)
    if given is not None:
        if given.strip() in ("", "cat"):
            return
        with suppress(ValueError):  # quotes that do not close
            yield shlex.split(given)
    for name in PAGERS:
        yield [name]
