"""`remo-secret env`: what shells and dotenv files make of it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.process.secret.tools.conftest import ToolSetup


def test_env(place: ToolSetup) -> None:
    expected = 'it\'s $HOME "x" `y` \\ z'
    assert json.loads(place.remo("env", "--format=json").stdout)["QUOTES"] == expected
    shell = place.remo("env", "--format=shell", "--only=QUOTES").stdout
    assert place.run("sh", "-c", f'{shell}\nprintf %s "$QUOTES"').stdout == expected
    (place.home / ".env").write_text(place.remo("env", "--only=QUOTES,GITHUB_TOKEN").stdout)
    assert place.run("bash", "-c", '. ./.env; printf %s "$QUOTES$GITHUB_TOKEN"').stdout == expected + "zqgithub"
