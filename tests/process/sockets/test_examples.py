"""Every example of the protocol, sent to a real broker: the reply has the example's fields, in its
order."""

from __future__ import annotations

import json
import pathlib
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.broker import Broker, Link
from tests.support.machine import REPOSITORY
from tests.support.other_user import ask_as
from tests.support.projects import make_project

if TYPE_CHECKING:
    from tests.conftest import StartBroker

EXAMPLES = REPOSITORY / "tests" / "contract" / "fixtures" / "protocol"


def example(name: str) -> dict[str, Any]:
    fields = json.loads((EXAMPLES / f"{name}.json").read_text())
    assert isinstance(fields, dict)
    return fields


def assert_shape(value: object, wanted: object, *, more: bool = False) -> None:
    """`value` has the structure of the example `wanted`; with `more` it may have further fields in
    between."""
    assert type(value) is type(wanted)
    if isinstance(wanted, dict):
        assert isinstance(value, dict)
        assert [key for key in value if key in wanted or not more] == list(wanted)
        for key, item in wanted.items():
            assert_shape(value[key], item, more=more)
    elif isinstance(wanted, list) and wanted:
        assert isinstance(value, list)
        for item in value:
            assert_shape(item, wanted[0], more=more)


@pytest.fixture
def broker(start_broker: StartBroker) -> Broker:
    return start_broker()


def test_all_examples_in_one_story(broker: Broker, directory: pathlib.Path) -> None:
    project = make_project(directory / "myrepo", "GITHUB_TOKEN", "NPM_TOKEN", "aws", "KEYSTORE")
    used: set[str] = set()

    def tell(link: Link, request: str, reply: str, *, more: bool = False, **changes: Any) -> dict[str, Any]:
        """Send an example with changes, and compare the reply with another one."""
        used.update((request, reply))
        answer = link.ask(example(request) | changes)
        assert_shape(answer, example(reply), more=more)
        return answer

    with Link(broker.admin) as admin:
        register = tell(admin, "Register.plain", "RegisterReply.plain", project_path=str(project))
        assert register["socket_path"] == str(broker.project())
        with Link(broker.project()) as client:
            assert tell(client, "Ping.plain", "PingReply.plain") == example("PingReply.plain")
            project = make_project(directory / "myrepo", "GITHUB_TOKEN", "NPM_TOKEN")
            assert tell(admin, "Reload.plain", "ReloadReply.plain") == example("ReloadReply.plain")
            info = example("InfoReply.plain")
            assert tell(client, "Info.plain", "InfoReply.plain", more=True).items() >= info.items()
            make_project(directory / "myrepo", "GITHUB_TOKEN", "NPM_TOKEN", "aws", "KEYSTORE")
            admin.ask(example("Reload.plain"))
            tell(client, "Get.string", "GetReply.no-snapshot")
            pushed = tell(admin, "PushCreds.plain", "PushCredsReply.plain")
            assert pushed["secret_count"] == example("PushCredsReply.plain")["secret_count"]
            string = tell(client, "Get.string", "GetReply.string")
            assert string["value"] == example("PushCreds.plain")["secrets"]["GITHUB_TOKEN"]
            bundle = tell(client, "Get.string", "GetReply.bundle", name="aws")
            assert json.loads(bundle["value"]) == example("PushCreds.plain")["secrets"]["aws"]
            binary = tell(client, "Get.string", "GetReply.binary", name="KEYSTORE")
            assert binary["value_b64"] == example("GetReply.binary")["value_b64"]
            for name, reply in (
                ("OTHER", "not-in-manifest"),
                ("no name", "invalid-name"),
                ("NPM_TOKEN", "not-in-snapshot"),
            ):
                answer = tell(client, "Get.string", f"GetReply.{reply}", name=name)
                wanted = example(f"GetReply.{reply}")
                assert (answer["code"], answer["reason"]) == (wanted["code"], wanted["reason"])
        status = admin.ask(example("Status.plain"))
        used.update(("Status.plain", "StatusReply.plain"))
        wanted = example("StatusReply.plain")
        assert_shape(status, wanted, more=True)
        assert list(status)[: len(wanted)] == list(wanted)  # additions come last
        assert list(status["projects"][0])[: len(wanted["projects"][0])] == list(wanted["projects"][0])
        tell(admin, "ClearCreds.plain", "ClearCredsReply.plain")
        assert admin.ask(example("Status.plain"))["secrets_loaded_at"] is None
        tell(admin, "Unregister.plain", "UnregisterReply.plain")
    used |= {"GetReply.rate-limited", "GetReply.peer-unexpected"}  # see below
    assert used == {path.stem for path in EXAMPLES.iterdir()}


def test_the_rate_limit_example(start_broker: StartBroker, directory: pathlib.Path) -> None:
    broker = start_broker(rate_limit_per_second=1, rate_limit_burst=1)
    project = make_project(directory / "myrepo", "GITHUB_TOKEN")
    broker.ask(example("Register.plain") | {"project_path": str(project)})
    with Link(broker.project()) as client:
        client.ask(example("Get.string"))
        answer = client.ask(example("Get.string"))
    assert_shape(answer, example("GetReply.rate-limited"), more=True)
    assert answer["code"] == "rate_limited"


def test_the_peer_example(broker: Broker, directory: pathlib.Path) -> None:
    project = make_project(directory / "myrepo", "GITHUB_TOKEN")
    broker.ask(example("Register.plain") | {"project_path": str(project), "allowed_uids": [12345]})
    broker.project().chmod(0o666)
    answer = json.loads(ask_as(54321, broker.project(), example("Get.string")))
    assert_shape(answer, example("GetReply.peer-unexpected"), more=True)
    assert answer["code"] == "peer_unexpected"


@pytest.mark.parametrize(
    ("form", "allowlist"), [("allowlist-form", ["GITHUB_TOKEN", "aws"]), ("binding-form", ["GITHUB_TOKEN"])]
)
def test_the_manifest_examples(broker: Broker, directory: pathlib.Path, form: str, allowlist: list[str]) -> None:
    project = directory / "myrepo"
    (project / ".remo").mkdir(parents=True)
    example_file = REPOSITORY / "tests" / "contract" / "fixtures" / "manifest" / f"{form}.toml"
    (project / ".remo" / "manifest.toml").write_bytes(example_file.read_bytes())
    assert broker.ask(example("Register.plain") | {"project_path": str(project)})["ok"]
    assert broker.ask(example("Reload.plain"))["allowlist"] == allowlist
