"""Defects in who gets a systemd credential, and in how others are refused."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

SERVER = "remo_broker/broker/sockets/credentials.py"
CONNECTION = "remo_broker/broker/sockets/credential_connection.py"
FAULTS = "tests/unit/broker/sockets/test_credentials.py"
REFUSAL = "remo_broker/broker/credential_refusal.py"
NOT_STARTED = "remo_broker/broker/start_failure.py"
IDENTITY = "remo_broker/broker/audit/identity.py"

TESTS = "tests/process/sockets/test_credentials.py"
KILLS = "tests/process/sockets/test_credential_kills.py"

CREDENTIALS = (
    Mutant(
        SERVER,
        "if not runs_in_unit or identity.GONE in asked.identity:",
        "if False:",
        f"{TESTS}::test_an_exited_peer_gets_nothing",
    ),
    Mutant(
        SERVER,
        "        if peer.uid != 0:\n            return Reason.UID_NOT_ALLOWED\n",
        "",
        f"{TESTS}::test_another_user_gets_nothing_under_the_same_address",
    ),
    Mutant(
        SERVER,
        "return Reason.NOT_STARTED if credential_refusal.has_begun(asked.socket) else None",
        "return None",
        f"{KILLS}::test_no_value_follows_the_partial_answer_of_a_killed_broker",
    ),
    Mutant(
        SERVER,
        "len(self.connections) < MAX_CONNECTIONS and ",
        "",
        f"{KILLS}::test_units_beyond_the_connection_limit_wait_in_the_queue",
    ),
    Mutant(
        SERVER,
        "            self._attempt(asked, self._decide)\n",
        "            self._decide(asked)\n",
        f"{FAULTS}::test_a_bug_in_one_decision_keeps_no_other_unit_waiting",
    ),
    Mutant(
        SERVER,
        "            self._unwatched.append(connection)\n",
        "",
        f"{FAULTS}::test_a_connection_that_cannot_be_watched_is_not_closed",
    ),
    Mutant(
        SERVER,
        "            next(iter(self._silent)).close()\n",
        "            pass\n",
        f"{KILLS}::test_a_limited_number_of_refused_peers_outside_their_units_is_kept",
    ),
    Mutant(
        SERVER,
        "        if hung_up(descriptor):",
        "        if False:",
        f"{KILLS}::test_a_unit_that_fails_while_no_broker_runs_is_not_refused_again",
    ),
    Mutant(
        CONNECTION,
        "        self.server.fail(self)\n",
        "        super().end_with(reply)\n",
        f"{FAULTS}::test_a_bug_while_reading_is_answered_with_a_refusal",
    ),
    Mutant(
        CONNECTION,
        "if not self.pending or not self.is_kept:",
        "if not self.pending:",
        f"{KILLS}::test_a_refused_peer_other_than_systemd_is_closed_at_once",
    ),
    Mutant(
        "remo_broker/broker/sighup.py",
        "            while self._signals:\n                self._signals = 1\n                self._begins()\n",
        "            self._begins()\n            while self._signals:\n                self._signals = 1\n",
        "tests/process/sockets/test_reloading.py::test_a_hangup_during_a_reload_also_reads_the_credential_rules_again",
    ),
    Mutant(
        SERVER,
        " and self._manager.has_room()",
        "",
        f"{KILLS}::test_a_kill_while_the_manager_is_busy_gives_no_unit_an_empty_credential",
    ),
    Mutant(
        NOT_STARTED,
        "        credential_refusal.begin(connection)\n",
        "",
        f"{KILLS}::test_no_value_follows_the_partial_refusal_of_a_broker_that_did_not_start",
    ),
    Mutant(
        REFUSAL,
        "return error.errno in (errno.ENOBUFS, errno.ENOMEM)",
        "return False",
        "tests/unit/broker/sockets/test_credentials.py::test_an_answer_is_sent_whole_although_the_kernel_lacked_memory",
    ),
    Mutant(
        NOT_STARTED,
        "if not self._manager.has_room():",
        "if False:",
        f"{KILLS}::test_a_failed_start_while_the_manager_is_busy_gives_no_unit_an_empty_credential",
    ),
    Mutant(
        CONNECTION,
        "        self.release()  # a refusal may wait",
        "        # a refusal may wait",
        f"{TESTS}::test_a_refusal_waits_for_its_peer_without_the_value",
    ),
    Mutant(
        SERVER,
        "if self._deny and self._trail.trouble is not None:",
        "if False:",
        "tests/machine/test_stored.py::test_a_unit_gets_no_secret_whose_record_is_not_stored",
    ),
    Mutant(
        REFUSAL,
        '_BLANKS = b" " * (64 * 1024)',
        '_BLANKS = b" " * (1024 * 1024)',
        f"{TESTS}::test_refusals_of_peers_that_never_read_take_no_memory",
    ),
    Mutant(
        NOT_STARTED,
        "            self._manager.hold(CREDENTIAL, name, connection.fileno())\n",
        "",
        f"{TESTS}::test_a_broker_that_does_not_start_refuses_every_unit",
    ),
    Mutant(
        IDENTITY,
        'return outermost.removeprefix("_") == unit or',
        "return path.endswith(unit) or",
        "tests/unit/broker/audit/test_identity.py::test_the_unit_of_a_process",
    ),
)
