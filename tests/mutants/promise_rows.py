"""Defects behind promises of SECURITY.md that no other row takes out, each with a test that the
promise names."""

from __future__ import annotations

from tests.mutants.audit_rows import IDENTITY, REVIEW
from tests.mutants.broker_rows import ADMIN, CHANGES, DECISIONS, LISTENERS, MEMORY, STATE, STORE
from tests.mutants.client_rows import DOCTOR, LINKS, SHOWN
from tests.mutants.host_rows import PROCESS
from tests.mutants.manifest_rows import CHILD, DOCUMENT
from tests.mutants.mutant import Mutant

CONNECTION = "remo_broker/broker/sockets/connection.py"
PROJECT_SOCKET = "remo_broker/broker/sockets/project.py"
SIDECAR = "remo_broker/sidecar/run.py"
ACL = "remo_broker/manifest/acl.py"
KEPT = "remo_broker/sidecar/store.py"
JOURNAL = "remo_broker/ctl/setup_journal.py"
STATIC_CLIENT = "remo_broker/secret/remo-secret.c"

FALLBACK = "tests/process/memory/test_traces.py::test_fallback_keeps_one_copy"
VANISHED = "tests/process/memory/test_vanished.py"
SIDECAR_MEMORY = "tests/process/sidecar/test_run.py::test_no_value_is_left_in_its_memory_or_log"
OWN_JOURNAL = "tests/machine/test_journal.py::test_no_other_process_can_connect_to_it"
FIX_ACL = "tests/machine/test_borders.py::test_register_opens_a_closed_home_for_the_reader_alone"
MEANWHILE = "tests/process/secret/test_files.py::test_no_link_put_there_meanwhile_leads_a_file_out_of_the_project"
COPIES = "tests/process/secret/test_files.py::test_a_copy_is_neither_written_to_a_disk_nor_removed_from_one"
READER_ACCESS = "tests/process/ctl/test_reader_access.py"

_SECRET_PAGES = "self.protection = Protection.MEMFD_SECRET if use_memfd_secret else Protection.LOCKED"

PROMISES = (
    Mutant(
        "remo_broker/sidecar/run.py",
        "{', '.join(label or 'the push' for label in self._failures)}",
        "{self._last_error}",
        "tests/process/sidecar/test_status.py::test_no_secret_s_name_is_in_the_status_which_any_user_can_read",
    ),
    Mutant(
        "remo_broker/sidecar/notify.py",
        "        self._status = escaped(text)\n",
        "        self._status = text\n",
        "tests/process/sidecar/test_status.py::test_no_file_s_name_tells_the_manager_anything",
    ),
    Mutant(
        "remo_broker/broker/manifest_operations.py",
        "                    yield from self._listeners.repair(name, before.project_path)\n",
        "                    self._locks.release(CHANGES)\n"
        "                    yield from self._listeners.repair(name, before.project_path)\n"
        "                    yield from self._locks.acquire(CHANGES)\n",
        "tests/process/manifest/test_reload_races.py",
    ),
    Mutant(
        "remo_broker/broker/operations.py",
        "                yield from self._end(self._known(name), call.peer)\n",
        "                yield from self._save({name: None})\n                yield from self._end(self._known(name), call.peer)\n",
        "tests/process/sockets/test_registering.py::test_a_project_loses_its_socket_even_if_that_cannot_be_saved",
    ),
    Mutant(
        "remo_broker/broker/operations.py",
        "                yield from self._end(self._known(name), call.peer)\n                self.unsaved.add(name)\n",
        "                self.unsaved.save_later()\n                yield from self._save({name: None})\n"
        "                yield from self._end(self._known(name), call.peer)\n",
        "tests/process/sockets/test_registering.py::test_a_busy_disk_keeps_no_project_served",
    ),
    Mutant(
        "remo_broker/broker/operations.py",
        "            self._listeners.server.dismiss(project)\n        yield from self._locks.acquire(CHANGES)\n",
        "            pass\n        yield from self._locks.acquire(CHANGES)\n",
        "tests/process/sockets/test_registering.py::test_a_busy_disk_keeps_no_project_served",
    ),
    Mutant(
        "remo_broker/broker/sockets/project_listeners.py",
        "project is None or project.dismissed",
        "project is None",
        "tests/process/sockets/test_registering.py::test_a_busy_disk_keeps_no_project_served",
    ),
    Mutant(
        "remo_broker/broker/loop.py",
        "            if error.errno not in _NO_ROOM:\n",
        "            if True:\n",
        "tests/unit/broker/test_loop.py::test_what_epoll_has_no_room_for_is_looked_at",
    ),
    Mutant(
        "remo_broker/broker/unsaved.py",
        "        if not self._due:\n",
        "        if True:\n",
        "tests/unit/broker/test_unsaved.py::test_it_tries_once_at_a_time_however_many_projects_there_are",
    ),
    Mutant(
        "remo_broker/broker/daemon.py",
        "        self.operations.unsaved.save_before_exit(partial(self._log, PRIORITY_WARNING))\n",
        "",
        "tests/process/sockets/test_registering.py::test_a_stop_tries_once_more_to_save_what_was_unregistered",
    ),
    Mutant(
        "remo_broker/broker/sockets/project_listeners.py",
        "            listener.rest()  # closed, it could not be revoked\n",
        "            listener.close()\n",
        "tests/process/manifest/test_reload_races.py",
    ),
    Mutant(
        "remo_broker/cli/input_files.py",
        "            with RightsOf(os.geteuid() if linker is None else linker):\n                opened",
        "            if True:\n                opened",
        "tests/process/ctl/test_push.py::test_root_follows_another_users_link_only_to_what_that_user_may_read",
    ),
    Mutant(
        "remo_broker/cli/input_files.py",
        "os.lstat(target).st_uid if linker is None else linker)",
        "os.lstat(target).st_uid)",
        "tests/process/ctl/test_push.py::test_root_follows_another_users_link_only_to_what_that_user_may_read",
    ),
    Mutant(
        "remo_broker/cli/input_files.py",
        "_check_rights(file, path, linker, known=linker != NOBODY)",
        "_check_rights(file, path, linker)",
        "tests/process/cli/test_input_files.py",
    ),
    # --- memory
    Mutant(
        MEMORY,
        _SECRET_PAGES,
        "self.protection = Protection.LOCKED",
        "tests/process/memory/test_process.py::test_not_even_root_reads_secret_memory",
    ),
    Mutant(
        MEMORY,
        _SECRET_PAGES,
        "self.protection = Protection.LOCKED",
        "tests/machine/test_secrecy.py::test_root_finds_nothing",
    ),
    Mutant(
        MEMORY,
        "        if self.protection is Protection.LOCKED:\n            address",
        "        if False:\n            address",
        "tests/process/memory/test_process.py::test_fallback_is_locked_and_not_dumped",
    ),
    Mutant(STORE, "                    region.blank(begin, after)  # one copy is enough\n", "", FALLBACK),
    Mutant(
        STORE,
        "        if self.retired and not self.readers:\n",
        "        if self.retired:\n",
        f"{VANISHED}::test_reader_that_catches_up",
    ),
    Mutant(
        ADMIN,
        "            region.blank(after, self._end)\n        self._start, self._end, self._searched = 0, rest, 0\n",
        "        self._start, self._end, self._searched = 0, rest, 0\n",
        "tests/process/memory/test_refused.py::test_refused_push_behind_a_push",
    ),
    Mutant(
        ADMIN,
        "            region.blank(self._start, after)\n",
        "",
        "tests/process/memory/test_refused.py::test_refused_push_before_lines_that_wait",
    ),
    Mutant(
        CONNECTION,
        "        self.want(WRITE)\n        self.sweeper.set(self, PEER_SECONDS)\n",
        "        self.want(WRITE)\n",
        f"{VANISHED}::test_vanished_in_mid_answer",
    ),
    Mutant(
        MEMORY,
        "    if arena.protection is not Protection.MEMFD_SECRET:\n",
        "    if False:\n",
        "tests/process/memory/test_process.py::test_no_memory_to_lock",
    ),
    Mutant(
        PROCESS,
        "    ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)\n",
        "    ctypes.CDLL(None)\n",
        "tests/machine/test_secrecy.py::test_the_same_user_may_not_read_its_memory",
    ),
    Mutant(SIDECAR, "    forbid_dumps()\n", "", SIDECAR_MEMORY),
    Mutant(SIDECAR, "    execute_again()\n", "", SIDECAR_MEMORY),
    Mutant(
        KEPT,
        'command = ["systemd-creds", "encrypt", f"--name={CREDENTIAL_PREFIX}{name}", "-", file]',
        'command = ["tee", file]',
        "tests/machine/test_sidecar.py::test_three_commands_from_a_bare_machine_to_a_secret_in_a_container",
    ),
    # --- sockets
    Mutant(
        LISTENERS,
        "        project = server.broker.projects.get(name)\n",
        "        project = next(iter(server.broker.projects.values()), None)\n",
        "tests/process/sockets/test_registering.py::test_projects_do_not_see_each_other",
    ),
    Mutant(
        LISTENERS,
        "            if stored_only and listener.held_by_unit:\n",
        "            if False:\n",
        "tests/process/sockets/test_handed_over.py"
        "::test_a_stored_listener_without_registration_is_revoked_and_the_units_is_served",
    ),
    Mutant(
        LISTENERS,
        "                self._revoke(name, stored_only=True)\n",
        "",
        "tests/process/sockets/test_handed_over.py"
        "::test_a_stored_listener_without_registration_is_revoked_and_the_units_is_served",
    ),
    Mutant(
        DECISIONS,
        "NOT_IN_MANIFEST if is_secret_name(name) else INVALID_NAME",
        "NOT_IN_MANIFEST if self.store.snapshot and name in self.store.snapshot.secrets else INVALID_NAME",
        "tests/process/sockets/test_project.py::test_a_denial_has_the_same_bytes_whatever_the_broker_holds",
    ),
    Mutant(
        PROJECT_SOCKET,
        "            if length > MAX_MESSAGE:\n",
        "            if False:\n",
        "tests/process/sockets/test_framing.py::test_one_byte_too_many",
    ),
    Mutant(
        PROJECT_SOCKET,
        "            if self.project.unread_bytes > MAX_UNREAD and len(self._unread) > READ_SIZE:\n",
        "            if False:\n",
        "tests/process/isolation/test_limits.py::test_unfinished_requests",
    ),
    Mutant(
        "remo_broker/broker/sockets/fair_queue.py",
        "        project.share -= cost\n",
        "        project.share -= 1 if project.share == SHARE else 0\n",
        "tests/unit/broker/sockets/test_connection.py::test_a_pipelining_client_gets_its_projects_share_of_a_turn",
    ),
    Mutant(
        STATIC_CLIENT,
        "    if (peer.uid == 0 || peer.uid == geteuid())\n",
        "    if (peer.uid != 1u << 31)\n",
        "tests/process/static_client/test_sockets.py::test_a_listener_that_is_not_the_broker_is_sent_nothing",
    ),
    Mutant(
        "remo_broker/build/completions.py",
        r"\([a-z0-9][a-z0-9_-]\{{0,63\}}\)",
        r"\(.*\)",
        "tests/process/cli/test_completions.py::test_tab",
    ),
    # --- users
    Mutant(
        STATE,
        "        if found.st_uid not in (0, os.geteuid()):\n",
        "        if False:\n",
        "tests/machine/test_borders.py::test_a_state_file_of_another_user_is_not_read",
    ),
    Mutant(ACL, 'f"u:{name}:x"', '"o:x"', FIX_ACL),
    Mutant(ACL, ", *_limited(entries(directory, ATTRIBUTE), reader)]", "]", READER_ACCESS),
    Mutant(ACL, ", *_limited(entries(file, ATTRIBUTE), reader)]", "]", READER_ACCESS),
    Mutant(ACL, "others = _limited(inherited, reader) if inherited", "others = [] if inherited", READER_ACCESS),
    Mutant(ACL, '[f"g::{_text(_of_group(file))}", "o::-"]', "[]", READER_ACCESS),
    Mutant(ACL, "_text(_of_group(file))", "_text(os.stat(file).st_mode >> 3)", READER_ACCESS),
    Mutant(
        "remo_broker/manifest/reader.py",
        "{acl.to_read(path, uid, user)}",
        "u:{user}:r",
        "tests/unit/manifest/test_reader.py::test_the_command_that_the_error_names_gives_no_other_user_more",
    ),
    Mutant(LINKS, "os.path.commonpath([inside, real]) != inside", "False", MEANWHILE),
    Mutant(LINKS, " | os.O_NOFOLLOW | os.O_CLOEXEC\n\n", " | os.O_CLOEXEC\n\n", MEANWHILE),
    Mutant(
        LINKS, "        return\n    sweep(target)\n    try:\n", "        pass\n    sweep(target)\n    try:\n", COPIES
    ),
    Mutant(LINKS, "raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP), target)", "pass", COPIES),
    # --- manifests
    Mutant(
        "remo_broker/ctl/devcontainer_write.py",
        "len(before) + len(after) <= MAX_COMPARED",
        "True",
        "tests/process/ctl/test_devcontainer.py::test_a_file_that_is_expensive_to_compare",
    ),
    Mutant(
        DOCTOR,
        "len(settings) > MAX_HELPERS",
        "False",
        f"{SHOWN}test_doctor_waits_for_no_comparison_of_a_hundred_thousand_helpers",
    ),
    Mutant(
        CHILD,
        "        (resource.RLIMIT_CPU, CPU_SECONDS),\n",
        "",
        "tests/process/manifest/test_child.py::test_the_kernel_kills_a_reader_that_ignores_the_alarm",
    ),
    Mutant(
        "remo_broker/broker/manifest_child.py",
        "connection, request, READ_SECONDS, MAX_OUTPUT, START_SECONDS",
        "connection, request, READ_SECONDS, MAX_OUTPUT, 6 * START_SECONDS",
        "tests/process/isolation/test_manifests.py::test_a_reader_that_hangs",
    ),
    Mutant(
        "remo_broker/broker/manifest_child.py",
        "                and all(isinstance(name, str) and is_secret_name(name) for name in names)\n",
        "",
        "tests/unit/broker/test_manifest_child.py::test_a_malformed_reply_allows_nothing",
    ),
    Mutant(
        DOCUMENT,
        'f"not TOML{where}"',
        'f"not TOML{where}: {said}"',
        "tests/unit/manifest/test_document.py::test_the_place_of_a_syntax_error_is_given",
    ),
    Mutant(
        CHANGES,
        "            or any(host in _hosts(fresh.source) for host in self.hosts)\n",
        "",
        "tests/process/ctl/test_reload.py::test_any_widening_must_be_approved[host]",
    ),
    Mutant(
        CHANGES,
        "        if not self.widens:\n            return fresh\n",
        "        return fresh\n",
        "tests/process/ctl/test_reload.py::test_sighup_adopts_only_what_is_narrower",
    ),
    # --- audit
    Mutant(
        "remo_broker/broker/sockets/outbox.py",
        "                        kept = self._trail.write_next(",
        "                        entries[0][0].send(entries[0][1], self._broker.store.snapshot)\n"
        "                        kept = self._trail.write_next(",
        "tests/process/sockets/test_audit.py::test_the_record_is_written_before_the_reply",
    ),
    Mutant(
        REVIEW,
        ', [("_GID", str(gid))]]',
        "]",
        "tests/machine/test_ctl.py::test_forged_records_are_not_shown",
    ),
    Mutant(JOURNAL, "SocketMode=0660\n", "SocketMode=0666\n", OWN_JOURNAL),
    Mutant(JOURNAL, "SocketMode=0600\n", "", OWN_JOURNAL),
    Mutant(JOURNAL, "SocketGroup={GROUP}\nSocketMode=0660\n", "", OWN_JOURNAL),
    Mutant(
        JOURNAL,
        "LogNamespace={NAMESPACE}\n",
        "",
        "tests/machine/test_journal.py::test_a_stalled_default_journald_delays_no_client",
    ),
    Mutant(
        IDENTITY,
        "    if last.ended():",
        "    if False:",
        "tests/process/sockets/test_who_asked.py::test_a_process_that_reuses_the_pid_is_not_recorded",
    ),
)
