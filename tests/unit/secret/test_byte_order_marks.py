"""Files with a byte-order mark, as some editors write them, are read like those without."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from remo_broker.secret.config_lines import AlreadySet, add_line
from remo_broker.secret.doctor import _text
from remo_broker.secret.manifests import project_of

if TYPE_CHECKING:
    import pathlib

MARK = "\ufeff"


@pytest.mark.parametrize("text", ['project = "myrepo"\n', '[project]\nname = "myrepo"\n'])
def test_the_project_of_a_manifest(tmp_path: pathlib.Path, text: str) -> None:
    file = tmp_path / "manifest.toml"
    for content in (text, MARK + text):
        file.write_text(content)
        assert project_of(str(file)) == "myrepo"


def test_a_line_is_added_to_the_section_that_is_there() -> None:
    before = "[registry]\ndefault = 'x'\n"
    added = add_line("config.toml", before, "registry", "y = 1")
    assert add_line("config.toml", MARK + before, "registry", "y = 1") == MARK + added
    with pytest.raises(AlreadySet):
        add_line("npmrc", MARK + "key=1\n", None, "key=2")


def test_files_that_doctor_searches(tmp_path: pathlib.Path) -> None:
    file = tmp_path / ".env"
    file.write_text(MARK + "TOKEN=1\n")
    assert _text(str(file)) == "TOKEN=1\n"
