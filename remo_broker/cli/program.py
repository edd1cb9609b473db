"""How a program starts and ends: parse, dispatch, report errors on standard error.

An error is one line, `program: what failed: why`. If there is a remedy, a second line follows:
`Hint: what to do`.
"""

from __future__ import annotations

import os
import sys

from remo_broker.cli.options import HELP, VERSION, Arguments, Program, Usage, parse
from remo_broker.cli.text import escaped, is_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TextIO

EXIT_FAILURE = 1
EXIT_USAGE = 2
# As a shell reports a program ended by ^C.
EXIT_INTERRUPTED = 130


class Problem(Exception):
    """Ends the program with this message, hint and exit status."""

    def __init__(self, message: str, *, hint: str | None = None, status: int = EXIT_FAILURE) -> None:
        super().__init__(message)
        self.hint = hint
        self.status = status


def run(program: Program, argv: list[str], status_of: Callable[[Exception], int | None]) -> int:
    """Run the command line and return the exit status.

    `status_of` maps the program's own exceptions to exit statuses; an exception that it maps to
    None is a bug.
    """
    open_standard_streams()
    arguments = Arguments()
    message = hint = None
    try:
        status = _run(program, argv, arguments)
    except Usage as error:
        status, message, hint = EXIT_USAGE, str(error), error.hint or _see_help(program, arguments)
    except Problem as error:
        status, message, hint = error.status, str(error), error.hint
    except KeyboardInterrupt:
        status = EXIT_INTERRUPTED
    except BrokenPipeError:
        status = 0  # the reader has closed the pipe and needs no more
    except Exception as error:  # noqa: BLE001 - a traceback or an unknown error's text could show a secret
        status, message, hint = _failure(error, status_of)
    unwritten = _finish(sys.stdout)
    if message is None and unwritten is not None and not isinstance(unwritten, BrokenPipeError):
        status, message = status or EXIT_FAILURE, _os_error(unwritten)
    if message is not None:
        complain(program, message, hint)
    _finish(sys.stderr)
    return status


def _see_help(program: Program, arguments: Arguments) -> str:
    words = [program.name, *([arguments.command.name] if arguments.command else []), "--help"]
    return f"see '{' '.join(words)}'"


def _failure(error: Exception, status_of: Callable[[Exception], int | None]) -> tuple[int, str, str | None]:
    status = status_of(error)
    if status is not None:
        return status, str(error), getattr(error, "hint", None)
    if isinstance(error, OSError):
        return EXIT_FAILURE, _os_error(error), None
    message = f"internal error: {type(error).__name__} in {_place(error)}"
    return EXIT_FAILURE, message, "this is a bug; report it with the line above"


def _os_error(error: OSError) -> str:
    return f"{error.filename or 'output'}: {os.strerror(error.errno or 0)}"


def open_standard_streams() -> None:
    """Replace closed standard streams by ones on which every operation fails.

    Otherwise the next file or socket opened would get the stream's number, and with it the output;
    and Python without a standard error prints error messages to standard output.
    """
    for name, mode, opposite in (
        ("stdin", "r", os.O_WRONLY),
        ("stdout", "w", os.O_RDONLY),
        ("stderr", "w", os.O_RDONLY),
    ):
        if getattr(sys, name) is None:
            # The lowest free descriptor is the closed one.
            setattr(sys, name, os.fdopen(os.open(os.devnull, opposite), mode, errors="backslashreplace"))


def _finish(stream: TextIO) -> OSError | None:
    """Flush a stream. If that fails, discard the rest.

    At exit the interpreter would otherwise try again and complain.
    """
    try:
        stream.flush()
    except OSError as error:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
        return error
    return None


def _place(error: Exception) -> str:
    """The module and line that raised it: enough for a bug report, and no data."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_globals.get('__name__')}:{trace.tb_lineno}" if trace is not None else "nowhere"


def _run(program: Program, argv: list[str], arguments: Arguments) -> int:
    parse(program, argv, arguments)
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
        raise Usage("no command given")
    return load(command.run)(arguments) or 0


def load(place: str) -> Callable[[Arguments], int | None]:
    """The function at `package.module:function`."""
    module, _, function = place.partition(":")
    __import__(module)
    found: Callable[[Arguments], int | None] = getattr(sys.modules[module], function)
    return found


def complain(program: Program, message: str, hint: str | None = None) -> None:
    """Print an error, and its hint on a separate line, after all earlier output."""
    report(f"{program.name}: {message}")
    if hint is not None:
        report(f"Hint: {hint}")


def write_value(name: str, content: bytes) -> None:
    """Write text that has a secret's value, `name`, in it. Raises `Problem` for a terminal that would
    interpret it: any command can be run by hand."""
    if os.isatty(1):
        require_text(name, content)
    sys.stdout.buffer.write(content)


def require_text(what: str, content: bytes) -> None:
    """Raise `Problem` if a terminal would interpret `content`, which is of `what`."""
    if not is_text(content):
        raise Problem(
            f"{what} has control characters, which a terminal may execute",
            hint="redirect the output to a file or a pipe",
        )


def report(line: str) -> None:
    """Print a line on standard error without the program's name, like a compiler.

    If that fails, the exit status remains.
    """
    try:
        print(escaped(line), file=sys.stderr)
    except OSError:
        return
