"""`remo-secret exec` and `render`: fetch everything, then write the files, then become the command."""

from __future__ import annotations

import errno
import os
import signal
import sys
import time

from remo_broker.cli.options import Arguments
from remo_broker.cli.program import Problem
from remo_broker.cli.text import listed
from remo_broker.client.errors import BrokerError, Denied, NotFound, RateLimited
from remo_broker.client.project import Client
from remo_broker.client.value import SecretValue
from remo_broker.manifest.result import Binding, EnvBinding, FileBinding
from remo_broker.secret.bindings import find_bindings, names_wanted, projects_nearby
from remo_broker.secret.commands import (
    EXIT_DENIED,
    EXIT_NO_SUCH_PROGRAM,
    EXIT_NOT_EXECUTABLE,
    EXIT_NOT_FOUND,
    MANIFEST,
    ONLY,
    REMOVE,
)
from remo_broker.secret.links import real_place, target_of
from remo_broker.secret.locate import open_client
from remo_broker.secret.rendering import File, Rendering, remove
from remo_broker.secret.template import fill
from remo_broker.secret.tmpfs import rendered_projects

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

# For how long it goes on where the project may not fetch all at once. With the broker's usual limits there is time for as
# many names as a manifest can have.
LONGEST_PATIENCE_SECONDS = 60.0
# What a file_mode may have. The project writes the template too: with a set-user-ID bit it would be a program that whoever
# starts it runs as this user.
PERMISSIONS = 0o777
# Between two tries where the broker names no time.
SHORTEST_PAUSE_SECONDS = 0.2


def execute(arguments: Arguments) -> NoReturn:
    """Raises `Problem` where the command does not come to run."""
    program = find_program(arguments.operands[0])
    with open_client(arguments) as client:
        project, bindings = find_bindings(arguments, client)
        secrets = fetch(client, bindings)
    variables = environment(bindings, secrets)
    rendering = write_files(project, files(bindings, secrets))
    try:
        become(program, arguments.operands, os.environb | variables)
    except BaseException:
        if rendering is not None:
            rendering.undo()
        raise


def render(arguments: Arguments) -> None:
    if arguments.flag(REMOVE):
        remove_files(arguments)
        return
    with open_client(arguments) as client:
        project, bindings = find_bindings(arguments, client, manifest_needed=True)
        for name, binding in bindings.items():
            if arguments.flag(ONLY) and not isinstance(binding, FileBinding):
                raise Problem(f"{name} goes into a variable, and render writes files only; leave it out, or use exec")
        bindings = {name: binding for name, binding in bindings.items() if isinstance(binding, FileBinding)}
        secrets = fetch(client, bindings)
    found = files(bindings, secrets)
    write_files(project, found)
    for file in found.values():
        print(file.target)


def fetch(client: Client, bindings: dict[str, Binding]) -> dict[str, SecretValue]:
    """Every secret, or a `Problem` that names each that is not to be had."""
    secrets = {}
    patient_until = time.monotonic() + LONGEST_PATIENCE_SECONDS
    refused: list[tuple[str, BrokerError]] = []
    for name in bindings:
        try:
            secrets[name] = _get(client, name, patient_until)
        except (Denied, NotFound) as error:
            refused.append((name, error))
    if not refused:
        return secrets
    # What is said of one mostly holds for all; with different reasons, each is told.
    reasons: dict[str, list[str]] = {}
    for name, refusal in refused:
        reasons.setdefault(refusal.message, []).append(name)
    told = "; ".join(f"{listed(names)}: {message}" for message, names in reasons.items())
    denied = any(isinstance(refusal, Denied) for _, refusal in refused)
    raise Problem(f"nothing was started or written: {told}", status=EXIT_DENIED if denied else EXIT_NOT_FOUND)


def _get(client: Client, name: str, patient_until: float) -> SecretValue:
    """A manifest may have more names than the project may ask for at once: then the broker says when to go on."""
    while True:
        try:
            return client.get(name)
        except RateLimited as error:
            pause = max(error.retry_after_seconds or 0, SHORTEST_PAUSE_SECONDS)
            if time.monotonic() + pause > patient_until:
                raise
            time.sleep(pause)


def environment(bindings: dict[str, Binding], secrets: dict[str, SecretValue]) -> dict[bytes, bytes]:
    """The variables to add."""
    variables: dict[bytes, bytes] = {}
    for name, binding in bindings.items():
        if not isinstance(binding, EnvBinding):
            continue
        content = secrets[name].reveal_bytes()
        if b"\0" in content:
            raise Problem(f"{name} holds a zero byte, which no variable can; bind it to a file in the manifest")
        variable = binding.env_var.encode("ascii")
        if variable in variables:
            raise Problem(
                f"{name} and another secret go into the same variable {binding.env_var}; name another env_var"
            )
        variables[variable] = content
    return variables


def files(bindings: dict[str, Binding], secrets: dict[str, SecretValue]) -> dict[str, File]:
    """The files to write, by secret."""
    found: dict[str, File] = {}
    places: dict[str, str] = {}
    for name, binding in bindings.items():
        if not isinstance(binding, FileBinding):
            continue
        if binding.file_mode & ~PERMISSIONS:
            raise Problem(f"the file_mode of {name} has more than permissions; let it begin with a 0")
        target = target_of(binding.file_path)
        place = real_place(target)
        for other, taken in places.items():
            if place == taken:
                raise Problem(f"{name} and {other} go into the same file {place}; name another file_path")
            if place.startswith(f"{taken}/") or taken.startswith(f"{place}/"):
                raise Problem(f"{place} and {taken} cannot be files both; name another file_path for {name}")
        places[name] = place
        found[name] = File(target, fill(binding.template, secrets[name]), binding.file_mode)
    return found


def write_files(project: str, found: dict[str, File]) -> Rendering | None:
    """Write all of them or, where one cannot be written, none."""
    return Rendering(project, found) if found else None


def remove_files(arguments: Arguments) -> None:
    """Needs neither the broker nor the manifest that the files were rendered by, only to know the project."""
    only = names_wanted(arguments) if arguments.flag(ONLY) else None
    rendered = rendered_projects()
    nearby = projects_nearby(arguments.value(MANIFEST))
    if not nearby and len(rendered) > 1:
        raise Problem(f"there are files of {listed(rendered)}; say which project's with --manifest")
    for project in [project for project in nearby or rendered if project in rendered][:1]:
        remove(project, only)


def find_program(command: str) -> str:
    """The path of the command, looked up as a shell does. Raises `Problem` with a shell's exit status."""
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
        raise Problem(f"{command or 'an empty name'}: there is no such command", status=EXIT_NO_SUCH_PROGRAM)
    why = "it is a directory" if os.path.isdir(found[0]) else os.strerror(errno.EACCES)
    raise Problem(f"{command}: cannot be run ({why})", status=EXIT_NOT_EXECUTABLE)


def become(program: str, command: list[str], variables: dict[bytes, bytes]) -> NoReturn:
    """Replace this process; raises `Problem` where that failed."""
    # Python ignores these two, and what is ignored stays so over execve: a pipeline would not end.
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    sys.stdout.flush()
    try:
        os.execve(program, command, variables)
    except FileNotFoundError:
        why = "the interpreter that it names is missing"
    except OSError as error:
        why = os.strerror(error.errno or 0)
    raise Problem(f"{command[0]}: cannot be run ({why})", status=EXIT_NOT_EXECUTABLE)
