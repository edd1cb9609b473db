"""`remo-secret kubernetes`: a credential plugin for kubectl, `client.authentication.k8s.io`."""

from __future__ import annotations

import os

from remo_broker.cli.options import Arguments
from remo_broker.cli.program import Problem
from remo_broker.client.scanner import loads
from remo_broker.secret.credential_helpers import fetch_named, first_of, write_json

# Set by kubectl: the API version that the reply must have.
INFO_VARIABLE = "KUBERNETES_EXEC_INFO"
VERSIONS = ("client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1")


def kubernetes(arguments: Arguments) -> None:
    name = arguments.operands[0]
    secret = fetch_named(arguments, name)
    fields = secret.reveal_fields()
    status: dict[str, str] = {}
    if fields is None:
        if secret.binary:
            raise Problem(f"{name} is binary", hint="push the token as a string")
        status["token"] = secret.reveal()
    else:
        token = first_of(fields, "token")
        certificate = first_of(fields, "client_certificate_data", "clientCertificateData", "certificate")
        key = first_of(fields, "client_key_data", "clientKeyData", "key")
        if token is not None:
            status["token"] = token
        if certificate is not None and key is not None:
            status |= {"clientCertificateData": certificate, "clientKeyData": key}
        if not status:
            raise Problem(f"{name} has neither a token nor a certificate and its key", hint="see remo-secret-tools(7)")
    if secret.expires_at is not None:
        status["expirationTimestamp"] = secret.expires_at
    write_json({"apiVersion": _api_version(), "kind": "ExecCredential", "status": status}, name)


def _api_version() -> str:
    try:
        asked = loads(os.environ.get(INFO_VARIABLE, "{}"))["apiVersion"]
    except (ValueError, KeyError, TypeError):
        return VERSIONS[0]
    if asked not in VERSIONS:
        raise Problem(f"${INFO_VARIABLE} asks for an unknown apiVersion", hint=f"set {VERSIONS[0]} in the kubeconfig")
    return str(asked)
