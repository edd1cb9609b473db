"""What the helpers have in common: fetch one secret, and write JSON or lines as UTF-8."""

from __future__ import annotations

import json
import sys

from remo_broker.cli.options import Arguments
from remo_broker.client.errors import BrokerError
from remo_broker.client.value import SecretValue
from remo_broker.secret.locate import open_client
from remo_broker.secret.wait import with_secrets


def fetch_named(arguments: Arguments, name: str) -> SecretValue:
    """One secret; a refusal names it, as the tool that runs the helper does not show its command line."""

    def fetch() -> SecretValue:
        with open_client(arguments) as client:
            try:
                return client.get(name)
            except BrokerError as error:
                message = f"{name}: {error.message}"
                raise type(error)(error.code, error.reason, message, error.retry_after_seconds) from None

    return with_secrets(arguments, fetch)


def first_of(fields: dict[str, str], *names: str) -> str | None:
    """The first of several spellings of a field that a bundle has."""
    return next((fields[name] for name in names if name in fields), None)


def write_json(value: object) -> None:
    sys.stdout.buffer.write(json.dumps(value, ensure_ascii=False, indent=2).encode("utf-8") + b"\n")
