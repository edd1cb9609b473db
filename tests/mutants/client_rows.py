"""Defects in the commands and in the client library."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

CONNECTION = "remo_broker/client/connection.py"
TRUST = "remo_broker/client/trust.py"
PLACES = "remo_broker/secret/apply_bindings.py"
TMPFS = "remo_broker/secret/tmpfs.py"
LINKS = "remo_broker/secret/links.py"
GIT = "remo_broker/secret/git.py"
SECRET_PATHS = "remo_broker/cli/input_files.py"
TERMINAL = "remo_broker/cli/terminal.py"
ACL = "remo_broker/ctl/reader_access.py"
PACK = "remo_broker/build/pack.py"
DOCTOR = "remo_broker/secret/doctor.py"

LINKS_OF_A_PROJECT = "tests/machine/test_borders.py::test_no_link_of_a_project_leads_root_to_another_file"

SHOWN = "tests/process/secret/test_hostile_input.py::"
ATTACKS = "tests/machine/test_client_attacks.py::"
CLIENT = (
    Mutant(
        CONNECTION,
        "    if not is_broker(uid, admin=bool(kind)):\n",
        "    if False:\n",
        f"{ATTACKS}test_a_listener_of_another_user_is_sent_nothing",
    ),
    Mutant(
        TERMINAL,
        '        environment["LESSSECURE"] = "1"\n',
        "        pass\n",
        f"{ATTACKS}test_the_caller_does_not_choose_roots_pager",
    ),
    Mutant(
        TERMINAL,
        "    secure = _elevated() if trusted is None else trusted\n",
        "    secure = False\n",
        f"{ATTACKS}test_the_caller_does_not_choose_roots_pager",
    ),
    Mutant(
        PLACES,
        "                if not binding.explicit and changes_loading(variable):\n",
        "                if False:\n",
        f"{ATTACKS}test_no_name_reaches_what_programs_load",
    ),
    Mutant(
        SECRET_PATHS,
        "            if target == self.root or os.path.commonpath([self.root, target]) != self.root:\n",
        "            if False:\n",
        f"{ATTACKS}test_a_repository_neither_blocks_an_operator_nor_reveals_a_file",
    ),
    Mutant(
        SECRET_PATHS,
        "        self._active = os.geteuid() == 0 and uid != 0\n",
        "        self._active = False\n",
        f"{ATTACKS}test_a_repository_neither_blocks_an_operator_nor_reveals_a_file",
    ),
    Mutant(
        PLACES,
        "OWNER = 0o700\n",
        "OWNER = 0o777\n",
        f"{ATTACKS}test_only_the_registered_manifest_applies_and_files_belong_to_the_user",
    ),
    Mutant(
        TMPFS,
        "DIRECTORY_MODE = 0o700\n",
        "DIRECTORY_MODE = 0o755\n",
        f"{ATTACKS}test_only_the_registered_manifest_applies_and_files_belong_to_the_user",
    ),
    Mutant(
        "remo_broker/ctl/devcontainer.py",
        "        if output.terminal:\n",
        "        if False:\n",
        "tests/process/ctl/test_devcontainer.py::test_no_path_that_a_terminal_obeys_is_written_to_one",
    ),
    Mutant(
        "remo_broker/cli/program.py",
        "    if os.isatty(1):\n",
        "    if False:\n",
        f"{SHOWN}test_no_value_that_a_terminal_obeys_is_written_to_one",
    ),
    Mutant(
        "remo_broker/secret/get.py",
        "    for line in _shown(lines) if os.isatty(1) else lines:\n",
        "    for line in lines:\n",
        f"{SHOWN}test_no_path_that_a_terminal_obeys_is_written_to_one",
    ),
    Mutant(
        "remo_broker/secret/remo-secret.c",
        "    if (!may_write(username) || !may_write(password))\n        return false;\n",
        "",
        "tests/process/static_client/test_streams.py::test_no_value_that_a_terminal_obeys_is_written_to_one",
    ),
    Mutant(
        CONNECTION,
        "    if not is_broker(uid, admin=bool(kind)):\n",
        "    if False:\n",
        "tests/process/client/test_bad_replies.py::test_a_listener_of_another_user_is_sent_nothing",
    ),
    Mutant(
        TRUST,
        "    if admin:\n        return False\n",
        "",
        "tests/process/client/test_bad_replies.py::test_who_may_be_the_broker",
    ),
    Mutant(
        "remo_broker/client/exchange.py",
        "            if not all(is_secret_name(name) for name in value or ()):\n",
        "            if False:\n",
        "tests/process/client/test_bad_replies.py::test_a_name_that_no_broker_would_accept",
    ),
    Mutant(
        "remo_broker/client/exchange.py",
        "                _check_names(path, one)\n",
        "                pass\n",
        "tests/process/ctl/test_hostile_broker.py::test_a_name_that_no_broker_has_is_a_malformed_reply",
    ),
    Mutant(
        "remo_broker/ctl/status.py",
        "{name}: {escaped(why)}",
        "{name}: {why}",
        "tests/process/ctl/test_hostile_broker.py::test_no_command_prints_control_characters",
    ),
    Mutant(
        "remo_broker/ctl/devcontainer.py",
        '    if any(sign in project.directory for sign in "\\n\\r"):\n',
        "    if False:\n",
        "tests/process/ctl/test_devcontainer.py::test_each_engine_gets_the_projects_path_unchanged",
    ),
    Mutant(
        "remo_broker/cli/real_path.py",
        "    except RecursionError:\n",
        "    except MemoryError:\n",
        "tests/process/sidecar/test_status.py::test_no_chain_of_links_ends_it",
    ),
    Mutant(
        DOCTOR,
        "        file = _identity(path)\n",
        "        file = os.path.realpath(path)\n",
        f"{SHOWN}test_no_chain_of_links_ends_doctor_or_render",
    ),
    Mutant(DOCTOR, ", opener=_without_waiting", "", f"{SHOWN}test_doctor_waits_for_no_fifo_that_takes_a_file_s_place"),
    Mutant(
        DOCTOR,
        """(?:(?:\\"\\"|'')[ \\t]*)?(?:#|$)""",
        """(?:\\"\\"|'')?[ \\t]*(?:#|$)""",
        f"{SHOWN}test_a_file_that_takes_long_to_search",
    ),
    Mutant(
        "remo_broker/protocol/mounts.py",
        ', newline="\\n") as file:',
        ") as file:",
        "tests/unit/secret/test_tmpfs.py::test_no_name_of_a_mount_hides_another",
    ),
    Mutant(
        "remo_broker/ctl/devcontainer.py",
        "for path in (project.manifest, project.folder))",
        "for path in (project.manifest,))",
        "tests/machine/test_engines.py::test_code_in_a_container_leads_its_next_start_to_no_file_of_the_host",
    ),
    Mutant(
        "remo_broker/ctl/devcontainer.py",
        "            if os.path.islink(path):\n",
        "            if False:\n",
        "tests/process/ctl/test_devcontainer.py::test_no_engine_follows_a_link_in_place_of_the_manifest",
    ),
    Mutant(
        "remo_broker/ctl/devcontainer_write.py",
        "        if found != os.path.normpath(directory):\n",
        "        if False:\n",
        "tests/process/ctl/test_devcontainer.py::test_root_follows_no_link_above_the_project",
    ),
    Mutant(
        "remo_broker/secret/doctor.py",
        "file.read(min(os.fstat(file.fileno()).st_size, MAX_BYTES))",
        "file.read(MAX_BYTES)",
        "tests/process/secret/test_hostile_input.py::test_doctor_reads_nothing_of_the_kernel[.env]",
    ),
    Mutant(
        "remo_broker/secret/git_command.py",
        "            stdin=subprocess.DEVNULL,\n",
        "",
        "tests/process/secret/test_hostile_input.py::test_doctor_waits_for_no_file_of_the_repository[input]",
    ),
    Mutant(
        "remo_broker/secret/apply_bindings.py",
        "                inside = check_inside(base, target)\n",
        "",
        "tests/process/secret/test_bindings.py::test_no_link_of_the_repository_takes_a_file_out_of_the_project",
    ),
    Mutant(
        "remo_broker/secret/git_command.py",
        "            env=os.environ | NO_FETCH,\n",
        "",
        "tests/process/secret/test_bindings.py::test_git_runs_no_program_that_the_repository_names[fetch]",
    ),
    Mutant(
        "remo_broker/secret/git_command.py",
        '"-c", "core.fsmonitor=false", ',
        "",
        "tests/process/secret/test_bindings.py::test_git_runs_no_program_that_the_repository_names[monitor]",
    ),
    Mutant(
        "remo_broker/manifest/__init__.py",
        "        one.line = places.of(one.key)\n",
        "        one.line = lines.Lines(content).of(one.key)\n",
        "tests/unit/manifest/test_lines.py::test_a_file_is_looked_through_once_for_all_its_faults",
    ),
    Mutant(
        "remo_broker/secret/manifests.py",
        'r"""^[ \\t]*(?:project',
        'r"""^\\s*(?:project',
        "tests/process/secret/test_hostile_input.py::test_a_file_that_takes_long_to_search",
    ),
    Mutant(
        "remo_broker/ctl/devcontainer_write.py",
        "    if owner == 0 and",
        "    if False and",
        "tests/process/ctl/test_devcontainer.py::test_root_follows_no_link_of_a_user_in_a_directory_of_its_own",
    ),
    Mutant(
        "remo_broker/secret/get.py",
        "map(escaped, line.split",
        "map(str, line.split",
        "tests/process/secret/test_hostile_input.py::test_no_command_prints_control_characters",
    ),
    Mutant(
        PLACES,
        "                if not binding.explicit and changes_loading(variable):\n",
        "                if False:\n",
        "tests/process/secret/test_exec.py::test_a_variable_that_changes_what_programs_load",
    ),
    Mutant(
        PLACES,
        "OWNER = 0o700\n",
        "OWNER = 0o777\n",
        "tests/process/secret/test_exec.py::test_files_lie_in_memory_with_their_mode",
    ),
    Mutant(
        TMPFS,
        "        if is_in_memory(directory) and is_safe(directory) and",
        "        if is_safe(directory) and",
        "tests/process/secret/test_files.py::test_nothing_is_rendered_on_a_disk",
    ),
    Mutant(
        TMPFS,
        "    return found.st_uid == os.geteuid() and not",
        "    return not",
        "tests/process/secret/test_files.py::test_a_directory_that_is_not_ours_is_not_used",
    ),
    Mutant(
        TMPFS,
        '    base = f"{usual}-{os.urandom(RANDOM_BYTES).hex()}"\n'.replace('\\"', '"'),
        "    base = usual\n",
        "tests/process/secret/test_files.py::test_a_squatted_directory_is_not_waited_for",
    ),
    Mutant(
        LINKS,
        "    elif found is None and os.path.lexists(target) and not ours:\n",
        "    elif False:\n",
        "tests/process/secret/test_files.py::test_a_real_file_is_not_replaced",
    ),
    Mutant(
        "remo_broker/secret/bindings.py",
        "    if digest != info.manifest_sha256:\n",
        "    if False:\n",
        "tests/process/secret/test_exec.py::test_an_edited_manifest_takes_effect_when_it_is_reloaded",
    ),
    Mutant(
        GIT,
        "        elif key in request:\n",
        "        elif False:\n",
        "tests/process/secret/test_git.py",
    ),
    Mutant(
        GIT,
        '    if request.get("protocol") != "https" or not host:\n',
        "    if not host:\n",
        "tests/process/secret/test_git.py",
    ),
    Mutant(
        SECRET_PATHS,
        "            if target == self.root or os.path.commonpath([self.root, target]) != self.root:\n",
        "            if False:\n",
        "tests/process/ctl/test_push.py::test_a_dotenv_file_reads_nothing_outside_its_directory",
    ),
    Mutant(
        SECRET_PATHS,
        "        self._active = os.geteuid() == 0 and uid != 0\n",
        "        self._active = False\n",
        "tests/process/ctl/test_push.py::test_root_reads_what_a_dotenv_names_with_the_rights_of_its_owner",
    ),
    Mutant(
        SECRET_PATHS,
        "_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY\n",
        "_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY\n",
        "tests/process/ctl/test_push.py::test_a_fifo_is_refused_and_a_pipe_is_read",
    ),
    Mutant(
        "remo_broker/ctl/push.py",
        "    if process.returncode:\n",
        "    if False:\n",
        "tests/process/ctl/test_push.py::test_a_command_is_pushed_if_it_succeeds",
    ),
    Mutant(
        ACL,
        "os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory)",
        "os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory)",
        LINKS_OF_A_PROJECT,
    ),
    Mutant(
        ACL,
        "os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)",
        "os.open(name, os.O_PATH | os.O_CLOEXEC, dir_fd=directory)",
        LINKS_OF_A_PROJECT,
    ),
    Mutant(ACL, " or found.st_nlink > 1 or ", " or ", LINKS_OF_A_PROJECT),
    Mutant(
        ACL,
        '            env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8"},\n',
        "",
        "tests/machine/test_borders.py::test_register_opens_a_closed_home_for_the_reader_alone",
    ),
    Mutant(
        TERMINAL,
        '        environment.pop("LESSSECURE_ALLOW", None)',
        "        pass",
        "tests/process/ctl/test_pager.py::test_roots_pager_runs_no_command",
    ),
    Mutant(
        "remo_broker/ctl/devcontainer_write.py",
        "read_in_place(path, len(content) + 1) == content",
        "open(path, 'rb').read() == content",
        "tests/process/ctl/test_devcontainer.py::test_a_fifo_in_place_of_a_file_is_not_waited_for",
    ),
    Mutant(
        TERMINAL,
        '        environment["LESSSECURE"] = "1"\n',
        "        pass\n",
        "tests/process/ctl/test_pager.py::test_roots_pager_runs_no_command",
    ),
    Mutant(
        "remo_broker/build/completions.py",
        "| LC_ALL=C sed -n '/^[A-Za-z0-9_]",
        "| LC_ALL=C sed -n '/^[^ ]",
        "tests/process/cli/test_completions.py::test_tab",
    ),
    Mutant(
        PACK,
        "exec python3 -IS ",
        "exec python3 -S ",
        "tests/process/secret/test_pack.py::test_nothing_from_the_callers_environment_is_imported",
    ),
    Mutant(
        PACK,
        "if sys.version_info < (3, OLDEST):",
        "if sys.version_info < (3, 5):",
        "tests/process/secret/test_pack.py::test_a_version_that_is_too_old_ends_with_a_message",
    ),
    Mutant(
        "remo_broker/secret/remo-secret.c",
        "static bool is_secret_name(const char *text, size_t size) {\n",
        "static bool is_secret_name(const char *text, size_t size) {\n    if (size) return text != 0;\n",
        "tests/process/static_client/test_table.py::test_one_behaviour",
    ),
    Mutant(
        "remo_broker/secret/servers.py",
        'for end in "/?#\\\\":',
        'for end in "/?#":',
        "tests/process/secret/tools/test_refusals.py::test_a_url_of_another_server_gets_nothing",
    ),
    Mutant(
        "remo_broker/build/pack.py",
        'case $- in *s*) false ;; *) [ -f "$0" ] ;; esac ||',
        '[ -f "$0" ] ||',
        "tests/process/secret/test_pack.py::test_a_pipe_into_a_shell_ends_with_a_message",
    ),
    Mutant(
        "remo_broker/ctl/devcontainer.py",
        "    if holder is not None and not _leads_to(holder, directory):\n",
        "    if False:\n",
        "tests/process/ctl/test_devcontainer.py::test_a_directory_whose_name_is_registered_for_another",
    ),
    Mutant(
        "remo_broker/secret/loader_variables.py",
        '"DBUS_", ',
        "",
        "tests/process/secret/test_exec.py::test_a_variable_that_changes_what_programs_load[DBUS_SESSION_BUS_ADDRESS]",
    ),
    Mutant(
        "remo_broker/client/admin.py",
        "        if self.incomplete and len(self._pages) >= MAX_STATUS_PAGES:\n",
        "        if False:\n",
        "tests/process/client/test_endless_status.py::test_a_status_without_end_is_a_malformed_reply",
    ),
)
