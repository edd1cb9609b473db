"""Fill a file binding's template.

The protocol sends a bundle as a JSON string, so a value that is JSON may be a bundle or a string.
The template decides: see `fill`.
"""

from __future__ import annotations

import re

from remo_broker.cli.program import Problem
from remo_broker.cli.text import listed
from remo_broker.client.value import SecretValue
from remo_broker.manifest.constants import FILTERS
from remo_broker.protocol.names import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

# `{{field}}` or `{{field|filter}}`, with optional spaces, which are stripped later: in the pattern,
# they would make it take forever to match 64 KiB of spaces.
_placeholder = re.compile(rb"\{\{([^{}]*)\}\}")
# Stands for the whole secret if the template has no other placeholder.
WHOLE = "value"


def fill(template: str, secret: SecretValue) -> bytes:
    """The template with the secret's fields in place of the placeholders.

    If `{{value}}` is the only placeholder, it gets the whole secret as pushed. With any other
    placeholder, all of them are fields of a bundle. Substituted text is not expanded again. Raises
    `Problem`, which names fields and never shows a value.
    """
    text = template.removeprefix("\ufeff").encode("utf-8")
    values = {WHOLE: secret.reveal_bytes()}
    if {_parts(found)[0] for found in _placeholder.findall(text)} - {WHOLE}:
        fields = secret.reveal_fields()
        if fields is not None:
            values = {name: value.encode("utf-8") for name, value in fields.items()}

    def put(found: re.Match[bytes]) -> bytes:
        field, name = _parts(found.group(1))
        if field not in values:
            known = listed(["{{" + known + "}}" for known in values])
            shown = printable(field)
            raise Problem(
                f"the template of {secret.name} has {{{{{shown}}}}}, a field that the secret lacks",
                hint=f"it has {known}",
            )
        return values[field] if name is None else _filter(name, secret.name)(values[field])

    return _placeholder.sub(put, text)


def _parts(between: bytes) -> tuple[str, str | None]:
    """Field and filter."""
    field, bar, name = between.decode("utf-8").partition("|")
    return field.strip(), name.strip() if bar else None


def _filter(name: str, secret: str) -> Callable[[bytes], bytes]:
    if name not in FILTERS:
        shown = printable(name)
        raise Problem(f"the template of {secret} has the unknown filter {shown}", hint=f"use one of {listed(FILTERS)}")

    def checked(value: bytes) -> bytes:
        try:
            return _FILTERS[name](value)
        except UnicodeDecodeError:
            pass
        # Raised outside the handler: UnicodeDecodeError holds the value.
        raise Problem(f"{secret} is not UTF-8, so the filter {name} cannot be used", hint="use the filter base64")

    return checked


def _json(value: bytes) -> bytes:
    """A JSON string with its quotes."""
    import json

    return json.dumps(value.decode("utf-8"), ensure_ascii=False).encode("utf-8")


def _pgpass(value: bytes) -> bytes:
    """A field of ~/.pgpass: backslashes and colons are escaped."""
    return value.replace(b"\\", b"\\\\").replace(b":", b"\\:")


def _base64(value: bytes) -> bytes:
    """Base64 on one line."""
    import binascii

    return binascii.b2a_base64(value, newline=False)


def _shell(value: bytes) -> bytes:
    """One word of a POSIX shell, quoted."""
    return b"'" + value.replace(b"'", b"'\"'\"'") + b"'"


_FILTERS = {"base64": _base64, "json": _json, "pgpass": _pgpass, "shell": _shell}
