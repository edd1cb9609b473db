"""Filled templates, and the error for a field that a secret lacks."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remo_broker.cli.program import Problem
from remo_broker.client.value import SecretValue
from remo_broker.secret.template import fill
from tests.process.secret.conftest import MANIFEST
from tests.support.programs import refused

if TYPE_CHECKING:
    from tests.process.secret.conftest import Workspace


def test_an_unknown_field_is_named(project: Workspace) -> None:
    project.broker.push({"aws": {"id": "zqSecretzq"}}, KEY="AA==")
    line = refused(project.run("render"), 1)
    assert "{{key}}, a field that the secret lacks\nHint: it has {{id}}" in line
    assert "zqSecretzq" not in line
    project.register(MANIFEST.replace("{{value}}", "{{oops-field}}"))
    project.push_all()
    assert "{{oops-field}}" in refused(project.run("render"), 1)


def test_the_whole_of_a_secret() -> None:
    secret = SecretValue("TOKEN", "v", 1, 1)
    assert fill("{{value}} {{ value }} {{{value}}} { {value} } {}", secret) == b"v v {v} { {value} } {}"
    assert fill("{{value}}", SecretValue("K", b"\0\xff", 1, 1)) == b"\0\xff"
    with pytest.raises(Problem, match=r"has \{\{id\}\}, a field that the secret lacks"):
        fill("{{value}}{{id}}", secret)


def test_a_template_made_to_be_expensive() -> None:
    template = "{{" + " " * 65_000
    assert fill(template, SecretValue("TOKEN", "v", 1, 1)) == template.encode()
    with pytest.raises(Problem) as raised:
        fill("{{" + "x" * 65_000 + "}}", SecretValue("TOKEN", "v", 1, 1))
    assert len(str(raised.value)) < 300


def test_the_template_tells_a_string_that_is_json_from_a_bundle() -> None:
    """A service account's key is such a string, and its file must contain it unchanged."""
    text = '{ "type": "account",\n "value": "zqKeyzq" }'
    secret = SecretValue("ACCOUNT", text, 1, 1)
    assert fill("{{value}}", secret) == text.encode()
    assert fill("{{type}}: {{value}}", secret) == b"account: zqKeyzq", "beside another field, a field"


@pytest.mark.parametrize(
    ("name", "filled"),
    [
        ("base64", "aXQncyAiYSI6XGI="),
        ("json", '"it\'s \\"a\\":\\\\b"'),
        ("pgpass", 'it\'s "a"\\:\\\\b'),
        ("shell", "'it'\"'\"'s \"a\":\\b'"),
    ],
)
def test_each_filter_escapes_what_its_format_requires(name: str, filled: str) -> None:
    secret = SecretValue("text", 'it\'s "a":\\b', 1, 1)
    assert fill(f"<{{{{value|{name}}}}}>", secret) == f"<{filled}>".encode()


@given(
    st.dictionaries(
        st.from_regex(r"\A[A-Za-z0-9_]{1,9}\Z"), st.text(st.characters(exclude_categories=["Cs"])), min_size=1
    )
)
def test_every_field_is_filled_in_unchanged(fields: dict[str, str]) -> None:
    secret = SecretValue("bundle", json.dumps(fields), 1, 1)
    for name, value in fields.items():
        assert fill(f"<{{{{{name}}}}}>", secret) == f"<{value}>".encode()
    assert fill("é{{", secret) == "é{{".encode()
