"""The manifest of a project: finding it, reading it safely, validating it.

None of this runs in the broker. The broker asks the manifest reader,
`remo_broker.manifest.__main__`: a process of another user, without secrets and with a deadline.
`remo-brokerctl check` calls `load` and `faults` in its own process; `remo-secret`, which has only
Python, uses `bindings` on the broker's reply.
"""

from __future__ import annotations

from remo_broker.protocol.shared_limits import DEFAULT_MAX_ENTRIES, DEFAULT_TTL_SECONDS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from remo_broker.manifest.bindings import Binding, EnvBinding, FileBinding
    from remo_broker.manifest.fault import ManifestError
    from remo_broker.manifest.result import Manifest

__all__ = [
    "Binding",
    "EnvBinding",
    "FileBinding",
    "Manifest",
    "ManifestError",
    "content_faults",
    "faults",
    "load",
]


# Imported on first use: `remo-secret` needs only the bindings, in every Python that a container
# has.
_HOMES = {"ManifestError": "fault", "Manifest": "result"}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    found: object = getattr(import_module(f"{__name__}.{_HOMES.get(name, 'bindings')}"), name)
    globals()[name] = found
    return found


def load(
    project_path: str,
    *,
    name: str | None = None,
    any_name: bool = False,
    max_ttl_seconds: int = DEFAULT_TTL_SECONDS,
    max_entries: int = DEFAULT_MAX_ENTRIES,
) -> Manifest:
    """The validated manifest of the project in `project_path` (absolute). Needs pydantic.

    `name` is the project's registered name; without it the manifest's name must be the directory's,
    or with `any_name` not even that. The two numbers are the broker's own. Raises `ManifestError`.
    """
    from remo_broker.manifest import document, reader
    from remo_broker.manifest.result import build

    source, content = reader.read(project_path)
    tables = document.parse(content)
    # Imported only when there is something to check: importing pydantic takes three quarters of the
    # total time.
    from remo_broker.manifest import rules_between_keys

    directory = None if any_name else rules_between_keys.directory_of(project_path)
    rules_between_keys.check(
        tables, name=name, directory=directory, max_ttl_seconds=max_ttl_seconds, max_entries=max_entries
    )
    import hashlib
    from dataclasses import replace

    manifest = build(tables, source, max_ttl_seconds=max_ttl_seconds, max_entries=max_entries)
    return replace(manifest, sha256=hashlib.sha256(content).hexdigest())


def faults(
    project_path: str,
    *,
    place: tuple[str, str] | None = None,
    name: str | None = None,
    max_ttl_seconds: int = DEFAULT_TTL_SECONDS,
    max_entries: int = DEFAULT_MAX_ENTRIES,
) -> tuple[str | None, list[ManifestError]]:
    """All faults of the manifest that `load` would load, and its path if it could be read.

    `place` selects one of `constants.SEARCH`; the others are ignored.
    """
    from remo_broker.manifest import reader, rules_between_keys
    from remo_broker.manifest.fault import ManifestError

    try:
        if place is None:
            source, content = reader.read(project_path)
        else:
            source, content = "/".join((project_path, *place)), reader.read_place(project_path, *place)
    except ManifestError as error:
        return None, [error]
    return source, content_faults(
        content,
        name=name,
        directory=rules_between_keys.directory_of(project_path),
        max_ttl_seconds=max_ttl_seconds,
        max_entries=max_entries,
    )


def content_faults(
    content: bytes,
    *,
    name: str | None = None,
    directory: str | None = None,
    max_ttl_seconds: int = DEFAULT_TTL_SECONDS,
    max_entries: int = DEFAULT_MAX_ENTRIES,
) -> list[ManifestError]:
    """All faults of a manifest with these bytes, with their lines.

    `directory` is the name of its project's directory.
    """
    from remo_broker.manifest import document, lines, rules_between_keys
    from remo_broker.manifest.fault import ManifestError

    try:
        tables = document.parse(content)
    except ManifestError as error:
        return [error]
    found = rules_between_keys.faults(
        tables, name=name, directory=directory, max_ttl_seconds=max_ttl_seconds, max_entries=max_entries
    )
    places = lines.Lines(content)
    for one in found:
        one.line = places.of(one.key)
    return found
