"""The manifest reader: reads one manifest for the broker and reports the result in one line.

It is `remo-broker-manifest@.service` under systemd, a child of the broker otherwise. The request is
a line on standard input:

    {"project_path":"/src/app","name":"app","max_ttl_seconds":900,"max_entries":64}

and the reply a line on standard output, always, with exit status 0. It begins with a blank, which is
written when reading begins, as the start may take long on a busy machine:

    {"ok":true,"source":PATH,"allowlist":[...],"ttl_seconds":600,"max_entries":16,
     "sha256":"...","hosts":{...},"bindings":{...}}
    {"ok":false,"code":"manifest_invalid","message":"one line","key":"cache.ttl_seconds"}

`"late":true` says that the failure is only the deadline's.

It holds no secret, restricts itself before it looks at anything, and writes nothing else: no
traceback, because that would show lines of the file.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import sys

from remo_broker.manifest.confinement import confine

# For reading alone, without the start. The broker waits for `READ_SECONDS` of its own. This deadline
# comes first and gives a readable error. Python acts on it between two of its own steps, so it has
# no effect while a system call or a C function does not return.
DEADLINE_SECONDS = 1.5
# The kernel ends a C function that does not return. A system call that does not return is ended
# from outside: by systemd, after RuntimeMaxSec=, or by the broker if the reader is its child.
CPU_SECONDS = 2
# An ordinary manifest takes 37 MiB of address space, pydantic included; the worst one found took 90
# MiB.
ADDRESS_SPACE = 256 * 1024 * 1024
# Three for input and output, the project's directory, its folder, the file twice, and modules
# during import.
DESCRIPTORS = 16
# A path of 4,096 bytes, each escaped as six, and the JSON around it.
MAX_REQUEST = 32_768


def restrict() -> None:
    """Drop everything that reading a manifest does not need.

    The broker's descriptors are not inherited, but close them anyway in case one ever is.
    """
    os.closerange(3, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    for what, most in (
        (resource.RLIMIT_AS, ADDRESS_SPACE),
        (resource.RLIMIT_CPU, CPU_SECONDS),
        (resource.RLIMIT_NOFILE, DESCRIPTORS),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NPROC, 0),
    ):
        hard = resource.getrlimit(what)[1]
        limit = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (limit, limit))
    sys.dont_write_bytecode = True
    # pydantic would search 4 ms for plugins of other packages, and run them.
    os.environ["PYDANTIC_DISABLE_PLUGINS"] = "__all__"
    confine()


def begin() -> None:
    """Let the deadlines run: all modules are there, and no file of the project has been touched."""
    signal.signal(signal.SIGALRM, _too_late)
    signal.setitimer(signal.ITIMER_REAL, DEADLINE_SECONDS)
    with contextlib.suppress(OSError):  # the broker has closed
        os.write(1, b" ")


def answer(request: bytes) -> dict[str, object]:
    """The fields of the reply. Never raises."""
    try:
        return _read(request)
    except MemoryError:
        return _failure("manifest_invalid", "the manifest takes too much memory; simplify it")
    except RecursionError:
        return _failure("manifest_invalid", "the manifest is nested too deeply; no value needs more than two levels")
    except ImportError:
        return _failure("manifest_unreadable", "a part of the manifest reader is missing; install remo-broker again")
    except Exception as error:  # noqa: BLE001 - its text may show the file, and the broker wants a line whatever happens
        return _failure(
            "manifest_unreadable", f"internal error of the manifest reader ({type(error).__name__}); please report it"
        )


def main() -> None:
    restrict()
    reply(answer(receive()))


def receive() -> bytes:
    """The line on standard input."""
    request = b""
    while not request.endswith(b"\n") and len(request) < MAX_REQUEST and (part := os.read(0, MAX_REQUEST)):
        request += part
    return request


def _read(request: bytes) -> dict[str, object]:
    # `load` would import the rest itself, but while the deadlines run; pydantic takes the longest.
    import hashlib  # noqa: F401
    import tomllib

    from remo_broker.manifest import ManifestError, document, load, reader, result, rules_between_keys  # noqa: F401

    tomllib.loads("x = 1")  # imports what takes it apart
    rules_between_keys.warm_up()
    fields = json.loads(request)
    begin()
    try:
        manifest = load(
            fields["project_path"],
            name=fields["name"],
            any_name=fields["name"] is None,
            max_ttl_seconds=fields["max_ttl_seconds"],
            max_entries=fields["max_entries"],
        )
    except ManifestError as error:
        return _failure(error.code, error.message, error.key)
    return {
        "ok": True,
        "source": manifest.source,
        "allowlist": manifest.allowlist,
        "ttl_seconds": manifest.ttl_seconds,
        "max_entries": manifest.max_entries,
        "sha256": manifest.sha256,
        "hosts": manifest.hosts,
        "bindings": manifest.tables,
    }


def _failure(code: str, message: str, key: str | None = None) -> dict[str, object]:
    failure: dict[str, object] = {"ok": False, "code": code, "message": message}
    if key is not None:
        failure["key"] = key
    return failure


def _too_late(*_: object) -> None:
    message = f"reading the manifest took longer than {DEADLINE_SECONDS} s; simplify it"
    reply(_failure("manifest_unreadable", message) | {"late": True})


def reply(fields: dict[str, object]) -> None:
    """Write the line and exit without Python's own cleanup: there is nothing to clean up."""
    signal.setitimer(signal.ITIMER_REAL, 0)
    line = json.dumps(fields, separators=(",", ":")).encode("ascii") + b"\n"
    try:
        while line:
            line = line[os.write(1, line) :]
    except OSError:
        pass  # the broker has closed
    os._exit(0)


if __name__ == "__main__":
    main()
