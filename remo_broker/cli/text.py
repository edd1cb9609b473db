"""Text for people: foreign text is escaped before it reaches a terminal."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

# What a terminal obeys or does not show: control, format and separating characters, lone
# surrogates, private use. The table is fixed because str.isprintable() differs between Python
# versions; the static client has the same one.
MISLEADING = (
    (0x00, 0x1F),
    (0x7F, 0xA0),
    (0xAD, 0xAD),
    (0x600, 0x605),
    (0x61C, 0x61C),
    (0x6DD, 0x6DD),
    (0x70F, 0x70F),
    (0x890, 0x891),
    (0x8E2, 0x8E2),
    (0x1680, 0x1680),
    (0x180E, 0x180E),
    (0x2000, 0x200F),
    (0x2028, 0x202F),
    (0x205F, 0x206F),
    (0x3000, 0x3000),
    (0xD800, 0xF8FF),
    (0xFEFF, 0xFEFF),
    (0xFFF0, 0xFFFB),
    (0xFFFE, 0xFFFF),
    (0x110BD, 0x110BD),
    (0x110CD, 0x110CD),
    (0x13430, 0x1343F),
    (0x1BCA0, 0x1BCA3),
    (0x1D173, 0x1D17A),
    (0xE0000, 0x10FFFF),
)
# How many names one line lists: enough to find the mistake.
MAX_LISTED = 20


def listed(names: Collection[str]) -> str:
    """The names with commas, up to the limit: `A, B` or `A, B, ... and 980 more`."""
    shown = list(names)[:MAX_LISTED]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f", ... and {more} more" if more else "")


def is_plain(one: str) -> bool:
    """Whether a terminal only shows the character."""
    code = ord(one)
    return not any(first <= code <= last for first, last in MISLEADING)


def is_text(content: bytes) -> bool:
    """Whether `content` is text without characters that a terminal would interpret."""
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        return False
    if text.isascii() and text.isprintable():
        return True
    return all(is_plain(one) or one in "\t\r\n" for one in text)


def escaped(text: str) -> str:
    """`text` on one line; everything that could mislead a terminal or a reader is escaped.

    Characters of any script are kept; control, format and bidirectional ones, line breaks and lone
    surrogates (a file name that is not UTF-8) are escaped as Python does.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(one if is_plain(one) else one.encode("unicode_escape").decode("ascii") for one in text)
