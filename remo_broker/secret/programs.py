"""Find a command and execute it, as execvp(3) and a shell do."""

from __future__ import annotations

# The C module under `signal`, which imports `enum`.
import _signal  # type: ignore[import-not-found]
import errno
import os
import sys

from remo_broker.cli.program import Problem
from remo_broker.secret.commands import EXIT_NO_SUCH_PROGRAM, EXIT_NOT_EXECUTABLE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

SHELL = "/bin/sh"


def find_program(command: str) -> str:
    """The path of the command, looked up as a shell does.

    Raises `Problem` with a shell's exit status.
    """
    if "/" in command:
        found = [command]
    else:
        directories = os.environ.get("PATH", os.defpath).split(os.pathsep)
        found = [os.path.join(directory or os.curdir, command) for directory in directories if command]
    found = [path for path in found if os.path.exists(path)]
    for path in found:
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    if not found:
        raise Problem(f"{command or 'an empty name'}: command not found", status=EXIT_NO_SUCH_PROGRAM)
    why = "it is a directory" if os.path.isdir(found[0]) else os.strerror(errno.EACCES)
    raise Problem(f"{command}: cannot be executed ({why})", status=EXIT_NOT_EXECUTABLE)


def restore_signals() -> None:
    """Restore the two signals that Python ignores: execve keeps them ignored, and pipelines would
    not end.
    """
    for number in (_signal.SIGPIPE, _signal.SIGXFSZ):
        _signal.signal(number, _signal.SIG_DFL)


def replace_process(program: str, command: list[str], variables: dict[bytes, bytes]) -> NoReturn:
    """Replace this process. Raises `Problem` if that fails."""
    restore_signals()
    sys.stdout.flush()
    try:
        os.execve(program, command, variables)
    except FileNotFoundError:
        why = "the interpreter that it names is missing"
    except OSError as error:
        if error.errno == errno.ENOEXEC and _is_script(program):
            # A script without a #! line: execvp and shells run it with sh.
            os.execve(SHELL, [SHELL, program, *command[1:]], variables)
        why = os.strerror(error.errno or 0)
    raise Problem(f"{command[0]}: cannot be executed ({why})", status=EXIT_NOT_EXECUTABLE)


def start(program: str, command: list[str], variables: dict[bytes, bytes], blocked: set[int]) -> int:
    """Start the command as a child, with these signals blocked; returns its process id.

    Raises `Problem`.
    """
    sys.stdout.flush()
    defaults = [_signal.SIGPIPE, _signal.SIGXFSZ]
    try:
        try:
            return os.posix_spawn(program, command, variables, setsigmask=blocked, setsigdef=defaults)
        except OSError as error:
            if error.errno != errno.ENOEXEC or not _is_script(program):
                raise
            argv = [SHELL, program, *command[1:]]
            return os.posix_spawn(SHELL, argv, variables, setsigmask=blocked, setsigdef=defaults)
    except OSError as error:
        why = os.strerror(error.errno or 0)
    raise Problem(f"{command[0]}: cannot be executed ({why})", status=EXIT_NOT_EXECUTABLE)


def _is_script(program: str) -> bool:
    """Whether a file in no format of the kernel's looks like text: shells refuse binaries, so we
    do.
    """
    try:
        with open(program, "rb") as file:
            first = file.read(256)
    except OSError:
        return False
    return b"\0" not in first.partition(b"\n")[0]
