"""The reader as the broker starts it: a process of its own, one line, within its deadline."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import remo_broker
from remo_broker.manifest import ManifestError, faults, load
from tests.support.manifests import GOOD, PLACES
from tests.unit.manifest.test_document import BOMBS

if TYPE_CHECKING:
    from tests.support.manifests import ProjectDirectory

# A longer run hangs; generous, because the machine may be busy.
HANGS_AFTER = 20.0
ROOT = Path(remo_broker.__file__).parent.parent
PYTHON = [sys.executable, "-P"]
ENVIRONMENT = {"PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)]), "LC_ALL": "C.UTF-8"}


def request(project_path: Path | str, name: str = "myrepo", ttl: int = 900, entries: int = 64) -> bytes:
    fields = {"project_path": str(project_path), "name": name, "max_ttl_seconds": ttl, "max_entries": entries}
    return json.dumps(fields).encode() + b"\n"


def start(
    line: bytes, *given: str, module: str = "remo_broker.manifest", **options: Any
) -> subprocess.CompletedProcess[bytes]:
    options = {"capture_output": True, "timeout": HANGS_AFTER} | options
    command = [*PYTHON, "-m", module, *given]
    done: Any = subprocess.run(command, input=line, env=ENVIRONMENT, check=False, **options)
    assert isinstance(done, subprocess.CompletedProcess)
    return done


def run(line: bytes, *given: str, **options: Any) -> dict[str, Any]:
    """The child's reply, which must be well-formed."""
    done = start(line, *given, **options)
    assert done.returncode == 0
    assert done.stderr == b""
    assert done.stdout.endswith(b"\n")
    assert done.stdout.count(b"\n") == 1
    assert all(0x20 <= byte < 0x7F for byte in done.stdout[:-1])
    said: dict[str, Any] = json.loads(done.stdout)
    if not said["ok"]:
        assert set(said) - {"key", "late"} == {"ok", "code", "message"}
    return said


def test_a_valid_manifest(project: ProjectDirectory) -> None:
    file = project.write(GOOD + b"[secrets.NPM_TOKEN]\n[cache]\ndefault_ttl_seconds = 600\n", PLACES[1])
    assert run(request(project.path, ttl=800, entries=32)) == {
        "ok": True,
        "source": str(file),
        "allowlist": ["GITHUB_TOKEN", "NPM_TOKEN"],
        "ttl_seconds": 600,
        "max_entries": 32,
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "hosts": {},
        "bindings": {},
    }


@pytest.mark.parametrize(
    ("content", "code", "key"),
    [
        (None, "manifest_not_found", None),
        (b"x = \x1b", "manifest_invalid", None),
        (b"\xff", "manifest_invalid", None),
        (b"", "manifest_invalid", "schema_version"),
        (GOOD.replace(b"myrepo", b"other"), "manifest_invalid", "project"),
        (GOOD + b"[cache]\ndefault_ttl_seconds = 901\n", "manifest_invalid", "cache.default_ttl_seconds"),
        (b"#" * 65537, "manifest_unreadable", None),
    ],
)
def test_a_manifest_that_fails(project: ProjectDirectory, content: bytes | None, code: str, key: str | None) -> None:
    if content is not None:
        project.write(content)
    said = run(request(project.path))
    assert (said["ok"], said["code"], said.get("key")) == (False, code, key)


@pytest.mark.parametrize("name", BOMBS)
def test_a_costly_manifest_is_refused_within_the_deadline(project: ProjectDirectory, name: str) -> None:
    content, says = BOMBS[name]
    project.write(content)
    said = run(request(project.path))
    assert says in said["message"]


def test_the_longest_line_goes_out_whole(project: ProjectDirectory) -> None:
    """Even if it does not fit at once, as with a nearly full pipe."""
    names = ",".join(f'"{number:04}"' for number in range(9_300))
    project.write(f'schema_version=1\nproject.name="myrepo"\nallowlist.secrets=[{names}]')
    command = [*PYTHON, "-m", "remo_broker.manifest"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=ENVIRONMENT) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        fcntl.fcntl(child.stdout, fcntl.F_SETPIPE_SZ, 4096)
        child.stdin.write(request(project.path))
        child.stdin.flush()
        said = json.loads(child.stdout.read())
    assert child.returncode == 0
    assert len(said["allowlist"]) == 9_300


def test_a_reader_without_a_listener_exits_quietly(project: ProjectDirectory) -> None:
    project.write()
    receive, send = os.pipe()
    os.close(receive)
    done = start(request(project.path), capture_output=False, stdout=send, stderr=subprocess.PIPE)
    os.close(send)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize(
    "line",
    [b"", b"\n", b"{}\n", b"[]\n", b"\xff\n", b"[" * 30_000, request("/x").replace(b"900", b'"x"'), request("x")],
)
def test_a_malformed_request(line: bytes) -> None:
    assert run(line)["ok"] is False


# --- its own limits: `stand_in` is the reader with a parser that misbehaves -----------------------------------------


@pytest.mark.parametrize(
    ("parser", "code", "says"),
    [
        ("fail", "manifest_unreadable", "internal error of the manifest reader (ZeroDivisionError)"),
        ("recurse", "manifest_invalid", "nested too deeply"),
        ("allocate", "manifest_invalid", "too much memory"),
        ("lack", "manifest_unreadable", "a part of the manifest reader is missing"),
        ("loop", "manifest_unreadable", "took longer than 1.5 s"),
        ("sleep", "manifest_unreadable", "took longer than 1.5 s"),
    ],
)
def test_any_failure_is_one_line(project: ProjectDirectory, parser: str, code: str, says: str) -> None:
    project.write()
    said = run(request(project.path), parser, "-", module="tests.process.manifest.stand_in")
    assert said["code"] == code
    assert says in said["message"]
    assert "hunter2" not in said["message"]


# The modules that are loaded after the deadlines have begun to run.
LOADED_LATE = """
import sys
from remo_broker.manifest import __main__ as child
child.begin = lambda: early.update(sys.modules)
early = set()
child.restrict()
fields = child.answer(child.receive())
print(fields["ok"], *sorted(set(sys.modules) - early))
"""


def test_all_modules_are_loaded_before_the_deadlines_run(project: ProjectDirectory) -> None:
    """On a busy machine, that takes longer than reading may."""
    project.write(GOOD)
    command = [*PYTHON, "-c", LOADED_LATE]
    done = subprocess.run(command, input=request(project.path), env=ENVIRONMENT, capture_output=True, check=True)
    assert done.stdout.split() == [b"True"]


def test_the_kernel_kills_a_reader_that_ignores_the_alarm(project: ProjectDirectory) -> None:
    project.write()
    done = start(request(project.path), "loop_in_c", "-", module="tests.process.manifest.stand_in")
    assert done.returncode == -signal.SIGKILL
    assert (done.stdout, done.stderr) == (b" ", b"")  # it had begun


def test_it_writes_nothing_starts_nothing_and_inherits_nothing(project: ProjectDirectory) -> None:
    project.write()
    with open("/dev/null", "rb") as inherited:
        said = run(
            *(request(project.path), "probe", str(inherited.fileno())),
            module="tests.process.manifest.stand_in",
            pass_fds=(inherited.fileno(),),
            cwd=project.path,
        )
    assert "(Probed)" in said["message"]


# --- the same in one's own process -----------------------------------------------------------------------------------


def test_no_plugin_of_another_package_runs(project: ProjectDirectory, tmp_path: Path) -> None:
    """pydantic runs what other packages name as its plugins."""
    mark = tmp_path / "ran"
    (tmp_path / "plugged.py").write_text(f"open({str(mark)!r}, 'w')\nplugin = None\n")
    metadata = tmp_path / "plugged-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: plugged\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text("[pydantic]\nplugged = plugged:plugin\n")
    project.write(GOOD)
    environment = ENVIRONMENT | {"PYTHONPATH": os.pathsep.join([str(tmp_path), ENVIRONMENT["PYTHONPATH"]])}
    command = [*PYTHON, "-m", "remo_broker.manifest"]
    done = subprocess.run(command, input=request(project.path), env=environment, capture_output=True, check=True)
    assert json.loads(done.stdout)["ok"]
    assert not mark.exists()


def test_load_requires_the_directorys_name(project: ProjectDirectory) -> None:
    project.write()
    assert load(str(project.path)).allowlist == ("GITHUB_TOKEN",)
    elsewhere = project.path.rename(project.path.parent / "elsewhere")
    with pytest.raises(ManifestError) as caught:
        load(str(elsewhere))
    assert caught.value.key == "project"


def test_faults_returns_all_faults_and_the_file(project: ProjectDirectory) -> None:
    file = project.write(GOOD + b"[secrets.A]\nx = 1\n[cache]\ny = 1\n")
    source, found = faults(str(project.path))
    assert source == str(file)
    assert [fault.key for fault in found] == ["secrets.A.x", "cache.y"]
    file.write_bytes(GOOD)
    assert faults(str(project.path)) == (str(file), [])
    file.write_bytes(b"?")
    source, found = faults(str(project.path))
    assert (source, [fault.key for fault in found]) == (str(file), [None])
    file.unlink()
    source, found = faults(str(project.path))
    assert (source, [str(fault.code) for fault in found]) == (None, ["manifest_not_found"])
