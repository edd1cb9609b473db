"""A helper reports the broker's refusal by its own protocol, and the refusal is audited."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.support.programs import require_ascii_path

if TYPE_CHECKING:
    from tests.process.secret.tools.conftest import ToolSetup

URL = "https://denied.example.org/simple/"
# The arguments, standard input, exit status, and the stream that names the secret.
ABSENT = {
    "git": (["git-credential", "get"], "protocol=https\nhost=denied.example.org\n\n", 4, "stderr"),
    "docker": (["docker-credential", "get"], "denied.example.org\n", 1, "stdout"),
    "keyring": (["keyring", "get", URL, "me"], "", 4, "stderr"),
    "aws": (["aws-credentials", "LATER"], "", 4, "stderr"),
    "kubernetes": (["kubernetes", "LATER"], "", 4, "stderr"),
}
DENIED = {
    name: ([command, "OTHER"], "", 3, "stderr") for name, command in (("aws", "aws-credentials"), ("kubernetes",) * 2)
}


@pytest.mark.parametrize("tool", ABSENT)
def test_an_absent_secret(place: ToolSetup, tool: str) -> None:
    arguments, stdin, status, stream = ABSENT[tool]
    done = place.remo(*arguments, stdin=stdin)
    assert done.returncode == status
    assert "LATER" in getattr(done, stream)
    assert not (done.stdout if stream == "stderr" else done.stderr), "and the other stream is empty"
    [record] = place.broker.records("fetch")
    assert (record["REMO_SECRET"], record["REMO_REASON"]) == ("LATER", "not_in_snapshot")


@pytest.mark.parametrize("tool", DENIED)
def test_a_denied_secret(place: ToolSetup, tool: str) -> None:
    arguments, stdin, status, _ = DENIED[tool]
    done = place.remo(*arguments, stdin=stdin)
    assert (done.returncode, done.stdout) == (status, "")
    assert "OTHER: " in done.stderr
    [record] = place.broker.records("fetch")
    assert (record["REMO_SECRET"], record["REMO_DECISION"]) == ("OTHER", "deny")


@pytest.mark.parametrize("tool", ABSENT)
def test_no_broker(place: ToolSetup, tool: str) -> None:
    arguments, stdin, _, stream = ABSENT[tool]
    done = place.remo(*arguments, stdin=stdin, REMO_BROKER_SOCKET=str(place.home / "none.sock"))
    assert done.returncode == (1 if tool == "docker" else 5)
    assert "none.sock" in getattr(done, stream)
    assert not (done.stdout if stream == "stderr" else done.stderr)


@pytest.mark.parametrize("locale", ["C", "en_US.iso88591"])
def test_text_is_utf8_in_every_locale(place: ToolSetup, locale: str) -> None:
    """Tools read UTF-8, even if the locale has no such characters."""
    require_ascii_path()
    place.broker.push(
        {"aws": {"aws_access_key_id": "A", "aws_secret_access_key": "\u00e4\u20ac"}, "KUBE_TOKEN": "\u20ac"}
    )
    env = {"LC_ALL": locale, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    assert json.loads(place.remo("aws-credentials", "aws", **env).stdout)["SecretAccessKey"] == "\u00e4\u20ac"
    assert json.loads(place.remo("kubernetes", "KUBE_TOKEN", **env).stdout)["status"]["token"] == "\u20ac"
    place.broker.push({"REGISTRY": {"username": "\u00e4", "password": "\u20ac"}})
    host = "registry.example.org:5000"
    done = place.remo("docker-credential", "get", stdin=host, **env)
    assert (json.loads(done.stdout)["Username"], json.loads(done.stdout)["Secret"]) == ("\u00e4", "\u20ac")
    assert place.remo("keyring", "--mode=creds", "get", f"https://{host}/", **env).stdout == "\u00e4\n\u20ac\n"


@pytest.mark.parametrize(
    ("arguments", "stdin"),
    [
        (["keyring", "get", "http://upload.pypi.org/legacy/", "__token__"], ""),
        (["keyring", "get", "upload.pypi.org", "__token__"], ""),
        (["keyring", "get", "https://UPLOAD.pypi.org.example/", "__token__"], ""),
        (["keyring", "get", "https://example.org/?@upload.pypi.org", "__token__"], ""),
        (["keyring", "get", "https://upload.pypi.org@example.org/", "__token__"], ""),
        (["keyring", "get", "https://example.org\\@upload.pypi.org/", "__token__"], ""),
        (["docker-credential", "get"], "http://ghcr.io"),
        (["docker-credential", "get"], "doc\u212aer.io"),
        (["docker-credential", "get"], "https://ghcr.io@example.org/"),
    ],
)
def test_a_url_of_another_server_gets_nothing(place: ToolSetup, arguments: list[str], stdin: str) -> None:
    """In plain text, of another host, or with the server's name where a browser would see none. pip
    and uv ask for a host alone after an http URL."""
    assert place.remo(*arguments, stdin=stdin).returncode == 1
    assert not place.broker.records("fetch")
