"""Which secret to send to a server: the manifest's `[hosts]`, then a fixed table.

A table, not a rule that derives the secret's name from the host's: `github.example` must not get
the token for `github.com`. Hosts are compared in lower case, with their port where the URL has one.
"""

from __future__ import annotations

from remo_broker.cli.program import Problem
from remo_broker.protocol.names import is_host

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from remo_broker.client.project import Client
    from remo_broker.client.quick import QuickClient, QuickInfo
    from remo_broker.client.value import SecretValue
    from remo_broker.protocol.replies import ProjectInfo

# The most that a credential helper reads on standard input: git sends a few lines, docker one URL.
MAX_INPUT = 64 * 1024
DEFAULT_TOKEN_USER = "x-access-token"


class Server:
    """A well-known server: its secrets, best first, and the user name to go with a plain token."""

    __slots__ = ("names", "token_user")

    def __init__(self, *names: str, token_user: str = DEFAULT_TOKEN_USER) -> None:
        self.names = names
        self.token_user = token_user


GIT_SERVERS = {
    "github.com": Server("GITHUB_TOKEN", "GH_TOKEN"),
    "gist.github.com": Server("GITHUB_TOKEN", "GH_TOKEN"),
    "gitlab.com": Server("GITLAB_TOKEN", token_user="oauth2"),
    "bitbucket.org": Server("BITBUCKET_TOKEN", token_user="x-token-auth"),
    "codeberg.org": Server("CODEBERG_TOKEN"),
    "dev.azure.com": Server("AZURE_DEVOPS_TOKEN"),
}
REGISTRIES = {
    "ghcr.io": Server("GHCR_TOKEN", "GITHUB_TOKEN", "GH_TOKEN"),
    "registry.gitlab.com": Server("GITLAB_TOKEN", token_user="oauth2"),
    # Docker Hub accepts a token only with the account's name: these are bundles.
    "index.docker.io": Server("DOCKERHUB", "DOCKER_HUB", token_user=""),
    "docker.io": Server("DOCKERHUB", "DOCKER_HUB", token_user=""),
}
INDEXES = {
    "upload.pypi.org": Server("PYPI_TOKEN", token_user="__token__"),
    "test.pypi.org": Server("TEST_PYPI_TOKEN", token_user="__token__"),
    "gitlab.com": Server("GITLAB_TOKEN", token_user="oauth2"),
}


class Login:
    """The credentials to send to a server."""

    __slots__ = ("password", "username")

    def __init__(self, username: str, password: str) -> None:
        self.username = username
        self.password = password

    def __repr__(self) -> str:
        return f"Login({self.username!r})"


def ascii_lower(host: str) -> str:
    """Lower-case ASCII only: some other letters become ASCII ones, and so another host's name."""
    return host.encode("utf-8", "surrogateescape").lower().decode("utf-8", "surrogateescape")


def host_of(url: str) -> str:
    """The host in a URL, with its port; or in a host and a path, as docker sends. No user name.

    Browsers, and many tools, read a backslash as a slash."""
    scheme, separator, rest = url.strip().partition("://")
    host = rest if separator else scheme
    for end in "/?#\\":
        host = host.partition(end)[0]
    return ascii_lower(host.rpartition("@")[2])


def servers_for(url: str, servers: Mapping[str, Server], *, bare_host: bool) -> Mapping[str, Server]:
    """The well-known servers, unless a token might go there in plain text.

    `bare_host` says whether a host without a scheme is asked for by https alone.
    """
    scheme, separator, _ = ascii_lower(url.strip()).partition("://")
    return servers if (scheme == "https" if separator else bare_host) else {}


def get_for(client: QuickClient | Client, name: str, host: str) -> SecretValue:
    """Fetch a secret. A refusal names the secret and the host, since the user typed neither."""
    try:
        return client.get(name)
    except Exception as error:  # noqa: BLE001 - raised again, whatever it is
        raise named(error, f"{name}, for {host}") from None


def named(error: Exception, what: str) -> Exception:
    """The error; if the broker refused, with `what` before the message."""
    from remo_broker.client.errors import BrokerError

    if not isinstance(error, BrokerError):
        return error
    return type(error)(error.code, error.reason, f"{what}: {error.message}", error.retry_after_seconds)


def secret_for(host: str, info: QuickInfo | ProjectInfo, servers: Mapping[str, Server]) -> str | None:
    """The name of the secret for `host`, or None."""
    own = (info.hosts or {}).get(host)
    if own is not None:
        return own
    server = servers.get(host)
    if server is None:
        return None
    return next((name for name in server.names if name in info.allowlist), None)


def hosts_in(info: QuickInfo | ProjectInfo) -> list[str]:
    """The manifest's own hosts, for tools' files and terminals. Anything that no host is called is
    left out: the text comes from a socket."""
    return [host for host in info.hosts or {} if is_host(host)]


def login(
    secret: SecretValue, host: str, servers: Mapping[str, Server], user: str | None, default: str | None = None
) -> Login | None:
    """User name and password from a bundle or a plain token.

    None if the request is for another user.

    `user` is the requested name; `default` applies if neither the request nor the bundle has one.
    """
    if secret.binary:
        raise _unusable(secret.name, "is binary")
    fields = secret.reveal_fields()
    token_user = servers[host].token_user if host in servers else DEFAULT_TOKEN_USER
    if fields is None:
        name = user or default or token_user
        if not name:
            raise _unusable(secret.name, f"is only a token, but {host} needs a user name too")
        return Login(name, secret.reveal())
    if "password" not in fields:
        raise _unusable(secret.name, "has no field 'password'")
    own = fields.get("username")
    if own and user and own != user:
        return None
    return Login(own or user or default or token_user, fields["password"])


def _unusable(name: str, why: str) -> Problem:
    return Problem(f"{name} {why}", hint="push a string, or a bundle with the fields username and password")
