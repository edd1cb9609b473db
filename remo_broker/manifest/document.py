"""Parse a file's bytes into TOML tables, without the time and stack that hostile TOML can cost.

tomllib does the reading. One pass over the text first looks for what would make it slow or overflow
its stack; that pass knows no more of TOML than where strings and comments end. Up to the first
mistake in a file, the pass and tomllib agree on what is a string; tomllib does not read past the
mistake.
"""

from __future__ import annotations

import re
from typing import Any

from remo_broker.manifest.constants import MAX_KEY_PARTS, MAX_NESTING
from remo_broker.manifest.fault import ManifestError, invalid

# What the pass must tell apart. Only runs of one class are possessive: CPython before 3.11.5 gets
# groups wrong inside an alternation (gh-106052).
_tokens = re.compile(
    # Multi-line strings: up to two quotes may occur inside, and before the final three.
    r'"""[^"\\]*+(?:(?:\\.|"{1,2}(?!"))[^"\\]*+)*"{3,5}'
    r"|'''[^']*+(?:'{1,2}(?!')[^']*+)*'{3,5}"
    r"|(?P<unclosed>\"\"\"|''')"
    r'|"[^"\\\n]*+(?:\\.[^"\\\n]*+)*"'
    r"|'[^'\n]*+'"
    r"|(?P<cut>[\"'])"
    r"|#[^\n]*+"
    r"|(?P<dot>\.)"
    r"|(?P<open>[\[{])"
    r"|(?P<close>[\]}])"
    r"|(?P<end>[\n=,])",
    re.DOTALL,
).finditer

# The place in tomllib's message. The rest of it is not shown: it repeats characters and keys of the
# file.
_place = re.compile(r"\(at (line (\d+), column \d+|end of document)\)\Z").search
_HELP = "correct it there or just before; https://toml.io/en/v1.0.0 has the syntax"


def parse(content: bytes) -> dict[str, Any]:
    """The tables of a manifest. Raises `ManifestError`.

    `content` is at most `constants.MAX_BYTES` long.
    """
    import tomllib  # not needed if there is no file

    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise invalid(None, f"not UTF-8 at byte {error.start}", "save it as UTF-8", line) from None
    text = text.removeprefix("\ufeff")  # editors on Windows write a byte-order mark
    _refuse_bombs(text)
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _not_toml(str(error)) from None
    except RecursionError:
        raise _too_deep() from None
    except ValueError:
        # Numbers and dates that Python cannot hold: thousands of digits, the year 0.
        raise invalid(None, "a number or a date is out of range", "the largest number allowed is 86400") from None


def _refuse_bombs(text: str) -> None:
    dots = depth = 0
    for token in _tokens(text):
        match token.lastgroup:
            case "dot":
                dots += 1
                if dots >= MAX_KEY_PARTS:
                    line = text.count("\n", 0, token.start()) + 1
                    problem = f"a key in line {line} has more than {MAX_KEY_PARTS} parts"
                    raise invalid(None, problem, "no key needs more than 3", line)
            case "open":
                dots = 0
                depth += 1
                if depth > MAX_NESTING:
                    raise _too_deep()
            case "close":
                dots = 0
                depth -= 1
            case "end":
                dots = 0
            case "unclosed" | "cut":
                return  # tomllib stops here too; each further search would cost as much


def _too_deep() -> ManifestError:
    return invalid(None, f"lists or inline tables nested deeper than {MAX_NESTING}", "2 levels are enough")


def _not_toml(said: str) -> ManifestError:
    place = _place(said)
    where = f" at {place.group(1).replace('end of', 'the end of the')}" if place else ""
    line = int(place.group(2)) if place and place.group(2) else None
    return invalid(None, f"not TOML{where}", _HELP, line)
