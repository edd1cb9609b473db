"""The variables and files of each secret, from the registered manifest.

The broker keeps the bindings from `register` and `reload` and hands them out. So `exec` does the
same in every directory, and a nearer file, such as a vendored dependency's, cannot replace the
project's manifest.
"""

from __future__ import annotations

from remo_broker.cli.options import Arguments, Usage
from remo_broker.cli.program import Problem
from remo_broker.manifest.bindings import Binding, bindings
from remo_broker.protocol.names import is_secret_name
from remo_broker.secret.commands import MANIFEST, ONLY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from remo_broker.client.project import Client
    from remo_broker.client.quick import QuickClient, QuickInfo
    from remo_broker.protocol.replies import ProjectInfo


class Bound:
    """The project, and the bindings of each requested secret, in the manifest's order."""

    __slots__ = ("bindings", "info")

    def __init__(self, info: ProjectInfo | QuickInfo, found: dict[str, list[Binding]]) -> None:
        self.info = info
        self.bindings = found

    @property
    def project(self) -> str:
        return self.info.project


def find_bindings(arguments: Arguments, client: Client | QuickClient) -> Bound:
    """The registered manifest's bindings, filtered by `--only`."""
    info = client.info()
    tables = client.bindings().bindings
    try:
        found = bindings(info.allowlist, tables)
        _check_text(tables)
    except (AttributeError, KeyError, TypeError, ValueError):
        from remo_broker.client.errors import BadReply

        raise BadReply(client.path, "'bindings' breaks a rule of the manifest") from None
    given = arguments.value(MANIFEST)
    if given is not None:
        check_manifest(given, info)
    if not arguments.flag(ONLY):
        return Bound(info, found)
    only = names_given(arguments)
    for name in only:
        if name not in found:
            raise Problem(
                f"{name} is not in the manifest of {info.project}", hint="run 'remo-secret list' to see what is"
            )
    return Bound(info, {name: one for name, one in found.items() if name in only})


def _check_text(value: object) -> None:
    """Raise ValueError for half of a surrogate pair, which no path and no file can have. Not by
    `json`, whose import takes as long as the rest of an `exec`."""
    if isinstance(value, str):
        value.encode()
    elif isinstance(value, list):
        for one in value:
            _check_text(one)
    elif isinstance(value, dict):
        for key, one in value.items():
            _check_text(key)
            _check_text(one)


def names_given(arguments: Arguments) -> list[str]:
    """The names that `--only` gives. Raises `Usage` for an invalid name."""
    names = arguments.values(ONLY)
    for name in names:
        if not is_secret_name(name):
            raise Usage("--only must be names of secrets: letters, digits and underscores")
    return names


def check_manifest(path: str, info: ProjectInfo | QuickInfo) -> None:
    """Refuse the manifest of `--manifest` unless it equals the registered one byte for byte."""
    from remo_broker.secret.manifests import digest_of

    source, digest = digest_of(path)
    if digest != info.manifest_sha256:
        raise Problem(
            f"{source} is not the manifest that was registered for {info.project}",
            hint=f"have an operator review it and run 'remo-brokerctl reload {info.project}' on the host",
        )
