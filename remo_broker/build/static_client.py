"""Compile the static front of `remo-secret`, for this machine or another architecture.

    python3 -m remo_broker.build.static_client FILE [ARCHITECTURE]
    python3 -m remo_broker.build.static_client --analyze

musl's compiler (Debian: musl-tools) makes the smallest and fastest program. Without it, the
distribution's compiler is used, and a cross compiler for another architecture. Exit status 3 means
that there is no compiler.
"""

from __future__ import annotations

import os
import pathlib
import platform
import shutil
import subprocess
import sys

from remo_broker import __version__

SOURCE = pathlib.Path(__file__).resolve().parents[1] / "secret/remo-secret.c"
EXIT_NO_COMPILER = 3

DEFINES = (f'-DREMO_VERSION="{__version__}"',)
WARNINGS = ("-std=gnu11", "-Wall", "-Wextra", "-Wshadow", "-Wconversion", "-Wvla", "-Wformat=2")
# Debian's hardening flags, without the branch protection that differs by architecture.
HARDENING = ("-Os", "-g0", "-D_FORTIFY_SOURCE=2", "-fstack-protector-strong", "-fPIE", "-fno-strict-aliasing")
LINK = ("-Wl,-z,relro,-z,now,-z,noexecstack,-z,separate-code,--build-id=none,-s",)


class NoCompiler(Exception):
    """No compiler for the architecture is installed."""


def command(target: str, architecture: str) -> list[str]:
    """The compiler's command line. Raises `NoCompiler`."""
    flags = [*WARNINGS, *HARDENING, *DEFINES, "-o", target]
    musl = shutil.which("musl-gcc")
    # musl-gcc has no -static-pie: its start files and linker options are given explicitly.
    start = pathlib.Path(f"/usr/lib/{architecture}-linux-musl")
    if musl and architecture == platform.machine() and (start / "rcrt1.o").exists():
        pie = "-Wl,-pie,--no-dynamic-linker,-z,text"
        objects = [str(start / name) for name in ("rcrt1.o", "crti.o")]
        return [musl, *flags, "-static", "-nostartfiles", pie, *LINK, *objects, str(SOURCE), str(start / "crtn.o")]
    names = [f"{architecture}-linux-gnu-gcc", *(["gcc", "cc"] if architecture == platform.machine() else [])]
    for name in names:
        compiler = shutil.which(name)
        if compiler:
            return [compiler, *flags, "-static-pie", *LINK, str(SOURCE)]
    raise NoCompiler(f"no compiler for {architecture}: neither musl-gcc nor {names[0]} is installed")


def build(target: str | os.PathLike[str], architecture: str = "") -> None:
    """Compile into `target`. Raises `NoCompiler`, or `CalledProcessError` if compiling fails."""
    subprocess.run(command(os.fspath(target), architecture or platform.machine()), check=True)


def analyze() -> None:
    """Fail on any finding of gcc's and clang's analyzers. Raises `CalledProcessError`."""
    common = [*WARNINGS, "-Werror", *DEFINES, str(SOURCE), "-o", os.devnull]
    subprocess.run(["gcc", "-O2", "-fanalyzer", "-c", *common], check=True)
    options = [word for one in ("-analyzer-werror", "-analyzer-output=text") for word in ("-Xclang", one)]
    subprocess.run(["clang", "--analyze", *options, *common], check=True)


def main() -> int:
    if len(sys.argv) not in (2, 3):
        print("usage: python3 -m remo_broker.build.static_client FILE [ARCHITECTURE] | --analyze", file=sys.stderr)
        return 2
    try:
        if sys.argv[1:] == ["--analyze"]:
            analyze()
        else:
            build(*sys.argv[1:])
    except NoCompiler as error:
        print(error, file=sys.stderr)
        return EXIT_NO_COMPILER
    except subprocess.CalledProcessError as error:
        return error.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main())
