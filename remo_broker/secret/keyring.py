"""`remo-secret keyring`: the part of keyring's command line that pip and uv use.

`get URL [USER]` prints the password, or exits with status 1 and no output if there is none. Options
may come before or after.
"""

from __future__ import annotations

from remo_broker.cli.options import Arguments
from remo_broker.cli.program import EXIT_FAILURE, write_value
from remo_broker.secret.commands import MODE, OUTPUT
from remo_broker.secret.project_socket import open_quick
from remo_broker.secret.servers import INDEXES, Login, get_for, host_of, login, secret_for, servers_for
from remo_broker.secret.wait_option import with_secrets


def keyring(arguments: Arguments) -> int:
    operation, *rest = arguments.operands
    if operation != "get" or not rest:
        return EXIT_FAILURE  # `set` and `del`: nothing is stored here
    host, user = host_of(rest[0]), rest[1] if len(rest) > 1 else None
    # After a URL without an answer, pip and uv ask for its host alone, also where the URL was http.
    servers = servers_for(rest[0], INDEXES, bare_host=False)

    def fetch() -> Login | None:
        with open_quick(arguments) as client:
            name = secret_for(host, client.info(), servers)
            return login(get_for(client, name, host), host, INDEXES, user or None) if name is not None else None

    found = with_secrets(arguments, fetch)
    if found is None:
        return EXIT_FAILURE
    creds = arguments.value(MODE) == "creds"
    if arguments.value(OUTPUT) == "json":
        from remo_broker.secret.credential_helpers import write_json

        write_json({"username": found.username, "password": found.password} if creds else {"password": found.password})
    else:
        lines = [found.username, found.password] if creds else [found.password]
        write_value("the password", "".join(f"{line}\n" for line in lines).encode("utf-8"))
    return 0
