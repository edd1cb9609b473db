"""Who may ask on the credentials socket: only the system's own manager, for a unit that it
starts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.loading import EXIT_CREDENTIALS, SOCKET, loaded, refusals, unit

if TYPE_CHECKING:
    from tests.support.machine import Machine
    from tests.support.operator import Operator

# Binds an address as systemd does, and prints how long the answer is and whether it begins with a
# value.
ASK = """
import socket, sys
client = socket.socket(socket.AF_UNIX)
client.settimeout(10)
if sys.argv[2]:
    client.bind("\\0" + sys.argv[2])
client.connect(sys.argv[1])
data = b""
while piece := client.recv(65536):
    data += piece
print(len(data), data[:40].decode("ascii", "replace"))
"""


def test_only_root_reaches_the_socket(machine: Machine, host: Operator) -> None:
    host.push({"PASSWORD": "zqSecretzq"})
    status = machine.path(SOCKET).stat()
    assert (status.st_mode & 0o7777, status.st_uid, status.st_gid) == (0o600, 0, 0)
    ask = ["/usr/bin/python3", "-c", ASK, SOCKET, "abc/unit/load@x.service/password"]
    for user in ("nobody", "remo-broker"):
        said = machine.run(ask, user=user, check=False)
        assert "PermissionError" in said.stderr
        assert said.stdout == ""


@pytest.mark.parametrize("user", ["nobody", "root"])
def test_a_unit_of_a_users_own_service_manager_gets_nothing(machine: Machine, host: Operator, user: str) -> None:
    """Not even root's own manager: it connects as root, but for a unit that is not the system's."""
    host.push({"PASSWORD": "zqSecretzq"})
    runtime, name = "/run/manager", f"load@{user}.service"
    machine.run(
        [
            *(
                "systemd-run",
                "--quiet",
                "--unit=manager",
                f"-pUser={user}",
                "-pDelegate=yes",
                "-pRuntimeDirectory=manager",
            ),
            *("-pType=notify", "-pPrivateTmp=yes", f"--setenv=XDG_RUNTIME_DIR={runtime}", f"--setenv=HOME={runtime}"),
            *("/usr/lib/systemd/systemd", "--user"),
        ]
    )
    try:
        machine.write(
            f"{runtime}/systemd/user/{name}",
            f"[Service]\nType=exec\nLoadCredential=password:{SOCKET}\nExecStart=/bin/cp %d/password {runtime}/loaded\n",
        )
        manage = ["env", f"XDG_RUNTIME_DIR={runtime}", "systemctl", "--user"]
        machine.run([*manage, "start", name], user=user, check=False)
        shown = machine.run([*manage, "show", "-pExecMainStatus", "--value", name], user=user).stdout
        assert shown.strip() == EXIT_CREDENTIALS
        assert not machine.path(f"{runtime}/loaded").exists()
        refused = [one for one in refusals(machine) if one[0] == name]
        assert refused == ([(name, "password", "unit_mismatch")] if user == "root" else [])
    finally:
        machine.systemctl("stop", "manager.service")


TOO_MUCH = 1024 * 1024 + 1


def test_a_socket_opened_to_all_still_serves_only_root(machine: Machine, host: Operator) -> None:
    host.push({"PASSWORD": "zqSecretzq"})
    machine.path(SOCKET).chmod(0o666)
    ask = ["/usr/bin/python3", "-c", ASK, SOCKET, "abc/unit/load@x.service/password"]
    assert machine.run(ask, user="nobody", check=False).stdout.startswith(f"{TOO_MUCH} ")
    (entry,) = machine.journal("REMO_EVENT=fetch", "REMO_REASON=uid_not_allowed")
    assert entry["REMO_DECISION"] == "deny"


@pytest.mark.parametrize(
    "address",
    [
        "",
        "abc/unit/load@x.service",
        "abc/unit/load@x.service/pass/word",
        "zz/unit/load@x.service/password",
        "abc/unit/load@x.service/pass\nword",
        f"abc/unit/load@{'x' * 80}/password",
    ],
    ids=["none", "no-credential", "slash", "not-hex", "newline", "no-suffix"],
)
def test_any_other_address_is_refused_and_recorded(machine: Machine, host: Operator, address: str) -> None:
    host.push({"PASSWORD": "zqSecretzq"})
    said = machine.run(["/usr/bin/python3", "-c", ASK, SOCKET, address]).stdout
    assert said.startswith(f"{TOO_MUCH} remo-broker refused")
    assert "zqSecretzq" not in said
    assert [one for one in refusals(machine) if one[2] in ("bad_value", "not_in_configuration", "unit_mismatch")]


@pytest.mark.parametrize("namespaces", [(), ("-pPrivateNetwork=yes", "-pPrivateMounts=yes", "-pProtectHostname=yes")])
def test_a_root_process_elsewhere_gets_nothing_under_the_name_of_a_unit(
    machine: Machine, host: Operator, namespaces: tuple[str, ...]
) -> None:
    """As in a container of root, where all abstract addresses are free."""
    host.push({"PASSWORD": "zqSecretzq"})
    run = ["systemd-run", "--quiet", "--wait", "--pipe", "--unit=other", *namespaces]
    said = machine.run([*run, "/usr/bin/python3", "-c", ASK, SOCKET, "abc/unit/load@x.service/password"]).stdout
    assert said.startswith(f"{TOO_MUCH} remo-broker refused")
    assert ("load@x.service", "password", "unit_mismatch") in refusals(machine)


def test_a_peer_that_never_reads_delays_no_other(machine: Machine, host: Operator) -> None:
    host.push({"PASSWORD": "zq"})
    silent = "client.connect(sys.argv[1]); print('connected', flush=True); sys.stdin.read()"
    process = machine.popen(
        [
            "/usr/bin/python3",
            "-c",
            ASK.partition("client.connect")[0] + silent,
            SOCKET,
            "abc/unit/other.service/password",
        ]
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "connected\n"
        unit(machine, "load@beside.service", "password")
        machine.systemctl("start", "load@beside.service")
        assert loaded(machine, "load@beside.service", "password") == b"zq"
    finally:
        process.communicate()
