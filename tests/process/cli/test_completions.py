"""Pressing Tab in the three real shells."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from remo_broker.build import completions
from remo_broker.ctl.commands import PROGRAM as BROKERCTL
from remo_broker.secret.commands import PROGRAM as SECRET
from tests.support.broker import listen
from tests.support.machine import unavailable
from tests.support.programs import environment

if TYPE_CHECKING:
    from collections.abc import Callable

    Complete = Callable[[str], list[str]]

# A line, some words that Tab must offer at its end, and some that it must not.
LINES = [
    ("remo-brokerctl ", {"status", "audit", "explain"}, {"get"}),
    ("remo-brokerctl re", {"register", "reload"}, {"status"}),
    ("remo-brokerctl --json=short sho", {"show"}, {"status"}),
    ("remo-brokerctl show ", {"alpha", "beta"}, {"admin", "status"}),
    ("remo-brokerctl explain al", {"alpha"}, {"beta"}),
    ("remo-brokerctl audit --project ", {"alpha", "beta"}, {"show"}),
    ("remo-brokerctl audit --project=al", {"alpha"}, {"beta", "show"}),
    ("remo-brokerctl unregister --no-enable b", {"beta"}, {"alpha"}),
    ("remo-brokerctl reload ", {"alpha", "beta"}, {"--all"}),
    ("remo-brokerctl list ", set(), {"alpha", "file.env"}),
    ("remo-brokerctl audit --su", {"--summary"}, {"--all"}),
    ("remo-brokerctl --json ", {"short", "pretty", "off"}, {"status"}),
    ("remo-brokerctl push --format ", {"json", "dotenv"}, {"short"}),
    ("remo-brokerctl push fi", {"file.env"}, {"alpha"}),
    ("remo-secret ", {"get", "exec", "git-credential"}, {"status"}),
    ("remo-secret get ", {"TOKEN", "npm"}, {"get"}),
    ("remo-secret git-credential ", {"get", "store", "erase"}, {"TOKEN"}),
    ("remo-secret exec --only ", {"TOKEN", "npm"}, {"get"}),
    ("remo-secret wait --t", {"--timeout"}, {"--socket"}),
    ("remo-brokerctl explain alpha ", {"OF_alpha"}, {"alpha", "TOKEN"}),
    ("remo-brokerctl explain --uid=0 alpha OF", {"OF_alpha"}, {"alpha"}),
]
# Names that a shell would execute or split into words.
HOSTILE = (
    "$(touch pwned)",
    "`touch pwned`",
    "a b",
    "x;touch pwned",
    "A&&touch pwned",
    "-rf",
    "*",
    "~",
    "é",
    "${PWD}",
    "a\\",
)


@pytest.fixture
def place(directory: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """The files of both programs, made for the test's own socket directory; `remo-secret` lists two
    names."""
    sockets = directory / "sockets"
    sockets.mkdir()
    for name in ("admin", "status", "alpha", "beta"):
        listen(sockets / f"{name}.sock").close()
    for name in HOSTILE:
        (sockets / f"{name}.sock").touch()
    (sockets / "line\n$(touch pwned).sock").touch()
    monkeypatch.setattr(completions, "PROJECTS", completions.PROJECTS.replace("/run/remo-broker", str(sockets)))
    for name, text in completions.files().items():
        (directory / name).write_text(text)
    for program, own in (("remo-secret", "TOKEN npm"), ("remo-brokerctl", '"OF_$4"')):
        (directory / "hostile").write_text("\n".join(HOSTILE) + "\n")
        (directory / program).write_text(f"#!/bin/sh\nprintf '%s\\n' {own}\ncat {directory}/hostile\n")
        (directory / program).chmod(0o755)
    (directory / "file.env").write_text("")
    return directory


def need(shell: str) -> str:
    found = shutil.which(shell)
    if found is None:
        unavailable(f"{shell} is not installed: ./run test installs it")
    return found


def run(place: pathlib.Path, argv: list[str]) -> str:
    variables = environment({"PATH": f"{place}:{os.environ['PATH']}", "HOME": str(place), "TERM": "dumb"})
    done = subprocess.run(argv, env=variables, cwd=place, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


def bash(place: pathlib.Path, line: str) -> list[str]:
    """As bash calls it, which splits `--json=short` into three words."""
    words = line.replace("=", " = ").split(" ")
    code = 'source "$1.bash"; shift; COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)); "_${1/-/_}"; printf "%s\\n" "${COMPREPLY[@]}"'
    # compopt works only during a completion.
    return run(place, [need("bash"), "-c", f"compopt() {{ :; }}; {code}", "bash", words[0], *words]).split()


def fish(place: pathlib.Path, line: str) -> list[str]:
    program = line.split(" ", 1)[0]
    code = f"source {program}.fish; complete -C {line!r}"
    words = [row.split("\t")[0] for row in run(place, [need("fish"), "--no-config", "-c", code]).splitlines()]
    # fish 4 also offers options that contain the letters elsewhere.
    typed = line.rpartition(" ")[2]
    return [word for word in words if word.startswith(typed) or not typed.startswith("--")]


def zsh(place: pathlib.Path, line: str) -> list[str]:
    """zsh completes only at a prompt: run one on its own terminal, with a `compadd` that reports
    its arguments."""
    code = f"""
zmodload zsh/zpty
zpty tab zsh -f -i
zpty -w tab 'PS1= fpath=({place} $fpath); autoload -Uz compinit; compinit -u -D'
zpty -w tab 'compadd() {{ local -a them; builtin compadd -O them "$@"; print -l -- $them >>{place}/offered; builtin compadd "$@" }}'
zpty -w tab 'tell() {{ : >{place}/told }}; zle -N tell; bindkey "^X" tell; zstyle ":completion:*" menu no; : >{place}/ready'
repeat 500; do [[ -e {place}/ready ]] && break; sleep 0.02; done
zpty -w -n tab $'{line}\\t\\x18'
repeat 500; do [[ -e {place}/told ]] && break; sleep 0.02; done
zpty -d tab
"""
    run(place, [need("zsh"), "-f", "-c", code])
    offered = place / "offered"
    return offered.read_text().split() if offered.exists() else []


@pytest.mark.parametrize(("line", "offered", "others"), LINES)
@pytest.mark.parametrize("shell", [bash, fish, zsh])
def test_tab(
    place: pathlib.Path, shell: Callable[[pathlib.Path, str], list[str]], line: str, offered: set[str], others: set[str]
) -> None:
    # fish offers complete words: --project=alpha.
    found = {word.removesuffix("/").rpartition("=")[2] for word in shell(place, line)}
    assert offered <= found
    assert not others & found
    assert not set(HOSTILE) & found
    assert not list(place.glob("**/pwned"))


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_syntax(place: pathlib.Path, shell: str) -> None:
    for name in completions.files():
        if name.endswith(".bash") == (shell == "bash") and not name.endswith(".fish"):
            run(place, [need(shell), "-n", name])


def test_every_option_is_complete() -> None:
    """In each file, by both of its names."""
    for program in (BROKERCTL, SECRET):
        for name, text in completions.files().items():
            if program.name not in name:
                continue
            for option in completions.every_option(program):
                for one in option.names:
                    shown = (
                        one if not name.endswith(".fish") else f"-l {one[2:]}" if one[:2] == "--" else f"-s {one[1:]}"
                    )
                    assert shown in text, (name, one)
