"""cargo, with `remo-secret get` as its credential provider, and registries that require a token."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING

from tests.process.secret.tools.conftest import NEWER, tool
from tests.process.secret.tools.servers import Answer, Asked, RecordingServer, unauthorized

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

    from tests.process.secret.tools.conftest import ToolSetup

# Meant for cargo's own tests; nothing else replaces the server of crates.io.
CRATES_IO = "__CARGO_TEST_CRATES_IO_URL_DO_NOT_USE_THIS"


@contextlib.contextmanager
def registry() -> Iterator[RecordingServer]:
    """It requires a token for everything."""
    server = RecordingServer(lambda _: unauthorized())

    def answer(asked: Asked) -> Answer:
        if not asked.credential:
            return unauthorized("Cargo")
        if asked.path.endswith("/config.json"):
            url = f"http://{server.host}"
            return Answer(200, json.dumps({"dl": url, "api": url, "auth-required": True}).encode())
        return Answer(200, b'{"users": [{"id": 1, "login": "zq-owner"}]}')

    server.answer = answer
    with contextlib.closing(server):
        yield server


def test_a_token_for_each_registry_and_none_for_others(place: ToolSetup) -> None:
    cargo = tool("cargo", NEWER)
    [recipe] = place.page("cargo")
    assert place.remo("setup", "cargo=PYPI_TOKEN").returncode == 0
    config = place.home / ".cargo/config.toml"
    setup = config.read_text()
    assert recipe.replace("CARGO_REGISTRY_TOKEN", "PYPI_TOKEN").splitlines()[-1] in setup
    for _ in range(2):
        assert place.remo("setup", "cargo=PYPI_TOKEN").returncode == 0
    assert config.read_text() == setup
    with registry() as crates_io, registry() as second, registry() as third:
        urls = {"second": f"sparse+http://{second.host}/", "third": f"sparse+http://{third.host}/"}
        provider = recipe.splitlines()[-1].replace("CARGO_REGISTRY_TOKEN", "KUBE_TOKEN")
        config.write_text(
            f"{setup}[registries.second]\nindex = '{urls['second']}'\n{provider}\n"
            f"[registries.third]\nindex = '{urls['third']}'\n"
        )

        def owners(*options: str) -> subprocess.CompletedProcess[str]:
            env = {CRATES_IO: f"sparse+http://{crates_io.host}/", "CARGO_HTTP_TIMEOUT": "20"}
            return place.run(cargo, "owner", "--list", "zq", *options, **env)

        assert "zq-owner" in (done := owners()).stdout, done.stderr
        assert "zq-owner" in (done := owners("--registry=second")).stdout, done.stderr
        assert owners("--registry=third").returncode != 0
        assert crates_io.credentials == {"pypi-zq"}
        assert second.credentials == {"zqkube"}
        assert third.credentials == set(), "a registry that no secret is for gets none"
        place.broker.push({"KUBE_TOKEN": "x"})
        done = owners()
        assert done.returncode != 0
        assert "remo-secret get PYPI_TOKEN" in done.stderr, "cargo shows the command, and what that says"
        assert "the last push did not contain it" in done.stderr
    config.write_text(setup)
    assert place.remo("setup", "--remove", "cargo").returncode == 0
    assert not config.exists()


def test_setup_keeps_tables_of_any_form(place: ToolSetup) -> None:
    config = place.home / ".cargo/config.toml"
    config.parent.mkdir()
    before = "[ registry ] # mine\r\ndefault = 'x'\r\n[net]\r\nretry = 2"
    config.write_text(before, newline="")
    assert place.remo("setup", "cargo").returncode == 0
    text = config.read_bytes().decode()
    assert text.count("registry ]") == text.count("credential-provider") == 1
    assert "\r\ncredential-provider" in text
    assert place.remo("setup", "--remove", "cargo").returncode == 0
    assert config.read_bytes().decode() == before
    config.write_text("registry = { default = 'x' }\n")
    done = place.remo("setup", "cargo")
    assert done.returncode == 1
    assert "by hand" in done.stderr
    assert config.read_text() == "registry = { default = 'x' }\n"
