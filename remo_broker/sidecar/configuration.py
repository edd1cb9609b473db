"""The sources: from `sidecar.toml`, or from the command line. See remo-sidecar.toml(5).

Not pydantic: the one-file program for containers must work without any package, and the
long-running process would keep pydantic's 14 MiB.
"""

from __future__ import annotations

import os

from remo_broker.cli.options import Usage
from remo_broker.cli.program import Problem
from remo_broker.protocol import paths
from remo_broker.protocol.names import counted, is_secret_name, printable
from remo_broker.sidecar.commands import COMMAND, CONFIG, DIRECTORY, FILE, REFRESH, WATCH

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from remo_broker.cli.options import Arguments

# Sources are read one after the other. With more of them, a push would wait for minutes if they
# hang.
MAX_SOURCES = 64
# A token is refreshed at least once a day; a source that takes over an hour is a build, not a read.
MAX_REFRESH_SECONDS = 7 * 86_400
MAX_TIMEOUT_SECONDS = 3600
DEFAULT_TIMEOUT_SECONDS = 30

FORMATS = ("json", "dotenv", "auto")

SEE = "see remo-sidecar.toml(5)"


class Source:
    """One place that secrets come from. Exactly one of `command`, `file` and `directory` is set."""

    command: tuple[str, ...] = ()
    file = ""
    directory = ""
    watch: tuple[str, ...] = ()
    refresh_seconds = 0
    timeout_seconds = DEFAULT_TIMEOUT_SECONDS
    format = "auto"
    select: tuple[str, ...] = ()
    only: tuple[str, ...] | None = None
    rename: Mapping[str, str] = {}
    strip_newline = True
    credentials = False
    """Whether it is systemd's credentials directory: names that no secret can have are skipped."""

    def __init__(self, label: str, values: Mapping[str, Any]) -> None:
        self.label = label
        """What errors, the status and the table call it.

        For a command, only the program: an argument may be a secret.
        """
        self.__dict__.update(values)

    @property
    def watched(self) -> tuple[str, ...]:
        """Changes to these paths trigger a read: `watch`, and the file or directory itself."""
        own = self.file or self.directory
        return (*self.watch, own) if own else self.watch

    def __repr__(self) -> str:
        return f"<Source {self.label}>"


# --- what a key may be; each raises ValueError with what it must be -------------------------------


def _words(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or not all(isinstance(one, str) and one for one in value):
        raise ValueError("must be a list of strings, none of them empty")
    if any("\0" in one for one in value):
        raise ValueError("must not contain a NUL character")
    return tuple(value)


def _path(value: object) -> str:
    if not isinstance(value, str) or not os.path.isabs(value) or "\0" in value:
        raise ValueError("must be an absolute path")
    return os.path.normpath(value)


def _paths(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise ValueError("must be a list of absolute paths")
    return tuple(map(_path, value))


def _integer(lowest: int, highest: int) -> Callable[[object], int]:
    def check(value: object) -> int:
        if type(value) is not int or not lowest <= value <= highest:
            raise ValueError(f"must be an integer from {lowest} to {highest}")
        return value

    return check


def _format(value: object) -> str:
    if value not in FORMATS:
        raise ValueError(f"must be one of {', '.join(FORMATS)}")
    return str(value)


def _select(value: object) -> tuple[str, ...]:
    if not isinstance(value, str) or not all(value.split(".")):
        raise ValueError('must be keys joined by dots, such as "data.data"')
    return tuple(value.split("."))


def _names(value: object) -> tuple[str, ...]:
    if (
        not isinstance(value, list)
        or not value
        or not all(isinstance(one, str) and is_secret_name(one) for one in value)
    ):
        raise ValueError("must be a list of secrets' names: letters, digits and _, at most 128")
    return tuple(value)


def _rename(value: object) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(to, str) and is_secret_name(to) for to in value.values()):
        raise ValueError("must be a table of names to secrets' names: letters, digits and _, at most 128")
    if len(set(value.values())) != len(value):
        raise ValueError("must not give two of them the same name")
    return dict(value)


def _boolean(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError("must be true or false")
    return value


_KINDS = ("command", "file", "directory")
_ALL = frozenset(_KINDS)
# For each key, its check and the kinds of sources that have it.
KEYS: dict[str, tuple[Callable[[object], Any], frozenset[str]]] = {
    "command": (_words, frozenset({"command"})),
    "file": (_path, frozenset({"file"})),
    "directory": (_path, frozenset({"directory"})),
    "watch": (_paths, _ALL),
    "refresh_seconds": (_integer(0, MAX_REFRESH_SECONDS), _ALL),
    "timeout_seconds": (_integer(1, MAX_TIMEOUT_SECONDS), frozenset({"command"})),
    "format": (_format, frozenset({"command", "file"})),
    "select": (_select, frozenset({"command", "file"})),
    "only": (_names, _ALL),
    "rename": (_rename, _ALL),
    "strip_newline": (_boolean, frozenset({"directory"})),
}


def read(arguments: Arguments) -> list[Source]:
    """All sources, in order. Raises `Problem` and `Usage`."""
    sources = _of_command_line(arguments)
    if not sources:
        sources = _of_file(arguments.value(CONFIG))
    elif arguments.flag(CONFIG):
        raise Usage(f"{CONFIG.name} and a source on the command line are given; use one of them")
    directory = os.environ.get("CREDENTIALS_DIRECTORY")
    if directory and os.path.isdir(directory) and os.listdir(directory):
        values = {"directory": directory, "credentials": True, "strip_newline": False}
        sources.append(Source(f"source {len(sources) + 1} (credentials)", values))
    if not sources:
        raise Problem(
            "no source is configured",
            hint=f"keep a secret with 'remo-sidecar set NAME', or write {paths.SIDECAR_CONFIG_FILE}; {SEE}",
        )
    return sources


def _of_command_line(arguments: Arguments) -> list[Source]:
    sources: list[Source] = []
    common: dict[str, Any] = {"refresh_seconds": arguments.number(REFRESH, 0, MAX_REFRESH_SECONDS) or 0}
    command = arguments.value(COMMAND)
    if command is not None:
        import shlex

        try:
            words = shlex.split(command)
        except ValueError as error:
            raise Usage(f"{COMMAND.name}: {str(error).lower()}") from None
        if not words:
            raise Usage(f"{COMMAND.name} must not be empty")
        watch = tuple(map(os.path.abspath, arguments.values(WATCH)))
        sources.append(_labelled(1, common | {"command": tuple(words), "watch": watch}))
    elif arguments.flag(WATCH):
        raise Usage(f"{WATCH.name} needs {COMMAND.name}", hint="a file or a directory is watched without it")
    for option, key in ((FILE, "file"), (DIRECTORY, "directory")):
        path = arguments.value(option)
        if path is not None:
            sources.append(_labelled(len(sources) + 1, common | {key: os.path.abspath(path)}))
    if not sources and arguments.flag(REFRESH):
        raise Usage(
            f"{REFRESH.name} needs a source on the command line", hint="set refresh_seconds in the configuration"
        )
    return sources


def _labelled(number: int, values: Mapping[str, Any]) -> Source:
    command = values.get("command")
    shown = os.path.basename(command[0]) if command else values.get("file") or values["directory"]
    return Source(f"source {number} ({shown})", values)


def _of_file(path: str | None) -> list[Source]:
    named = path is not None
    path = path or paths.SIDECAR_CONFIG_FILE
    try:
        with open(path, "rb") as file:
            content = file.read()
    except FileNotFoundError:
        if named:
            raise Problem(f"{path}: no such file", hint=SEE) from None
        return []
    except OSError as error:
        raise Problem(f"{path}: {os.strerror(error.errno or 0)}", hint="make it readable for this user") from None
    import tomllib  # 11 ms; a source from the command line needs none

    try:
        document = tomllib.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise Problem(f"{path}: not TOML: not UTF-8", hint=SEE) from None
    except (ValueError, RecursionError) as error:
        raise Problem(f"{path}: not TOML: {error}", hint=SEE) from None
    for key in document:
        if key != "source":
            raise Problem(f"{path}: {printable(key)}: unknown key", hint=f"sources are [[source]] tables; {SEE}")
    tables = document.get("source", [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise Problem(f"{path}: source: not a list of tables", hint=f"write [[source]] above each source; {SEE}")
    if len(tables) > MAX_SOURCES:
        raise Problem(f"{path}: {counted(len(tables), 'source')}, more than {MAX_SOURCES}", hint="combine some of them")
    return [_of_table(path, number, table) for number, table in enumerate(tables, 1)]


def _of_table(path: str, number: int, table: Mapping[str, object]) -> Source:
    where = f"{path}: source {number}"
    kinds = [kind for kind in _KINDS if kind in table]
    if len(kinds) != 1:
        said = " and ".join(kinds) if kinds else "none of them"
        raise Problem(f"{where}: needs one of {', '.join(_KINDS)}, and has {said}", hint=SEE)
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key not in KEYS:
            raise Problem(f"{where}: {printable(key)}: unknown key", hint=f"the keys are {', '.join(KEYS)}; {SEE}")
        check, allowed = KEYS[key]
        if kinds[0] not in allowed:
            raise Problem(f"{where}: {key}: not for a source with {kinds[0]}", hint=f"remove it; {SEE}")
        try:
            values[key] = check(value)
        except ValueError as error:
            raise Problem(f"{where}: {key}: {error}", hint=SEE) from None
    return _labelled(number, values)
