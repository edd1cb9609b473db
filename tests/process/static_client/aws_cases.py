"""Cases for both forms of `remo-secret aws-credentials`."""

from __future__ import annotations

import json

from remo_broker.secret.aws import KEY_ID, SECRET_KEY, SESSION_TOKEN
from tests.process.static_client.cases import Case, answered
from tests.support.scripted_peer import NEXT, PONG, binary, failure, ready, value


def aws(
    name: str,
    *replies: bytes,
    fields: dict[str, object] | None = None,
    says: dict[str, str] | None = None,
    status: int = 0,
    arguments: tuple[str, ...] = (),
) -> Case:
    """`fields` are the bundle's, `says` what the SDK is told beside the version."""
    answers = replies or (value(json.dumps(fields)),)
    told = b"" if says is None else json.dumps({"Version": 1} | says, ensure_ascii=False, indent=2).encode() + b"\n"
    argv = ["aws-credentials", *arguments, "T"]
    return Case(f"aws-{name}", argv, answered(*answers), status=status, stdout=told)


KEYS: dict[str, object] = {"aws_access_key_id": "AKIA", "aws_secret_access_key": "k"}
TOLD = {"AccessKeyId": "AKIA", "SecretAccessKey": "k"}
ODD = '"\\/\b\f\n\r\t\0\x1f\x7f\x80 na\u00efve \u2028\u20ac\U0001f511'
AWS = [
    aws("keys", fields=KEYS, says=TOLD),
    aws("token", fields=KEYS | {"aws_session_token": "t"}, says=TOLD | {"SessionToken": "t"}),
    aws("order-of-the-bundle", fields={"aws_session_token": "t", "aws_secret_access_key": "k", "aws_access_key_id": "AKIA"}, says=TOLD | {"SessionToken": "t"}),
    *(
        aws(f"names-{names[0]}", fields=dict(zip(names, ("AKIA", "k", "t"), strict=True)), says=TOLD | {"SessionToken": "t"})
        for names in (
            ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"),
            ("access_key_id", "secret_access_key", "session_token"),
            ("AccessKeyId", "SecretAccessKey", "SessionToken"),
        )
    ),
    aws("first-name-counts", fields={"AccessKeyId": "x", "access_key_id": "y", "SecretAccessKey": "x"} | KEYS, says=TOLD),
    *(
        aws(
            f"first-of-{4 - skipped}-names",
            fields={name: f"v{place}" for names in (KEY_ID, SECRET_KEY, SESSION_TOKEN) for place, name in reversed([*enumerate(names)][skipped:])},
            says=dict.fromkeys(("AccessKeyId", "SecretAccessKey", "SessionToken"), f"v{skipped}"),
        )
        for skipped in range(4)
    ),
    aws("other-fields", fields=KEYS | {"region": "eu"}, says=TOLD),
    aws("empty-values", fields=KEYS | {"aws_secret_access_key": "", "aws_session_token": ""}, says=TOLD | {"SecretAccessKey": "", "SessionToken": ""}),
    aws("odd-characters", fields=KEYS | {"aws_secret_access_key": ODD}, says=TOLD | {"SecretAccessKey": ODD}),
    aws("long", fields=KEYS | {"aws_session_token": "x" * 50000}, says=TOLD | {"SessionToken": "x" * 50000}),
    aws("expires", value(json.dumps(KEYS), expires_at="2026-01-02T03:04:05Z"), says=TOLD | {"Expiration": "2026-01-02T03:04:05Z"}),
    aws("expires-never", value(json.dumps(KEYS), expires_at=None), says=TOLD),
    aws("expires-oddly", value(json.dumps(KEYS), expires_at='a"\u20ac\n'), says=TOLD | {"Expiration": 'a"\u20ac\n'}),
    aws("expires-at-half", value(json.dumps(KEYS), expires_at="\ud800"), status=1),
    aws("expires-at-a-number", value(json.dumps(KEYS), expires_at=1), status=1),
    aws("no-id", fields={"aws_secret_access_key": "k"}, status=1),
    aws("no-secret-key", fields={"aws_access_key_id": "k"}, status=1),
    aws("no-fields", fields={}, status=1),
    aws("number-is-no-bundle", fields=KEYS | {"n": 1}, status=1),
    aws("text", value("AKIA"), status=1),
    aws("binary", binary("AAEC"), status=1),
    aws("no-base64", binary("A"), status=1),
    aws("denied", failure("denied", "not in the manifest"), status=3),
    aws("unknown-op", failure("protocol_error", reason="unknown_op"), status=1),
    aws("rate-limited", failure("rate_limited", retry_after_seconds=1), status=6),
    aws("nothing-yet", failure("not_found", reason="no_snapshot"), status=4, arguments=("--wait=0",)),
    aws("broken", b'{"ok":true}\n', status=1),
    Case("aws-waits-for-the-first-push", ["aws-credentials", "T"], answered(failure("not_found", reason="no_snapshot")), answered(ready(False)), answered(ready()), answered(value(json.dumps(KEYS)))),
    Case("aws-wait", ["aws-credentials", "--wait=5", "T"], [], answered(ready()), answered(value(json.dumps(KEYS)))),
    Case("aws-closed", ["aws-credentials", "T"], [NEXT, PONG], status=5, stdout=b""),
    Case("get-expires-at-half", ["get", "T"], answered(value("x", expires_at="\ud800")), status=1, stdout=b""),
    Case("get-base64-expires-at-half", ["get", "T"], answered(binary("A", expires_at="\ud800")), status=1, stdout=b""),
]  # fmt: skip
