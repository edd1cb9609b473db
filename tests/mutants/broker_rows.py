"""Defects in the broker's memory, decisions, limits and state."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

MEMORY = "remo_broker/broker/secrets/memory.py"
STORE = "remo_broker/broker/secrets/store.py"
SPANS = "remo_broker/broker/secrets/strict_json.py"
COMPARISON = "remo_broker/broker/secrets/changes.py"
EXPIRY = "remo_broker/broker/secrets/expiry.py"
DECISIONS = "remo_broker/broker/decisions.py"
PROJECTS = "remo_broker/broker/projects.py"
RATE = "remo_broker/broker/rate.py"
STATE = "remo_broker/broker/registrations.py"
CHANGES = "remo_broker/broker/manifest_changes.py"
DAEMON = "remo_broker/broker/daemon.py"
ADMIN = "remo_broker/broker/sockets/admin.py"
LISTENER = "remo_broker/broker/sockets/listener.py"
LISTENERS = "remo_broker/broker/sockets/project_listeners.py"
NAMES = "remo_broker/protocol/names.py"

NEIGHBOURS = "tests/process/isolation/test_neighbours.py::"
BROKER = (
    Mutant(
        "remo_broker/broker/sockets/watch.py",
        "        self._watchers.streams.pop(self, None)\n",
        "        pass\n",
        "tests/unit/broker/sockets/test_watch.py::test_a_watcher_that_is_gone_is_not_kept",
    ),
    Mutant(
        "remo_broker/broker/sockets/watch.py",
        "        if known not in project.state_lines:\n",
        "        if True:\n",
        f"{NEIGHBOURS}test_long_answers_asked_for_at_one_time",
    ),
    Mutant(
        "remo_broker/broker/decisions.py",
        "        if not project.bindings_line:\n",
        "        if True:\n",
        f"{NEIGHBOURS}test_within_a_project[bindings]",
    ),
    # --- secret memory
    Mutant(
        MEMORY,
        "        region.wipe()\n        if small",
        "        if small",
        "tests/unit/broker/secrets/test_memory.py::test_a_small_region_is_cleared_for_reuse_and_a_large_one_unmapped",
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
        SPANS,
        "                yield from forget(unfinished)\n",
        "                pass\n",
        "tests/unit/broker/secrets/test_strict_json.py::test_nodes_are_freed_in_steps",
    ),
    Mutant(
        ADMIN,
        "            refusal.__traceback__ = None\n",
        "",
        "tests/unit/broker/sockets/test_admin.py::test_a_refusal_keeps_no_frame_alive",
    ),
    Mutant(
        EXPIRY,
        "return min(expiry.wall_usec - self._wall(), expiry.boot_usec - self._boot())",
        "return expiry.wall_usec - self._wall()",
        "tests/unit/broker/secrets/test_expiry.py",
    ),
    Mutant(
        EXPIRY,
        "return min(expiry.wall_usec - self._wall(), expiry.boot_usec - self._boot())",
        "return expiry.boot_usec - self._boot()",
        "tests/unit/broker/secrets/test_expiry.py",
    ),
    Mutant(
        "remo_broker/broker/decisions.py",
        "            if missing is None and grant.expiry",
        "            if now > project.leases.until.get(grant.name, 0.0) and missing is None and grant.expiry",
        "tests/unit/broker/secrets/test_expiry.py::test_a_get_before_the_timer_fires_gets_no_expired_secret",
    ),
    Mutant(
        "remo_broker/broker/decisions.py",
        "            if at_most is not None and at_most < left:\n",
        "            if False:\n",
        "tests/unit/broker/secrets/test_expiry.py::test_a_get_before_the_timer_fires_promises_no_more_time_than_is_left",
    ),
    Mutant(
        COMPARISON,
        "                binary != was_binary\n                or end",
        "                end",
        "tests/unit/broker/secrets/test_changes.py",
    ),
    Mutant(
        COMPARISON,
        "            if is_retired():\n                return None\n",
        "",
        "tests/unit/broker/secrets/test_changes.py",
    ),
    # --- who gets what
    Mutant(
        DECISIONS,
        "        if uid is not None and not project.registration.admits(uid):\n            return UID_NOT_ALLOWED\n",
        "",
        "tests/unit/broker/test_decisions.py",
    ),
    Mutant(
        LISTENERS,
        "                if looks <= LOOKS_FOR_ROOM:\n                    return False\n",
        "",
        "tests/process/sockets/test_limits.py::test_peers_that_waited_for_a_stalled_broker_are_served",
    ),
    Mutant(
        LISTENERS,
        "        elif not project.registration.admits(peer.uid):\n",
        "        elif False:\n",
        "tests/process/sockets/test_limits.py",
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
    Mutant(
        PROJECTS,
        "        self.grants = {name: Grant(self, name) for name in registration.allowlist}\n        self.lines = {}\n        self.info_line",
        "        self.grants = {name: Grant(self, name) for name in registration.allowlist}\n        self.info_line",
        "tests/unit/broker/test_decisions.py::test_a_reload_forgets_the_lines",
    ),
    Mutant(
        PROJECTS,
        "    ttl = min(one.ttl_seconds, config.cache_default_ttl_seconds)\n",
        "    ttl = one.ttl_seconds\n",
        "tests/process/sockets/test_restarts.py::test_a_restart_applies_stricter_limits",
    ),
    Mutant(
        PROJECTS,
        "    entries = min(one.max_entries, config.cache_default_max_entries)\n",
        "    entries = one.max_entries\n",
        "tests/process/sockets/test_restarts.py::test_a_restart_applies_stricter_limits",
    ),
    # --- limits
    Mutant(
        "remo_broker/broker/sockets/listener.py",
        "ACCEPTS_PER_TURN = 16\n",
        "ACCEPTS_PER_TURN = 16_000\n",
        "tests/unit/broker/sockets/test_queues.py::test_a_turn_accepts_few_connections_of_a_busy_queue",
    ),
    Mutant(
        "remo_broker/broker/sockets/fair_queue.py",
        "                self.waiting[:0] = too_early",
        "                self.waiting = too_early",
        "tests/unit/broker/sockets/test_fair_queue.py::"
        "test_a_connection_with_requests_left_queues_behind_one_that_had_to_wait",
    ),
    Mutant(RATE, "        if tokens < 1:\n", "        if tokens < -1000:\n", "tests/unit/broker/test_rate.py"),
    Mutant(RATE, "min(float(self.burst), ", "max(float(self.burst), ", "tests/unit/broker/test_rate.py"),
    Mutant(
        PROJECTS,
        "        self.bucket = Bucket(rate_per_second, rate_burst)\n",
        "        self.bucket = Bucket(0, 0)\n",
        "tests/process/sockets/test_limits.py::test_a_project_that_exceeds_its_rate_limit",
    ),
    Mutant(
        LISTENER,
        "                    self._pause(EXHAUSTED_SECONDS)\n                    return\n",
        "                    return\n",
        "tests/process/isolation/test_limits.py::test_out_of_descriptors",
    ),
    Mutant(
        LISTENERS,
        "        return project.connections >= self._most or ",
        "        return ",
        "tests/process/isolation/test_limits.py::test_connections",
    ),
    Mutant(
        "remo_broker/broker/sockets/passed_descriptors.py",
        "        one.setsockopt(_socket.SOL_SOCKET, SO_PASSRIGHTS, 0)\n",
        "",
        "tests/process/isolation/test_limits.py::test_a_descriptor_that_takes_long_to_close_delays_no_client",
    ),
    Mutant(
        "remo_broker/broker/sockets/passed_descriptors.py",
        "    connection.setsockopt(_socket.SOL_SOCKET, _socket.SO_OOBINLINE, 1)\n",
        "",
        "tests/unit/broker/sockets/test_passed_descriptors.py::test_a_connection_with_a_descriptor_is_ended_and_closes_none",
    ),
    Mutant(
        LISTENER,
        "            if self._early and self._is_taken_out(connection):\n                continue\n",
        "",
        "tests/machine/test_borders.py::test_a_descriptor_that_takes_long_to_close_delays_no_client",
    ),
    Mutant(
        LISTENER,
        "        if not take_out(waiting):\n            waiting.close()\n",
        "        waiting.close()\n",
        "tests/unit/broker/sockets/test_listener.py::test_revoking_a_listener_does_not_close_them_either",
    ),
    Mutant(
        "remo_broker/broker/audit/floods.py",
        "        if len(name) <= LONG_NAME:",
        "        if True:",
        "tests/process/sockets/test_audit.py::test_denials_of_long_names_are_counted_after_the_first_few",
    ),
    Mutant(
        "remo_broker/broker/audit/floods.py",
        "        counts = self._counts[project]\n",
        "        counts = self._counts[project]\n        peer_fields = next(iter(counts), peer_fields)\n",
        "tests/unit/broker/audit/test_floods.py",
    ),
    # --- names and what is shown
    Mutant(NAMES, '{0,63}$"', '{0,64}$"', "tests/unit/protocol/test_names.py"),
    Mutant(NAMES, '.encode("unicode_escape").decode("ascii")', "", "tests/unit/protocol/test_names.py"),
    Mutant(
        NAMES,
        'RESERVED_PROJECT_NAMES = frozenset({"admin", "status", "credentials"})',
        'RESERVED_PROJECT_NAMES = frozenset({"admin", "status"})',
        "tests/unit/protocol/test_names.py",
    ),
    Mutant(
        DAEMON,
        "{type(error).__name__} at {where}",
        "{error} at {where}",
        "tests/unit/broker/test_faults.py::test_a_bug_is_logged_without_its_text",
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
        STATE,
        "        if found.st_uid not in (0, os.geteuid()):\n",
        "        if False:\n",
        "tests/unit/broker/test_registrations.py",
    ),
    Mutant(
        STATE,
        "        if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):\n",
        "        if False:\n",
        "tests/unit/broker/test_registrations.py",
    ),
    Mutant(
        STATE,
        '    temporary = path + ".new"\n'.replace('\\"', '"'),
        "    temporary = path\n",
        "tests/unit/broker/test_registrations.py",
    ),
    Mutant(
        "remo_broker/broker/manifest_operations.py",
        "                self._check_reading(project, allowed, peer)\n",
        "",
        "tests/process/manifest/test_taken_over.py::test_content_under_an_approved_hash_must_be_what_was_shown",
    ),
    Mutant(
        "remo_broker/broker/manifest_child.py",
        "        helper_process.close_all(descriptors)  # a reader",
        "        # a reader",
        "tests/unit/broker/test_manifest_child.py::test_descriptors_that_a_reader_sends_are_closed",
    ),
    Mutant(
        "remo_broker/broker/manifest_child.py",
        " and all(is_host(host) for host in hosts)",
        "",
        "tests/unit/broker/test_manifest_child.py::test_bindings_and_hosts_in_a_reply_are_checked",
    ),
    Mutant(
        STATE,
        " and all(is_host(host) for host in hosts)",
        "",
        "tests/unit/broker/test_registrations.py::test_an_invalid_host_is_not_loaded",
    ),
    Mutant(
        CHANGES,
        "_differing(_bindings(old), _bindings(new))",
        "_differing(_bindings(old), _bindings(new)) if old else []",
        "tests/process/ctl/test_reload.py::test_unapproved_bindings_wait",
    ),
    Mutant(
        "remo_broker/ctl/reload.py",
        "Colour.GREEN), *places.pop(name, [])]",
        "Colour.GREEN)]",
        "tests/process/ctl/test_reload.py::test_diff_shows_where_secrets_would_go",
    ),
    Mutant(
        "remo_broker/broker/sighup.py",
        "                late.append(name)\n",
        "",
        "tests/unit/broker/test_sighup.py::test_a_manifest_not_read_in_time_is_read_again",
    ),
    Mutant(
        "remo_broker/broker/manifest_child.py",
        'NotRead(text) if said.get("late") is True else ',
        "",
        "tests/unit/broker/test_manifest_child.py::test_only_a_reader_stopped_at_its_deadline_is_tried_again",
    ),
)
