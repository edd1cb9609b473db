"""Reading a manifest while another process works on it."""

from __future__ import annotations

import contextlib
import multiprocessing
import re
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from remo_broker.manifest import ManifestError
from remo_broker.manifest.reader import read
from remo_broker.protocol.codes import Code
from tests.support.manifests import ProjectDirectory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def refusal(project: ProjectDirectory | Path, code: Code = Code.MANIFEST_UNREADABLE) -> str:
    path = project if isinstance(project, Path) else project.path
    with pytest.raises(ManifestError) as caught:
        read(str(path))
    error = caught.value
    assert error.code is code
    assert error.key is None
    assert re.fullmatch(r"[ -~]{1,300}", error.message)
    assert str(path.parent) not in error.message, "what came with a request is not repeated"
    return error.message


def attempt(project: ProjectDirectory) -> str:
    try:
        read(str(project.path))
    except ManifestError as error:
        return error.message
    return "read"


@contextlib.contextmanager
def other_process(work: Callable[[], object]) -> Iterator[int]:
    """Run `work` in another process: once it returns, that process is ready; or repeatedly."""
    context = multiprocessing.get_context("fork")
    ready = context.Event()

    def run() -> None:
        while True:
            again = work()
            ready.set()
            if again is None:
                signal.pause()

    process = context.Process(target=run)
    process.start()
    try:
        assert ready.wait(20)
        assert process.pid is not None
        yield process.pid
    finally:
        process.kill()
        process.join()
        process.close()
