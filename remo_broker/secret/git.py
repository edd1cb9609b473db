"""`remo-secret git-credential`: git's credential helper protocol (gitcredentials(7)) on standard input and output.

Which secret a host gets is a table and two options, not a rule that makes a name of the host's: whoever owns
`github.example` or `gitlab-example.org` shall not be sent a token that was meant for another.
"""

from __future__ import annotations

import sys

from remo_broker.cli.options import Arguments, Usage
from remo_broker.cli.program import Problem
from remo_broker.client.value import SecretValue
from remo_broker.secret.commands import HOST, SECRET, USERNAME
from remo_broker.secret.locate import open_client

WELL_KNOWN = {
    "github.com": ("GITHUB_TOKEN", "GH_TOKEN"),
    "gist.github.com": ("GITHUB_TOKEN", "GH_TOKEN"),
    "gitlab.com": ("GITLAB_TOKEN",),
    "bitbucket.org": ("BITBUCKET_TOKEN",),
    "codeberg.org": ("CODEBERG_TOKEN",),
    "dev.azure.com": ("AZURE_DEVOPS_TOKEN",),
}
# A token alone is enough for each of these hosts; some want a particular user name beside it.
TOKEN_USERNAMES = {"gitlab.com": "oauth2", "bitbucket.org": "x-token-auth"}
DEFAULT_TOKEN_USERNAME = "x-access-token"
# What git sends is a few lines.
MAX_REQUEST = 64 * 1024


def git_credential(arguments: Arguments) -> None:
    asked = read_request()  # git may be writing it still, whatever the operation
    # gitcredentials(7): a helper silently ignores every operation that it does not know.
    if arguments.operands[0] != "get":
        return
    host, secret = arguments.value(HOST), arguments.value(SECRET)
    if (host is None) != (secret is None):
        raise Usage("--host and --secret go together: a secret is for one host")
    if asked.get("protocol") != "https":
        return
    wanted = asked.get("host", "").lower()
    names: tuple[str, ...] = WELL_KNOWN.get(wanted, ())
    if host is not None and secret is not None:
        names = (secret,) if wanted == host.lower() else ()
    if not names:
        return
    with open_client(arguments) as client:
        if secret is None:
            allowed = client.info().allowlist
            names = tuple(name for name in names if name in allowed)[:1]
            if not names:
                return
        found = client.get(names[0])
    answer = credential(found, wanted, asked.get("username"), arguments.value(USERNAME))
    if answer is None:
        return
    for key, value in answer.items():
        if any(one in value for one in "\n\r\0"):
            raise Problem(f"the {key} in {names[0]} has a line break or a zero byte, which git does not take")
    for key, value in answer.items():
        print(f"{key}={value}")


def read_request() -> dict[str, str]:
    """What git asks: `key=value` lines, ended by LF or CRLF, up to an empty one or the end."""
    asked: dict[str, str] = {}
    left = MAX_REQUEST
    while line := sys.stdin.buffer.readline(left):
        left -= len(line)
        text = line.decode("utf-8", "surrogateescape").removesuffix("\n").removesuffix("\r")
        if not text:
            break
        key, _, value = text.partition("=")
        asked[key] = value
    return asked


def credential(secret: SecretValue, host: str, asked: str | None, default: str | None) -> dict[str, str] | None:
    """The answer; None where git wants another user than the secret is for."""
    if secret.binary:
        raise Problem(f"{secret.name} is binary; git wants a string, or a bundle with username and password")
    fields = secret.reveal_fields()
    if fields is None:
        username = asked or default or TOKEN_USERNAMES.get(host, DEFAULT_TOKEN_USERNAME)
        return {"username": username, "password": secret.reveal()}
    if "password" not in fields:
        raise Problem(
            f"{secret.name} has no field password; git wants a string, or a bundle with username and password"
        )
    own = fields.get("username")
    if own and asked and own != asked:
        return None
    return {
        "username": own or asked or default or TOKEN_USERNAMES.get(host, DEFAULT_TOKEN_USERNAME),
        "password": fields["password"],
    }
