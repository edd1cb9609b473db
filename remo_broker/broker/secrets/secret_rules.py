"""What a push must keep to: the names, the fields of a bundle, base64."""

from __future__ import annotations

import re

from remo_broker.broker.refusals import Refused
from remo_broker.broker.secrets.strict_json import STRING
from remo_broker.protocol.codes import Code, Reason
from remo_broker.protocol.names import SECRET_NAME_PATTERN, is_secret_name
from remo_broker.protocol.shared_limits import MAX_MESSAGE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from remo_broker.broker.secrets.strict_json import Node

NAME_RULE = f"names match {SECRET_NAME_PATTERN}"
# RFC 4648 base64 with padding; a JSON encoder may write `/` as `\/`, `+` and `=` as \u002b and
# \u003d.
_base64 = re.compile(rb'"[A-Za-z0-9+/]*+={0,2}"').fullmatch
_ESCAPED_BASE64 = rb"([A-Za-z0-9+/]++)|\\/|\\u002[bBfF]"
_ESCAPED_PADDING = rb'(=|\\u003[dD])?(=|\\u003[dD])?"'


def check_name(name: str, position: int, where: str) -> None:
    # Do not repeat a name that breaks the rule: in a malformed push it may be a value.
    if not is_secret_name(name):
        raise invalid(f"name {position} of {where} is not a valid secret name: {NAME_RULE}")


def check_fields(name: str, fields: dict[str, Node]) -> None:
    for position, (field, node) in enumerate(fields.items(), 1):
        if not is_secret_name(field):
            raise invalid(f"secret {name}: name {position} of its fields is not allowed: {NAME_RULE}")
        if node[0] != STRING:
            raise invalid(f"secret {name}: field {field} must be a string")


def is_base64(view: memoryview, start: int, end: int) -> bool:
    if _base64(view, start, end):
        return (end - start - 2) % 4 == 0
    return _is_escaped_base64(view, start + 1, end)


def _is_escaped_base64(view: memoryview, position: int, end: int) -> bool:
    """The same where some of the characters are escaped; `position` is behind the opening quote."""
    characters = 0
    piece = re.compile(_ESCAPED_BASE64).match
    while (found := piece(view, position, end)) is not None:
        plain = found.end(1) - found.start(1)
        characters += plain or 1
        position = found.end()
    padding = re.compile(_ESCAPED_PADDING).fullmatch(view, position, end)
    return padding is not None and (characters + (padding.lastindex or 0)) % 4 == 0


def too_long(name: str) -> Refused:
    return invalid(f"secret {name} is too long: the reply to a get may have {MAX_MESSAGE} bytes in all")


def invalid(message: str) -> Refused:
    return Refused(Code.INVALID_PAYLOAD, Reason.BAD_VALUE, message)
