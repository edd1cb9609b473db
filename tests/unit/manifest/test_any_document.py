"""Any document: a valid one is accepted, and any other gives one clean line per fault."""

from __future__ import annotations

import re
import string
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from remo_broker.manifest import Binding, EnvBinding, FileBinding, Manifest, ManifestError
from remo_broker.manifest.keys import ALLOWED
from remo_broker.manifest.result import build
from remo_broker.manifest.rules_between_keys import faults
from tests.support.machine import REPOSITORY

secret_names = st.text(string.ascii_letters + string.digits + "_", min_size=1, max_size=128)
variables = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]*", fullmatch=True)
env_tables = st.fixed_dictionaries({}, optional={"fetch_as": st.just("env"), "env_var": variables})
paths = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1)
file_tables = st.fixed_dictionaries(
    {
        "fetch_as": st.just("file"),
        "file_path": paths,
        "file_mode": st.from_regex(r"[0-7]{4}", fullmatch=True),
        "template": st.text(),
    }
)
tables = env_tables | file_tables


def binding(name: str, table: dict[str, Any]) -> list[Binding]:
    if table.get("fetch_as") == "file":
        return [FileBinding(table["file_path"], int(table["file_mode"], 8), table["template"])]
    return [EnvBinding({table.get("env_var", name.upper()): None}, explicit="env_var" in table)]


@given(st.lists(secret_names, unique=True), st.data())
def test_every_valid_allowlist_form_is_accepted_unchanged(names: list[str], data: st.DataObject) -> None:
    bound = {} if not names else data.draw(st.dictionaries(st.sampled_from(names), tables))
    ttl, entries = data.draw(st.integers(1, 900)), data.draw(st.integers(1, 64))
    description = data.draw(st.text(max_size=256))
    document = {
        "schema_version": 1,
        "project": {"name": "myrepo", "description": description},
        "allowlist": {"secrets": names},
        "secrets": bound,
        "cache": {"ttl_seconds": ttl, "max_entries": entries},
    }
    assert faults(document, name="myrepo", directory="myrepo") == []
    bindings = {name: binding(name, bound.get(name, {})) for name in names}
    assert build(document, "/x") == Manifest("myrepo", description, tuple(names), bindings, ttl, entries, "/x")


@given(st.dictionaries(secret_names, tables))
def test_every_valid_binding_form_is_accepted_unchanged(bound: dict[str, Any]) -> None:
    document = {"schema_version": 1, "project": "myrepo", "secrets": bound}
    assert faults(document, name="myrepo", directory="myrepo") == []
    manifest = build(document, "/x")
    assert manifest.allowlist == tuple(bound)
    assert manifest.bindings == {name: binding(name, table) for name, table in bound.items()}


# "[key]", "env" and "file" are words that pydantic puts between the keys of an error.
KEYS = [*sorted({part for key in ALLOWED for part in key.split(".")} - {"*"}), "[key]", "env", "file"]
values = st.recursive(
    st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.datetimes()
    | st.sampled_from(["env", "file", "myrepo"]),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(KEYS) | st.text() | secret_names, inner),
    max_leaves=10,  # of each of some 30 keys
)
documents = st.fixed_dictionaries({}, optional=dict.fromkeys(KEYS, values)) | st.dictionaries(st.text(), values)


def foreign_texts(value: Any) -> set[str]:
    """Every text of a document that a message must not contain: no keyword, no valid secret
    name."""
    if isinstance(value, str):
        return (
            {value}
            if len(value) >= 3 and not re.fullmatch(r"[A-Za-z0-9_-]{1,64}|[A-Za-z0-9_]{1,128}", value)
            else set()
        )
    if isinstance(value, dict):
        return set().union(*(foreign_texts(part) for pair in value.items() for part in pair))
    return set().union(*(foreign_texts(part) for part in value)) if isinstance(value, list) else set()


# A text that is part of our own messages proves nothing, and hypothesis tries the strings that it
# finds in the code.
OUR_WORDS = "".join(path.read_text() for path in (REPOSITORY / "remo_broker/manifest").glob("*.py"))


@given(documents)
def test_any_fault_is_one_clean_line(document: dict[str, Any]) -> None:
    document = {"schema_version": 1} | document
    found = faults(document, name="myrepo", directory="myrepo")
    for fault in found:
        assert re.fullmatch(r"[ -~]{1,500}", fault.message)
        assert fault.key is None or fault.message.startswith(f"{fault.key}: ")
        assert not any(text in fault.message for text in foreign_texts(document) - {"myrepo"} if text not in OUR_WORDS)
    try:
        manifest = build(document, "/x")
    except ManifestError:
        assert found, "what the models take can be built"
        return
    # Built without pydantic, from any document: the result can be used.
    for name, own in manifest.bindings.items():
        assert re.fullmatch(r"[A-Za-z0-9_]{1,128}", name)
        for bound in own:
            if isinstance(bound, EnvBinding):
                assert all(re.fullmatch(r"[A-Za-z0-9_]+", variable) for variable in bound.variables)
            else:
                assert isinstance(bound, FileBinding)
                assert bound.file_path.isprintable() or not re.search(r"[\x00-\x1f\x7f-\x9f]", bound.file_path)
                assert 0 <= bound.file_mode <= 0o7777
