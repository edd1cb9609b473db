"""What is wrong with a manifest, in one line that is safe to show to any user.

A manifest is hostile and may not even be the project's own file, so no line repeats its text. A
message may name three things: keys that this package knows, names that a secret can have, and
unknown keys that look like ordinary keys.
"""

from __future__ import annotations

import re

from remo_broker.protocol.codes import Code
from remo_broker.protocol.names import is_secret_name

# A key that is harmless to show: no space, no escape, no quote, and too short to be a line of a
# file.
_harmless = re.compile(r"[A-Za-z0-9_-]{1,64}").fullmatch


class ManifestError(Exception):
    """An unusable manifest.

    `code` is `manifest_invalid`, `manifest_not_found` or `manifest_unreadable`. `message` is one
    line that begins with the key, if there is one, and ends with what is allowed or what to do.
    `key` is the dotted key and `line` the line, for programs.
    """

    def __init__(self, code: Code, message: str, key: str | None = None, line: int | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.key = key
        self.line = line


def invalid(key: str | None, problem: str, allowed: str, line: int | None = None) -> ManifestError:
    """A breach of a rule.

    "cache.ttl_seconds: out of range; it must be an integer from 1 to 86400".
    """
    text = f"{problem}; {allowed}"
    return ManifestError(Code.MANIFEST_INVALID, f"{key}: {text}" if key else text, key, line)


def unreadable(where: str, problem: str, advice: str) -> ManifestError:
    """A file that is not read.

    `where` is its path in the project's directory, or `project_path` for the directory itself.
    """
    return ManifestError(Code.MANIFEST_UNREADABLE, f"{where}: {problem}; {advice}")


def is_showable(part: str) -> bool:
    """Whether a message may name this key of the file."""
    return is_secret_name(part) or _harmless(part) is not None


def dotted(parts: tuple[str | int, ...]) -> str:
    """The key that `parts` lead to, as in TOML.

    It ends before the first part that must not be shown.
    """
    text = ""
    for part in parts:
        if isinstance(part, int):
            text += f"[{part}]"
        elif is_showable(part):
            text += f".{part}" if text else part
        else:
            break
    return text
