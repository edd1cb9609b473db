"""Shared by the credential helpers: fetch one secret, and write JSON or lines as UTF-8."""

from __future__ import annotations

from remo_broker.cli.options import Arguments
from remo_broker.cli.program import write_value
from remo_broker.client.scanner import quote
from remo_broker.client.value import SecretValue
from remo_broker.secret.project_socket import open_quick
from remo_broker.secret.servers import named
from remo_broker.secret.wait_option import with_secrets


def fetch_named(arguments: Arguments, name: str) -> SecretValue:
    """Fetch one secret.

    A refusal names it, because the calling tool hides the helper's command line.
    """

    def fetch() -> SecretValue:
        with open_quick(arguments) as client:
            try:
                return client.get(name)
            except Exception as error:  # noqa: BLE001 - raised again, whatever it is
                raise named(error, name) from None

    return with_secrets(arguments, fetch)


def first_of(fields: dict[str, str], *names: str) -> str | None:
    """The bundle's field under the first of `names` that exists."""
    return next((fields[name] for name in names if name in fields), None)


def write_json(value: object, name: str = "the answer") -> None:
    """Write it as `json.dumps` does with an indentation of two; `name` is the secret in it."""
    write_value(name, to_json(value, "").encode("utf-8", "surrogateescape") + b"\n")


def to_json(value: object, indentation: str) -> str:
    if quote is None:
        import json

        return json.dumps(value, ensure_ascii=False, indent=2)
    if not isinstance(value, dict):
        return quote(value) if isinstance(value, str) else str(int(value))  # type: ignore[call-overload]
    if not value:
        return "{}"
    inner = f"{indentation}  "
    members = (f"{inner}{quote(name)}: {to_json(one, inner)}" for name, one in value.items())
    return "{\n" + ",\n".join(members) + f"\n{indentation}}}"
