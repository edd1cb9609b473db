"""What a file binding's template becomes."""

from __future__ import annotations

import re

from remo_broker.cli.program import Problem
from remo_broker.client.value import SecretValue

# `{{field}}`, spaces allowed; whatever else stands between the braces is no field and reported as such.
_placeholder = re.compile(rb"\{\{\s*([^{}]*?)\s*\}\}").sub
# What `{{value}}` stands for in a secret that is no bundle; its own name says the same.
WHOLE = "value"


def fill(template: str, secret: SecretValue) -> bytes:
    """The template with the fields of a bundle, or the whole of another secret, in place of the placeholders.

    What is put in is not looked at again. Raises `Problem`, which names the field and never a value.
    """
    fields = secret.reveal_fields()
    if fields is None:
        content = secret.reveal_bytes()
        values = {WHOLE: content, secret.name: content}
    else:
        values = {name: value.encode("utf-8") for name, value in fields.items()}

    def put(found: re.Match[bytes]) -> bytes:
        field = found.group(1).decode("utf-8")
        if field not in values:
            known = ", ".join("{{" + name + "}}" for name in values)
            raise Problem(f"the template of {secret.name} has {{{{{field}}}}}, which the secret lacks; it has {known}")
        return values[field]

    return _placeholder(put, template.encode("utf-8"))
