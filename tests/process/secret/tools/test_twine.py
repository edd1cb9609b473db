"""twine, with the recipe of the manual page."""

from __future__ import annotations

import base64
import contextlib
import shlex
import zipfile
from typing import TYPE_CHECKING

from tests.process.secret.tools.conftest import TOOLS, tool
from tests.process.secret.tools.servers import Answer, RecordingServer

if TYPE_CHECKING:
    from tests.process.secret.tools.conftest import ToolSetup

METADATA = "Metadata-Version: 2.1\nName: zq\nVersion: 1\n"
WHEEL = "Wheel-Version: 1.0\nGenerator: zq\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def test_the_recipe_for_twine(place: ToolSetup) -> None:
    twine = tool("twine", TOOLS.parent.parent / "twine/bin")
    (place.home / "dist").mkdir()
    with zipfile.ZipFile(place.home / "dist/zq-1-py3-none-any.whl", "w") as wheel:
        for name, text in (("METADATA", METADATA), ("WHEEL", WHEEL), ("RECORD", "")):
            wheel.writestr(f"zq-1.dist-info/{name}", text)
    [recipe] = place.page("twine")
    with contextlib.closing(RecordingServer(lambda _: Answer(200))) as server:
        command = recipe.replace("twine upload", f"{shlex.quote(str(twine))} upload --non-interactive")
        env = {"TWINE_REPOSITORY_URL": f"http://{server.host}/legacy/"}
        done = place.run("sh", "-c", command, **env)
        assert done.returncode == 0, done.stdout + done.stderr
        assert server.credentials == {"Basic " + base64.b64encode(b"__token__:pypi-zq").decode()}
        place.assert_nowhere_else("pypi-zq", server)
        assert "pypi-zq" not in done.stdout + done.stderr
        assert [one["REMO_SECRET"] for one in place.broker.records("fetch")] == ["PYPI_TOKEN"]
