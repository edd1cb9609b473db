"""Defects in the audit: in what the broker records, and in the review."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

TRAIL = "remo_broker/broker/audit/trail.py"
WAITING = "remo_broker/broker/audit/waiting.py"
IDENTITY = "remo_broker/broker/audit/identity.py"
READ_BACK = "remo_broker/broker/audit/read_back.py"
READ_BACK_HELPER = "units/remo-broker-read-back@.service"
REFUSED = "remo_broker/broker/sockets/refused_peers.py"
REVIEW = "remo_broker/ctl/audit_reader.py"

LINKED_JOURNALS = "tests/process/ctl/test_audit_linked.py::test_the_journal_that_a_container_links_is_not_reviewed"
NAMES_THE_ONE_BEFORE = "tests/process/sockets/test_audit.py::test_each_start_names_the_one_before"
AUDIT = (
    Mutant(
        "remo_broker/protocol/mounts.py",
        ', newline="\\n") as file:',
        ") as file:",
        "tests/unit/broker/audit/test_namespace.py",
    ),
    Mutant(
        "remo_broker/ctl/journals.py",
        "reader.open(JournalOpenMode.LOCAL_ONLY)",
        "reader.open(JournalOpenMode.SYSTEM)",
        LINKED_JOURNALS,
    ),
    Mutant("remo_broker/ctl/audit_fast_reader.py", "flags=LOCAL_ONLY) if path", "flags=0) if path", LINKED_JOURNALS),
    Mutant(
        "remo_broker/ctl/journals.py",
        "    if closed or (not files and os.geteuid() != 0):\n",
        "    if len(closed) == len([*directories, *files]) or (not files and os.geteuid() != 0):\n",
        "tests/process/ctl/test_audit_linked.py::test_a_user_who_may_read_a_part_of_the_journal_is_told_so",
    ),
    Mutant(
        "remo_broker/ctl/journals.py",
        "    if answer.returncode != 0:\n",
        "    if False:\n",
        "tests/machine/test_journal.py::test_nobody_hides_the_namespace_from_the_review",
    ),
    Mutant(
        "remo_broker/ctl/journals.py",
        'SYSTEM_FILES = "system*.journal*"',
        'SYSTEM_FILES = "*.journal*"',
        "tests/process/ctl/test_audit_linked.py::test_a_user_who_may_read_a_part_of_the_journal_is_told_so",
    ),
    Mutant(
        REFUSED,
        '            self._counts[key] = count + 1, fields if fields == earlier else b""\n',
        "            self._counts[key] = count + 1, fields\n",
        "tests/unit/broker/sockets/test_refused_peers.py"
        "::test_a_user_with_many_uids_hides_no_refusal_and_takes_no_other_peer_s_name",
    ),
    Mutant(
        REFUSED,
        "        elif self._uids.get(project, 0) >= MAX_REFUSED_UIDS:\n",
        "        elif sum(self._uids.values()) >= MAX_REFUSED_UIDS:\n",
        "tests/unit/broker/sockets/test_refused_peers.py"
        "::test_a_user_with_many_uids_hides_no_refusal_and_takes_no_other_peer_s_name",
    ),
    Mutant(
        REFUSED,
        " or not long_names.recorded(project, request.name, peer_fields):\n",
        ":\n",
        "tests/machine/test_audit.py::test_long_names_on_a_socket_that_is_not_registered_fill_no_journal",
    ),
    Mutant(
        REFUSED,
        " or not long_names.recorded(project, request.name, peer_fields):\n",
        ":\n",
        "tests/process/sockets/test_handed_over.py::"
        "test_denials_of_long_names_on_a_socket_that_is_not_registered_are_counted",
    ),
    Mutant(
        "remo_broker/broker/daemon.py",
        "        start_file.keep()\n",
        "",
        NAMES_THE_ONE_BEFORE,
    ),
    Mutant(
        "remo_broker/broker/daemon.py",
        "        self.trail.waits = start_file.waits\n",
        "",
        "tests/machine/test_journal.py::test_records_that_waited_when_the_broker_was_killed_are_detected",
    ),
    Mutant(
        WAITING,
        'b"\\nREMO_EVENT=peer.refused\\n", *_OF_MANIFESTS)',
        'b"\\nREMO_EVENT=peer.refused\\n")',
        "tests/unit/broker/audit/test_waiting.py"
        "::test_no_reading_of_a_manifest_and_no_unit_without_its_credential_displaces_a_grant",
    ),
    Mutant(
        TRAIL,
        "            self.waits(self.serial)\n",
        "            pass\n",
        "tests/process/sockets/test_audit_waiting.py"
        "::test_a_start_names_a_serial_of_the_one_before_whose_records_waited",
    ),
    Mutant(
        TRAIL,
        "        self.waits(0)\n",
        "",
        "tests/process/sockets/test_audit_waiting.py::test_a_start_whose_records_were_all_accepted_ended_without_a_loss",
    ),
    Mutant(
        TRAIL,
        "        if self.serial != serial:",
        "        if False:",
        "tests/unit/broker/audit/test_recovery.py::test_a_loss_that_is_noticed_while_it_recovers_is_recorded_once",
    ),
    Mutant(
        "remo_broker/ctl/audit_verify.py",
        "        elif waiting:\n",
        "        elif False:\n",
        "tests/process/ctl/test_audit_verify.py::test_records_that_waited_when_a_start_ended_are_missing",
    ),
    Mutant(
        "remo_broker/broker/audit/starts.py",
        "                _overwrite(self._path, data)\n",
        "                pass\n",
        "tests/process/sockets/test_audit.py::test_each_start_names_the_one_before_even_if_no_file_can_be_made",
    ),
    Mutant(
        "remo_broker/protocol/audit_records.py",
        "    if not is_start_id(start_id) or found != where:\n",
        "    if not is_start_id(start_id):\n",
        NAMES_THE_ONE_BEFORE,
    ),
    Mutant(
        "remo_broker/broker/audit/starts.py",
        "        text = read_own(os.path.join(state_dir, LAST_START_FILE)).decode",
        "        text = open(os.path.join(state_dir, LAST_START_FILE), 'rb').read().decode",
        NAMES_THE_ONE_BEFORE,
    ),
    Mutant(
        "remo_broker/ctl/audit_verify.py",
        "            and (whole or earliest.get(start.machine) is not start)\n",
        "            and whole\n",
        "tests/process/ctl/test_audit_verify.py::test_a_start_of_which_every_record_is_gone_is_missed",
    ),
    Mutant(
        "remo_broker/ctl/audit_last_start.py",
        '    return named_start(content.decode("ascii"), place(JOURNAL, unit_namespace()))\n',
        "    return None\n",
        "tests/machine/test_journal.py::test_in_the_default_journal_displaced_records_are_detected",
    ),
    Mutant(
        "remo_broker/cli/input_files.py",
        "os.open(path, _FLAGS | os.O_NOFOLLOW)",
        "os.open(path, _FLAGS)",
        "tests/process/ctl/test_audit_verify.py::test_a_last_start_is_read_only_from_a_file_of_its_own",
    ),
    Mutant(
        TRAIL,
        '            self._give_up_unseen(QUEUE_RECORDS)\n            self._degrade("The socket of journald was replaced")\n'.replace(
            '\\"', '"'
        ),
        "            pass\n",
        "tests/unit/broker/audit/test_trail.py::test_records_in_the_queue_of_a_removed_socket_count_as_lost",
    ),
    Mutant(
        TRAIL,
        "            self.serial -= 1",
        "            pass",
        "tests/unit/broker/audit/test_trail.py::test_a_record_discarded_during_recovery_takes_no_serial",
    ),
    Mutant(
        WAITING,
        "GRANT_LINE not in record",
        'b"\\nREMO_DECISION=deny\\n" in record',
        "tests/unit/broker/audit/test_waiting.py::test_nothing_that_a_project_gets_no_secret_for_displaces_a_grant_of_its_own",
    ),
    Mutant(
        WAITING,
        "max(self.grants, key=lambda secret: len(self.grants[secret]))",
        "next(iter(self.grants))",
        "tests/unit/broker/audit/test_waiting.py::test_fetching_one_secret_over_and_over_hides_no_other_fetch",
    ),
    Mutant(
        WAITING,
        "        if queue.others:\n",
        "        if not queue.granted:\n",
        "tests/unit/broker/audit/test_waiting.py::test_denials_displace_no_grant",
    ),
    Mutant(
        WAITING,
        "    return len(queue.others), bool(queue.project), queue.granted",
        "    return 0, bool(queue.project), queue.granted",
        "tests/unit/broker/audit/test_waiting.py::test_denials_displace_no_grant",
    ),
    Mutant(
        WAITING,
        "    return len(queue.others), bool(queue.project), queue.granted",
        "    return len(queue.others), False, queue.granted",
        "tests/unit/broker/audit/test_waiting.py::test_records_of_operators_are_dropped_last",
    ),
    Mutant(
        IDENTITY,
        "    if last.ended():",
        "    if False:",
        "tests/unit/broker/audit/test_identity.py::test_an_exited_peer_is_recorded_as_gone_and_nothing_else",
    ),
    Mutant(
        IDENTITY,
        "if pid == last.pid and peer.since > last.turn else",
        "if pid == last.pid else",
        "tests/unit/broker/sockets/test_queues.py::test_an_identity_is_reused_only_for_a_younger_connection",
    ),
    Mutant(
        "remo_broker/broker/sockets/listener.py",
        "                self._empty = turn - 1\n",
        "                self._empty = turn\n",
        "tests/unit/broker/sockets/test_queues.py::test_a_connection_behind_others_may_be_as_old_as_they_are",
    ),
    Mutant(
        IDENTITY,
        "return found if before == _start_time(pid) else GONE",
        "return found",
        "tests/unit/broker/audit/test_identity.py::test_without_a_pidfd_the_start_time_must_be_the_same",
    ),
    Mutant(
        IDENTITY,
        "0, container.end() if container else len(path))",
        "0, len(path))",
        "tests/unit/broker/audit/test_identity.py::test_unit_and_container_of_a_control_group",
    ),
    Mutant(
        IDENTITY,
        'r"/user\\.slice/user-',
        'r".*/user\\.slice/user-',
        "tests/unit/broker/audit/test_identity.py::test_the_owner_of_a_session",
    ),
    Mutant(
        READ_BACK,
        "ABSENT = 2",
        "ABSENT = 1",
        "tests/unit/broker/audit/test_read_back.py::test_a_slow_journal_is_healthy",
    ),
    Mutant(
        READ_BACK_HELPER,
        " _GID=$$gid",
        "",
        "tests/machine/test_stored.py::test_the_helper_finds_no_record_that_another_process_of_the_broker_s_user_wrote",
    ),
    Mutant(
        READ_BACK,
        "            self._trail.wait_for_storage()",
        "            pass",
        "tests/unit/broker/audit/test_read_back.py::test_before_the_first_answer_nothing_counts_as_stored",
    ),
    Mutant(
        REFUSED,
        "        key = project, uid\n        if key in self._counts:",
        "        key = project, 0\n        if key in self._counts:",
        "tests/machine/test_borders.py::test_silent_connections_of_a_wrong_uid_are_recorded",
    ),
    # --- the review
    Mutant(
        REVIEW,
        '[[("_UID", str(uid))], ',
        "[",
        "tests/process/ctl/test_audit.py::test_every_query_is_bound_to_the_user_and_group_of_the_broker",
    ),
    Mutant(
        REVIEW,
        ', [("_GID", str(gid))]]',
        "]",
        "tests/process/ctl/test_audit.py::test_every_query_is_bound_to_the_user_and_group_of_the_broker",
    ),
    Mutant(
        REVIEW,
        "        return printable(value, LONGEST_FIELD)\n",
        "        return value\n",
        "tests/process/ctl/test_audit.py::test_every_field_is_escaped_for_the_terminal",
    ),
    Mutant(
        REVIEW,
        "        if query.holds(entry.get_realtime_usec()):\n            yield Record(entry)\n\n\ndef _last",
        "        if not query.holds(entry.get_realtime_usec()):\n            return\n        yield Record(entry)\n\n\ndef _last",
        "tests/process/ctl/test_audit_directory.py::test_entries_past_the_end_do_not_end_the_search",
    ),
    Mutant(
        "remo_broker/ctl/audit_report.py",
        "<td>{escape(reason)}</td>",
        "<td>{reason}</td>",
        "tests/process/ctl/test_audit_report.py::test_strings_of_the_journal_add_no_element_or_attribute",
    ),
    Mutant(
        "remo_broker/ctl/audit_requester.py",
        "    return machine is None or machine == machine_id()",
        "    return True",
        "tests/process/ctl/test_audit_directory.py::test_a_uid_of_another_host_is_shown_without_a_name",
    ),
    Mutant(
        "remo_broker/ctl/audit_requester.py",
        '(*key, get("REMO_PEER_PID")) if not any(key[:3]) else key',
        "key",
        "tests/process/ctl/test_audit_table.py::test_requesters_that_differ_share_no_row_and_no_count",
    ),
    Mutant(
        "remo_broker/ctl/audit_requester.py",
        'own = unit == f"user@{os.geteuid()}.service" and is_local(record)',
        "own = True",
        "tests/process/ctl/test_containers.py::test_another_users_name_for_a_container_is_not_shown",
    ),
    Mutant(
        "remo_broker/ctl/audit_first_fetches.py",
        '"REMO_PEER_CONTAINER", "REMO_PEER_OWNER_UID"',
        '"REMO_PEER_CONTAINER"',
        "tests/process/ctl/test_audit_directory.py::test_the_next_login_of_a_user_is_not_a_first_fetch",
    ),
    Mutant(
        "remo_broker/ctl/audit_verify.py",
        "            if serial > expected:",
        "            if serial > expected + 1:",
        "tests/process/ctl/test_audit_verify.py::test_a_gap_is_shown_with_the_times_around_it",
    ),
)
