"""`remo-secret aws-credentials`, run by the SDK on which the AWS CLI is built."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING

from tests.process.secret.tools.conftest import tool
from tests.process.secret.tools.servers import Answer, RecordingServer

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


IDENTITY = b"""<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><GetCallerIdentityResult>
<Arn>arn:aws:iam::1:user/zq</Arn><UserId>U</UserId><Account>1</Account></GetCallerIdentityResult>
</GetCallerIdentityResponse>"""


def test_the_command_line(place: ToolSetup) -> None:
    aws = [tool("python"), tool("aws")]  # its #! takes no path with a blank
    argv = [*aws, "sts", "get-caller-identity", "--region=eu-west-1", "--output=json", "--cli-connect-timeout=20"]
    before = place.files()
    with contextlib.closing(RecordingServer(lambda _: Answer(200, IDENTITY, Content_Type="text/xml"))) as server:
        argv.append(f"--endpoint-url=http://{server.host}")
        for _ in range(2):
            assert place.remo("setup", "aws").returncode == 0
        assert "zq" not in "".join(place.files().values()), "nothing secret"
        done = place.run(*argv, AWS_EC2_METADATA_DISABLED="true")
        assert json.loads(done.stdout)["Account"] == "1", done.stderr
        [asked] = server.asked
        assert asked.credential.startswith("AWS4-HMAC-SHA256 Credential=AKIAzq/")
        assert asked.headers["x-amz-security-token"] == "zqs"
        place.broker.push({"PYPI_TOKEN": "x"})
        done = place.run(*argv, AWS_EC2_METADATA_DISABLED="true")
        assert done.returncode != 0
        assert "aws: " in done.stderr, "the refusal names the secret"
        assert place.remo("setup", "--remove", "aws").returncode == 0
        done = place.run(*argv, AWS_EC2_METADATA_DISABLED="true")
        assert "Unable to locate credentials" in done.stderr
        assert len(server.asked) == 1
    assert {name: text for name, text in place.files().items() if "cache" not in name} == before
