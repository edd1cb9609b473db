"""What `remo-secret setup` writes for each tool, and how to remove it."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import tempfile

from remo_broker.cli.program import Problem
from remo_broker.client.errors import ClientError
from remo_broker.secret.config_lines import AlreadySet, add_line, remove_lines
from remo_broker.secret.project_socket import open_client
from remo_broker.secret.servers import REGISTRIES, hosts_in, secret_for

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

GIT_HELPER = "!remo-secret git-credential"
# The two lines that `git config` writes for the recipe, and a section with nothing left in it.
_git_lines = re.compile(r"^\s*helper =\s*\n\s*helper = !remo-secret git-credential\n", re.MULTILINE)
_git_empty_section = re.compile(r"^\[credential\]\n(?=\[|\Z)", re.MULTILINE)
# The default secret of tools that take one by name; TOOL=NAME overrides it.
DEFAULT_SECRETS = {"aws": "aws", "cargo": "CARGO_REGISTRY_TOKEN", "kubectl": "KUBE_TOKEN", "npm": "NPM_TOKEN"}
KUBERNETES_API = "client.authentication.k8s.io/v1"
# A context of ours is a copy of the one whose name follows.
KUBERNETES_USER = "remo"
CONTEXT_PREFIX = "remo/"
# The key for Docker Hub in the configuration of docker itself; podman and others use the host.
DOCKER_HUB = "https://index.docker.io/v1/"
# The first npm that reads `${NAME?}` as empty if the variable is not set. Older ones look for a
# variable of that whole name.
NPM_OPTIONAL_VARIABLES = (11, 6)
# docker's helper, by the end of the program's name.
DOCKER_HELPER = "remo"


class ConfigChange:
    """A file and its new text; an empty text removes the file. `note` is what remains to be done,
    or to know."""

    def __init__(self, path: str, after: str, note: str = "") -> None:
        self.path = path
        self.after = after
        self.note = note
        self.before = read(path)


def read(path: str) -> str:
    """The file's text with its line ends; empty if there is no file."""
    try:
        kind = stat.S_IFMT(os.stat(path).st_mode)
        if kind not in (stat.S_IFREG, stat.S_IFDIR):
            # Opening a FIFO would wait for a writer, and some devices have no end.
            raise Problem(f"{path} is not a file", hint="move it away, then run this again")
        with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
            return file.read()
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise Problem(f"{path}: {os.strerror(error.errno or 0)}") from None


def home(*parts: str) -> str:
    return os.path.join(os.path.expanduser("~"), *parts)


def config(*parts: str) -> str:
    return os.path.join(os.environ.get("XDG_CONFIG_HOME") or home(".config"), *parts)


def _lines(path: str, remove: bool, *lines: tuple[str | None, str], note: str = "") -> ConfigChange:
    """Add lines to sections of a file; with `remove`, remove the added ones."""
    text = remove_lines(read(path), {line.partition("=")[0].strip() for _, line in lines})
    if not remove:
        for section, line in lines:
            text = add_line(path, text, section, line)
    return ConfigChange(path, text, note)


def _git(_name: str, remove: bool) -> ConfigChange:
    """Edit a copy with `git config`: the file may have any form."""
    path = os.environ.get("GIT_CONFIG_GLOBAL") or home(".gitconfig")
    if not os.path.exists(path) and os.path.exists(config("git", "config")):
        path = config("git", "config")
    before = read(path)
    text = _git_empty_section.sub("", _git_lines.sub("", before))
    if remove:
        return ConfigChange(path, text)
    with tempfile.NamedTemporaryFile(suffix=".gitconfig") as copy:
        copy.write(text.encode("utf-8", "surrogateescape"))
        copy.flush()
        # The empty value resets the list: git then hands no other helper the password to store.
        for value in ("", GIT_HELPER):
            argv = ["git", "config", "--file", copy.name, "--add", "credential.helper", value]
            _run(argv, f"check {path}")
        return ConfigChange(path, read(copy.name))


def _aws(name: str, remove: bool) -> ConfigChange:
    path = os.environ.get("AWS_CONFIG_FILE") or home(".aws", "config")
    return _lines(path, remove, ("default", f"credential_process = remo-secret aws-credentials {name}"))


def _docker(_name: str, remove: bool) -> ConfigChange:
    path = os.path.join(os.environ.get("DOCKER_CONFIG") or home(".docker"), "config.json")
    try:
        settings = json.loads(read(path) or "{}")
        before = settings.get("credHelpers", {})
        helpers = {host: one for host, one in before.items() if one != DOCKER_HELPER}
    except (ValueError, AttributeError, RecursionError):
        raise Problem(f"docker: {path} is not JSON as docker writes it", hint="correct it first") from None
    if not remove:
        for host in _registries([host for host in before if host not in helpers and host != DOCKER_HUB]):
            if host in helpers:
                raise AlreadySet(path, f"credHelpers for {host}")
            helpers[host] = DOCKER_HELPER
            if host == "index.docker.io":
                helpers[DOCKER_HUB] = DOCKER_HELPER
    if helpers == before:
        return ConfigChange(path, read(path))
    settings["credHelpers"] = helpers
    if not helpers:
        del settings["credHelpers"]
    return ConfigChange(path, json.dumps(settings, indent="\t", ensure_ascii=False) + "\n" if settings else "")


def _registries(ours: list[str]) -> list[str]:
    """The registries that this project has secrets for, and `ours`, set up before: another project
    may have secrets for those. If nothing is known, the well-known ones.
    """
    from remo_broker.cli.options import Arguments as NoArguments

    try:
        with open_client(NoArguments()) as client:
            info = client.info()
    except (ClientError, Problem):
        return ours or list(REGISTRIES)
    known = [host for host in REGISTRIES if secret_for(host, info, REGISTRIES)]
    return list(dict.fromkeys([*known, *hosts_in(info), *ours]))


def _pip(_name: str, remove: bool) -> ConfigChange:
    path = os.environ.get("PIP_CONFIG_FILE") or config("pip", "pip.conf")
    note = "pip asks for an index whose URL has a user name, such as https://USER@HOST/simple"
    return _lines(path, remove, ("global", "keyring-provider = subprocess"), note=note)


def _uv(_name: str, remove: bool) -> ConfigChange:
    path = os.environ.get("UV_CONFIG_FILE") or config("uv", "uv.toml")
    return _lines(path, remove, (None, 'keyring-provider = "subprocess"'))


def _npm(name: str, remove: bool) -> ConfigChange:
    path = os.environ.get("NPM_CONFIG_USERCONFIG") or home(".npmrc")
    is_optional = not remove and _npm_version() >= NPM_OPTIONAL_VARIABLES
    without = "no token" if is_optional else f"the text ${{{name}}} as its token, which registries refuse"
    note = f"run npm under 'remo-secret exec --only={name} -- npm ...', which sets ${name}; else npm sends {without}"
    line = f"//registry.npmjs.org/:_authToken=${{{name}{'?' if is_optional else ''}}}"
    return _lines(path, remove, (None, line), note=note)


def _npm_version() -> tuple[int, ...]:
    """Empty if it cannot be known. npm reads no file of the user's or a project's for it."""
    environment = {**os.environ, "NPM_CONFIG_USERCONFIG": os.devnull}
    try:
        done = subprocess.run(["npm", "--version"], cwd="/", env=environment, capture_output=True, check=False)
    except OSError:
        return ()
    return tuple(int(part) for part in re.findall(rb"\d+", done.stdout)[:2])


def _cargo(name: str, remove: bool) -> ConfigChange:
    """For crates.io alone: a global provider would give the token to every registry that asks."""
    directory = os.environ.get("CARGO_HOME") or home(".cargo")
    path = os.path.join(directory, "config")  # the old name, which cargo prefers
    if not os.path.exists(path):
        path = os.path.join(directory, "config.toml")
    line = f'credential-provider = ["cargo:token-from-stdout", "remo-secret", "get", "{name}"]'
    return _lines(path, remove, ("registry", line))


def _kubectl(name: str, remove: bool) -> ConfigChange:
    """Edit a copy with `kubectl config`. The current context stays as it is: ours is a copy with
    another user.
    """
    given = [one for one in os.environ.get("KUBECONFIG", "").split(os.pathsep) if one]
    path = given[0] if given else home(".kube", "config")
    with tempfile.TemporaryDirectory() as directory:
        copy = os.path.join(directory, "config")
        with open(copy, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            file.write(read(path))

        def kubectl(*words: str) -> str:
            return _run(["kubectl", "config", "--kubeconfig", copy, *words], f"check {path}")

        def settings() -> dict[str, Any]:
            found: dict[str, Any] = json.loads(kubectl("view", "--raw", "-o", "json"))
            return found

        before = settings()
        if not remove:
            _set_kubernetes_user(path, name, before, kubectl)
            note = "without a current context: use it with 'kubectl config set-context --current --user=remo'"
            return ConfigChange(path, read(copy), note)
        if not any(one["name"] == KUBERNETES_USER and _is_ours(one["user"]) for one in before["users"] or []):
            return ConfigChange(path, read(path))
        current = before["current-context"]
        ours = [one["name"] for one in before["contexts"] or [] if _is_our_context(one)]
        for context in ours:
            kubectl("delete-context", context)
        if current in ours:
            original = current.removeprefix(CONTEXT_PREFIX)
            is_there = any(one["name"] == original for one in before["contexts"])
            kubectl(*(["use-context", original] if is_there else ["unset", "current-context"]))
        kubectl("delete-user", KUBERNETES_USER)
        after = settings()
        empty = not (after["clusters"] or after["contexts"] or after["users"])
        return ConfigChange(path, "" if empty else read(copy))


def _set_kubernetes_user(path: str, name: str, settings: dict[str, Any], kubectl: Callable[..., str]) -> None:
    if any(one["name"] == KUBERNETES_USER and not _is_ours(one["user"]) for one in settings["users"] or []):
        raise AlreadySet(path, f"the user {KUBERNETES_USER}")
    words = ["--exec-command=remo-secret", f"--exec-api-version={KUBERNETES_API}", "--exec-arg=kubernetes"]
    words += [f"--exec-arg={name}", "--exec-interactive-mode=Never"]
    kubectl("set-credentials", KUBERNETES_USER, *words)
    current = settings["current-context"]
    context = next((one["context"] for one in settings["contexts"] or [] if one["name"] == current), None)
    if context is None or current.startswith(CONTEXT_PREFIX):
        return
    words = [f"--cluster={context['cluster']}", f"--user={KUBERNETES_USER}"]
    if "namespace" in context:
        words.append(f"--namespace={context['namespace']}")
    kubectl("set-context", CONTEXT_PREFIX + current, *words)
    kubectl("use-context", CONTEXT_PREFIX + current)


def _is_ours(user: dict[str, Any]) -> bool:
    return (user.get("exec") or {}).get("command") == "remo-secret"


def _is_our_context(context: dict[str, Any]) -> bool:
    name: str = context["name"]
    return name.startswith(CONTEXT_PREFIX) and context["context"].get("user") == KUBERNETES_USER


def _run(argv: list[str], hint: str) -> str:
    """What the command wrote to standard output. Raises `Problem`.

    In the working directory, git would read the configuration of a repository.
    """
    try:
        done = subprocess.run(argv, cwd="/", stdin=subprocess.DEVNULL, capture_output=True, check=False)
    except OSError:
        raise Problem(
            f"{argv[0]} is not installed", hint="see remo-secret-tools(7) for the lines to add by hand"
        ) from None
    if done.returncode:
        raise Problem(f"'{argv[0]} config' failed", hint=hint)
    return done.stdout.decode("utf-8", "surrogateescape")


TOOLS: dict[str, Callable[[str, bool], ConfigChange]] = {
    "git": _git,
    "aws": _aws,
    "docker": _docker,
    "pip": _pip,
    "uv": _uv,
    "npm": _npm,
    "cargo": _cargo,
    "kubectl": _kubectl,
}
