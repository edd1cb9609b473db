"""Defects in who gets a systemd credential, and in how others are refused."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

SERVER = "remo_broker/broker/sockets/credentials.py"
REFUSAL = "remo_broker/broker/credential_refusal.py"
NOT_STARTED = "remo_broker/broker/not_started.py"
IDENTITY = "remo_broker/broker/audit/identity.py"

TESTS = "tests/process/sockets/test_credentials.py"

CREDENTIALS = (
    Mutant(
        SERVER,
        "if identity.GONE in asked.identity or not identity.runs_in(peer.pid, asked.unit):",
        "if False:",
        f"{TESTS}::test_a_peer_that_has_ended_gets_nothing",
    ),
    Mutant(
        SERVER,
        "        if peer.uid != 0:\n            return Reason.UID_NOT_ALLOWED\n",
        "",
        f"{TESTS}::test_another_user_gets_nothing_under_the_same_address",
    ),
    Mutant(
        SERVER,
        "if credential_refusal.has_unread(asked.socket):",
        "if False:",
        f"{TESTS}::test_a_refusal_that_a_kill_cuts_short_stays_one",
    ),
    Mutant(
        SERVER,
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
        f"{TESTS}::test_peers_that_never_read_take_no_memory_for_their_refusals",
    ),
    Mutant(
        NOT_STARTED,
        "            self._manager.keep(CREDENTIAL, name, connection.fileno())\n",
        "",
        f"{TESTS}::test_a_broker_that_does_not_start_refuses_every_unit",
    ),
    Mutant(
        IDENTITY,
        'return path == "/" or outermost.removeprefix("_") == unit',
        'return path == "/" or path.endswith(unit)',
        "tests/unit/broker/audit/test_identity.py::test_which_unit_a_process_runs_in",
    ),
)
