"""Defects in how manifests are read, judged and adopted."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

CHANGES = "remo_broker/broker/manifest_changes.py"
RELOADS = "remo_broker/broker/manifest_operations.py"
READER = "remo_broker/manifest/reader.py"
DOCUMENT = "remo_broker/manifest/document.py"
CHILD = "remo_broker/manifest/__main__.py"

MANIFESTS = (
    Mutant(
        READER,
        "seen.st_nlink > 1 and seen.st_uid != owner",
        "seen.st_nlink > 1 and False",
        "tests/unit/manifest/test_reader.py",
    ),
    Mutant(
        READER,
        "os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC",
        "os.O_PATH | os.O_CLOEXEC",
        "tests/unit/manifest/test_reader.py",
    ),
    Mutant(
        READER,
        "    if before.st_size > MAX_BYTES:\n",
        "    if before.st_size > 1 << 40:\n",
        "tests/unit/manifest/test_reader.py",
    ),
    Mutant(
        READER,
        "    if before.st_size and _first_hole(file) < before.st_size:\n",
        "    if False:\n",
        "tests/unit/manifest/test_reader.py::test_a_sparse_file",
    ),
    Mutant(
        READER,
        '("st_size", "st_mtime_ns", "st_ctime_ns")',
        '("st_size",)',
        "tests/unit/manifest/test_reader_races.py::test_a_file_that_changes_while_it_is_read",
    ),
    Mutant(
        DOCUMENT,
        "            if dots >= MAX_KEY_PARTS:\n".replace("            if", "                if"),
        "                if dots >= 1 << 30:\n",
        "tests/unit/manifest/test_document.py::test_a_costly_document_is_refused_at_once",
    ),
    Mutant(
        CHILD,
        "    signal.setitimer(signal.ITIMER_REAL, DEADLINE_SECONDS)\n",
        "",
        "tests/process/manifest/test_child.py::test_any_failure_is_one_line",
    ),
    Mutant(
        CHILD,
        '    os.environ["PYDANTIC_DISABLE_PLUGINS"] = "__all__"\n',
        "",
        "tests/process/manifest/test_child.py::test_no_plugin_of_another_package_runs",
    ),
    Mutant(
        CHANGES,
        "            self.added\n            or ",
        "            ",
        "tests/process/ctl/test_reload.py::test_any_widening_must_be_approved[name]",
    ),
    Mutant(
        CHANGES,
        "            or fresh.ttl_seconds > before.ttl_seconds\n",
        "",
        "tests/process/ctl/test_reload.py::test_any_widening_must_be_approved",
    ),
    Mutant(
        CHANGES,
        "            or fresh.max_entries > before.max_entries\n",
        "",
        "tests/process/ctl/test_reload.py::test_any_widening_must_be_approved[leases]",
    ),
    Mutant(
        CHANGES,
        "            or any(name in kept for name in self.bindings)\n",
        "",
        "tests/process/ctl/test_reload.py::test_any_widening_must_be_approved",
    ),
    Mutant(
        RELOADS,
        "                if sha256 is not None and sha256 != allowed.source.sha256:\n",
        "                if False:\n",
        "tests/process/ctl/test_reload.py::test_only_the_approved_content_is_adopted",
    ),
)
