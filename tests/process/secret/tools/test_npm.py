"""npm, with a token in a variable that `exec` sets."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from tests.support.machine import unavailable

if TYPE_CHECKING:
    from tests.process.secret.tools.conftest import Index, ToolSetup


def test_the_recipe_for_npm(place: ToolSetup, index: Index) -> None:
    if shutil.which("npm") is None:
        unavailable("npm is not installed: ./run test installs it")
    assert place.remo("setup", "npm=KUBE_TOKEN").returncode == 0
    npmrc = place.home / ".npmrc"
    npmrc.write_text(npmrc.read_text().replace("registry.npmjs.org", index.host))
    registry = f"--registry=http://{index.host}/"
    done = place.remo("exec", "--only=KUBE_TOKEN", "--", "npm", "whoami", registry)
    assert done.stdout == "zq\n", done.stderr
    assert set(index.credentials) == {"Bearer zqkube"}
