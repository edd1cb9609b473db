"""Output in the style of systemd's tools.

Colour and a pager are used on a terminal only. People get tables, programs get JSON.

Environment: `NO_COLOR`, `TERM=dumb`, `SYSTEMD_PAGER`, `PAGER`, `SYSTEMD_PAGERSECURE`,
`SYSTEMD_LESS` and `SYSTEMD_LESSCHARSET`.
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

# systemd's options for less: exit if the output fits on one screen, show colours, do not clear it.
LESS_OPTIONS = "FRSXMK"
PAGERS = ("pager", "less", "more")
# These have a secure mode, in which they run no command and open no file.
SECURE_PAGERS = ("less",)
_FALSE = ("0", "no", "n", "false", "f", "off")


class Colour(StrEnum):
    """The colours, as terminal escapes."""

    RED = "\x1b[0;1;31m"
    GREEN = "\x1b[0;1;32m"
    YELLOW = "\x1b[0;1;33m"
    GREY = "\x1b[0;38;5;245m"
    BOLD = "\x1b[0;1;39m"
    UNDERLINE = "\x1b[0;4m"


RESET = "\x1b[0m"


class Output:
    """Standard output, formatted for the options and the terminal.

    `json` is `short`, `pretty` or `off`. `table` escapes its cells. Callers of `line` and `pairs`
    escape their text themselves, because it may hold colours.
    """

    def __init__(self, *, json_mode: str, legend: bool, pager: bool) -> None:
        self.json = json_mode
        self.legend = legend
        self.terminal = sys.stdout.isatty()
        self._pager = pager and self.terminal
        self.colours = self.terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"

    def paint(self, text: str, colour: Colour | None) -> str:
        return f"{colour}{text}{RESET}" if colour is not None and self.colours else text

    def mark(self, good: bool) -> str:
        """A tick or a cross, or yes or no if the encoding lacks these."""
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
        """`Key: value` lines with aligned colons, like `systemctl status`."""
        width = max(len(key) for key, _ in rows)
        for key, value in rows:
            print(f"{key:>{width}}{':' if key else ' '} {value}")

    def table(self, header: Sequence[str], rows: Sequence[Sequence[str]], counted: str) -> None:
        """An aligned table; `counted` is the line below it: `2 projects listed.`"""
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
        """Page standard output while the block runs.

        Only if it is a terminal and --no-pager is not given.
        """
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
            # The user has quit the pager; discard what is still buffered.
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, 1)
            os.close(nowhere)
            sys.stdout.flush()
            if isinstance(error, KeyboardInterrupt):
                raise
        finally:
            # From here on ^C is for the pager. If this program exited first, the pager and the
            # shell would both read from the terminal.
            before = signal.signal(signal.SIGINT, signal.SIG_IGN)
            # The pager's input ends when its last copy is closed.
            os.dup2(terminal, 1)
            os.close(terminal)
            pager.wait()
            signal.signal(signal.SIGINT, before)


def confirmed(question: str) -> bool:
    """Ask on the terminal; anything but yes is no."""
    print(f"{escaped(question)} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _start_pager() -> subprocess.Popen[bytes] | None:
    """Start the first pager that works.

    A setting that names a missing program must not hide output.
    """
    trusted = _secure_setting()
    secure = _elevated() if trusted is None else trusted
    environment = os.environ | {
        "LESS": os.environ.get("SYSTEMD_LESS") or LESS_OPTIONS,
        "LESSCHARSET": os.environ.get("SYSTEMD_LESSCHARSET") or "utf-8",
    }
    environment.pop("LESSSECURE", None)
    if secure:
        environment["LESSSECURE"] = "1"
        environment.pop("LESSSECURE_ALLOW", None)  # in newer versions, exceptions from secure mode
    for command in _pagers(secure=secure, custom=trusted is not None or not secure):
        with suppress(OSError):
            return subprocess.Popen(command, stdin=subprocess.PIPE, env=environment)
    return None


def _secure_setting() -> bool | None:
    """`SYSTEMD_PAGERSECURE`: whether the pager runs in secure mode.

    If set at all, the user's pager is trusted. As with systemd's tools, a non-boolean value means
    true.
    """
    given = os.environ.get("SYSTEMD_PAGERSECURE")
    return None if given is None else given.lower() not in _FALSE


def _elevated() -> bool:
    """Whether this runs with more rights than the login user: under sudo or a similar program.

    Unlike in systemd's tools, root always counts as elevated: not every session records its user.
    """
    return os.geteuid() == 0 or os.geteuid() != os.getuid()


def _pagers(*, secure: bool, custom: bool) -> Iterator[list[str]]:
    """The user's pager, if it may be used, then the common ones; none if it is set to none."""
    given = next((os.environ[name] for name in ("SYSTEMD_PAGER", "PAGER") if name in os.environ), None)
    if given is not None:
        if given.strip() in ("", "cat"):
            return
        if custom:
            with suppress(ValueError):  # unclosed quotes
                yield shlex.split(given)
    for name in SECURE_PAGERS if secure else PAGERS:
        yield [name]
