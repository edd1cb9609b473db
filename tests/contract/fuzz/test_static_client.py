"""Every input that the fuzzer of the static client starts from, once, with clang's sanitizers."""

from __future__ import annotations

import pathlib
import shutil
import subprocess

import pytest

from tests.contract.fuzz import static_client
from tests.support.machine import unavailable


def test_known_inputs_find_nothing(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("clang") is None:
        unavailable("clang is not installed here: ./run test installs it")
    monkeypatch.chdir(tmp_path)  # where a finding would be left
    try:
        assert static_client.fuzz(0, tmp_path) == 0
    except subprocess.CalledProcessError:
        unavailable("clang cannot link with its sanitizers here: ./run test installs libclang-rt-dev")
