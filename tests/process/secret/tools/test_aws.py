"""`remo-secret aws-credentials`, with the SDK that the AWS CLI is made of asking."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.process.secret.tools.conftest import tool

if TYPE_CHECKING:
    from tests.process.secret.tools.conftest import ToolSetup


def test_botocore(place: ToolSetup) -> None:
    python = tool("python")
    assert place.remo("setup", "aws").returncode == 0
    code = (
        "import botocore.session, json\n"
        "c = botocore.session.get_session().get_credentials()\n"
        "print(json.dumps([c.method, c.access_key, c.secret_key, c.token]))\n"
    )
    done = place.run(python, "-c", code)
    assert json.loads(done.stdout) == ["custom-process", "AKIAzq", "zqkey\u20ac", "zqs"], done.stderr
    assert [one["REMO_SECRET"] for one in place.broker.records("fetch")] == ["aws"]


def test_aws_answers(place: ToolSetup) -> None:
    answer = json.loads(place.remo("aws-credentials", "aws").stdout)
    assert answer["Version"] == 1
    assert "Expiration" not in answer, "a lease's end is not an expiry"
    done = place.remo("aws-credentials", "PYPI_TOKEN")
    assert (done.returncode, done.stdout) == (1, "")
    assert "pypi-zq" not in done.stderr
    done = place.remo("aws-credentials", "OTHER")
    assert (done.returncode, done.stdout) == (3, "")
    assert "OTHER: " in done.stderr
