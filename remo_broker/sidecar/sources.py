"""Read the sources. A push replaces everything, so all are read, and one failure fails it."""

from __future__ import annotations

import os
from functools import partial

from remo_broker.cli import input_files
from remo_broker.cli.input_fault import InputFault
from remo_broker.cli.program import Problem
from remo_broker.cli.secrets_file import NAMES, Picking, Secrets, parse, text_or_bytes
from remo_broker.protocol.names import is_secret_name
from remo_broker.sidecar.command import output_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TypeVar

    from remo_broker.sidecar.configuration import Source

    T = TypeVar("T")

# systemd's name prefix for credentials loaded from the directory of the host's own store.
CREDENTIAL_PREFIX = "secret_"


class Reading:
    """The result of reading all sources: either everything, or what failed."""

    def __init__(self) -> None:
        self.secrets = Secrets()
        self.failures: dict[str, Problem] = {}
        """The problem by source label."""

    @property
    def failure(self) -> Problem | None:
        return next(iter(self.failures.values()), None)


def read_all(sources: Sequence[Source], *, own_session: bool = False) -> Reading:
    """Read every source, even after one has failed, so that all failures are reported."""
    reading = Reading()
    for source in sources:
        try:
            _merge(read(source, own_session=own_session), source, reading.secrets)
        except Problem as problem:
            # Drop the traceback: its frames hold the values read.
            reading.failures[source.label] = problem.with_traceback(None)
    return reading


def read(source: Source, *, own_session: bool) -> Secrets:
    """The secrets of one source, at least one.

    Raises `Problem`, whose text begins with the source's label.
    """
    label = source.label
    secrets = Secrets()
    picking = Picking(source.select, source.rename, source.only)
    if source.directory:
        _read_directory(source, picking, secrets)
    else:
        files = None
        if source.command:
            content = output_of(source.command, label, source.timeout_seconds, own_session=own_session)
        else:
            content, owner = _at(label, partial(input_files.read_with_owner, source.file), source.file)
            files = None if owner is None else input_files.Beneath(os.path.dirname(source.file), owner).read
        if not content.strip():
            said = "prints nothing" if source.command else "empty"
            raise InputFault(label, said, hint="to empty the broker, run 'remo-brokerctl clear'")
        parse(content, label, files, None if source.format == "auto" else source.format, secrets, picking)
    picking.check(label, secrets.names())
    if not secrets.names():
        raise InputFault(label, "no secret in it", hint="remove the source, or put a secret there")
    return secrets


def _merge(found: Secrets, source: Source, into: Secrets) -> None:
    for name, value in (*found.texts.items(), *found.binaries.items()):
        into.add(source.label, name, value)
    into.expires.update(found.expires)


def _read_directory(source: Source, picking: Picking, into: Secrets) -> None:
    label, directory = source.label, source.directory
    try:
        beneath = input_files.beneath(directory)
        files = beneath.names()
    except OSError as error:
        raise InputFault(label, os.strerror(error.errno or 0), hint=_may_read(directory)) from None
    except InputFault as fault:
        raise InputFault(label, fault.what, hint=_may_read(directory)) from None
    for file in files:
        if os.path.isdir(os.path.join(directory, file)):
            continue
        name = picking.name(file.removeprefix(CREDENTIAL_PREFIX) if source.credentials else file)
        if name is None or (source.credentials and not is_secret_name(name)):
            continue
        if not is_secret_name(name):
            raise InputFault(f"{label}: {file}", "not a valid name for a secret", hint=f"{NAMES}; set rename")
        content = _at(f"{label}: {file}", partial(beneath.read, file), os.path.join(directory, file))
        if not content:
            # The file is being written in place: its writer truncates it first.
            raise InputFault(f"{label}: {file}", "empty", hint="write the value, or remove the file")
        into.add(label, name, text_or_bytes(content, strip_newline=source.strip_newline))


def _at(place: str, reader: Callable[[], T], path: str) -> T:
    """What `reader` reads; errors give `place`."""
    try:
        return reader()
    except InputFault as fault:
        raise InputFault(place, fault.what, hint=fault.hint or _may_read(path)) from None


def _may_read(path: str) -> str:
    import pwd

    try:
        user = pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        user = str(os.geteuid())
    return f"make {path} exist and readable for {user}"
