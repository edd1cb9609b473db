"""Which part may import which. The folders of the package are its processes, and this is what holds
their borders.

By the syntax tree, imports inside functions and for type checkers included; and once by what a real
broker has loaded after it served a `get`."""

from __future__ import annotations

import ast
import collections
import contextlib
import functools
import pathlib
import subprocess
import sys
from typing import TYPE_CHECKING

import remo_broker
from tests.support.broker import Broker, registration, short_directory
from tests.support.units import Units

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = pathlib.Path(remo_broker.__file__).parent
# Together these would double the start of the broker and what it keeps in memory.
HEAVY = frozenset(
    {
        *("argparse", "asyncio", "contextlib", "dataclasses", "pydantic", "selectors"),
        *("signal", "socket", "subprocess", "typing"),
    }
)
# What a broker under systemd imports before it answers, beside what the flags of a test broker do:
# each takes a third of a millisecond, and those who start it by connecting wait for it.
MOST_MODULES = 110
# Imported only where there are flags; the unit gives none.
ONLY_WITH_FLAGS = {"remo_broker.protocol.config": {"argparse"}}


class Import:
    """One imported module. `typing_only`: by a type checker, never at run time."""

    def __init__(self, module: str, *, typing_only: bool) -> None:
        self.module = module
        self.typing_only = typing_only


def name_of(file: pathlib.Path) -> str:
    parts = ("remo_broker", *file.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {name_of(file): file for file in sorted(PACKAGE.rglob("*.py"))}


def imports_of(node: ast.AST, *, typing_only: bool = False) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield Import(alias.name, typing_only=typing_only)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, "imports are absolute"
            assert child.module is not None
            for alias in child.names:
                # `from package import module` imports the module.
                inner = f"{child.module}.{alias.name}"
                yield Import(inner if inner in FILES else child.module, typing_only=typing_only)
        elif isinstance(child, ast.If) and isinstance(child.test, ast.Name) and child.test.id == "TYPE_CHECKING":
            for statement in child.body:
                yield from imports_of(ast.Module([statement], []), typing_only=True)
            for statement in child.orelse:
                yield from imports_of(ast.Module([statement], []), typing_only=typing_only)
        else:
            yield from imports_of(child, typing_only=typing_only)


@functools.cache
def all_imports() -> dict[str, list[Import]]:
    return {name: list(imports_of(ast.parse(file.read_text()))) for name, file in FILES.items()}


def is_in(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


def importers_of(package: str) -> set[str]:
    """Who imports something of `package` from outside of it."""
    return {
        name
        for name, imports in all_imports().items()
        if not is_in(name, package) and any(is_in(one.module, package) for one in imports)
    }


def test_only_the_entry_point_imports_the_broker() -> None:
    assert importers_of("remo_broker.broker") == {"remo_broker.__main__"}


def test_the_protocol_imports_nothing_else_of_the_package() -> None:
    foreign = {
        (name, one.module)
        for name, imports in all_imports().items()
        if is_in(name, "remo_broker.protocol")
        for one in imports
        # The package itself has the version numbers and imports nothing.
        if is_in(one.module, "remo_broker")
        and one.module != "remo_broker"
        and not is_in(one.module, "remo_broker.protocol")
    }
    assert foreign == set()
    assert [one for one in all_imports()["remo_broker"] if one.module != "__future__"] == []


def test_only_the_bus_service_imports_dbus_next() -> None:
    assert {name for name in importers_of("dbus_next") if not is_in(name, "remo_broker.bus")} == set()


def test_broker_and_protocol_import_nothing_heavy() -> None:
    heavy = {
        (name, one.module)
        for name, imports in all_imports().items()
        if is_in(name, "remo_broker.broker") or is_in(name, "remo_broker.protocol")
        for one in imports
        if not one.typing_only and one.module.partition(".")[0] in HEAVY - ONLY_WITH_FLAGS.get(name, set())
    }
    assert heavy == set()


def test_only_the_one_module_reads_a_clock() -> None:
    reads = {"clock_gettime", "clock_gettime_ns", "monotonic", "monotonic_ns", "time", "time_ns"}
    readers = {
        name
        for name, file in FILES.items()
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
        if node.value.id == "time" and node.attr in reads
    }
    assert readers == {"remo_broker.protocol.clock"}


def test_each_class_name_is_there_once() -> None:
    names = collections.Counter(
        node.name
        for file in FILES.values()
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.ClassDef)
    )
    assert [name for name, count in names.items() if count > 1] == []


def test_there_is_no_circle_of_imports() -> None:
    """Among modules; imports for type checkers count, as a reader has to follow those too."""
    edges = {
        name: {one.module for one in imports if one.module in FILES and one.module != name}
        for name, imports in all_imports().items()
    }
    while leaves := {name for name, needs in edges.items() if not needs}:
        edges = {name: needs - leaves for name, needs in edges.items() if name not in leaves}
    assert sorted(edges) == []


# What a test broker's flags take: argparse imports some of it when it is used.
PARSE = "import argparse, shutil; p = argparse.ArgumentParser(); p.add_argument('--x'); p.parse_args([])"


def loaded_by(report: str) -> set[str]:
    """The modules in what Python says with -X importtime."""
    return {line.rpartition("|")[2].strip() for line in report.splitlines() if line.startswith("import time:")}


def test_a_broker_that_served_a_get_has_loaded_nothing_heavy(tmp_path: pathlib.Path) -> None:
    report = tmp_path / "imports"
    with short_directory() as directory, report.open("wb") as stderr, contextlib.closing(Units(directory)) as units:
        units.add("admin")
        units.add("status")
        units.add("client-myrepo")
        broker = Broker(
            directory,
            projects=[registration("myrepo", "A")],
            listeners=units.sockets,
            environment={"PYTHONPROFILEIMPORTTIME": "1"},
            stderr=stderr.fileno(),
        ).start()
        try:
            broker.push({"A": "a"})
            assert broker.get("A")["value"] == "a"
            assert broker.status()["secret_count"] == 1
        finally:
            broker.close()
    # What site packages and -m load at the start of any program is not the broker's doing, nor what
    # the flags of a test broker need.
    bare: set[str] = set()
    for program in (["-m", "keyword"], ["-c", PARSE]):
        command = [sys.executable, "-X", "importtime", *program]
        bare |= loaded_by(subprocess.run(command, capture_output=True, text=True, check=True).stderr)
    loaded = loaded_by(report.read_text()) - bare
    assert {"remo_broker.broker.daemon", "systemd._daemon"} <= loaded
    assert len(loaded) <= MOST_MODULES, sorted(loaded)
    assert {name for name in loaded if name.partition(".")[0] in HEAVY} == set()
    assert {name for name in loaded if is_in(name, "remo_broker")} <= {
        name for name in FILES if is_in(name, "remo_broker.broker") or is_in(name, "remo_broker.protocol")
    } | {
        *("remo_broker", "remo_broker.__main__"),
        # How sockets are made: by the broker itself where systemd does not start the helper that
        # makes them as root.
        *("remo_broker.binder", "remo_broker.binder.files"),
    }
