"""`remo-brokerctl push` and `clear`."""

from __future__ import annotations

import os
import sys

from remo_broker.cli.options import Arguments, Usage
from remo_broker.cli.program import Problem
from remo_broker.cli.secrets_file import NAMES, Secrets, parse, read
from remo_broker.cli.text import escaped
from remo_broker.client.admin import push_request
from remo_broker.client.exchange import encode
from remo_broker.ctl.commands import DRY_RUN, FORMAT
from remo_broker.ctl.session import open_client, open_output
from remo_broker.protocol.names import counted, is_secret_name
from remo_broker.protocol.ops import MAX_PUSH

STANDARD_INPUT = "-"
STANDARD_INPUT_NAME = "standard input"


def push(arguments: Arguments) -> int:
    secrets = gather(arguments)
    request = push_request(secrets.texts, secrets.binaries)
    size = len(encode(request))
    if size > MAX_PUSH:
        raise Problem(f"the push would have {size} bytes, and at most {MAX_PUSH} are taken; leave something out")
    if arguments.flag(DRY_RUN):
        return dry_run(arguments, secrets)
    output = open_output(arguments)
    with open_client(arguments) as client:
        pushed = client.push_creds(secrets.texts, secrets.binaries)
    if output.json != "off":
        fields = pushed.to_json()
        del fields["ok"]
        output.show_json(fields)
    else:
        output.line(f"Pushed {counted(pushed.secret_count, 'secret')}; generation {pushed.generation}.")
    return 0


def gather(arguments: Arguments) -> Secrets:
    """Everything that the operands name, standard input where they name no file."""
    secrets = Secrets()
    kind = arguments.value(FORMAT)
    for operand in arguments.operands or [STANDARD_INPUT]:
        name, equals, path = operand.partition("=")
        if equals and path == "@":
            raise Usage("nothing behind =@; write NAME=@PATH for the bytes of a file")
        if equals and path.startswith("@") and is_secret_name(name):
            secrets.add(operand, name, read(path[1:], path[1:]))
        elif equals and path.startswith("@") and not os.path.exists(operand):
            raise Usage(f"a name before =@ that no secret can have; {NAMES}")
        elif equals and not os.path.exists(operand):
            # The operand is not repeated: it may be a secret, and standard error may be a log.
            known = is_secret_name(name)
            raise Usage(
                f"no value{f' of {name}' if known else ''} belongs on the command line, where others see it: put it into a "
                f"file or give it on standard input, or write {name if known else 'NAME'}=@PATH for the bytes of a file"
            )
        elif operand == STANDARD_INPUT:
            if sys.stdin.isatty():
                raise Usage("give a FILE, or secrets on standard input: they would show on a terminal")
            take(read(sys.stdin.fileno(), STANDARD_INPUT_NAME), STANDARD_INPUT_NAME, ".", kind, secrets)
        else:
            take(read(operand, operand), operand, os.path.dirname(operand), kind, secrets)
    return secrets


def take(content: bytes, source: str, directory: str, kind: str | None, secrets: Secrets) -> None:
    """Parse what came, if anything came: nothing at all is a program before the pipe that failed."""
    if not content.strip():
        raise Problem(
            f"{source}: there is nothing in it; to forget all secrets say 'remo-brokerctl clear', or push {{}}"
        )
    parse(content, source, directory, kind, secrets)


def dry_run(arguments: Arguments, secrets: Secrets) -> int:
    """Tell which projects would lack what; 1 if any would."""
    output = open_output(arguments)
    pushed = set(secrets.names())
    unsatisfied: list[tuple[str, list[str]]] = []
    with open_client(arguments) as client:
        projects = client.status().projects
        for project in projects:
            missing = [name for name in client.show(project.name).allowlist if name not in pushed]
            if missing:
                unsatisfied.append((project.name, missing))
    if output.json != "off":
        output.show_json(
            {
                "secret_count": len(pushed),
                "project_count": len(projects),
                "unsatisfied": [{"name": name, "missing": missing} for name, missing in unsatisfied],
            }
        )
    elif not unsatisfied:
        output.line(
            f"{counted(len(pushed), 'secret')} would satisfy all {len(projects)} projects. Nothing was changed."
        )
    else:
        with output.paged():
            output.table(
                ["PROJECT", "WOULD LACK"],
                [[name, ", ".join(missing)] for name, missing in unsatisfied],
                f"{len(unsatisfied)} of {len(projects)} projects would lack something. Nothing was changed.",
            )
    return 1 if unsatisfied else 0


def clear(arguments: Arguments) -> None:
    output = open_output(arguments)
    with open_client(arguments) as client:
        client.clear_creds()
    if output.json != "off":
        output.show_json({"secret_count": 0})
    else:
        output.line(escaped("Cleared: the broker holds no secrets."))
