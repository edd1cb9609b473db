"""Credential rules: their syntax, which units they match, and the peer's address."""

from __future__ import annotations

import pytest

from remo_broker.protocol.config import Config, ConfigError
from remo_broker.protocol.credential_rules import CredentialRule, peer_of

BACKUP = {"credentials": {"backup@*.service": {"restic-password": "RESTIC_PASSWORD", "key": "aws.secret_key"}}}


def test_a_rule_names_a_secret_or_a_field() -> None:
    whole, field = Config(BACKUP).credentials
    assert (whole.pattern, whole.credential, whole.secret, whole.field) == (
        *("backup@*.service", "restic-password"),
        *("RESTIC_PASSWORD", None),
    )
    assert (field.secret, field.field, field.source) == ("aws", "secret_key", "aws.secret_key")


@pytest.mark.parametrize(
    ("pattern", "unit", "fits"),
    [
        ("backup.service", "backup.service", True),
        ("backup.service", "backup.service.d", False),
        ("backup.service", "backupXservice", False),
        ("backup@*.service", "backup@a-b\\x2dc.service", True),
        ("backup@*.service", "backup@.service", True),
        ("backup@*.service", "backup.service", False),
        ("*.service", "anything.service", True),
        ("*.service", "anything.socket", False),
        ("a*b*.service", "a1b2.service", True),
    ],
)
def test_only_an_asterisk_is_a_wildcard(pattern: str, unit: str, fits: bool) -> None:
    assert CredentialRule(pattern, "id", "S").applies_to(unit) is fits


@pytest.mark.parametrize(
    ("tables", "key"),
    [
        ([], "credentials"),
        ({"backup": {}}, 'credentials."backup"'),
        ({"a/b.service": {}}, 'credentials."a/b.service"'),
        ({"a b.service": {}}, 'credentials."a b.service"'),
        ({"x" * 255 + ".service": {}}, "credentials."),
        ({"a.service": "S"}, 'credentials."a.service"'),
        ({"a.service": {"id": 1}}, 'credentials."a.service".id'),
        ({"a.service": {"id": "no-name"}}, 'credentials."a.service".id'),
        ({"a.service": {"id": "S.a-b"}}, 'credentials."a.service".id'),
        ({"a.service": {"id": "S."}}, 'credentials."a.service".id'),
        ({"a.service": {"a/b": "S"}}, 'credentials."a.service".a/b'),
        ({"a.service": {"a:b": "S"}}, 'credentials."a.service".a:b'),
        ({"a.service": {"": "S"}}, 'credentials."a.service".'),
        ({"a.service": {"..": "S"}}, 'credentials."a.service"...'),
    ],
)
def test_a_bad_rule_is_named_by_its_key(tables: object, key: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        Config({"credentials": tables})
    assert str(refusal.value).startswith(key)


@pytest.mark.parametrize(
    ("address", "peer"),
    [
        (b"\0a1b2/unit/backup.service/restic-password", ("backup.service", "restic-password")),
        (b"\0a1b2/unit/a\\x2db.service/id", ("a\\x2db.service", "id")),
        (b"\0a1b2/unit/a%i.service/id", None),
        (b"\0a1b2/unit/a\n.service/id", None),
        (b"\0a1b2/unit/a b.service/id", None),
        (b"\0a1b2/unit/a/service/id", None),
        (b"\0a1b2/unit/a*.service/id", None),
        (b"\0a1b2/unit/\xff.service/id", None),
        (b"\0a1b2/unit/nosuffix/id", None),
        (b"\0a1b2/unit/" + b"x" * 247 + b".service/id", ("x" * 247 + ".service", "id")),
        (b"\0a1b2/unit/" + b"x" * 248 + b".service/id", None),
        (b"\0a1b2/unit/a.service/a/b", None),
        (b"\0a1b2/unit/a.service/", None),
        (b"\0a1b2/unit//id", None),
        (b"\0a1b2/unit/a.service", None),
        (b"\0xyz/unit/a.service/id", None),
        (b"\0a1b2/user/a.service/id", None),
        (b"\0a1b2/unit/a.service/i\nd", None),
        (b"", None),
        ("", None),
        ("/run/a1b2/unit/a.service/id", None),
    ],
)
def test_the_peer_is_parsed_from_systemds_address(address: object, peer: tuple[str, str] | None) -> None:
    assert peer_of(address) == peer
