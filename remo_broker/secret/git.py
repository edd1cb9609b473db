"""`remo-secret git-credential`: a git credential helper, see gitcredentials(7)."""

from __future__ import annotations

import os
import sys

from remo_broker.cli.options import Arguments, Usage
from remo_broker.cli.program import Problem, report, write_value
from remo_broker.secret.commands import HOST, SECRET, USERNAME
from remo_broker.secret.project_socket import open_quick
from remo_broker.secret.servers import GIT_SERVERS, MAX_INPUT, Login, ascii_lower, get_for, login, secret_for
from remo_broker.secret.wait_option import with_secrets

# Keys with this ending are lists and may occur several times.
LIST_SUFFIX = "[]"


def git_credential(arguments: Arguments) -> None:
    try:
        lines = read_lines()  # for every operation: git may still be writing
    except OSError as error:
        raise Problem(f"standard input: {os.strerror(error.errno or 0)}") from None
    # gitcredentials(7): a helper silently ignores unknown operations.
    if arguments.operands[0] != "get":
        return
    own = own_hosts(arguments)
    request = parse(lines)
    host = ascii_lower(request.get("host", ""))
    if request.get("protocol") != "https" or not host:
        return
    if own and host not in own:
        _explain_port(host, own)
        return

    def fetch() -> tuple[str, Login | None]:
        with open_quick(arguments) as client:
            name = own[host] if own else secret_for(host, client.info(), GIT_SERVERS)
            if name is None:
                return "", None
            secret = get_for(client, name, host)
        return name, login(secret, host, GIT_SERVERS, request.get("username"), arguments.value(USERNAME))

    name, found = with_secrets(arguments, fetch)
    if found is not None:
        write(name, found, ephemeral="authtype" in request.get("capability[]", "").split(" "))


def own_hosts(arguments: Arguments) -> dict[str, str]:
    """The secrets by host, from pairs of `--host` and `--secret`."""
    hosts, secrets = arguments.values(HOST), arguments.values(SECRET)
    if len(hosts) != len(secrets):
        raise Usage("each --host requires a --secret, and each --secret a --host")
    own: dict[str, str] = {}
    for host, secret in zip(hosts, secrets):  # noqa: B905 - Python 3.9 has no `strict`
        if own.setdefault(ascii_lower(host), secret) != secret:
            raise Usage(f"--host={host} is given with two secrets")
    return own


def read_lines() -> list[bytes]:
    """The lines of git's request, up to an empty line or end of file."""
    lines = []
    left = MAX_INPUT
    while line := sys.stdin.buffer.readline(left):
        left -= len(line)
        line = line.removesuffix(b"\n").removesuffix(b"\r")
        if not line:
            break
        lines.append(line)
    return lines


def parse(lines: list[bytes]) -> dict[str, str]:
    """The attributes of a request.

    A list's values are joined with spaces; an empty value resets it.

    Any other key may occur only once: we cannot know which of two hosts git meant.
    """
    request: dict[str, str] = {}
    for line in lines:
        key, _, value = line.decode("utf-8", "surrogateescape").partition("=")
        if key.endswith(LIST_SUFFIX):
            request[key] = f"{request.get(key, '')} {value}" if value else ""
        elif key in request:
            raise Problem(f"git's request has the key {key} twice", hint="check the URL of the remote")
        else:
            request[key] = value
    return request


def write(name: str, found: Login, *, ephemeral: bool) -> None:
    """Write the reply. `ephemeral` tells git not to have other helpers store the password."""
    lines = [f"username={found.username}", f"password={found.password}"]
    if any(one in line for line in lines for one in "\n\r\0"):
        raise Problem(
            f"{name} has a line break or a zero byte, which git does not accept in a password",
            hint="push it without; 'remo-brokerctl push --strip-newline' omits a newline at the end",
        )
    if ephemeral:
        lines = ["capability[]=authtype", *lines, "ephemeral=1"]
    write_value(name, "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape"))


def _explain_port(host: str, own: dict[str, str]) -> None:
    """Explain that a host with a port is not the same server as the host without one."""
    bare = host.partition(":")[0]
    for given in own:
        if given.partition(":")[0] == bare:
            report(f"remo-secret: git asks for {host}, which is not the same server as --host={given}")
            report(f"Hint: give --host={host} if the secret is for it")
            return
