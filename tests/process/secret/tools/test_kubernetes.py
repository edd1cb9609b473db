"""`remo-secret kubernetes`, run by a Kubernetes client."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
from typing import TYPE_CHECKING

from tests.process.secret.tools.conftest import NEWER, tool
from tests.process.secret.tools.servers import Answer, Certificate, RecordingServer

if TYPE_CHECKING:
    from tests.process.secret.tools.conftest import ToolSetup


def test_kubernetes_client(place: ToolSetup) -> None:
    python = tool("python")
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "remo"}}],
        "clusters": [{"name": "c", "cluster": {"server": f"http://{place.host}"}}],
        "users": [
            {
                "name": "remo",
                "user": {
                    "exec": {
                        "apiVersion": "client.authentication.k8s.io/v1",
                        "command": "remo-secret",
                        "args": ["kubernetes", "KUBE_TOKEN"],
                        "interactiveMode": "Never",
                    }
                },
            }
        ],
    }
    (place.home / "kube.json").write_text(json.dumps(config))
    code = (
        "import kubernetes.config, kubernetes.client\n"
        "kubernetes.config.load_kube_config('kube.json')\n"
        "print(kubernetes.client.Configuration.get_default_copy().api_key)\n"
    )
    done = place.run(python, "-c", code)
    assert "Bearer zqkube" in done.stdout, done.stderr


def test_kubernetes_answers(place: ToolSetup) -> None:
    answer = json.loads(place.remo("kubernetes", "KUBE_TOKEN").stdout)
    assert answer == {
        "apiVersion": "client.authentication.k8s.io/v1",
        "kind": "ExecCredential",
        "status": {"token": "zqkube"},
    }
    at = (dt.datetime.now(dt.UTC) + dt.timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert place.broker.ask({"op": "push-creds", "secrets": {"KUBE_TOKEN": "t"}, "expires": {"KUBE_TOKEN": at}})["ok"]
    answer = json.loads(place.remo("kubernetes", "KUBE_TOKEN").stdout)
    assert answer["status"] == {"token": "t", "expirationTimestamp": at}
    place.broker.push({"KUBE_TOKEN": {"certificate": "C", "key": "K"}})
    info = json.dumps({"apiVersion": "client.authentication.k8s.io/v1beta1", "kind": "ExecCredential"})
    answer = json.loads(place.remo("kubernetes", "KUBE_TOKEN", KUBERNETES_EXEC_INFO=info).stdout)
    assert answer["apiVersion"] == "client.authentication.k8s.io/v1beta1"
    assert answer["status"] == {"clientCertificateData": "C", "clientKeyData": "K"}


def test_kubectl(place: ToolSetup, certificate: Certificate) -> None:
    """After one command, the current context works with the broker's token; removal restores it."""
    tool("kubectl", NEWER)
    env = {"PATH": f"{NEWER}:{place.environment['PATH']}"}
    kubeconfig = place.home / ".kube/config"

    def kubectl(*words: str) -> str:
        done = place.run("kubectl", *words, **env)
        assert done.returncode == 0, done.stderr
        return done.stdout

    with contextlib.closing(RecordingServer(lambda _: Answer(200, b"zq-answer"), certificate)) as server:
        words = [f"--server=https://{server.host}", f"--certificate-authority={certificate.path}"]
        kubectl("config", "set-cluster", "c", *words)
        kubectl("config", "set-credentials", "me", "--username=x", "--password=y")
        kubectl("config", "set-context", "dev", "--cluster=c", "--user=me", "--namespace=n")
        kubectl("config", "use-context", "dev")
        before = kubeconfig.read_text()
        for _ in range(2):
            done = place.remo("setup", "kubectl", **env)
            assert done.returncode == 0, done.stderr
        assert done.stdout == "", "the second time there is nothing to change"
        assert "zqkube" not in kubeconfig.read_text()
        assert kubectl("get", "--raw", "/version") == "zq-answer"
        assert {one.credential for one in server.asked} == {"Bearer zqkube"}
        assert kubectl("config", "view", "--minify", "-o", "jsonpath={..namespace}") == "n"
        place.broker.push({"aws": "x"})
        done = place.run("kubectl", "get", "--raw", "/version", **env)
        assert done.returncode != 0
        assert "KUBE_TOKEN: " in done.stderr, "the refusal names the secret"
        assert place.remo("setup", "--remove", "kubectl", **env).returncode == 0
        assert kubeconfig.read_text() == before
        kubectl("get", "--raw", "/version")
        assert server.asked[-1].credential.startswith("Basic ")


def test_setup_of_kubectl_without_a_configuration(place: ToolSetup) -> None:
    tool("kubectl", NEWER)
    env = {"PATH": f"{NEWER}:{place.environment['PATH']}"}
    done = place.remo("setup", "kubectl", **env)
    assert done.returncode == 0, done.stderr
    assert "set-context" in done.stdout, "what is left to do"
    assert place.remo("setup", "--remove", "kubectl", **env).returncode == 0
    assert not (place.home / ".kube/config").exists()
    for words in (["set-credentials", "remo", "--token=x"], ["set-context", "c", "--user=remo"]):
        assert place.run("kubectl", "config", *words, **env).returncode == 0
    before = (place.home / ".kube/config").read_text()
    assert "already sets the user remo" in place.remo("setup", "kubectl", **env).stderr
    assert place.remo("setup", "--remove", "kubectl", **env).returncode == 0
    assert (place.home / ".kube/config").read_text() == before


def test_contexts_of_the_users_stay(place: ToolSetup) -> None:
    """Even if the copied one has been deleted."""
    tool("kubectl", NEWER)
    env = {"PATH": f"{NEWER}:{place.environment['PATH']}"}

    def config(*words: str) -> str:
        done = place.run("kubectl", "config", *words, **env)
        assert done.returncode == 0, done.stderr
        return done.stdout

    for name in ("dev", "remo/theirs"):
        config("set-context", name, "--cluster=c", "--user=me")
    config("use-context", "dev")
    assert place.remo("setup", "kubectl", **env).returncode == 0
    assert config("current-context") == "remo/dev\n"
    config("delete-context", "dev")
    done = place.remo("setup", "--remove", "kubectl", **env)
    assert done.returncode == 0, done.stderr
    assert config("get-contexts", "-o", "name") == "remo/theirs\n"
