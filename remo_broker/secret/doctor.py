"""`remo-secret doctor`: find what bypasses the broker in this container, or breaks it.

Prints no value.
"""

from __future__ import annotations

import json
import os
import re
import sys

from remo_broker import __version__
from remo_broker.cli.options import Arguments
from remo_broker.cli.program import EXIT_FAILURE, Problem
from remo_broker.client.errors import ClientError
from remo_broker.protocol.clock import now_usec
from remo_broker.secret import git_command
from remo_broker.secret.get import tell
from remo_broker.secret.manifests import nearest
from remo_broker.secret.project_socket import open_client
from remo_broker.secret.servers import GIT_SERVERS, host_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Reads at most this much of a dot file.
MAX_BYTES = 1024 * 1024
# The start of this release's year: with an earlier clock, TLS and expiry times fail.
OLDEST_CLOCK_USEC = 1_767_225_600_000_000
OLDEST_PYTHON = (3, 9)
# Every server's are compared with all others'; nobody has written so many by hand.
MAX_HELPERS = 500
# git's setting for all servers.
GIT_HELPERS = "credential.helper"

# A token in a file: a setting whose value is not a reference to a variable. The file's author may
# be hostile: no pattern takes time that grows with the square of its size.
_npm_token = re.compile(r"^[^#;\n]*(?:_authToken|_password|_auth)[ \t]*=[ \t]*(?!\$\{)\S", re.MULTILINE).search
_netrc_password = re.compile(r"\bpassword\s+\S").search
_url_password = re.compile(r"://[^/\s:@]*:(?!\$)[^/\s@]+@").search
_assignments = re.compile(
    r"^[ \t]*(?:export[ \t]+)?([A-Z0-9_]+)[ \t]*=(?![ \t]*(?:(?:\"\"|'')[ \t]*)?(?:#|$)|[ \t]*[\"']?\$)",
    re.MULTILINE | re.IGNORECASE,
).findall
_names_secret = re.compile("TOKEN|SECRET|PASSWORD|PASSWD|API_KEY|PRIVATE_KEY|ACCESS_KEY", re.IGNORECASE).search
_aws_key = re.compile(r"^[ \t]*aws_secret_access_key[ \t]*=[ \t]*\S", re.MULTILINE).search
_pypi_password = re.compile(r"^[ \t]*password[ \t]*[=:][ \t]*\S", re.MULTILINE).search
_yaml_token = re.compile(r"^[ \t]*(?:oauth_)?token:[ \t]*[^\s$]", re.MULTILINE).search
_pgpass_line = re.compile(r"^[^#\n]*(?::[^:\n]*){3}:[^\n]", re.MULTILINE).search
_cargo_token = re.compile(r"^[ \t]*token[ \t]*=[ \t]*[\"']\S", re.MULTILINE).search


class Finding:
    """What is wrong, and what to do."""

    def __init__(self, what: str, step: str) -> None:
        self.what = what
        self.step = step


def doctor(arguments: Arguments) -> int:
    """Exit status 1 if there is a finding."""
    findings = [*files(), *agents(), *git_helpers(arguments), *docker_helpers(), *broker(arguments), *surroundings()]
    for finding in findings:
        tell([finding.what, f"  {finding.step}"])
    if not findings:
        tell(["No findings."])
    return EXIT_FAILURE if findings else 0


def files() -> Iterator[Finding]:
    """Tokens in well-known dot files."""
    home = os.path.expanduser("~")
    seen: set[tuple[int, int]] = set()
    setup = "remove it, revoke the token, and run 'remo-secret setup {}'"
    setting = os.environ.get
    places: list[tuple[str, Callable[[str], object], str]] = [
        (setting("NETRC") or os.path.join(home, ".netrc"), _netrc_password, setup.format("git")),
        (os.path.join(home, ".git-credentials"), _url_password, setup.format("git")),
        (os.path.join(home, ".config/git/credentials"), _url_password, setup.format("git")),
        (os.path.join(home, ".gitconfig"), _url_password, setup.format("git")),
        (os.path.abspath(".git/config"), _url_password, setup.format("git")),
        (os.path.join(home, ".config/gh/hosts.yml"), _yaml_token, setup.format("git")),
        (setting("NPM_CONFIG_USERCONFIG") or os.path.join(home, ".npmrc"), _npm_token, setup.format("npm")),
        (os.path.abspath(".npmrc"), _npm_token, setup.format("npm")),
        (os.path.join(home, ".pypirc"), _pypi_password, setup.format("pip")),
        (os.path.join(home, ".config/pip/pip.conf"), _url_password, setup.format("pip")),
        (
            setting("AWS_SHARED_CREDENTIALS_FILE") or os.path.join(home, ".aws/credentials"),
            _aws_key,
            setup.format("aws"),
        ),
        (setting("AWS_CONFIG_FILE") or os.path.join(home, ".aws/config"), _aws_key, setup.format("aws")),
        (os.path.join(home, ".cargo/credentials.toml"), _cargo_token, setup.format("cargo")),
        (os.path.join(home, ".cargo/credentials"), _cargo_token, setup.format("cargo")),
        (os.path.join(home, ".kube/config"), _yaml_token, setup.format("kubectl")),
        (setting("PGPASSFILE") or os.path.join(home, ".pgpass"), _pgpass_line, "remove it; see remo-secret-tools(7)"),
        *(
            (path, _env_token, "remove it, revoke the token, and use 'remo-secret exec' or 'env'")
            for path in env_files()
        ),
        *((path, _docker_auth, setup.format("docker")) for path in docker_files(home)),
    ]
    for path, search, step in places:
        file = _identity(path)
        if file is None or file in seen or _own_link(path):
            continue  # the working directory is the home, or we rendered it on a tmpfs
        seen.add(file)
        if search(_text(path)):
            yield Finding(f"{path} has a token or a password", step)


def env_files() -> list[str]:
    """`.env` and its variants here, without templates."""
    try:
        names = sorted(os.listdir("."))
    except OSError:
        return []
    templates = (".example", ".sample", ".template", ".dist")
    found = [name for name in names if name == ".env" or (name.startswith(".env.") and not name.endswith(templates))]
    return [os.path.abspath(name) for name in found]


def _env_token(text: str) -> object:
    return any(map(_names_secret, _assignments(text))) or _url_password(text)


def docker_files(home: str) -> list[str]:
    """Where docker and podman store the credentials of a login."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    return [
        os.path.join(os.environ.get("DOCKER_CONFIG") or os.path.join(home, ".docker"), "config.json"),
        os.environ.get("REGISTRY_AUTH_FILE") or os.path.join(home, ".config/containers/auth.json"),
        *([os.path.join(runtime, "containers/auth.json")] if runtime else []),
    ]


def agents() -> Iterator[Finding]:
    if os.environ.get("SSH_AUTH_SOCK"):
        yield Finding(
            "SSH_AUTH_SOCK is set: a forwarded agent signs for every process here, without a record",
            "turn agent forwarding off for this container, or unset the variable",
        )


def git_helpers(arguments: Arguments) -> Iterator[Finding]:
    """Helpers that git asks before or in addition to this program's, for any server or for one that
    has a secret here.
    """
    try:
        done = git_command.run_git("config", "--null", "--get-regexp", r"^credential\.(.*\.)?helper$")
    except OSError:
        return
    except git_command.NoAnswer:
        yield Finding("git does not answer here: something below .git may be a FIFO", "run 'git config --list' to see")
        return
    said = done.stdout.decode("utf-8", "surrogateescape")
    settings = [one.partition("\n")[::2] for one in said.split("\0") if one]
    if len(settings) > MAX_HELPERS:
        step = "run 'git config --show-origin --get-regexp credential' to see where they are"
        yield Finding(f"git has {len(settings)} credential helpers; they see passwords, and may store them", step)
        return
    served = _served_hosts(arguments)
    scopes = dict.fromkeys([GIT_HELPERS, *(key for key, _ in settings)])
    for scope in scopes:
        helpers = _in_force(settings, {GIT_HELPERS, scope})
        others = [helper for helper in helpers if "remo-secret" not in helper]
        if not others or (scope != GIT_HELPERS and helpers == _in_force(settings, {GIT_HELPERS})):
            continue
        ours = [number for number, helper in enumerate(helpers) if "remo-secret" in helper]
        where = "in place of" if not ours else "before" if ours[-1] == len(helpers) - 1 else "after"
        server = scope.removeprefix("credential.").removesuffix(".helper")
        if scope != GIT_HELPERS and host_of(server) not in served:
            continue
        if scope == GIT_HELPERS:
            step = "run 'remo-secret setup git'; it resets the list first"
            yield Finding(
                f"git has another credential helper {where} remo-secret; it sees passwords, and may store them", step
            )
        else:
            step = f"run 'git config --global --unset-all {scope}'"
            yield Finding(
                f"git has another credential helper for {server}; it sees passwords, and may store them", step
            )


def _served_hosts(arguments: Arguments) -> set[str]:
    try:
        with open_client(arguments) as client:
            return {*GIT_SERVERS, *(client.info().hosts or {})}
    except (ClientError, Problem):  # which `broker` reports
        return set(GIT_SERVERS)


def _in_force(settings: list[tuple[str, str]], scopes: set[str]) -> list[str]:
    """The helpers that these settings leave; an empty value resets the list."""
    helpers: list[str] = []
    for key, helper in settings:
        if key in scopes:
            helpers = [*helpers, helper] if helper else []
    return helpers


def docker_helpers() -> Iterator[Finding]:
    """A store for all registries, as dev container tools set it on attach."""
    for path in docker_files(os.path.expanduser("~")):
        try:
            store = json.loads(_text(path)).get("credsStore")
        except (ValueError, AttributeError, RecursionError):
            continue
        if store:
            yield Finding(
                f"{path} has a credsStore: another helper is asked for the registries that remo-secret is not set up for",
                "remove credsStore from it, and run 'remo-secret setup docker'",
            )


def broker(arguments: Arguments) -> Iterator[Finding]:
    """The socket, the broker behind it, and the manifest here."""
    try:
        with open_client(arguments) as client:
            pong, info, ready = client.ping(), client.info(), client.ready().ready
    except (ClientError, Problem) as error:
        yield Finding(str(error), error.hint or "see 'remo-brokerctl status' on the host")
        return
    if _version(pong.broker_version) > _version(__version__):
        yield Finding(
            f"this client is version {__version__}, the broker version {pong.broker_version}",
            "start this container again, so that it mounts the new remo-secret.pyz; or install the new client",
        )
    if not ready:
        yield Finding("the broker has no secrets yet", "have the sidecar push them")
    for source, content in nearest():
        import hashlib

        if info.manifest_sha256 and hashlib.sha256(content).hexdigest() != info.manifest_sha256:
            yield Finding(
                f"{source} is not the manifest that was registered for {info.project}",
                f"have an operator run 'remo-brokerctl reload {info.project}' on the host, if it was edited",
            )
        break


def surroundings() -> Iterator[Finding]:
    if now_usec() < OLDEST_CLOCK_USEC:
        yield Finding("the clock is wrong: it shows a time before this release", "set it, on the host if need be")
    if sys.version_info < OLDEST_PYTHON:
        yield Finding(f"Python {sys.version.split()[0]} is too old", "install Python 3.9 or later")


def _version(text: str) -> list[int]:
    return [int(part) for part in re.findall("[0-9]{1,9}", text)[:3]]


def _own_link(path: str) -> bool:
    from remo_broker.secret.links import read_link

    return read_link(path) is not None


def _identity(path: str) -> tuple[int, int] | None:
    """What the kernel finds there, however many links lead to it."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino


def _text(path: str) -> str:
    """The start of a file, as far as its size says: a repository's link may lead to a file of the
    kernel's that has no end, as /proc/kmsg, and none of these has a size."""
    try:
        if not os.path.isfile(path):  # opening some devices does something
            return ""
        # A FIFO, as some secret managers make .env, may have taken the file's place since.
        with open(path, encoding="utf-8", errors="replace", opener=_without_waiting) as file:
            return file.read(min(os.fstat(file.fileno()).st_size, MAX_BYTES)).removeprefix("\ufeff")
    except OSError:
        return ""


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)


def _docker_auth(text: str) -> bool:
    try:
        settings = json.loads(text)
        return any(isinstance(one, dict) and one for one in settings.get("auths", {}).values())
    except (ValueError, AttributeError, RecursionError):
        return False
