"""`docker-credential-remo`: a docker credential helper, for docker, podman, buildah and skopeo.

Errors go to standard output, where the callers read them, with exit status 1.
"""

from __future__ import annotations

import sys

from remo_broker import __version__
from remo_broker.cli.options import Arguments
from remo_broker.cli.program import EXIT_FAILURE, Problem
from remo_broker.secret.credential_helpers import write_json
from remo_broker.secret.project_socket import open_quick
from remo_broker.secret.servers import (
    MAX_INPUT,
    REGISTRIES,
    Login,
    get_for,
    host_of,
    hosts_in,
    login,
    secret_for,
    servers_for,
)
from remo_broker.secret.wait_option import with_secrets

# The exact text: callers compare it.
NOT_FOUND = "credentials not found in native keychain"


def docker_credential(arguments: Arguments) -> int:
    operation = arguments.operands[0]
    try:
        if operation == "get":
            write_json(_get(arguments))
        elif operation == "list":
            write_json(_list(arguments))
        elif operation == "version":
            _print(f"docker-credential-remo (remo-secret) {__version__}")
        else:
            sys.stdin.buffer.read(MAX_INPUT)  # a password, perhaps; the caller writes first
            raise Problem("remo-broker does not store credentials", hint="have the sidecar push them")
    except Exception as error:
        from remo_broker.client.errors import ClientError  # which loads what a `get` does not need

        if not isinstance(error, (Problem, ClientError)):
            raise
        hint = f". {error.hint}" if error.hint else ""
        from remo_broker.cli.text import escaped

        _print(escaped(f"{error}{hint}"))
        return EXIT_FAILURE
    return 0


def _get(arguments: Arguments) -> dict[str, str]:
    url = sys.stdin.buffer.read(MAX_INPUT).decode("utf-8", "surrogateescape").strip()
    host = host_of(url)

    def fetch() -> Login | None:
        with open_quick(arguments) as client:
            name = secret_for(host, client.info(), servers_for(url, REGISTRIES, bare_host=True))
            return login(get_for(client, name, host), host, REGISTRIES, None) if name is not None else None

    found = with_secrets(arguments, fetch)
    if found is None:
        raise Problem(NOT_FOUND)
    return {"ServerURL": url, "Username": found.username, "Secret": found.password}


def _list(arguments: Arguments) -> dict[str, str]:
    """The registries with a secret.

    No user names: those may be in the secrets, which a list does not fetch.
    """
    with open_quick(arguments) as client:
        info = client.info()
    own = dict.fromkeys(hosts_in(info), "")
    known = {host: server.token_user for host, server in REGISTRIES.items() if secret_for(host, info, REGISTRIES)}
    return known | own


def _print(text: str) -> None:
    sys.stdout.buffer.write(text.encode("utf-8", "surrogateescape") + b"\n")
