"""How a program begins and ends: parse, dispatch, and one line on standard error for whatever went wrong."""

from __future__ import annotations

import os
import sys

from remo_broker.cli.options import HELP, VERSION, Arguments, Program, Usage, parse
from remo_broker.cli.text import escaped

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

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
    """The exit status. `status_of` knows the program's own exceptions; what it does not know is a bug and raised."""
    try:
        try:
            return _run(program, argv)
        finally:
            # Here and not at the interpreter's end, where an error would print its own two lines.
            sys.stdout.flush()
    except Usage as error:
        complain(program, f"{error}; see '{program.name} --help'")
        return EXIT_USAGE
    except Problem as error:
        complain(program, str(error))
        return error.status
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        _forget_output()  # whoever read it has seen enough
        return 0
    except Exception as error:  # noqa: BLE001 - whatever it is, its text may hold a secret and a traceback its place
        status = status_of(error)
        if status is not None:
            complain(program, str(error))
            return status
        if isinstance(error, OSError):
            _forget_output()
            complain(program, f"{error.filename or 'output'}: {os.strerror(error.errno or 0)}")
        else:
            complain(program, f"a fault of its own: {type(error).__name__} in {_place(error)}; please report it")
        return EXIT_FAILURE


def _forget_output() -> None:
    """What is still buffered cannot be written: without this, the interpreter would try again at its end, and say so."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


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
    print(f"{program.name}: {escaped(message)}", file=sys.stderr)
