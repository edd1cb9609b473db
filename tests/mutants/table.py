"""The defects: a file, a text in it that stands there once, what it becomes, and the test that must fail then.

For each new defence, add the row that takes it out. Name the cheapest test that fails, by its id.
"""

from __future__ import annotations

from typing import NamedTuple


class Mutant(NamedTuple):
    file: str
    old: str
    new: str
    test: str


MEMORY = "remo_broker/broker/secrets/memory.py"
PROCESS = "remo_broker/protocol/process.py"
READER = "remo_broker/manifest/reader.py"
DECISIONS = "remo_broker/broker/decisions.py"
DAEMON = "remo_broker/broker/daemon.py"
STATE = "remo_broker/broker/registrations.py"
NAMES = "remo_broker/protocol/names.py"
RATE = "remo_broker/broker/rate.py"
TRAIL = "remo_broker/broker/audit/trail.py"
WAITING = "remo_broker/broker/audit/waiting.py"
IDENTITY = "remo_broker/broker/audit/identity.py"
READ_BACK = "remo_broker/broker/audit/read_back.py"
SPANS = "remo_broker/broker/secrets/json_spans.py"
POLICY = "policy/io.get2know.RemoBroker1.conf"

MUTANTS = (
    # --- secret memory
    Mutant(
        MEMORY,
        "        region.wipe()\n        if small",
        "        if small",
        "tests/unit/broker/secrets/test_memory.py::test_a_small_region_is_kept_clean_and_a_large_one_is_unmapped",
    ),
    Mutant(
        MEMORY,
        "        mapping.madvise(mmap.MADV_DONTDUMP)\n",
        "",
        "tests/unit/broker/secrets/test_memory.py::test_the_fallback_is_locked_and_left_out_of_dumps",
    ),
    Mutant(
        MEMORY,
        "        mapping.madvise(mmap.MADV_DONTFORK)\n",
        "",
        "tests/unit/broker/secrets/test_memory.py::test_the_fallback_is_locked_and_left_out_of_dumps",
    ),
    Mutant(
        PROCESS,
        "prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)",
        "prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)",
        "tests/process/memory/test_process.py::test_no_core",
    ),
    Mutant(
        PROCESS,
        "glibc.malloc.perturb=165",
        "glibc.malloc.perturb=0",
        "tests/process/memory/test_traces.py::test_freed_heap_is_overwritten",
    ),
    Mutant(
        SPANS,
        "        raise\n\n\ndef forget(",
        "        pass\n\n\ndef forget(",
        "tests/unit/broker/secrets",
    ),
    # --- who gets what
    Mutant(
        DECISIONS,
        "        if uid is not None and not project.registration.admits(uid):\n            return UID_NOT_ALLOWED\n",
        "",
        "tests/unit/broker/test_decisions.py",
    ),
    Mutant(
        DECISIONS,
        "NOT_IN_MANIFEST if is_secret_name(name) else INVALID_NAME",
        "NOT_IN_MANIFEST if name in self.store.snapshot.secrets else INVALID_NAME",
        "tests/unit/broker/test_decisions.py",
    ),
    Mutant(
        DECISIONS,
        "        if record.startswith(grant.from_store):\n            grant.project.leases.end(grant.name)\n",
        "",
        "tests/unit/broker/test_decisions.py",
    ),
    Mutant(
        DECISIONS,
        "        if grant.epoch != store.epoch:\n            self._prepare(grant)\n",
        "        if not grant.epoch:\n            self._prepare(grant)\n",
        "tests/unit/broker/test_decisions.py",
    ),
    Mutant(RATE, "        if tokens < 1:\n", "        if tokens < -1000:\n", "tests/unit/broker/test_rate.py"),
    Mutant(RATE, "min(float(self.burst), ", "max(float(self.burst), ", "tests/unit/broker/test_rate.py"),
    # --- names and what is shown
    Mutant(NAMES, '{0,63}$"', '{0,64}$"', "tests/unit/protocol/test_names.py"),
    Mutant(NAMES, '.encode("unicode_escape").decode("ascii")', "", "tests/unit/protocol/test_names.py"),
    Mutant(
        NAMES,
        'RESERVED_PROJECT_NAMES = frozenset({"admin", "status"})',
        "RESERVED_PROJECT_NAMES = frozenset()",
        "tests/unit/broker/test_registrations.py",
    ),
    # --- manifests
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
        "tests/unit/manifest/test_reader_races.py",
    ),
    Mutant(
        "remo_broker/manifest/__main__.py",
        "    signal.setitimer(signal.ITIMER_REAL, DEADLINE_SECONDS)\n",
        "",
        "tests/process/manifest/test_child.py::test_whatever_happens_is_one_line",
    ),
    # --- state
    Mutant(
        STATE,
        "fcntl.LOCK_EX | fcntl.LOCK_NB",
        "fcntl.LOCK_SH | fcntl.LOCK_NB",
        "tests/process/sockets/test_life.py::test_two_brokers_with_one_state",
    ),
    Mutant(
        STATE,
        "        os.fchmod(descriptor, 0o600)",
        "        os.fchmod(descriptor, 0o644)",
        "tests/unit/broker/test_registrations.py",
    ),
    Mutant(
        STATE,
        "os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC",
        "os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC",
        "tests/unit/broker/test_registrations.py",
    ),
    Mutant(
        DAEMON,
        "        ttl = min(one.ttl_seconds, self.config.cache_default_ttl_seconds)\n",
        "        ttl = one.ttl_seconds\n",
        "tests/process/sockets/test_restarts.py::test_a_restart_widens_nothing",
    ),
    # --- service under attack
    Mutant(
        DAEMON,
        "{type(error).__name__} at {where}",
        "{error} at {where}",
        "tests/unit/broker/test_faults.py::test_a_fault_is_logged_without_its_text",
    ),
    # --- the bus
    Mutant(
        POLICY,
        '    <deny own="io.get2know.RemoBroker1"/>\n',
        '    <allow own="io.get2know.RemoBroker1"/>\n',
        "tests/process/bus/test_policy.py::test_only_the_services_user_may_own_the_name",
    ),
    Mutant(
        POLICY,
        '    <deny send_destination="io.get2know.RemoBroker1"/>\n',
        '    <allow send_destination="io.get2know.RemoBroker1"/>\n',
        "tests/process/bus/test_policy.py::test_everybody_may_read_and_nobody_anything_else",
    ),
    # --- what is published
    Mutant(
        "remo_broker/build/pack.py",
        "if sys.version_info < (3, 11):",
        "if sys.version_info < (3, 5):",
        "tests/process/secret/test_pack.py::test_a_version_that_is_too_old_ends_with_a_message",
    ),
    # --- the audit
    Mutant(
        TRAIL,
        "        if self.wants_a_look:\n            self._give_up_unseen(QUEUE_RECORDS)",
        "        if False:\n            self._give_up_unseen(QUEUE_RECORDS)",
        "tests/unit/broker/audit/test_trail.py::test_what_was_in_the_queue_of_a_socket_that_is_gone_is_counted",
    ),
    Mutant(
        TRAIL,
        "            self.serial -= 1",
        "            pass",
        "tests/unit/broker/audit/test_trail.py::test_what_is_made_in_vain_while_it_recovers_takes_no_serial",
    ),
    Mutant(
        WAITING,
        "        if queue.denials:\n",
        "        if not queue.grants:\n",
        "tests/unit/broker/audit/test_waiting.py::test_denials_displace_no_grant",
    ),
    Mutant(
        WAITING,
        "    return len(queue.denials), bool(queue.project), len(queue.grants)",
        "    return 0, bool(queue.project), len(queue.grants)",
        "tests/unit/broker/audit/test_waiting.py::test_denials_displace_no_grant",
    ),
    Mutant(
        IDENTITY,
        "        if found is None or _ended(pidfd):",
        "        if found is None:",
        "tests/unit/broker/audit/test_identity.py::test_a_peer_that_has_ended_is_said_to_be_gone_and_no_more",
    ),
    Mutant(
        IDENTITY,
        "before != _start_time(pid)",
        'before == b""',
        "tests/unit/broker/audit/test_identity.py::test_without_a_pidfd_the_start_time_must_be_the_same",
    ),
    Mutant(
        IDENTITY,
        "0, container.end() if container else len(path))",
        "0, len(path))",
        "tests/unit/broker/audit/test_identity.py::test_what_a_control_group_says",
    ),
    Mutant(
        READ_BACK,
        "ABSENT = 2",
        "ABSENT = 1",
        "tests/unit/broker/audit/test_read_back.py::test_a_slow_journal_is_healthy",
    ),
    Mutant(
        READ_BACK,
        "            self._trail.wait_for_storage()",
        "            pass",
        "tests/unit/broker/audit/test_read_back.py::test_before_the_first_answer_nothing_counts_as_stored",
    ),
    Mutant(
        "remo_broker/broker/audit/floods.py",
        "        if len(name) <= LONG_NAME:",
        "        if True:",
        "tests/process/sockets/test_audit.py::test_denials_of_long_names_are_counted_after_the_first_few",
    ),
    Mutant(
        DAEMON,
        "{type(error).__name__} at {where}",
        "{error} at {where}",
        "tests/unit/broker/test_faults.py::test_a_fault_is_logged_without_its_text",
    ),
    Mutant(
        "remo_broker/ctl/audit_report.py",
        "<td>{escape(reason)}</td>",
        "<td>{reason}</td>",
        "tests/process/ctl/test_audit_report.py::test_strings_of_the_journal_make_no_element_and_no_attribute",
    ),
    Mutant(
        "remo_broker/ctl/audit_who.py",
        "    return machine is None or machine == machine_id()",
        "    return True",
        "tests/process/ctl/test_audit_directory.py::test_a_users_number_of_another_host_gets_no_name_of_this_one",
    ),
    Mutant(
        "remo_broker/ctl/audit_verify.py",
        "            if serial > expected:",
        "            if serial > expected + 1:",
        "tests/process/ctl/test_audit_verify.py::test_a_gap_is_shown_with_the_times_around_it",
    ),
)
