"""Which unit may load which secret as a systemd credential: `[credentials."UNIT"]` in the
configuration.

    [credentials."backup@*.service"]
    restic-password = "RESTIC_PASSWORD"     # credential id = secret, or secret.field of a bundle
"""

from __future__ import annotations

import re

from remo_broker.protocol.names import is_secret_name, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    pass

# systemd's own limit on a unit name, suffix included (UNIT_NAME_MAX).
MAX_UNIT_NAME = 255
# A credential's name is a file name (NAME_MAX).
MAX_CREDENTIAL_NAME = 255
# Both names together: systemd connects from `\0HEX/unit/UNIT/CREDENTIAL`, with up to 16 digits, and
# an address has room for 107 bytes. If they are longer, systemd cannot ask, and the unit fails.
MAX_NAMES = 83


class BadRule(Exception):
    """A malformed rule. The text gives its key and what is allowed."""


class CredentialRule:
    """A unit, or a pattern for units in which `*` matches any text, and one credential that they
    get."""

    __slots__ = ("_matches", "credential", "field", "pattern", "secret")

    def __init__(self, pattern: str, credential: str, secret: str, field: str | None = None) -> None:
        self.pattern = pattern
        self.credential = credential
        self.secret = secret
        self.field = field
        self._matches = re.compile(".*".join(map(re.escape, pattern.split("*")))).fullmatch

    def applies_to(self, unit: str) -> bool:
        return self._matches(unit) is not None

    @property
    def source(self) -> str:
        """The secret as the configuration names it."""
        return self.secret if self.field is None else f"{self.secret}.{self.field}"


def parse_rules(tables: object) -> list[CredentialRule]:
    """The rules in the table `credentials`, in file order. Raises `BadRule`.

    If several patterns match a unit and name the same credential, the first one applies.
    """
    if not isinstance(tables, dict):
        raise BadRule('credentials: must hold one table for each unit, such as [credentials."backup.service"]')
    return [rule for pattern, entries in tables.items() for rule in _rules_of(pattern, entries)]


def _rules_of(pattern: str, entries: object) -> list[CredentialRule]:
    key = f'credentials."{printable(pattern)}"'
    if not is_unit_pattern(pattern):
        raise BadRule(f"{key}: must be the name of a unit, such as backup.service; * stands for any text")
    if not isinstance(entries, dict):
        raise BadRule(f'{key}: must be a table of CREDENTIAL = "SECRET"')
    return [_rule(key, pattern, credential, source) for credential, source in entries.items()]


def _rule(key: str, pattern: str, credential: str, source: object) -> CredentialRule:
    key = f"{key}.{printable(credential)}"
    if not is_credential_name(credential):
        raise BadRule(f"{key}: a credential's name is a file name of printable ASCII without / and :")
    secret, dot, field = source.partition(".") if isinstance(source, str) else ("", "", "")
    if not is_secret_name(secret) or (dot and not is_secret_name(field)):
        raise BadRule(f'{key}: must be "SECRET" or "SECRET.FIELD"; names are letters, digits and _')
    return CredentialRule(pattern, credential, secret, field if dot else None)


def is_unit_name(text: str) -> bool:
    # A unit name has a suffix. It has no path or shell characters except those that systemd escapes
    # with.
    return (
        0 < len(text) <= MAX_UNIT_NAME
        and "." in text
        and re.fullmatch(r"[A-Za-z0-9:_.\\@-]+", text, re.ASCII) is not None
    )


def is_unit_pattern(text: str) -> bool:
    return is_unit_name(text.replace("*", "x"))


def is_credential_name(text: str) -> bool:
    return (
        0 < len(text) <= MAX_CREDENTIAL_NAME
        and text not in (".", "..")
        and re.fullmatch(r"[ -~]+", text) is not None
        and not set(text) & set("/:")
    )


def peer_of(address: object) -> tuple[str, str] | None:
    """The unit and the credential that systemd requests, from the address that it connects from.

    systemd binds `\\0HEX/unit/UNIT/CREDENTIAL`. None if the address does not have this form.
    """
    if not isinstance(address, bytes) or not address.startswith(b"\0") or not address.isascii():
        return None
    parts = address[1:].decode("ascii").split("/", 3)
    if len(parts) != 4 or parts[1] != "unit" or re.fullmatch("[0-9a-f]+", parts[0]) is None:
        return None
    _, _, unit, credential = parts
    if not is_unit_name(unit) or not is_credential_name(credential):
        return None
    return unit, credential
