"""Which socket is this project's."""

from __future__ import annotations

import os

from remo_broker.cli.options import Arguments
from remo_broker.cli.program import Problem
from remo_broker.cli.text import listed
from remo_broker.client.project import Client
from remo_broker.protocol import paths
from remo_broker.secret.commands import EXIT_UNREACHABLE, SOCKET

SOCKET_VARIABLE = "REMO_BROKER_SOCKET"
HOST_SOCKETS = (paths.ADMIN_SOCKET, paths.STATUS_SOCKET)


class NoSocketYet(Problem):
    """None is there, but one may be mounted in a moment: `wait` waits for it."""

    def __init__(self, message: str) -> None:
        super().__init__(message, status=EXIT_UNREACHABLE)


def open_client(arguments: Arguments) -> Client:
    """A client for the project's socket; it connects at its first request. Raises `Problem` where none is found."""
    return Client(socket_path(arguments))


def socket_path(arguments: Arguments) -> str:
    """`--socket`, else the variable, else the only project's socket in the directory that containers mount."""
    given = arguments.value(SOCKET) or os.environ.get(SOCKET_VARIABLE)
    if given and os.path.basename(given) in HOST_SOCKETS:
        raise Problem(
            f"{given} is for the host's programs; give a project's socket with --socket or ${SOCKET_VARIABLE}"
        )
    return given or only_socket(paths.SOCKET_DIR)


def only_socket(directory: str) -> str:
    tell = f"mount the project's socket there, or give it with --socket or ${SOCKET_VARIABLE}"
    try:
        found = sorted(name for name in os.listdir(directory) if name.endswith(".sock") and name not in HOST_SOCKETS)
    except FileNotFoundError:
        raise NoSocketYet(f"{directory} does not exist; {tell}") from None
    except OSError as error:
        from remo_broker.client.unreachable import who_may

        raise Problem(
            f"{directory}: {os.strerror(error.errno or 0)} ({who_may(directory)}); {tell}", status=EXIT_UNREACHABLE
        ) from None
    if not found:
        raise NoSocketYet(f"{directory} has no project's socket; {tell}")
    if len(found) > 1:
        raise Problem(
            f"{directory} has several sockets ({listed(found)}); choose one with --socket or ${SOCKET_VARIABLE}",
            status=EXIT_UNREACHABLE,
        )
    return os.path.join(directory, found[0])
