"""What a file binding's template becomes.

The protocol gives a bundle as a string, its JSON, so the value alone cannot tell a bundle from a string that is JSON
itself. The template tells: see `fill`.
"""

from __future__ import annotations

import re

from remo_broker.cli.program import Problem
from remo_broker.cli.text import listed
from remo_broker.client.value import SecretValue
from remo_broker.protocol.names import printable

# `{{field}}`, spaces allowed; whatever else stands between the braces is no field and reported as such. The spaces are
# taken off afterwards: with them in the pattern, 64 KiB of spaces would take for ever.
_placeholder = re.compile(rb"\{\{([^{}]*)\}\}")
# What stands for the whole of a secret, where a template has no other placeholder.
WHOLE = "value"


def fill(template: str, secret: SecretValue) -> bytes:
    """The template with what is in the secret in place of the placeholders.

    A template that has no placeholder but `{{value}}` gets the whole of the secret there, as it was pushed. With any
    other, all of them are fields of a bundle. What is put in is not looked at again. Raises `Problem`, which names the
    field and never a value.
    """
    text = template.encode("utf-8")
    values = {WHOLE: secret.reveal_bytes()}
    if {_field(found) for found in _placeholder.findall(text)} - {WHOLE}:
        fields = secret.reveal_fields()
        if fields is not None:
            values = {name: value.encode("utf-8") for name, value in fields.items()}

    def put(found: re.Match[bytes]) -> bytes:
        field = _field(found.group(1))
        if field not in values:
            known = listed(["{{" + name + "}}" for name in values])
            shown = printable(field)
            raise Problem(f"the template of {secret.name} has {{{{{shown}}}}}, which the secret lacks; it has {known}")
        return values[field]

    return _placeholder.sub(put, text)


def _field(between: bytes) -> str:
    return between.strip().decode("utf-8")
