"""Text for people: nothing that came from elsewhere reaches a terminal as it is."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

# As many of several names as one line has: enough to find the mistake by.
MAX_LISTED = 20


def listed(names: Collection[str]) -> str:
    """The names with commas, as far as they have room on a line: `A, B` or `A, B, ... and 980 more`."""
    shown = list(names)[:MAX_LISTED]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f", ... and {more} more" if more else "")


def escaped(text: str) -> str:
    """`text` on one line, with everything that a terminal or a reader could be misled by shown as an escape.

    Kept are printable characters of any script; control, format and bidirectional ones, line breaks and lone
    surrogates (a file name that is not UTF-8) are escaped as Python does.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in text)
