"""`register --fix-acl`: let the manifest reader pass a project's directories and read its manifest.

The reader is a user of its own, which a home of mode 0700 keeps out. setfacl(1) adds that user to
exactly the directories and the file that keep it out. The manifest's directory gets a default
entry, too: an editor that saves by renaming makes a new file, which inherits it.

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
import subprocess

from remo_broker.cli.program import Problem
from remo_broker.manifest import acl
from remo_broker.manifest.constants import SEARCH

READER = "remo-broker-manifest"
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
        _set(directory, path, acl.to_pass(_at(directory), reader, READER), done)


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
        inherited = acl.to_inherit(_at(directory), _at(file), reader, READER)
        _set(file, path, acl.to_read(_at(file), reader, READER), done)
        _set(directory, folder, inherited, done)
    finally:
        os.close(file)


def _may(descriptor: int, reader: int, wanted: int) -> bool:
    """Whether the mode for all users or the reader's own entry allows it."""
    if os.fstat(descriptor).st_mode & wanted:
        return True
    return acl.allows(acl.entries(_at(descriptor), acl.ATTRIBUTE), reader, wanted)


def _at(descriptor: int) -> str:
    return f"/proc/self/fd/{descriptor}"


def _set(descriptor: int, path: str, entry: str, done: list[str]) -> None:
    command = f"setfacl -m {entry} {shlex.quote(path)}"
    found = os.fstat(descriptor)
    as_owner = os.geteuid() == 0 and found.st_uid != 0
    try:
        changed = subprocess.run(
            ["setfacl", "-m", entry, _at(descriptor)],
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
