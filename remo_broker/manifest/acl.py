"""POSIX ACLs, as far as letting the manifest reader in takes: acl(5), setfacl(1).

setfacl(1) computes the mask again, by which a mode such as 0700 withholds what entries for others
say. So entries are reduced to what they allowed in effect, and nobody but the reader gains anything.
"""

from __future__ import annotations

import os
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeAlias

    Entries: TypeAlias = list[tuple[int, int, int]]

# The extended attributes: a version, then entries of tag, permissions and id.
ATTRIBUTE = "system.posix_acl_access"
DEFAULT_ATTRIBUTE = "system.posix_acl_default"
_ENTRY = struct.Struct("<HHI")
_USER, _OWNING_GROUP, _GROUP, _MASK = 0x02, 0x04, 0x08, 0x10
# What a mask limits, besides the reader's own entry, and how setfacl(1) names it.
_MASKED = {_USER: "u:{}", _OWNING_GROUP: "g:", _GROUP: "g:{}"}


def entries(path: str, attribute: str) -> Entries:
    """Tag, permissions and id of each entry; none without an ACL."""
    try:
        acl = os.getxattr(path, attribute)
    except OSError:
        return []
    return list(_ENTRY.iter_unpack(acl[4:]))


def allows(found: Entries, user: int, wanted: int) -> bool:
    """Whether the user's own entry allows it."""
    mask = _mask(found)
    return any(tag == _USER and who == user and allowed & mask & wanted for tag, allowed, who in found)


def to_pass(directory: str, reader: int, name: str) -> str:
    """The entries that let the reader pass a directory."""
    return ",".join([f"u:{name}:x", *_limited(entries(directory, ATTRIBUTE), reader)])


def to_read(file: str, reader: int, name: str) -> str:
    """The entries that let the reader read a file."""
    return ",".join([f"u:{name}:r", *_limited(entries(file, ATTRIBUTE), reader)])


def to_inherit(directory: str, file: str, reader: int, name: str) -> str:
    """The entries that let the reader read what an editor puts in the place of the file."""
    # setfacl(1) would have new files allow what the directory's mode does, whatever the umask.
    inherited = entries(directory, DEFAULT_ATTRIBUTE)
    others = _limited(inherited, reader) if inherited else [f"g::{_text(_of_group(file))}", "o::-"]
    return ",".join(f"d:{entry}" for entry in (f"u:{name}:r", *others))


def _mask(found: Entries) -> int:
    return next((allowed for tag, allowed, _ in found if tag == _MASK), 7)


def _of_group(file: str) -> int:
    """What the owning group may do: with an ACL, the mode has the mask in that place."""
    found = entries(file, ATTRIBUTE)
    of_group = next((allowed & _mask(found) for tag, allowed, _ in found if tag == _OWNING_GROUP), None)
    try:
        return os.stat(file).st_mode >> 3 if of_group is None else of_group
    except OSError:  # removed just now
        return 0


def _limited(found: Entries, reader: int) -> list[str]:
    """Others' entries that say more than the mask allows, without what it withholds."""
    mask = _mask(found)
    return [
        f"{_MASKED[tag].format(who)}:{_text(allowed & mask)}"
        for tag, allowed, who in found
        if tag in _MASKED and allowed & ~mask and (tag, who) != (_USER, reader)
    ]


def _text(permissions: int) -> str:
    return "".join(letter for bit, letter in ((4, "r"), (2, "w"), (1, "x")) if permissions & bit) or "-"
