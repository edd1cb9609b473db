"""How a program begins and ends: parse, dispatch, and one line on standard error for whatever went wrong."""

from __future__ import annotations

import os
import sys

from remo_broker.cli.options import HELP, VERSION, Arguments, Program, Usage, parse
from remo_broker.cli.text import escaped

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TextIO

EXIT_FAILURE = 1
EXIT_USAGE = 2
# As a shell reports a program that ^C ended.
EXIT_INTERRUPTED = 130


class Problem(Exception):
    """Ends the program with this line and exit status."""

    def __init__(self, message: str, status: int = EXIT_FAILURE) -> None:
        super().__init__(message)
        self.status = status


def run(program: Program, argv: list[str], status_of: Callable[[Exception], int | None]) -> int:
    """The exit status. `status_of` knows the program's own exceptions; what it does not know is a bug."""
    open_standard_streams()
    message = None
    try:
        status = _run(program, argv)
    except Usage as error:
        status, message = EXIT_USAGE, f"{error}; see '{program.name} --help'"
    except Problem as error:
        status, message = error.status, str(error)
    except KeyboardInterrupt:
        status = EXIT_INTERRUPTED
    except BrokenPipeError:
        status = 0  # whoever reads the output has seen enough
    except Exception as error:  # noqa: BLE001 - whatever it is, its text may hold a secret and a traceback its place
        status, message = _failure(error, status_of)
    unwritten = _finish(sys.stdout)
    if message is None and unwritten is not None and not isinstance(unwritten, BrokenPipeError):
        status, message = status or EXIT_FAILURE, _told(unwritten)
    if message is not None:
        complain(program, message)
    _finish(sys.stderr)
    return status


def _failure(error: Exception, status_of: Callable[[Exception], int | None]) -> tuple[int, str]:
    status = status_of(error)
    if status is not None:
        return status, str(error)
    if isinstance(error, OSError):
        return EXIT_FAILURE, _told(error)
    return EXIT_FAILURE, f"a fault of its own: {type(error).__name__} in {_place(error)}; please report it"


def _told(error: OSError) -> str:
    return f"{error.filename or 'output'}: {os.strerror(error.errno or 0)}"


def open_standard_streams() -> None:
    """Put streams that fail in place of those that whoever started us has closed.

    Else the next file or socket would be one of them, and take what is printed; and Python prints what is for a
    standard error that it does not have to standard output.
    """
    for name, mode, opposite in (
        ("stdin", "r", os.O_WRONLY),
        ("stdout", "w", os.O_RDONLY),
        ("stderr", "w", os.O_RDONLY),
    ):
        if getattr(sys, name) is None:
            # The lowest descriptor that is free is the one that was closed.
            setattr(sys, name, os.fdopen(os.open(os.devnull, opposite), mode, errors="backslashreplace"))


def _finish(stream: TextIO) -> OSError | None:
    """Write what is buffered. Where that fails, it is for nobody: the interpreter would try again at its end, and say so."""
    try:
        stream.flush()
    except OSError as error:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
        return error
    return None


def _place(error: Exception) -> str:
    """Module and line where it was raised: what a report needs, without any text that was worked on."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_globals.get('__name__')}:{trace.tb_lineno}" if trace is not None else "nowhere"


def _run(program: Program, argv: list[str]) -> int:
    arguments = parse(program, argv)
    command = arguments.command
    if arguments.flag(VERSION):
        from remo_broker import PROTOCOL_VERSION, __version__

        print(f"{program.name} {__version__} (protocol {PROTOCOL_VERSION})")
        return 0
    if arguments.flag(HELP):
        from remo_broker.cli.help import command_help, program_help

        print(command_help(program, command) if command else program_help(program), end="")
        return 0
    if command is None:
        raise Usage("give a command: " + ", ".join(program.commands))
    return load(command.run)(arguments) or 0


def load(place: str) -> Callable[[Arguments], int | None]:
    """The function at `package.module:function`."""
    module, _, function = place.partition(":")
    __import__(module)
    found: Callable[[Arguments], int | None] = getattr(sys.modules[module], function)
    return found


def complain(program: Program, message: str) -> None:
    """One line on standard error, behind whatever was printed before it."""
    report(f"{program.name}: {message}")


def report(line: str) -> None:
    """A line on standard error without the program's name, as a compiler's. Where nobody can be told, the exit status has to do."""
    try:
        print(escaped(line), file=sys.stderr)
    except OSError:
        return
