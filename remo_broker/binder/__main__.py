"""`remo-broker-bind@.service`: makes and removes project sockets for the broker, which cannot write
to their directories.

systemd starts one process for each connection to its socket, which only the broker's user can open.
A request is one line:

    {"op":"make","project":"app","owner":"/src/app","kinds":["client","mount"],"renew":true}
    {"op":"remove","project":"app","owner":"/src/app"}

A reply is one line, too; the reply to `make` carries one descriptor for each kind:

    {"ok":true}
    {"ok":false,"message":"cannot listen on …"}

Requests are untrusted: they come from the process that this one guards against. Names are checked.
Nothing that exists is followed, replaced or read, except sockets without a listener and the
binder's own markers.
"""

from __future__ import annotations

import json
import os
import socket
import sys

from remo_broker.binder import files
from remo_broker.protocol import paths
from remo_broker.protocol.lines import LineBuffer
from remo_broker.protocol.names import RESERVED_PROJECT_NAMES, is_project_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from typing import Any

# A path of 4,096 bytes, each escaped as six, and the JSON around it.
MAX_LINE = 32_768


def main() -> int:
    """Serve the connection on standard input until it closes."""
    with socket.socket(fileno=os.dup(0)) as connection:
        serve(connection, paths.SOCKET_DIR)
    return 0


def serve(connection: socket.socket, socket_dir: str) -> None:
    lines = LineBuffer()
    while data := connection.recv(MAX_LINE):
        lines.feed(data)
        for line in iter(lines.next_line, None):
            answer(connection, socket_dir, line)
        if len(lines) >= MAX_LINE:
            return


def answer(connection: socket.socket, socket_dir: str, line: bytes) -> None:
    made: list[_socket.socket] = []
    try:
        _perform(json.loads(line), socket_dir, made)
        reply: dict[str, object] = {"ok": True}
    except files.Unavailable as problem:
        reply = {"ok": False, "message": str(problem)}
    except OSError as error:
        reply = {"ok": False, "message": f"{error.filename or socket_dir}: {os.strerror(error.errno or 0)}"}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        reply = {"ok": False, "message": "malformed request"}
    descriptors = [one.fileno() for one in made] if reply["ok"] else []
    try:
        socket.send_fds(connection, [_line(reply)], descriptors)
    except OSError as error:
        connection.sendall(_line({"ok": False, "message": f"cannot pass sockets: {os.strerror(error.errno or 0)}"}))
    finally:
        for one in made:
            one.close()


def _line(reply: dict[str, object]) -> bytes:
    return json.dumps(reply).encode() + b"\n"


def _perform(request: Any, socket_dir: str, made: list[_socket.socket]) -> None:
    project, owner = request["project"], request["owner"]
    if not is_project_name(project) or project in RESERVED_PROJECT_NAMES:
        raise ValueError
    if not os.path.isabs(owner) or "\0" in owner or len(os.fsencode(owner)) > files.MAX_OWNER:
        raise ValueError
    if request["op"] == "remove":
        files.remove(socket_dir, project, owner)
    elif request["op"] == "make":
        kinds, renew = request["kinds"], request["renew"]
        if not isinstance(kinds, list) or not set(kinds) <= set(files.KINDS) or type(renew) is not bool:
            raise ValueError
        for kind in kinds:
            made.append(files.make(socket_dir, kind, project, owner, renew=renew))  # noqa: PERF401 - kept on error
    else:
        raise ValueError


if __name__ == "__main__":
    sys.exit(main())
