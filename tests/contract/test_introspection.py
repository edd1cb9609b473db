"""The published introspection data is what the code says, and well-formed by the specification's
own grammar."""

from __future__ import annotations

import pathlib
import xml.etree.ElementTree as ET

import pytest
from dbus_next import introspection

from remo_broker.build import introspection as schema

EMITS = "org.freedesktop.DBus.Property.EmitsChangedSignal"


def annotated() -> dict[str, dict[str, str]]:
    """Interface to property to what is said of its changes; `true` where nothing is."""
    root = ET.parse(schema.FILE).getroot()
    return {
        interface.attrib["name"].rpartition(".")[2]: {
            one.attrib["name"]: {a.attrib["name"]: a.attrib["value"] for a in one.iter("annotation")}.get(EMITS, "true")
            for one in interface.iter("property")
        }
        for interface in root.iter("interface")
    }


def test_the_file_is_what_the_code_says() -> None:
    assert schema.FILE.read_text() == schema.text(), "run python -m remo_broker.build.introspection --write"


def test_check_finds_a_difference(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "FILE", tmp_path / "copy.xml")
    assert schema.main(["--check"]) == 1
    assert schema.main(["--write"]) == 0
    assert schema.main(["--check"]) == 0
    schema.FILE.write_text(schema.text().replace("SecretCount", "SecretsCount"))
    assert schema.main(["--check"]) == 1


def test_the_annotations_are_those_of_the_specification() -> None:
    assert annotated() == {
        "Manager": {
            "Version": "const",
            "ProtocolVersion": "const",
            "StartTimestamp": "true",
            "SecretCount": "true",
            "SecretsLoadedTimestamp": "true",
            "Generation": "true",
            "ProjectCount": "true",
            "MemoryProtection": "true",
            "AuditHealthy": "true",
            "AuditDropped": "false",
            "FetchesAllowed": "false",
            "FetchesDenied": "false",
            "CredentialsServed": "false",
            "CredentialsRefused": "false",
        },
        "Project": {
            "Name": "const",
            "SocketPath": "true",
            "AllowlistSize": "true",
            "CacheEntries": "false",
            "Connections": "false",
            "FetchesAllowed": "false",
            "FetchesDenied": "false",
            "LastFetchTimestamp": "false",
        },
    }


def test_types_and_members_are_those_of_the_specification() -> None:
    node = introspection.Node.parse(schema.FILE.read_text())
    manager, project = node.interfaces
    types = {one.name: one.signature for one in manager.properties}
    assert types == {
        "Version": "s",
        "ProtocolVersion": "u",
        "StartTimestamp": "t",
        "SecretCount": "u",
        "SecretsLoadedTimestamp": "t",
        "Generation": "t",
        "ProjectCount": "u",
        "MemoryProtection": "s",
        "AuditHealthy": "b",
        "AuditDropped": "t",
        "FetchesAllowed": "t",
        "FetchesDenied": "t",
        "CredentialsServed": "t",
        "CredentialsRefused": "t",
    }
    assert {one.name: (one.in_signature, one.out_signature) for one in manager.methods} == {
        "ListProjects": ("", "a(so)"),
        "GetProject": ("s", "o"),
    }
    assert {one.name: one.signature for one in manager.signals} == {"ProjectAdded": "so", "ProjectRemoved": "so"}
    assert {one.name: one.signature for one in project.properties} == {
        "Name": "s",
        "SocketPath": "s",
        "AllowlistSize": "u",
        "CacheEntries": "u",
        "Connections": "u",
        "FetchesAllowed": "t",
        "FetchesDenied": "t",
        "LastFetchTimestamp": "t",
    }
    assert not project.methods
    assert not project.signals
    assert all(one.access.value == "read" for one in [*manager.properties, *project.properties])
