"""`remo-secret env`: how shells, direnv and compose read its output."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

from tests.process.secret.tools.conftest import tool
from tests.support.machine import REPOSITORY, unavailable

if TYPE_CHECKING:
    from tests.process.secret.tools.conftest import ToolSetup

QUOTES = 'it\'s $HOME "x" `y` \\ z'
# Values in which at least one reader sees special characters.
SPECIAL = [
    *(
        "plain",
        "",
        " a b ",
        "#x # y",
        "a=b",
        "$X${Y}",
        "`x`",
        "\u00e9\u20ac",
        'a"b',
        "tab\tx",
        "a\nb\n",
        "a\rb",
        "a\\nb",
    ),
    *(
        "'",
        "it's $HOME",
        "it's $$ ${A}",
        "'\r\n",
        "\\n'",
        "\\'",
        "a\\'b\\\\'c",
        "'\t",
        "'\"",
        "' #x",
        "a\\",
        "a\\\\",
        "'\\",
    ),
]


def push(place: ToolSetup, value: str) -> None:
    place.broker.push(
        {
            "QUOTES": value,
            **dict.fromkeys(("aws", "REGISTRY", "FORGE", "PYPI_TOKEN", "KUBE_TOKEN", "GITHUB_TOKEN"), "x"),
        }
    )


def test_env(place: ToolSetup) -> None:
    assert json.loads(place.remo("env", "--format=json").stdout)["QUOTES"] == QUOTES
    shell = place.remo("env", "--format=shell", "--only=QUOTES").stdout
    assert place.run("sh", "-c", f'{shell}\nprintf %s "$QUOTES"').stdout == QUOTES


def test_compose_and_shells_read_the_same_values(place: ToolSetup) -> None:
    """With all values in one file, as in a project."""
    compose = tool("docker-compose", REPOSITORY / ".cache/compose")
    lines = []
    for number, value in enumerate(SPECIAL):
        push(place, value)
        done = place.run("sh", "-c", "remo-secret env --only=QUOTES >one.env")
        assert done.returncode == 0, done.stderr
        lines.append(b"V%d" % number + (place.home / "one.env").read_bytes().removeprefix(b"QUOTES"))
    (place.home / "all.env").write_bytes(b"".join(lines))
    (place.home / "compose.yaml").write_text("name: p\nservices:\n  x:\n    image: x\n    env_file: all.env\n")
    done = place.run(compose, "config", "--format=json")
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)["services"]["x"]["environment"]
    expected = {f"V{number}": value for number, value in enumerate(SPECIAL)}
    assert {name: value.replace("$$", "$") for name, value in seen.items()} == expected
    script = "set -a; . ./all.env; python3 -c 'import json, os; print(json.dumps(dict(os.environ)))'"
    environment = json.loads(place.run("bash", "-c", script).stdout)
    assert {name: environment[name] for name in expected} == expected


def test_dotenv_refuses_a_value_on_which_readers_differ(place: ToolSetup) -> None:
    """Nothing else is printed either: a partial file would be taken for complete."""
    for value in (QUOTES, "`\\"):
        push(place, value)
        done = place.remo("env")
        assert (done.returncode, done.stdout) == (1, "")
        assert "QUOTES" in done.stderr
        assert "--format=shell" in done.stderr


def test_direnv(place: ToolSetup) -> None:
    if shutil.which("direnv") is None:
        unavailable("direnv is not installed: ./run test installs it")
    [recipe] = place.page("direnv and compose")
    (place.home / ".envrc").write_text(recipe)
    assert place.run("direnv", "allow", ".").returncode == 0
    done = place.run("direnv", "exec", ".", "sh", "-c", 'printf "%s|%s" "$GITHUB_TOKEN" "$QUOTES"')
    assert done.stdout == f"zqgithub|{QUOTES}", done.stderr
    assert "zqgithub" not in "".join(place.files().values()) + done.stderr
