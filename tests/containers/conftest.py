"""The dev container Feature as it is installed, and the static client."""

from __future__ import annotations

import pathlib
import platform
import shutil

import pytest

from remo_broker.build import pack
from remo_broker.build.static_client import NoCompiler, build
from tests.support.machine import REPOSITORY, unavailable

SOURCE = REPOSITORY / "feature"


@pytest.fixture(scope="session")
def feature(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """What `./run install` puts into /usr/share/remo-broker/feature, with the one file that is
    copied beside it."""
    directory = tmp_path_factory.mktemp("feature") / "remo-broker"
    shutil.copytree(SOURCE, directory)
    try:
        build(directory / f"remo-secret.{platform.machine()}")
    except NoCompiler as error:
        unavailable(f"{error}: ./run test installs one")
    one_file = directory / "remo-secret.pyz"
    one_file.write_bytes(pack.pack())
    one_file.chmod(0o755)
    return directory
