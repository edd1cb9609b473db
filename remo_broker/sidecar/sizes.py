"""Whether a project could fetch a value: the reply to a get has to fit in one message."""

from __future__ import annotations

import json

from remo_broker.cli.program import Problem
from remo_broker.protocol.shared_limits import MAX_MESSAGE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from remo_broker.cli.secrets_file import Secrets

# What a reply has beside the value, at the highest generation and the longest lease that are
# plausible. The broker counts exactly, and lets up to 60 bytes more pass.
REST = len('{"ok":true,"value_b64":,"ttl_seconds":86400,"generation":9999999999,"expires_at":"2026-05-31T02:30:00Z"}\n')
SHORTEN = f"the reply to a get may have {MAX_MESSAGE} bytes in all, escapes and base64 included"


def fits(value: str | dict[str, str] | bytes) -> bool:
    """Whether the reply with this value is short enough."""
    return _encoded_size(value) + REST <= MAX_MESSAGE


def check_sizes(secrets: Secrets) -> None:
    """Raises `Problem` with the source and the name of a value that no project could fetch."""
    for name, value in (*secrets.texts.items(), *secrets.binaries.items()):
        if not fits(value):
            raise Problem(f"{secrets.source(name)}: {name}: too long", hint=f"{SHORTEN}; leave it out with only")


def _encoded_size(value: str | dict[str, str] | bytes) -> int:
    """The length of the value in the reply, as JSON in UTF-8. A bundle is JSON within a string."""
    if isinstance(value, bytes):
        return len('""') + (len(value) + 2) // 3 * 4
    if isinstance(value, dict):
        value = _json(value)
    return len(_json(value).encode(errors="surrogatepass"))


def _json(value: str | dict[str, str]) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
