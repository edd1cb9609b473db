"""Defects in units, in the bus policy, and in what the broker does to its own process."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

BROKER_UNIT = "units/remo-broker.service"
READER_UNIT = "units/remo-broker-manifest@.service"
BINDER_UNIT = "units/remo-broker-bind@.service"
CLIENT_UNIT = "units/remo-broker-client@.socket"
SAME_UID = (
    "tests/machine/test_counted_by_user.py::test_processes_of_the_same_uid_prevent_neither_a_start_nor_a_registration"
)
TMPFILES = "units/remo-broker.tmpfiles"
POLICY = "policy/io.get2know.RemoBroker1.conf"
PROCESS = "remo_broker/protocol/hardening.py"
BINDER = "remo_broker/binder/files.py"
LISTENER = "remo_broker/broker/sockets/listener.py"
LISTENERS = "remo_broker/broker/sockets/project_listeners.py"

IN_FORCE = "tests/process/memory/test_process.py::test_settings_of_the_allocator_are_applied"
NO_TRACE = "tests/machine/test_borders.py::test_the_brokers_user_cannot_trace_it_at_any_moment"
GATE = "tests/machine/test_borders.py::test_a_recreated_mount_directory_is_closed"
READER_SEES = "tests/machine/test_borders.py::test_the_reader_sees_projects_and_nothing_else"
READER_WALLS = "tests/machine/test_borders.py::test_each_restriction_of_the_reader_holds_by_itself"
CONFINEMENT = "remo_broker/manifest/confinement.py"
CONFINED = "tests/process/manifest/test_confinement.py"
REACHES = f"{CONFINED}::test_what_reaches_another_process_is_refused"
NEIGHBOURS = "tests/machine/test_borders.py::test_a_compromised_reader_cannot_affect_other_readers"
PLANT = "tests/machine/test_borders.py::test_only_root_can_create_files_beside_the_sockets"
IN_FLIGHT = "tests/machine/test_counted_by_user.py::test_descriptors_that_root_keeps_in_flight_prevent_no_registration"
OPERATIONS = "remo_broker/broker/operations.py"
OLD_MOUNT = "tests/machine/test_revocation.py::test_an_old_mount_is_dead_after_unregistering"
ENABLES = "tests/machine/test_register.py::test_the_helper_changes_units_of_registered_projects_and_no_others"
HELPERS = "tests/machine/test_borders.py::test_other_processes_cannot_reach_the_helpers_or_the_state"

HOST = (
    # --- the process
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
    Mutant(PROCESS, ":glibc.malloc.arena_max=1", "", IN_FORCE),
    Mutant(PROCESS, ":glibc.malloc.tcache_count=0", "", IN_FORCE),
    Mutant(PROCESS, '    "LD_BIND_NOW": "1",\n', "", IN_FORCE),
    Mutant(
        BROKER_UNIT,
        "Environment=LD_BIND_NOW=1\n",
        "",
        "tests/machine/test_sandbox.py::test_the_units_environment_avoids_a_second_start",
    ),
    Mutant(
        BROKER_UNIT,
        "LimitCORE=1\n",
        "LimitCORE=infinity\n",
        "tests/machine/test_secrecy.py::test_no_core_before_the_broker_forbids_them_itself",
    ),
    Mutant(BROKER_UNIT, "AmbientCapabilities=CAP_IPC_LOCK\n", "", NO_TRACE),
    Mutant(
        "remo_broker/broker/daemon.py",
        "        drop_capabilities()\n",
        "",
        "tests/machine/test_sandbox.py::test_the_process_has_no_privilege",
    ),
    Mutant(BROKER_UNIT, "MemorySwapMax=0\n", "", "tests/machine/test_secrecy.py::test_no_swap"),
    # --- what the units see
    Mutant(BROKER_UNIT, "ProtectHome=yes\n", "", "tests/machine/test_borders.py::test_the_broker_sees_no_project"),
    Mutant(
        BROKER_UNIT,
        "TemporaryFileSystem=/srv:ro /mnt:ro /media:ro /opt:ro\n",
        "",
        "tests/machine/test_borders.py::test_the_broker_sees_no_project",
    ),
    Mutant(BINDER_UNIT, "LimitNOFILE=infinity\n", "LimitNOFILE=64\n", IN_FLIGHT),
    Mutant(
        BINDER_UNIT,
        "CapabilityBoundingSet=CAP_SYS_RESOURCE\n",
        "CapabilityBoundingSet=\n",
        "tests/contract/test_units.py::test_the_limit_on_descriptors_in_flight_does_not_hold_for_the_helper",
    ),
    Mutant(
        "remo_broker/broker/systemd.py",
        "if error.errno == errno.ETOOMANYREFS:",
        "if False:",
        "tests/unit/broker/test_systemd.py::test_too_many_descriptors_in_flight_do_not_hold_up_the_watchdog",
    ),
    Mutant(READER_UNIT, "ProtectHome=read-only\n", "", READER_WALLS),
    Mutant(READER_UNIT, "RestrictAddressFamilies=none\n", "RestrictAddressFamilies=AF_UNIX\n", READER_WALLS),
    Mutant(READER_UNIT, "TemporaryFileSystem=/var/lib/remo-broker:ro\n", "", READER_WALLS),
    Mutant(READER_UNIT, "InaccessiblePaths=-/run/remo-broker -/run/dbus\n", "", READER_SEES),
    Mutant(READER_UNIT, "User=remo-broker-manifest\n", "User=remo-broker\n", READER_SEES),
    Mutant(
        BROKER_UNIT,
        "NotifyAccess=main\n",
        "NotifyAccess=main\nKillMode=process\n",
        "tests/contract/test_units.py::test_no_process_outlives_its_unit",
    ),
    # --- sockets and directories
    Mutant(
        CLIENT_UNIT,
        "SocketMode=0660\n",
        "SocketMode=0666\n",
        "tests/machine/test_access.py::test_who_may_connect[unit-nobody-may0]",
    ),
    Mutant(
        BINDER,
        "SOCKET_MODE = 0o660",
        "SOCKET_MODE = 0o666",
        "tests/machine/test_access.py::test_who_may_connect[broker-nobody-may0]",
    ),
    Mutant(BINDER, "GATE_MODE = 0o750", "GATE_MODE = 0o755", GATE),
    Mutant(
        BINDER,
        "        if found.st_mode & ~mode & stat.S_IRWXO:\n",
        "        if False:\n",
        "tests/process/sockets/test_binder.py::test_no_socket_is_made_in_a_directory_that_others_opened",
    ),
    Mutant(
        TMPFILES,
        "d /run/remo-broker/mount 0750",
        "d /run/remo-broker/mount 0755",
        "tests/machine/test_borders.py::test_no_user_outside_the_group_enters_the_mount_directory",
    ),
    Mutant(TMPFILES, "d /run/remo-broker 0755 root root", "d /run/remo-broker 0775 root remo-broker", PLANT),
    Mutant(
        "remo_broker/ctl/setup_journal.py",
        "RuntimeDirectory=\n",
        "ExecStartPost=+/bin/chgrp remo-broker-private /run/systemd/journal.%i/socket /run/systemd/journal.%i/stdout\n",
        "tests/machine/test_journal.py::test_no_other_process_can_connect_to_it[logreader]",
    ),
    Mutant(
        "remo_broker/ctl/setup_journal.py",
        "SystemKeepFree=0\n",
        "",
        "tests/machine/test_journal.py::test_other_files_on_its_disk_displace_no_record",
    ),
    Mutant(READER_UNIT, "/run /dev/shm /proc\n", "/run /dev/shm\n", NEIGHBOURS),
    Mutant(READER_UNIT, "SystemCallFilter=~kill tkill tgkill", "SystemCallFilter=~", NEIGHBOURS),
    Mutant(CONFINEMENT, "    libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, header, 0, 0)\n", "", NEIGHBOURS),
    Mutant(
        "remo_broker/manifest/__main__.py",
        "    confine()\n",
        "",
        f"{CONFINED}::test_the_reader_confines_itself_before_it_has_a_request",
    ),
    Mutant(CONFINEMENT, "_instruction(_EQUAL, 0, then=1) + refuse + allow", "allow", REACHES),
    Mutant(CONFINEMENT, "REFUSED_FCNTLS = 8, 15, 10", "REFUSED_FCNTLS = 15, 10", REACHES),
    Mutant(CONFINEMENT, "REFUSED_IOCTLS = 0x8901, 0x8902", "REFUSED_IOCTLS = (0x8902,)", REACHES),
    Mutant(
        READER_UNIT,
        "LimitNPROC=infinity\n",
        "",
        SAME_UID,
    ),
    Mutant(
        BROKER_UNIT,
        "LimitNPROC=infinity\n",
        "",
        SAME_UID,
    ),
    Mutant("units/remo-broker-bind.socket", "SocketGroup=remo-broker-private\n", "SocketGroup=remo-broker\n", HELPERS),
    Mutant(
        "units/remo-broker-manifest.socket", "SocketGroup=remo-broker-private\n", "SocketGroup=remo-broker\n", HELPERS
    ),
    Mutant(
        TMPFILES,
        "d /var/lib/remo-broker 0770 root remo-broker-private",
        "d /var/lib/remo-broker 0770 root remo-broker",
        HELPERS,
    ),
    Mutant(
        "units/remo-broker-credentials.socket",
        "SocketMode=0600\n",
        "SocketMode=0666\n",
        "tests/machine/test_credential_peers.py::test_only_root_reaches_the_socket",
    ),
    # --- the helper that enables units
    Mutant("units/remo-broker-enable.socket", "SocketMode=0660\n", "SocketMode=0666\n", ENABLES),
    Mutant("units/remo-broker-enable.socket", "SocketGroup=remo-broker-admin\n", "SocketGroup=remo-broker\n", ENABLES),
    Mutant(
        "units/remo-broker-enable@.service",
        ">/dev/null 2>&1 || { echo",
        ">/dev/null 2>&1 || true || { echo",
        ENABLES,
    ),
    Mutant("units/remo-broker-enable@.service", '"" | [!a-z0-9]* | *[!a-z0-9_-]*)', '"")', ENABLES),
    # --- revocation
    Mutant(LISTENER, "    listening.shutdown(_socket.SHUT_RDWR)\n", "", f"{OLD_MOUNT}[units-unregister]"),
    Mutant(
        LISTENERS,
        "        self._revoke(name)\n        try:\n            self._prepared[name]",
        "        try:\n            self._prepared[name]",
        "tests/process/sockets/test_handed_over.py::test_a_unit_s_listener_is_not_served_to_a_later_registration",
    ),
    Mutant(
        LISTENERS,
        "        if handed_over and is_revoked(listening):\n            listening.close()\n            return\n",
        "",
        "tests/process/sockets/test_handed_over.py::test_a_revoked_listener_is_not_served_although_it_is_at_its_path",
    ),
    Mutant(BINDER, "(before != owner if", "(False if", f"{OLD_MOUNT}[broker-unregister]"),
    Mutant(
        "units/remo-broker-mount@.socket",
        "Requires=remo-broker-gate.service\n",
        "",
        "tests/machine/test_borders.py::test_no_unit_listens_in_a_mount_directory_that_is_open",
    ),
    Mutant(
        "units/remo-broker-gate.service",
        "StartLimitIntervalSec=0\n",
        "",
        "tests/machine/test_borders.py::test_no_unit_listens_in_a_mount_directory_that_is_open",
    ),
    Mutant(
        BINDER,
        " and _kind(marker) is None:\n",
        ":\n",
        "tests/process/sockets/test_binder.py::test_a_late_removal_gives_no_directory_to_the_former_owner",
    ),
    Mutant(
        BINDER,
        "    if before != owner:\n        _write_marker(marker, owner)\n",
        "    if _kind(marker) is not None:\n        os.unlink(marker)\n",
        "tests/process/sockets/test_binder.py::test_no_directory_is_kept_that_was_made_for_another_registration",
    ),
    Mutant(
        BINDER,
        "(before != owner if before is not None else renew)",
        "(renew and before != owner)",
        "tests/process/sockets/test_restarts.py::test_a_registration_that_comes_back_is_not_served_to_another_directory",
    ),
    Mutant(
        BINDER,
        "            _clear(inside)\n",
        "            os.unlink(inside)\n",
        "tests/process/sockets/test_handed_over.py::"
        "test_no_directory_is_made_beside_a_listener_that_the_broker_was_not_passed",
    ),
    Mutant(
        BINDER,
        "        if found.st_uid != os.geteuid():\n",
        "        if False:\n",
        "tests/process/sockets/test_binder.py::test_no_socket_is_made_in_a_directory_of_another_user",
    ),
    *(
        Mutant(
            "remo_broker/build/host.sh",
            defence,
            "",
            "tests/process/sockets/test_binder.py::"
            "test_an_upgrade_takes_the_directories_from_the_user_of_an_earlier_broker",
        )
        for defence in (
            '        find "$1" -xdev -mindepth "$depth" -maxdepth "$depth" ! -user root -exec chown -h root {} +\n',
            '        find "$1" -xdev -mindepth "$depth" -maxdepth "$depth" -type d -exec chmod go-w {} +\n',
            '    find "$1" -xdev -depth -mindepth 1 ! -type s ! -type d -delete\n',
        )
    ),
    Mutant(
        "remo_broker/broker/decisions.py",
        "if project.last_generation not in (None, self.store.generation):",
        "if False:",
        "tests/unit/broker/test_decisions.py::test_a_project_that_has_ended_gets_nothing_that_was_pushed_since",
    ),
    Mutant(
        "remo_broker/broker/sockets/project.py",
        "            project.last_generation = self.broker.store.generation\n",
        "            pass\n",
        "tests/process/sockets/test_registering.py::test_who_lost_access_gets_nothing_that_is_pushed_since",
    ),
    Mutant(
        OPERATIONS,
        "known.registration.project_path != path",
        "False",
        "tests/process/sockets/test_registering.py::test_containers_of_another_directory_lose_the_socket",
    ),
    Mutant(
        OPERATIONS,
        "        if admitted == registration.allowed_uids:\n",
        "        if True:\n",
        "tests/process/sockets/test_registering.py::test_users_that_lose_access_get_nothing_that_is_allowed_since",
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
        "tests/process/bus/test_policy.py::test_every_user_may_read_and_no_user_may_do_anything_else",
    ),
    Mutant(
        POLICY,
        '    <deny receive_sender="io.get2know.RemoBroker1"/>\n',
        "",
        "tests/process/bus/test_policy.py::test_only_the_services_own_signals_are_delivered",
    ),
    Mutant(
        "remo_broker/bus/budget.py",
        "max(self._full_at.get(uid, now), now)",
        "now",
        "tests/process/bus/test_flood.py",
    ),
    Mutant(
        "remo_broker/bus/connection.py",
        "MAX_CALL = 8 * 1024",
        "MAX_CALL = 8 * 1024 * 1024",
        "tests/process/bus/test_connection.py",
    ),
)
