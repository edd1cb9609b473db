"""`register --fix-acl`: let the manifest reader pass a project's directories and read its manifest.

The reader is a user of its own, which a home of mode 0700 keeps out. setfacl(1) adds that user to
exactly the directories and the file that keep it out. The manifest's directory gets a default
entry, too: an editor that saves by renaming makes a new file, which inherits it.

setfacl(1) computes the mask again, by which a mode such as 0700 withholds what entries for others
say. So these are reduced to what they allowed in effect, and nobody but the reader gains anything.

Each file is opened once, without following links, and changed through that descriptor, with its
owner's rights: its directories belong to others, who could put a link to any file there.
"""

from __future__ import annotations

import contextlib
import errno
import os
import pwd
import shlex
import stat
import struct
import subprocess

from remo_broker.cli.program import Problem
from remo_broker.manifest.constants import SEARCH

READER = "remo-broker-manifest"
# acl(5) in an extended attribute: a version, then entries of tag, permissions and id.
ATTRIBUTE = "system.posix_acl_access"
DEFAULT_ATTRIBUTE = "system.posix_acl_default"
_ENTRY = struct.Struct("<HHI")
_USER, _OWNING_GROUP, _GROUP, _MASK = 0x02, 0x04, 0x08, 0x10
# What a mask limits, besides the reader's own entry, and how setfacl(1) names it.
_MASKED = {_USER: "u:{}", _OWNING_GROUP: "g:", _GROUP: "g:{}"}
READ, PASS = 4, 1


def grant(project_path: str) -> list[str]:
    """Add what is missing. Returns the commands that did it. Raises `Problem`."""
    try:
        reader = pwd.getpwnam(READER).pw_uid
    except KeyError:
        raise Problem(f"there is no user {READER} on this host", hint="install remo-broker") from None
    done: list[str] = []
    with contextlib.ExitStack() as opened:
        directory = _open("/", None, "/", opened)
        path = ""
        for name in filter(None, project_path.split("/")):
            path = f"{path}/{name}"
            directory = _open(name, directory, path, opened)
            _let_pass(directory, path, reader, done)
        for folder, name in SEARCH:
            if _exists(folder, directory):
                path = f"{path}/{folder}"
                directory = _open(folder, directory, path, opened)
                _let_pass(directory, path, reader, done)
                _let_read(directory, name, path, reader, done)
                break
    return done


def _open(name: str, directory: int | None, path: str, opened: contextlib.ExitStack) -> int:
    """A descriptor for a directory, closed with `opened`."""
    try:
        found = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory)
    except OSError as error:
        raise Problem(f"{path}: {os.strerror(error.errno or 0)}") from None
    opened.callback(os.close, found)
    return found


def _exists(name: str, directory: int) -> bool:
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _let_pass(directory: int, path: str, reader: int, done: list[str]) -> None:
    if not _may(directory, reader, PASS):
        _set(directory, path, [f"u:{READER}:x", *_limited(_entries(directory, ATTRIBUTE), reader)], done)


def _let_read(directory: int, name: str, folder: str, reader: int, done: list[str]) -> None:
    path = f"{folder}/{name}"
    try:
        file = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    except FileNotFoundError:
        return
    except OSError as error:
        raise Problem(f"{path}: {os.strerror(error.errno or 0)}") from None
    try:
        found = os.fstat(file)
        if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1 or _may(file, reader, READ):
            return  # the broker says what is wrong with a manifest that is not a file of its own
        entries = _entries(file, ATTRIBUTE)
        # setfacl(1) would have new files allow what the directory's mode does, whatever the umask.
        inherited = _entries(directory, DEFAULT_ATTRIBUTE)
        others = _limited(inherited, reader) if inherited else [f"g::{_text(_of_group(entries, found))}", "o::-"]
        _set(file, path, [f"u:{READER}:r", *_limited(entries, reader)], done)
        _set(directory, folder, [f"d:{entry}" for entry in (f"u:{READER}:r", *others)], done)
    finally:
        os.close(file)


def _may(descriptor: int, reader: int, wanted: int) -> bool:
    """Whether the mode for all users or the reader's own entry allows it."""
    if os.fstat(descriptor).st_mode & wanted:
        return True
    entries = _entries(descriptor, ATTRIBUTE)
    mask = _mask(entries)
    return any(tag == _USER and who == reader and allowed & mask & wanted for tag, allowed, who in entries)


def _entries(descriptor: int, attribute: str) -> list[tuple[int, int, int]]:
    """Tag, permissions and id of each entry; none without an ACL."""
    try:
        acl = os.getxattr(f"/proc/self/fd/{descriptor}", attribute)
    except OSError:
        return []
    return list(_ENTRY.iter_unpack(acl[4:]))


def _mask(entries: list[tuple[int, int, int]]) -> int:
    return next((allowed for tag, allowed, _ in entries if tag == _MASK), 7)


def _of_group(entries: list[tuple[int, int, int]], found: os.stat_result) -> int:
    """What the owning group may do: with an ACL, the mode has the mask in that place."""
    return next((allowed & _mask(entries) for tag, allowed, _ in entries if tag == _OWNING_GROUP), found.st_mode >> 3)


def _limited(entries: list[tuple[int, int, int]], reader: int) -> list[str]:
    """For setfacl(1): others' entries that say more than the mask allows, without what it withholds."""
    mask = _mask(entries)
    return [
        f"{_MASKED[tag].format(who)}:{_text(allowed & mask)}"
        for tag, allowed, who in entries
        if tag in _MASKED and allowed & ~mask and (tag, who) != (_USER, reader)
    ]


def _text(permissions: int) -> str:
    return "".join(letter for bit, letter in ((4, "r"), (2, "w"), (1, "x")) if permissions & bit) or "-"


def _set(descriptor: int, path: str, entries: list[str], done: list[str]) -> None:
    entry = ",".join(entries)
    command = f"setfacl -m {entry} {shlex.quote(path)}"
    found = os.fstat(descriptor)
    as_owner = os.geteuid() == 0 and found.st_uid != 0
    try:
        changed = subprocess.run(
            ["setfacl", "-m", entry, f"/proc/self/fd/{descriptor}"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            pass_fds=(descriptor,),
            cwd="/",
            # The owner sees the variables of a process that runs as the owner.
            env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8"},
            user=found.st_uid if as_owner else None,
            group=found.st_gid if as_owner else None,
            extra_groups=[] if as_owner else None,
        )
    except FileNotFoundError:
        raise Problem("setfacl is not installed", hint="install the package acl") from None
    if changed.returncode != 0:
        why = (changed.stderr.strip().splitlines() or ["it gave no reason"])[-1].rpartition(": ")[2]
        hint = f"as root, run '{command}'" if why == os.strerror(errno.EPERM) else None
        raise Problem(f"{command}: {why}", hint=hint)
    done.append(command)
