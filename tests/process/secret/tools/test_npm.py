"""npm, with a token in a variable that `exec` sets."""

from __future__ import annotations

import contextlib
import shutil
from typing import TYPE_CHECKING

from tests.process.secret.tools.conftest import tool
from tests.process.secret.tools.servers import Answer, RecordingServer
from tests.support.machine import REPOSITORY, unavailable

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


def test_the_recipe_for_pnpm(place: ToolSetup) -> None:
    pnpm = tool("pnpm", REPOSITORY / ".cache/pnpm/node_modules/.bin")
    setting, script = place.page("pnpm")
    helper = place.bin / "npm-token"
    helper.write_text(script.replace("NPM_TOKEN", "KUBE_TOKEN"))
    helper.chmod(0o755)
    (place.home / "package.json").write_text('{"name": "x", "version": "1.0.0"}')
    with contextlib.closing(RecordingServer(lambda _: Answer(404))) as server:
        setting = setting.replace("registry.npmjs.org", server.host).replace(
            "/home/me/.local/bin/npm-token", str(helper)
        )
        (place.home / ".npmrc").write_text(setting)
        done = place.run(pnpm, "add", "zq-no-such-package", f"--registry=http://{server.host}/", "--fetch-retries=0")
        assert done.returncode != 0, "the registry has no package"
        assert server.credentials == {"Bearer zqkube"}, done.stdout + done.stderr


def test_setup_says_what_is_left_to_do(place: ToolSetup) -> None:
    """npm has no helper: the token is in a variable, which somebody has to set."""
    assert "remo-secret exec --only=NPM_TOKEN -- npm" in place.remo("setup", "npm").stdout
    assert place.remo("setup", "npm").stdout == ""
