"""Write what `devcontainer` prints into a project, and change nothing else."""

from __future__ import annotations

import contextlib
import difflib
import json
import os
import re
import stat
import sys
from typing import TYPE_CHECKING, Any

from remo_broker.cli.input_files import RightsOf, read_in_place
from remo_broker.cli.program import Problem
from remo_broker.cli.terminal import Colour, Output, confirmed
from remo_broker.cli.text import escaped

if TYPE_CHECKING:
    from collections.abc import Iterator

# How devcontainer.json names the Feature: by its path below .devcontainer, from where the file is.
FEATURE = "./remo-broker"
FEATURE_FROM_ABOVE = "./.devcontainer/remo-broker"
FEATURE_FROM_BELOW = "../remo-broker"
# Installed for this purpose, with the client that the Feature installs.
FEATURE_FILES = "/usr/share/remo-broker/feature"
CLIENT = "/usr/lib/remo-broker/remo-secret.pyz"
# Where a dev container's configuration is searched; then one folder below the first.
PLACES = (".devcontainer/devcontainer.json", ".devcontainer.json")
BYTE_ORDER_MARK = "\ufeff"
MAX_BYTES = 1024 * 1024
# Lines that are compared: with the cube of their number, a hostile file of 1 MiB would take days.
MAX_COMPARED = 2000

_indentation = re.compile(r"^([ \t]+)\S", re.MULTILINE).search


def write(output: Output, directory: str, settings: dict[str, Any], *, ask: bool) -> int:
    """Write with the rights of the project's owner: links in its directory may lead elsewhere."""
    # The owner could put another directory at the path meanwhile, so all is done through this one.
    with beneath(directory), RightsOf(owner_here()):
        place, feature = find_place(directory)
        path = os.path.join(directory, place)
        before = read(place, path)
        settings = settings | {"features": {feature: {}}}
        after = merged(before, settings, path)
        changes = difference(before.splitlines(), after.splitlines(), place)
        for line in changes:
            colour = {"+": Colour.GREEN, "-": Colour.RED}.get(line[:1])
            output.line(output.paint(escaped(line.expandtabs(4)), colour))
        if changes and ask and sys.stdin.isatty() and not confirmed(f"Write {path}?"):
            raise Problem("nothing was written")
        copied = copy_feature(os.path.join(".devcontainer", FEATURE))
        if changes:
            put(place, after.encode(), mode=mode_of(place))
    output.line(f"Wrote {escaped(path)}." if changes else f"{escaped(path)} is up to date.")
    if copied:
        output.line(f"Wrote {', '.join(copied)} below .devcontainer/remo-broker/.")
    return 0


def difference(before: list[str], after: list[str], place: str) -> list[str]:
    """The lines that change. The project wrote `before`: what is long is not compared line by line."""
    if len(before) + len(after) <= MAX_COMPARED:
        return list(difflib.unified_diff(before, after, place, place, lineterm=""))
    return [f"-{line}" for line in before] + [f"+{line}" for line in after] if before != after else []


def find_place(directory: str) -> tuple[str, str]:
    """The configuration of the project in the working directory, and how it names the Feature."""
    for place, feature in zip(PLACES, (FEATURE, FEATURE_FROM_ABOVE), strict=True):
        if os.path.lexists(place):
            return place, feature
    folder, file = os.path.split(PLACES[0])
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        names = sorted(name for name in os.listdir(folder) if os.path.lexists(os.path.join(folder, name, file)))
        if len(names) > 1:
            raise Problem(
                f"{os.path.join(directory, folder)}: {', '.join(names)} each have a {file}",
                hint="add the keys that 'devcontainer' prints to the one that is used, "
                f"with {FEATURE_FROM_BELOW} as the name of the Feature",
            )
        if names:
            return os.path.join(folder, names[0], file), FEATURE_FROM_BELOW
    return PLACES[0], FEATURE


@contextlib.contextmanager
def beneath(directory: str) -> Iterator[None]:
    """Work in a directory whose path has no link, neither at its end nor above: one of the owner's
    could lead to a directory of root's, whose owner would then be taken for the project's."""
    opened = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        found = os.readlink(f"/proc/self/fd/{opened}")
        if found != os.path.normpath(directory):
            raise Problem(f"{directory}: leads to {found}", hint="register the project by the path that it has now")
        with contextlib.chdir(opened):
            yield
    finally:
        os.close(opened)


def owner_here() -> int:
    """The owner of the project in the working directory: if that is root's, the owner of
    `.devcontainer` in it."""
    owner = os.stat(".").st_uid
    if owner == 0 and os.path.lexists(".devcontainer"):
        owner = os.lstat(".devcontainer").st_uid
    return owner


def read(place: str, path: str) -> str:
    """The text of the file at `place`; nothing if it does not exist. `path` is its path for
    messages."""
    try:
        descriptor = os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return ""
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise Problem(f"{path}: not a regular file", hint="move it away")
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise Problem(f"{path}: larger than {MAX_BYTES} bytes", hint="add the keys that 'devcontainer' prints by hand")
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise Problem(f"{path}: not UTF-8", hint="save it as UTF-8") from None


def merged(before: str, settings: dict[str, Any], path: str) -> str:
    """The file with the settings. Existing content stays; missing keys are added."""
    if before.startswith(BYTE_ORDER_MARK):
        return BYTE_ORDER_MARK + merged(before.removeprefix(BYTE_ORDER_MARK), settings, path)
    if not before.strip():
        return json.dumps(settings, indent=4) + "\n"
    by_hand = "add the keys that 'remo-brokerctl devcontainer' prints by hand"
    try:
        document = json.loads(before, object_pairs_hook=_each_once)
    except (ValueError, RecursionError):
        document = None
    if document is None:
        raise Problem(
            f"{path}: has comments, trailing commas or a key twice, which a rewrite would lose, or is not JSON",
            hint=by_hand,
        )
    lists, features = document.get("mounts", []) if isinstance(document, dict) else None, None
    if isinstance(document, dict):
        features = document.get("features", {})
    if not isinstance(lists, list) or not isinstance(features, dict):
        raise Problem(f"{path}: mounts is not a list, or features not an object", hint=by_hand)
    if document.get("initializeCommand", settings["initializeCommand"]) != settings["initializeCommand"]:
        raise Problem(f"{path}: has an initializeCommand of its own", hint=by_hand)
    after = document | {
        "mounts": [*lists, *(one for one in settings["mounts"] if one not in lists)],
        "features": {**settings["features"], **features},
        "initializeCommand": settings["initializeCommand"],
    }
    if after == document:
        return before  # however it is formatted
    found = _indentation(before)
    try:
        text = json.dumps(after, indent=found.group(1) if found else 4, ensure_ascii=False, allow_nan=False) + "\n"
        text.encode()
    except ValueError:  # a number or a character that only Python's JSON accepts
        raise Problem(f"{path}: has a number or character that cannot be written again", hint=by_hand) from None
    return text.replace("\n", "\r\n") if "\r\n" in before else text


def _each_once(members: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(members)
    if len(found) != len(members):
        raise ValueError
    return found


def copy_feature(directory: str) -> list[str]:
    """Write the Feature's files that are missing or differ, and return their names."""
    sources = {CLIENT: os.path.basename(CLIENT)} if os.path.exists(CLIENT) else {}
    try:
        sources |= {os.path.join(FEATURE_FILES, name): name for name in sorted(os.listdir(FEATURE_FILES))}
    except OSError as error:
        hint = "install remo-broker on this host"
        raise Problem(f"{FEATURE_FILES}: {os.strerror(error.errno or 0)}", hint=hint) from None
    copied = []
    for source, name in sources.items():
        if not os.path.isfile(source):
            continue
        with open(source, "rb") as file:
            content = file.read()
        target = os.path.join(directory, name)
        if not is_same(target, content):
            put(target, content, mode=0o755 if os.access(source, os.X_OK) else 0o644)
            copied.append(name)
    return copied


def is_same(path: str, content: bytes) -> bool:
    return read_in_place(path, len(content) + 1) == content


def mode_of(path: str) -> int:
    """Who may read the file: it may contain secrets. If it does not exist, everyone may."""
    try:
        return stat.S_IMODE(os.lstat(path).st_mode)
    except FileNotFoundError:
        return 0o644


def put(path: str, content: bytes, *, mode: int) -> None:
    """Write a file in one step."""
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    temporary = f"{path}.new"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary)  # an earlier run was killed
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(temporary, flags, mode & 0o755), "wb") as file:
        if os.path.lexists(path):
            os.fchmod(file.fileno(), mode)
        file.write(content)
    os.rename(temporary, path)
