"""What a helper loads: each module delays every `docker pull`."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.machine import REPOSITORY

if TYPE_CHECKING:
    from tests.process.secret.tools.conftest import ToolSetup

HOST = "registry.example.org:5000"
COMMANDS = {
    "git-credential": (["git-credential", "get"], f"protocol=https\nhost={HOST}\n\n"),
    "keyring": (["keyring", "get", f"https://{HOST}/simple/", "alice"], ""),
    "docker-credential": (["docker-credential", "get"], HOST),
    "aws-credentials": (["aws-credentials", "aws"], ""),
    "kubernetes": (["kubernetes", "KUBE_TOKEN"], ""),
}
# In addition to the interpreter's own modules.
MOST_MODULES = 34
# Modules of the standard library that load many others, or that no helper needs.
HEAVY = {"argparse", "asyncio", "dataclasses", "enum", "functools", "json", "re", "socket", "subprocess", "typing"}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_helper_loads_only_needed_modules(place: ToolSetup, command: str) -> None:
    words, stdin = COMMANDS[command]
    code = (
        "import sys, abc, errno\n"  # some versions of Python load these by themselves
        "before = set(sys.modules)\n"
        f"sys.path.append({str(REPOSITORY)!r})\n"
        "from remo_broker.secret.main import main\n"
        f"status = main(['--socket', {str(place.broker.project())!r}, *{words!r}])\n"
        "sys.stdout.flush()\n"
        "print(status, *sorted(set(sys.modules) - before), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-ISc", code], input=stdin, capture_output=True, text=True, check=True)
    status, *modules = done.stderr.split()
    assert (status, "zq" in done.stdout) == ("0", True), done
    assert sorted(HEAVY & set(modules)) == []
    assert len(modules) <= MOST_MODULES, modules
