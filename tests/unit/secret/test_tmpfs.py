"""Which directories for rendered files outlive the user's session."""

from __future__ import annotations

import os
import pathlib

import pytest

from remo_broker.client.unreachable import user_name
from remo_broker.secret import tmpfs


def test_files_in_the_runtime_directory_end_with_the_session_unless_the_user_lingers(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tmpfs, "LINGERING", str(tmp_path))
    assert tmpfs.ends_with_session("/run/user/1000/remo-secret-1000/web")
    for lasting in ("/dev/shm/remo-secret-1000/web", "/run/remo-secret-0/web", "/run/username/web"):
        assert not tmpfs.ends_with_session(lasting)
    (tmp_path / user_name(os.geteuid())).touch()
    assert not tmpfs.ends_with_session("/run/user/1000/remo-secret-1000/web")
