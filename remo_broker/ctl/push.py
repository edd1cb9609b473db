"""`remo-brokerctl push` and `clear`."""

from __future__ import annotations

import codecs
import os
import sys
from typing import TYPE_CHECKING

from remo_broker.cli import input_files
from remo_broker.cli.changes import show_changes
from remo_broker.cli.input_fault import InputFault
from remo_broker.cli.options import Arguments, Usage
from remo_broker.cli.program import Problem
from remo_broker.cli.secrets_file import Secrets, parse, text_or_bytes
from remo_broker.cli.secrets_json import name_hint
from remo_broker.cli.text import listed
from remo_broker.client.admin import push_request
from remo_broker.client.exchange import encode
from remo_broker.client.missing_secrets import projects_lacking
from remo_broker.ctl.commands import COMMAND, DRY_RUN, FORMAT, STRIP_NEWLINE
from remo_broker.ctl.session import open_client, open_output
from remo_broker.protocol.names import counted, is_secret_name
from remo_broker.protocol.replies import Pushed
from remo_broker.protocol.shared_limits import MAX_PUSH

if TYPE_CHECKING:
    from collections.abc import Callable

STANDARD_INPUT = "-"
STANDARD_INPUT_NAME = "standard input"


def push(arguments: Arguments) -> int:
    secrets = gather(arguments)
    request = push_request(secrets.texts, secrets.binaries, secrets.expires, changes=True)
    size = len(encode(request))
    if size > MAX_PUSH:
        raise Problem(f"the push has {size} bytes; the limit is {MAX_PUSH}", hint="push fewer or smaller secrets")
    if arguments.flag(DRY_RUN):
        return dry_run(arguments, secrets)
    output = open_output(arguments)
    with open_client(arguments) as client:
        pushed = client.ask(request, Pushed)
        lacking = projects_lacking(client, secrets.names())
    if output.json != "off":
        fields = pushed.to_json()
        del fields["ok"]
        output.show_json(fields | {"unsatisfied": [{"name": name, "missing": missing} for name, missing in lacking]})
        return 0
    output.line(f"Pushed {counted(pushed.secret_count, 'secret')}; generation {pushed.generation}.")
    show_changes(output, pushed.changes)
    for name, missing in lacking:
        output.line(f"{name} now lacks {listed(missing)}.")
    return 0


def gather(arguments: Arguments) -> Secrets:
    """All secrets that the operands name. Raises `Problem`."""
    secrets = Secrets()
    form = arguments.value(FORMAT)
    if arguments.flag(COMMAND):
        source = os.path.basename(arguments.operands[0]) if arguments.operands else ""
        take(output_of(arguments.operands), f"the output of {source}", form, None, secrets)
        return secrets
    for operand in arguments.operands or [STANDARD_INPUT]:
        name, equals, path = operand.partition("=")
        if equals and not os.path.exists(operand):
            if not path.startswith("@"):
                raise value_given(name)
            add_file(name, path.removeprefix("@"), arguments.flag(STRIP_NEWLINE), secrets)
        elif operand == STANDARD_INPUT:
            if sys.stdin.isatty():
                raise Usage("standard input is a terminal, which would show the secrets", hint="give a FILE, or a pipe")
            content = input_files.read_descriptor(sys.stdin.fileno(), STANDARD_INPUT_NAME)
            take(content, STANDARD_INPUT_NAME, form, no_files, secrets)
        elif os.path.isdir(operand):
            add_directory(operand, arguments.flag(STRIP_NEWLINE), secrets)
        else:
            content, owner = input_files.read_with_owner(operand)
            beside = no_files if owner is None else input_files.Beneath(os.path.dirname(operand), owner).read
            take(content, operand, form, beside, secrets)
    return secrets


def value_given(name: str) -> Usage:
    # Do not repeat the operand: it may be a secret, and standard error may be a log.
    known = is_secret_name(name)
    return Usage(
        f"a value{f' of {name}' if known else ''} on the command line, where other users see it",
        hint=f"put it into a file, or on standard input; for the content of a file, give {name if known else 'NAME'}=@PATH",
    )


def add_file(name: str, path: str, strip_newline: bool, secrets: Secrets) -> None:
    if not is_secret_name(name):
        raise Usage("the text before =@ is not a valid name for a secret", hint="names have letters, digits and _ only")
    if not path:
        raise Usage(f"{name}=@ names no file", hint=f"give {name}=@PATH for the content of a file")
    secrets.add(f"{name}=@{path}", name, text_or_bytes(input_files.read(path), strip_newline=strip_newline))


def add_directory(directory: str, strip_newline: bool, secrets: Secrets) -> None:
    """Each file of a directory is a secret of that name, as container engines lay them out."""
    beneath = input_files.beneath(directory)
    found = beneath.names()
    if not found:
        raise empty(directory, "empty")
    for name in found:
        path = os.path.join(directory, name)
        if not is_secret_name(name):
            raise InputFault(path, "not a valid name for a secret", hint=name_hint(name))
        try:
            content = beneath.read(name)
        except InputFault as fault:
            raise InputFault(path, fault.what, hint="a secret is a regular file in the directory") from None
        secrets.add(path, name, text_or_bytes(content, strip_newline=strip_newline))


def take(content: bytes, source: str, form: str | None, file: Callable[[str], bytes] | None, secrets: Secrets) -> None:
    """Parse the input.

    Input without a secret most likely means that the program before the pipe failed or found
    nothing. Only {} is meant.
    """
    written = content.removeprefix(codecs.BOM_UTF8).strip()
    if not written:
        raise empty(source, "empty")
    before = len(secrets.names())
    parse(content, source, file, form, secrets)
    if not written.startswith(b"{") and len(secrets.names()) == before:
        raise empty(source, "no secret in it")


def no_files(path: str) -> bytes:
    hint = "give the dotenv file itself, or NAME=@PATH as an argument"
    raise InputFault(path, "not read from a pipe, whose writer is unknown", hint=hint)


def empty(source: str, what: str) -> InputFault:
    return InputFault(source, what, hint="to remove all secrets, run 'remo-brokerctl clear', or push {}")


def output_of(argv: list[str]) -> bytes:
    """The output of a command that succeeds.

    Partial output would replace everything that the broker holds.
    """
    import subprocess

    if not argv:
        raise Usage("'push --command' requires a command")
    called = os.path.basename(argv[0])
    try:
        process = subprocess.Popen(argv, stdout=subprocess.PIPE)
    except OSError as error:
        why = os.strerror(error.errno or 0)
        raise Problem(f"cannot run {argv[0]}: {why}", hint="give a program's name, or its path") from None
    with process:
        assert process.stdout is not None
        try:
            content = process.stdout.read(MAX_PUSH + 1)
        except BaseException:
            process.kill()
            raise
        if len(content) > MAX_PUSH:
            process.kill()
            raise input_files.too_large(f"the output of {called}")
    if process.returncode:
        how = f"exited with status {process.returncode}"
        if process.returncode < 0:
            how = f"was killed by signal {-process.returncode}"
        raise Problem(f"nothing was pushed: {called} {how}", hint="run the command by hand to see why")
    return content


def dry_run(arguments: Arguments, secrets: Secrets) -> int:
    """Print what each project would lack. Return 1 if any project lacks a secret, else 0."""
    output = open_output(arguments)
    with open_client(arguments) as client:
        project_count = client.status().project_count
        lacking = projects_lacking(client, secrets.names())
    count = len(secrets.names())
    if output.json != "off":
        output.show_json(
            {
                "secret_count": count,
                "project_count": project_count,
                "unsatisfied": [{"name": name, "missing": missing} for name, missing in lacking],
            }
        )
    elif not lacking:
        output.line(f"{counted(count, 'secret')} would satisfy all {project_count} projects. Nothing was changed.")
    else:
        with output.paged():
            output.table(
                ["PROJECT", "WOULD LACK"],
                [[name, ", ".join(missing)] for name, missing in lacking],
                f"{len(lacking)} of {project_count} projects would lack something. Nothing was changed.",
            )
    return 1 if lacking else 0


def clear(arguments: Arguments) -> None:
    output = open_output(arguments)
    with open_client(arguments) as client:
        client.clear_creds()
    if output.json != "off":
        output.show_json({"secret_count": 0})
    else:
        output.line("Cleared: the broker holds no secrets.")
