"""`remo-secret get` and `list`."""

from __future__ import annotations

import os
import sys

from remo_broker.cli.options import Arguments
from remo_broker.cli.program import Problem, write_value
from remo_broker.secret.commands import EXIT_NOT_FOUND, FIELD, WAIT
from remo_broker.secret.project_socket import open_client, open_quick

TYPE_CHECKING = False
if TYPE_CHECKING:
    from remo_broker.client.value import SecretValue


def get(arguments: Arguments) -> None:
    """Write one secret, or one field of a bundle, to standard output."""
    name = arguments.operands[0]
    secret = _fetch(arguments, name)
    field = arguments.value(FIELD)
    if field is None:
        content = secret.reveal_bytes()
    else:
        fields = secret.reveal_fields()
        if fields is None:
            raise Problem(f"{name} is not a bundle, so it has no fields", hint="omit --field")
        if field not in fields:
            from remo_broker.cli.text import listed

            raise Problem(f"{name} has no field {field}", hint=f"it has {listed(fields)}", status=EXIT_NOT_FOUND)
        content = fields[field].encode("utf-8")
    if os.isatty(1) and not content.endswith(b"\n"):
        content += b"\n"
    write_value(name, content)


def _fetch(arguments: Arguments, name: str) -> SecretValue:
    if arguments.flag(WAIT):
        from remo_broker.secret.wait_option import wait_as_asked

        wait_as_asked(arguments)
    with open_quick(arguments) as client:
        return client.get(name)


def list_names(arguments: Arguments) -> None:
    """Write the names that the project may fetch, one per line, in the manifest's order."""
    with open_client(arguments) as client:
        names = client.info().allowlist
    write_lines(names)


def write_lines(lines: list[str]) -> None:
    """Write lines as UTF-8 in any locale; file names that are not UTF-8 keep their bytes, except on
    a terminal."""
    sys.stdout.flush()
    for line in _shown(lines) if os.isatty(1) else lines:
        sys.stdout.buffer.write(line.encode("utf-8", "surrogateescape") + b"\n")


def tell(lines: list[str]) -> None:
    """Write lines for people. File names, settings and the broker's words may be of any text."""
    write_lines(_shown(lines))


def _shown(lines: list[str]) -> list[str]:
    from remo_broker.cli.text import escaped

    return ["\t".join(map(escaped, line.split("\t"))) for line in lines]
