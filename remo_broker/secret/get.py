"""`remo-secret get` and `list`."""

from __future__ import annotations

import sys

from remo_broker.cli.options import Arguments
from remo_broker.cli.program import Problem
from remo_broker.cli.text import listed
from remo_broker.secret.commands import EXIT_NOT_FOUND, FIELD
from remo_broker.secret.locate import open_client


def get(arguments: Arguments) -> None:
    """Write one secret, or one field of a bundle, to standard output."""
    name = arguments.operands[0]
    with open_client(arguments) as client:
        secret = client.get(name)
    field = arguments.value(FIELD)
    if field is None:
        content = secret.reveal_bytes()
    else:
        fields = secret.reveal_fields()
        if fields is None:
            raise Problem(f"{name} is no bundle and has no fields; leave --field out")
        if field not in fields:
            raise Problem(f"{name} has no field {field}; it has {listed(fields)}", status=EXIT_NOT_FOUND)
        content = fields[field].encode("utf-8")
    if sys.stdout.isatty():
        if not is_text(content):
            raise Problem(
                f"{name} is not for a terminal, it has control characters; send the output to a file or a pipe"
            )
        if not content.endswith(b"\n"):
            content += b"\n"
    sys.stdout.buffer.write(content)


def list_names(arguments: Arguments) -> None:
    """Write the names that the project may fetch, one a line, in the manifest's order."""
    with open_client(arguments) as client:
        names = client.info().allowlist
    for name in names:
        print(name)


def is_text(content: bytes) -> bool:
    """Whether a terminal shows `content` without obeying it."""
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return all(one.isprintable() or one in "\t\r\n" for one in text)
