"""A manifest's text, validated as the reader does."""

from __future__ import annotations

import re

import pytest

from remo_broker.manifest import Manifest, ManifestError
from remo_broker.manifest.document import parse
from remo_broker.manifest.result import build
from remo_broker.manifest.rules_between_keys import check
from remo_broker.protocol.codes import Code


def validated(text: str, name: str | None = "myrepo", directory: str | None = "myrepo", **limits: int) -> Manifest:
    document = parse(text.encode())
    check(document, name=name, directory=directory, **limits)
    return build(document, "/projects/myrepo/.remo/broker.toml", **limits)


def refusal(text: str, name: str | None = "myrepo", directory: str | None = "myrepo", **limits: int) -> ManifestError:
    with pytest.raises(ManifestError) as caught:
        validated(text, name, directory, **limits)
    error = caught.value
    assert error.code is Code.MANIFEST_INVALID
    assert re.fullmatch(r"[ -~]{1,300}", error.message), "one line of printable ASCII"
    if error.key is not None:
        assert error.message.startswith(f"{error.key}: ")
    return error
