"""`remo-secret exec` and `render`: fetch everything, then write the files, then become the command."""

from __future__ import annotations

import os
import signal
import sys

from remo_broker.cli.options import Arguments
from remo_broker.cli.program import Problem
from remo_broker.client.errors import BrokerError, Denied, NotFound
from remo_broker.client.project import Client
from remo_broker.client.value import SecretValue
from remo_broker.manifest.result import Binding, EnvBinding, FileBinding
from remo_broker.names import is_project_name
from remo_broker.secret import tmpfs
from remo_broker.secret.bindings import find_bindings
from remo_broker.secret.commands import (
    EXIT_DENIED,
    EXIT_NO_SUCH_PROGRAM,
    EXIT_NOT_EXECUTABLE,
    EXIT_NOT_FOUND,
    REMOVE,
)
from remo_broker.secret.locate import open_client
from remo_broker.secret.template import fill


def execute(arguments: Arguments) -> int:
    """Never returns when it succeeds."""
    with open_client(arguments) as client:
        project, bindings = find_bindings(arguments, client)
        secrets = fetch(client, bindings)
    variables = environment(bindings, secrets)
    write_files(project, files(bindings, secrets))
    return become(arguments.operands, os.environb | variables)


def render(arguments: Arguments) -> None:
    with open_client(arguments) as client:
        project, bindings = find_bindings(arguments, client)
        bindings = {name: binding for name, binding in bindings.items() if isinstance(binding, FileBinding)}
        if arguments.flag(REMOVE):
            remove_files(project, bindings)
            return
        secrets = fetch(client, bindings)
    for target in write_files(project, files(bindings, secrets)):
        print(target)


def fetch(client: Client, bindings: dict[str, Binding]) -> dict[str, SecretValue]:
    """Every secret, or a `Problem` that names each that is not to be had."""
    secrets = {}
    refused: list[tuple[str, BrokerError]] = []
    for name in bindings:
        try:
            secrets[name] = client.get(name)
        except (Denied, NotFound) as error:
            refused.append((name, error))
    if not refused:
        return secrets
    # What is said of one mostly holds for all; with different reasons, each is told.
    reasons: dict[str, list[str]] = {}
    for name, refusal in refused:
        reasons.setdefault(refusal.message, []).append(name)
    told = "; ".join(f"{', '.join(names)}: {message}" for message, names in reasons.items())
    denied = any(isinstance(refusal, Denied) for _, refusal in refused)
    raise Problem(f"nothing was started or written: {told}", EXIT_DENIED if denied else EXIT_NOT_FOUND)


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


def files(bindings: dict[str, Binding], secrets: dict[str, SecretValue]) -> dict[str, tuple[str, bytes, int]]:
    """By secret: where its link goes, what is in the file, the file's mode."""
    found: dict[str, tuple[str, bytes, int]] = {}
    for name, binding in bindings.items():
        if not isinstance(binding, FileBinding):
            continue
        target = tmpfs.target_of(binding.file_path)
        if target in [there[0] for there in found.values()]:
            raise Problem(f"{name} and another secret go into the same file {target}; name another file_path")
        found[name] = (target, fill(binding.template, secrets[name]), binding.file_mode)
    return found


def write_files(project: str, found: dict[str, tuple[str, bytes, int]]) -> list[str]:
    """Write all of them or, where one cannot be placed, none; returns the places of the links."""
    if not found:
        return []
    for target, _, _ in found.values():
        tmpfs.check_place(target)
    folder = _folder(project)
    try:
        for name, (target, content, mode) in found.items():
            tmpfs.link(target, folder.write(name, content, mode))
    finally:
        folder.close()
    return [target for target, _, _ in found.values()]


def remove_files(project: str, bindings: dict[str, Binding]) -> None:
    folder = _folder(project)
    try:
        for name, binding in bindings.items():
            assert isinstance(binding, FileBinding)
            target = tmpfs.target_of(binding.file_path)
            if tmpfs.is_ours(target):
                os.unlink(target)
            folder.remove(name)
    finally:
        folder.close()


def _folder(project: str) -> tmpfs.Folder:
    if not is_project_name(project):
        raise Problem("the broker gave a name for this project that no project can have")
    return tmpfs.Folder(project)


def become(command: list[str], variables: dict[bytes, bytes]) -> int:
    """Replace this process; returns an exit status only where that failed."""
    # Python ignores these two, and what is ignored stays so over execve: a pipeline would not end.
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    sys.stdout.flush()
    try:
        os.execvpe(command[0], command, variables)
    except FileNotFoundError:
        raise Problem(f"{command[0]}: there is no such command", EXIT_NO_SUCH_PROGRAM) from None
    except (OSError, ValueError) as error:
        why = os.strerror(error.errno or 0) if isinstance(error, OSError) else "a zero byte in an argument"
        raise Problem(f"{command[0]}: cannot be run ({why})", EXIT_NOT_EXECUTABLE) from None
