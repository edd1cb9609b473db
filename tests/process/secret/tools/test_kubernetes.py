"""`remo-secret kubernetes`, with a client of Kubernetes asking."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.process.secret.tools.conftest import tool

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
    place.broker.push({"KUBE_TOKEN": {"certificate": "C", "key": "K"}})
    info = json.dumps({"apiVersion": "client.authentication.k8s.io/v1beta1", "kind": "ExecCredential"})
    answer = json.loads(place.remo("kubernetes", "KUBE_TOKEN", KUBERNETES_EXEC_INFO=info).stdout)
    assert answer["apiVersion"] == "client.authentication.k8s.io/v1beta1"
    assert answer["status"] == {"clientCertificateData": "C", "clientKeyData": "K"}
