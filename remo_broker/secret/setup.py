"""`remo-secret setup`: configure tools to fetch credentials with a helper, and undo that.

These files contain no secrets. `setup` puts a comment before each line that it adds, by which
`--remove` finds it.
"""

from __future__ import annotations

import difflib
import errno
import os
import re
import shlex
import shutil
import sys
import tempfile

from remo_broker.cli.options import Arguments, Usage
from remo_broker.cli.program import Problem, report
from remo_broker.secret.commands import DRY_RUN, REVERT
from remo_broker.secret.config_lines import MARK, AlreadySet
from remo_broker.secret.configurations import DEFAULT_SECRETS, TOOLS, ConfigChange, home, read
from remo_broker.secret.get import tell

# The programs that tools look for in PATH, and the command that each runs.
PROGRAMS = {
    "docker": ("docker-credential-remo", "docker-credential"),
    "pip": ("keyring", "keyring"),
    "uv": ("keyring", "keyring"),
}
# A setting whose value is a secret, but no reference to a variable.
_secret_setting = re.compile(
    r"((?:token|password|passwd|secret|secret[-_]access[-_]key|_auth|\"auth|key-data)\"?\s*[:=]\s*)(?!\$\{)\S.*",
    re.IGNORECASE,
)


def setup(arguments: Arguments) -> int:
    """Show each change, then make it. Exit status 1 if a tool could not be configured."""
    wanted = [word.partition("=")[::2] for word in arguments.operands] or [(tool, "") for tool in _installed()]
    for tool, _ in wanted:
        if tool not in TOOLS:
            raise Usage(f"unknown tool: {tool!r}", hint=f"choose from {', '.join(TOOLS)}")
    problems = []
    for tool, name in wanted:
        try:
            _setup_tool(tool, name or DEFAULT_SECRETS.get(tool, ""), arguments)
        except AlreadySet as error:
            problems.append(
                Problem(
                    f"{tool}: {error.path} already sets {error.key}", hint="remove that setting, then run this again"
                )
            )
        except Problem as problem:
            problems.append(problem)
    for earlier in problems[:-1]:
        report(f"remo-secret: {earlier}")
        if earlier.hint:
            report(f"Hint: {earlier.hint}")
    if problems:
        raise problems[-1]
    return 0


def _setup_tool(tool: str, name: str, arguments: Arguments) -> None:
    """The program first: with the configuration alone, the tool would not find it."""
    remove = arguments.flag(REVERT)
    program = _program(tool, remove=remove)
    configuration = TOOLS[tool](name, remove)
    changes = [one for one in (program, configuration) if one is not None and one.before != one.after]
    for change in changes:
        if os.path.exists(change.path) and not os.path.isfile(change.path):
            raise Problem(f"{tool}: {change.path} is not a file", hint="move it away, then run this again")
    for change in changes:
        show(change)
        if not arguments.flag(DRY_RUN):
            try:
                write(change, 0o755 if change is program else 0o600)
            except OSError as error:
                hint = "change it where it is mounted from" if error.errno == errno.EBUSY else None
                raise Problem(f"{tool}: {change.path}: {os.strerror(error.errno or 0)}", hint=hint) from None
    if changes and not remove and not arguments.flag(DRY_RUN):
        if program is not None and not _is_found(program.path):
            directory, file = os.path.split(program.path)
            tell([f"add {directory} to the PATH: {tool} looks for {file} there"])
        if configuration.note:
            tell([f"{tool}: {configuration.note}"])


def show(change: ConfigChange) -> None:
    """Only the changed lines, and no token or password in them: the user's files may have some."""
    before, after = change.before.splitlines(), change.after.splitlines()
    lines = difflib.unified_diff(before, after, change.path, change.path, lineterm="", n=0)
    tell([_secret_setting.sub(r"\1...", line) for line in lines])


def write(change: ConfigChange, mode: int) -> None:
    """Replace the file atomically; keep its mode, `mode` if it is new. Follows symlinks, as dot
    files often are."""
    path = os.path.realpath(change.path)
    if not change.after:
        if os.path.exists(path):
            os.unlink(path)
        return
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    mode = os.stat(path).st_mode & 0o777 if os.path.exists(path) else mode
    descriptor, temporary = tempfile.mkstemp(dir=os.path.dirname(path))
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            file.write(change.after)
            os.fchmod(descriptor, mode)
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _installed() -> list[str]:
    return [tool for tool in TOOLS if shutil.which(tool)]


def _program(tool: str, *, remove: bool) -> ConfigChange | None:
    """A script in ~/.local/bin that runs this program's command. A link would lose its name."""
    if tool not in PROGRAMS:
        return None
    name, command = PROGRAMS[tool]
    path = home(".local", "bin", name)
    before = read(path)
    if before and MARK not in before.splitlines():
        if remove:
            return None
        raise Problem(f"{tool}: {path} is another program", hint="remove it, so that remo-secret takes its place")
    if remove:
        others = [other for other, program in PROGRAMS.items() if program == PROGRAMS[tool] and other != tool]
        in_use = any(MARK in TOOLS[other]("", True).before for other in others)
        return None if in_use else ConfigChange(path, "")
    found = shutil.which(name)
    if found is not None and not _is_found(path) and MARK not in read(found).splitlines():
        raise Problem(f"{tool}: {found} is another program", hint="remove it, so that remo-secret takes its place")
    program = shlex.quote(shutil.which("remo-secret") or os.path.realpath(sys.argv[0]))
    return ConfigChange(path, f'#!/bin/sh\n{MARK}\nexec {program} {command} "$@"\n')


def _is_found(path: str) -> bool:
    """Whether the program at `path` is, or would be, the first of its name in the PATH."""
    directory, name = os.path.split(path)
    for one in os.environ.get("PATH", "").split(os.pathsep):
        if os.path.realpath(one) == os.path.realpath(directory):
            return True
        if os.access(os.path.join(one, name), os.X_OK):
            return False
    return False
