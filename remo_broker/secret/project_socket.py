"""Find the project's socket."""

from __future__ import annotations

import os

from remo_broker.cli.options import Arguments
from remo_broker.cli.program import Problem
from remo_broker.protocol import paths
from remo_broker.secret.commands import EXIT_UNREACHABLE, SOCKET

TYPE_CHECKING = False
if TYPE_CHECKING:
    from remo_broker.client.project import Client
    from remo_broker.client.quick import QuickClient

SOCKET_VARIABLE = "REMO_BROKER_SOCKET"
# remo's own shell clients use the second name.
SOCKET_VARIABLES = (SOCKET_VARIABLE, "REMO_BROKER_PROJECT_SOCKET")
# The socket's name in a project's directory below /run/remo-broker/mount, as mounted into a
# container.
MOUNTED_SOCKET = "broker.sock"
HOST_SOCKETS = (paths.ADMIN_SOCKET, paths.STATUS_SOCKET, "credentials.sock")
_CHOOSE = f"choose one with --socket or ${SOCKET_VARIABLE}"
_GIVE = f"mount the project's socket there, or give it with --socket or ${SOCKET_VARIABLE}"


class NoSocketYet(Problem):
    """There is no socket, but one may be mounted later, so `wait` waits for it."""

    def __init__(self, message: str) -> None:
        super().__init__(message, hint=_GIVE, status=EXIT_UNREACHABLE)


def open_client(arguments: Arguments) -> Client:
    """A client for the project's socket; connects at its first request.

    Raises `Problem` without a socket.
    """
    from remo_broker.client.project import Client

    return Client(socket_path(arguments))


def open_quick(arguments: Arguments) -> QuickClient | Client:
    """A client for one or two requests. Raises `Problem` if there is no socket."""
    from remo_broker.client.quick import open_project

    return open_project(socket_path(arguments))


def socket_path(arguments: Arguments) -> str:
    """In this order: `--socket`, the variables, `broker.sock`, the only project socket in the
    directory.
    """
    given = arguments.value(SOCKET)
    for variable in SOCKET_VARIABLES:
        given = given or os.environ.get(variable)
    if given and os.path.basename(given) in HOST_SOCKETS:
        raise Problem(
            f"{given} is a socket of the host, not of a project",
            hint=f"give the project's socket with --socket or ${SOCKET_VARIABLE}",
        )
    return given or find_socket(paths.SOCKET_DIR)


def find_socket(directory: str) -> str:
    """`broker.sock` in `directory`, or the only socket there with a project's name."""
    mounted = os.path.join(directory, MOUNTED_SOCKET)
    if os.path.exists(mounted):
        return mounted
    from remo_broker.protocol.names import is_project_name

    try:
        entries = sorted(os.listdir(directory))
    except FileNotFoundError:
        raise NoSocketYet(f"{directory} does not exist") from None
    except OSError as error:
        from remo_broker.client.unreachable import access_to

        raise Problem(
            f"{directory}: {os.strerror(error.errno or 0)} ({access_to(directory)})",
            hint=_GIVE,
            status=EXIT_UNREACHABLE,
        ) from None
    found = [
        name
        for name in entries
        if name.endswith(".sock") and name not in HOST_SOCKETS and is_project_name(name.removesuffix(".sock"))
    ]
    if not found:
        raise NoSocketYet(f"{directory} has no socket of a project")
    if len(found) > 1:
        from remo_broker.cli.text import listed

        raise Problem(
            f"{directory} has several sockets: {listed(found)}",
            hint=_CHOOSE,
            status=EXIT_UNREACHABLE,
        )
    return os.path.join(directory, found[0])
