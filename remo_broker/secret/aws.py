"""`remo-secret aws-credentials`: the AWS SDKs' `credential_process` protocol."""

from __future__ import annotations

from remo_broker.cli.options import Arguments
from remo_broker.cli.program import Problem
from remo_broker.secret.credential_helpers import fetch_named, first_of, write_json

KEY_ID = ("aws_access_key_id", "AWS_ACCESS_KEY_ID", "access_key_id", "AccessKeyId")
SECRET_KEY = ("aws_secret_access_key", "AWS_SECRET_ACCESS_KEY", "secret_access_key", "SecretAccessKey")
SESSION_TOKEN = ("aws_session_token", "AWS_SESSION_TOKEN", "session_token", "SessionToken")


def aws_credentials(arguments: Arguments) -> None:
    """Write the credentials.

    The expiry is the secret's; with a lease's, the SDKs would ask over and over.
    """
    name = arguments.operands[0]
    secret = fetch_named(arguments, name)
    fields = secret.reveal_fields() or {}
    key_id, secret_key = first_of(fields, *KEY_ID), first_of(fields, *SECRET_KEY)
    if key_id is None or secret_key is None:
        raise Problem(
            f"{name} is not a bundle with an AWS key",
            hint=f"push a bundle with the fields {KEY_ID[0]}, {SECRET_KEY[0]} and, if there is one, {SESSION_TOKEN[0]}",
        )
    answer: dict[str, object] = {"Version": 1, "AccessKeyId": key_id, "SecretAccessKey": secret_key}
    session_token = first_of(fields, *SESSION_TOKEN)
    if session_token is not None:
        answer["SessionToken"] = session_token
    if secret.expires_at is not None:
        answer["Expiration"] = secret.expires_at
    write_json(answer, name)
