"""Turn secrets in JSON or dotenv, as people and tools write them, into what a push takes.

`remo-brokerctl push` and the sidecar read by these rules. An error gives the place: the source, the
line, the path of the key. It never repeats a value.
"""

from __future__ import annotations

import os
import re

from remo_broker.cli.input_fault import InputFault
from remo_broker.cli.input_files import Beneath, too_large
from remo_broker.cli.program import Problem
from remo_broker.cli.secrets_json import NAMES, Document
from remo_broker.cli.text import listed
from remo_broker.protocol.names import is_secret_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

__all__ = ["EVERYTHING", "FORMATS", "NAMES", "Picking", "Secrets", "parse", "text_or_bytes", "too_large"]

FORMATS = ("json", "dotenv")
# `[section]` is INI or TOML.
_like_json = re.compile(r"\s*(?:\{|\[(?![\w.-]+\]))").match


class Secrets:
    """The secrets to push. Each name occurs once."""

    def __init__(self) -> None:
        self.texts: dict[str, str | dict[str, str]] = {}
        self.binaries: dict[str, bytes] = {}
        self.expires: dict[str, str] = {}
        self._sources: dict[str, str] = {}

    def names(self) -> list[str]:
        return [*self.texts, *self.binaries]

    def source(self, name: str) -> str:
        """Where `name` came from."""
        return self._sources[name]

    def add(self, where: str, name: str, value: str | dict[str, str] | bytes, *, source: str = "") -> None:
        """Add one secret.

        `where` is the place for an error; `source` is the whole file or command, by default
        `where`.
        """
        if not is_secret_name(name):
            raise Problem(f"{where}: not a valid name for a secret", hint=NAMES)
        if name in self._sources:
            raise Problem(f"{where}: {name} is also given by {self._sources[name]}", hint="keep one of the two")
        self._sources[name] = source or where
        if isinstance(value, bytes):
            self.binaries[name] = value
        else:
            self.texts[name] = value

    def __repr__(self) -> str:
        return f"<Secrets: {len(self.names())}>"


class Picking:
    """Which part of a source is used.

    `select` is the path of the object, `rename` maps its names to the secrets' names, `only` lists
    the secrets' names to take.
    """

    __slots__ = ("only", "rename", "select")

    def __init__(
        self,
        select: Sequence[str] = (),
        rename: Mapping[str, str] | None = None,
        only: Collection[str] | None = None,
    ) -> None:
        self.select = select
        self.rename = rename or {}
        self.only = only

    def name(self, name: str) -> str | None:
        """The secret's name; None if it is not taken."""
        name = self.rename.get(name, name)
        return name if self.only is None or name in self.only else None

    def check(self, where: str, names: Collection[str]) -> None:
        """Raise `Problem` if `only` or `rename` names a secret that is not among `names`."""
        for option, expected in (("only", self.only or ()), ("rename", self.rename.values())):
            missing = [name for name in expected if name not in names]
            if option == "rename" and self.only is not None:
                missing = [name for name in missing if name in self.only]
            if missing:
                raise Problem(f"{where}: {listed(missing)}: named by {option}, but not there", hint="correct the name")


EVERYTHING = Picking()


def parse(
    content: bytes,
    where: str,
    directory: str | Callable[[str], bytes] | None,
    kind: str | None,
    into: Secrets,
    picking: Picking = EVERYTHING,
) -> None:
    """Add the content of a file or a command. Raises `Problem`.

    `kind` is one of `FORMATS`, or None to guess. `directory` is where dotenv's `NAME=@PATH` looks
    for files, or the object that reads them. None means that `@` has no meaning, as in a command's
    output.
    """
    text = decoded(content, where)
    if kind == "json" or (kind is None and _like_json(text) is not None):
        _add_json(text, where, into, picking)
        return
    if picking.select:
        raise Problem(f"{where}: not JSON, of which select could take a part", hint="remove select, or print JSON")
    _add_dotenv(text, where, directory, into, picking)


def decoded(content: bytes, where: str) -> str:
    """The UTF-8 content as text, with or without a byte-order mark."""
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise InputFault(where, "UTF-16, not UTF-8", hint="save it as UTF-8; 'iconv -f UTF-16 -t UTF-8' converts it")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
    # Not raised from the decoder's error, which holds the content.
    raise InputFault(where, "not UTF-8", line=line, hint="to push the bytes of a file as one secret, give NAME=@PATH")


def text_or_bytes(content: bytes, *, strip_newline: bool = False) -> str | bytes:
    """A file's content as the value of one secret. Text becomes a string that every client can use.

    With `strip_newline`, text loses one newline at its end.
    """
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        return content
    if "\0" in text:
        return content
    if strip_newline:
        text = text[:-2] if text.endswith("\r\n") else text.removesuffix("\n")
    return text


def _add_json(text: str, where: str, into: Secrets, picking: Picking) -> None:
    document = Document(text, where, picking.select)
    for key, node in document.texts.items():
        name = picking.name(key)
        if name is not None:
            place = f"{where}:{node.line}"
            into.add(place, document.checked(key, node, name), document.value(node), source=where)
    for key, node in document.binaries.items():
        name = picking.name(key)
        if name is not None:
            place = f"{where}:{node.line}"
            into.add(place, document.checked(key, node, name), document.binary(node), source=where)
    for key, node in document.expires.items():
        name = picking.name(key)
        if name is not None:
            into.expires[name] = document.time(node)


def _add_dotenv(
    text: str, where: str, directory: str | Callable[[str], bytes] | None, into: Secrets, picking: Picking
) -> None:
    from remo_broker.cli.dotenv import assignments

    file = Beneath(directory, os.geteuid()).read if isinstance(directory, str) else directory
    for one in assignments(text, where):
        name = picking.name(one.name)
        if name is None:
            continue
        if not is_secret_name(name):
            # The name is not shown: it may be part of a multi-line value.
            hint = f"{NAMES}; put quotes around a value of several lines"
            raise InputFault(where, "the text before = is not a valid name for a secret", line=one.line, hint=hint)
        value: str | bytes = one.value
        if one.value.startswith("@") and not one.quoted and file is not None:
            try:
                value = text_or_bytes(file(one.value[1:]))
            except InputFault as fault:
                # The path is not shown: it may be a value that begins with @.
                hint = f"{fault.hint}; " if fault.hint else ""
                hint += "write a value that begins with @ in single quotes"
                raise InputFault(where, f"the file for {name}: {fault.what}", line=one.line, hint=hint) from None
        into.add(f"{where}:{one.line}", name, value, source=where)
