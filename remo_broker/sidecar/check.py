"""`remo-sidecar check`: show what would be pushed, and which projects would still lack a secret."""

from __future__ import annotations

from remo_broker.cli.program import Problem, complain
from remo_broker.client.admin import AdminClient
from remo_broker.client.errors import ClientError
from remo_broker.client.missing_secrets import projects_lacking
from remo_broker.protocol.hardening import forbid_dumps
from remo_broker.protocol.names import counted
from remo_broker.sidecar import configuration
from remo_broker.sidecar.commands import PROGRAM
from remo_broker.sidecar.filesystems import remote
from remo_broker.sidecar.push import open_output, request_for, socket_path
from remo_broker.sidecar.sources import read_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from remo_broker.cli.options import Arguments
    from remo_broker.cli.secrets_file import Secrets
    from remo_broker.sidecar.configuration import Source

# A value's exact length can give it away; its size class is enough to spot a mistake.
SIZES = ((64, "up to 64 B"), (1024, "up to 1 KiB"), (16 * 1024, "up to 16 KiB"))
LARGEST = "over 16 KiB"


def check(arguments: Arguments) -> int:
    forbid_dumps()
    sources = configuration.read(arguments)
    reading = read_all(sources)
    problems: list[Problem] = list(reading.failures.values())
    rows = described(reading.secrets)
    if not problems:
        try:
            request_for(reading.secrets)
        except Problem as problem:
            problems.append(problem)
    unseen = unwatched(sources)
    unsatisfied: list[tuple[str, list[str]]] = []
    try:
        with AdminClient(socket_path(arguments)) as client:
            unsatisfied = projects_lacking(client, reading.secrets.names())
    except ClientError as error:
        problems.append(Problem(f"the projects were not checked: {error}", hint=getattr(error, "hint", None)))
    output = open_output(arguments)
    if output.json != "off":
        output.show_json(
            {
                "secrets": [dict(zip(("name", "kind", "source", "size"), row, strict=True)) for row in rows],
                "unsatisfied": [{"name": name, "missing": missing} for name, missing in unsatisfied],
                "unwatched": [{"source": label, "path": path, "filesystem": kind} for label, path, kind in unseen],
                "errors": [str(one) for one in problems],
            }
        )
    else:
        if rows:
            output.table(["NAME", "KIND", "SOURCE", "SIZE"], rows, f"{counted(len(rows), 'secret')} would be pushed.")
        for name, missing in unsatisfied:
            output.line(f"{name} would lack {', '.join(missing)}.")
        for label, path, kind in unseen:
            output.line(f"{label}: {path} is on {kind}, where changes may go unseen; set refresh_seconds.")
    for one in problems:
        complain(PROGRAM, str(one), one.hint)
    return 1 if problems or unsatisfied else 0


def described(secrets: Secrets) -> list[tuple[str, str, str, str]]:
    """Name, kind, source and size class of each secret."""
    rows = []
    for name, value in secrets.texts.items():
        kind = "string" if isinstance(value, str) else "bundle"
        size = len(value.encode()) if isinstance(value, str) else sum(len(one.encode()) for one in value.values())
        rows.append((name, kind, secrets.source(name), _size(size)))
    rows += [(name, "binary", secrets.source(name), _size(len(value))) for name, value in secrets.binaries.items()]
    return sorted(rows)


def _size(count: int) -> str:
    return next((text for limit, text in SIZES if count <= limit), LARGEST)


def unwatched(sources: Sequence[Source]) -> list[tuple[str, str, str]]:
    """Source, path and file system type for every path that inotify does not cover."""
    return [
        (source.label, path, kind)
        for source in sources
        if not source.refresh_seconds
        for path in source.watched
        if (kind := remote(path))
    ]
