"""Reading a manifest with the standard library only, as `remo-secret` does in a container."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import remo_broker
from remo_broker.manifest import ManifestError
from remo_broker.manifest.result import build
from remo_broker.protocol.codes import Code

EXAMPLES = Path(__file__).parents[2] / "contract/fixtures/manifest"
GOOD = {"schema_version": 1, "project": "myrepo"}
FILE = {"fetch_as": "file", "file_path": "~/x", "file_mode": "0600", "template": "x"}


@pytest.mark.parametrize("example", ["allowlist-form", "binding-form"])
def test_it_needs_only_the_standard_library(example: str) -> None:
    program = (
        "import sys\n"
        "from remo_broker.manifest import document, result\n"
        f"print(result.build(document.parse(open({str(EXAMPLES / example)!r} + '.toml', 'rb').read()), '').project)\n"
        "assert not any(name.startswith(('pydantic', 'typing_extensions')) for name in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-P", "-c", program],
        env={"PYTHONPATH": str(Path(remo_broker.__file__).parent.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("myrepo\n", "")


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"project": "myrepo"},
        {"schema_version": 2, "project": "myrepo"},
        {"schema_version": True, "project": "myrepo"},
        {"schema_version": 1},
        GOOD | {"project": "My Repo"},
        GOOD | {"project": {}},
        GOOD | {"project": {"name": "myrepo"}},
        GOOD | {"project": {"name": "myrepo"}, "allowlist": {}},
        GOOD | {"project": {"name": "myrepo"}, "allowlist": {"secrets": ["a b"]}},
        GOOD | {"project": {"name": "myrepo"}, "allowlist": {"secrets": [1]}},
        GOOD | {"project": {"name": "myrepo"}, "allowlist": {"secrets": 1}},
        GOOD | {"project": {"name": "myrepo", "description": 1}, "allowlist": {"secrets": []}},
        GOOD | {"secrets": 1},
        GOOD | {"secrets": {"A\x1b": {}}},
        GOOD | {"secrets": {"A": 1}},
        GOOD | {"secrets": {"A": {"fetch_as": "stdin"}}},
        GOOD | {"secrets": {"A": {"fetch_as": []}}},
        GOOD | {"secrets": {"A": {"env_var": "A=B"}}},
        GOOD | {"secrets": {"A": {"env_var": 1}}},
        GOOD | {"secrets": {"A": {"env_var": "A\n"}}},
        GOOD | {"secrets": {"A": FILE | {"file_path": ""}}},
        GOOD | {"secrets": {"A": FILE | {"file_path": "a\0b"}}},
        GOOD | {"secrets": {"A": FILE | {"file_path": "a\n"}}},
        GOOD | {"secrets": {"A": FILE | {"file_mode": 0o600}}},
        GOOD | {"secrets": {"A": FILE | {"file_mode": "rw"}}},
        GOOD | {"secrets": {"A": FILE | {"template": 1}}},
        GOOD | {"cache": 1},
        GOOD | {"cache": {"default_ttl_seconds": "1"}},
        GOOD | {"cache": {"default_max_entries": True}},
    ],
)
def test_unusable_tables_are_refused(document: dict[str, Any]) -> None:
    with pytest.raises(ManifestError) as caught:
        build(document, "/x")
    assert caught.value.code is Code.MANIFEST_INVALID
    assert "schema_version" in caught.value.message or "'remo-brokerctl check'" in caught.value.message


def test_the_same_tables_are_accepted_when_valid() -> None:
    assert build(GOOD | {"secrets": {"A": FILE}}, "/x").allowlist == ("A",)
