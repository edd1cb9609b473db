"""The C programs of the benchmark, compiled when their sources change."""

from __future__ import annotations

import dataclasses
import hashlib
import pathlib
import shutil
import subprocess
import tempfile

SOURCES = pathlib.Path(__file__).parent
CACHE = SOURCES.parents[1] / ".cache/bench"
FLAGS = ("-O2", "-std=gnu11", "-Wall", "-Wextra", "-Werror")


@dataclasses.dataclass(frozen=True)
class Programs:
    """Where the compiled programs are. `secret_service` is None where libsystemd's headers lack."""

    load: pathlib.Path
    echo: pathlib.Path
    blast: pathlib.Path
    secret_service: pathlib.Path | None


def build() -> Programs:
    """Compile what is not compiled yet. Raises CalledProcessError where the compiler objects."""
    digest = hashlib.sha256(" ".join(FLAGS).encode())
    for source in sorted(SOURCES.glob("*.[ch]")):
        digest.update(source.read_bytes())
    directory = CACHE / digest.hexdigest()[:16]
    if not directory.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        for old in CACHE.iterdir():
            shutil.rmtree(old, ignore_errors=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
            new = pathlib.Path(scratch, "new")
            new.mkdir()
            for name in ("load", "echo", "blast"):
                _compile(new, name)
            if subprocess.run(["pkg-config", "--exists", "libsystemd"], check=False).returncode == 0:
                _compile(new, "secret_service", "-lsystemd")
            new.rename(directory)
    secret_service = directory / "secret_service"
    return Programs(
        directory / "load",
        directory / "echo",
        directory / "blast",
        secret_service if secret_service.exists() else None,
    )


def _compile(directory: pathlib.Path, name: str, *libraries: str) -> None:
    sources = [SOURCES / f"{name}.c", SOURCES / "common.c"]
    subprocess.run(["cc", *FLAGS, "-o", directory / name, *sources, *libraries], check=True)
