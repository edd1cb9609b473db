"""Other users, the broker's own user and the manifest reader's can reach nothing: the kernel denies
it."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from tests.support.machine import SOURCE, poll, unavailable
from tests.support.operator import ADMIN, CONNECT, SERVICE
from tests.support.slow_descriptor import require_refusal

if TYPE_CHECKING:
    from tests.support.machine import Machine
    from tests.support.operator import Operator

INTRUDER = f"{SOURCE}/tests/support/intruder.py"
SLOW_DESCRIPTOR = f"{SOURCE}/tests/support/slow_descriptor.py"
RUN = "/run/remo-broker"
STATE = "/var/lib/remo-broker"
BROKER, READER = "remo-broker", "remo-broker-manifest"
ITS_PROCESS = "remo-broker:remo-broker-private"
# Whoever may use the sockets of projects, and the control socket.
MEMBERS = ["nobody:remo-broker", "nobody:remo-broker-admin"]
CAP_IPC_LOCK = 14  # capability.h
# systemd starts no unit more often in ten seconds, by default.
RATE_LIMIT_OF_STARTS = 5
# How long a tracer watches for the broker, which is restarted meanwhile.
TRACE_SECONDS = 6


def intrude(machine: Machine, user: str, *arguments: str) -> set[str]:
    """The attempts that succeeded for that user."""
    done = machine.run(["/usr/bin/python3", "-IS", INTRUDER, *arguments], user=user)
    return set(done.stdout.splitlines())


def may_pass_on_locking(machine: Machine) -> bool:
    """Whether the machine's manager has CAP_IPC_LOCK to give, which some containers withhold."""
    bounding = machine.run(["sed", "-n", "s/^CapBnd://p", "/proc/1/status"]).stdout
    return bool(int(bounding, 16) >> CAP_IPC_LOCK & 1)


@pytest.fixture
def guest(operator: Operator) -> str:
    return operator.outsider()


# --- the broker's own user -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("user", [BROKER, READER, *MEMBERS])
def test_only_root_can_create_files_beside_the_sockets(machine: Machine, operator: Operator, user: str) -> None:
    operator.register("app", ["A"])
    for directory in (RUN, f"{RUN}/internal", f"{RUN}/mount", f"{RUN}/mount/app"):
        assert intrude(machine, user, "plant", directory) == set()
    for path in (operator.socket("app"), operator.mount("app"), ADMIN, f"{RUN}/internal/bind.sock"):
        assert intrude(machine, user, "swap", path) == set()
    assert operator.do("status")["ok"]


@pytest.mark.parametrize("user", [BROKER, READER, *MEMBERS])
def test_other_processes_cannot_reach_the_helpers_or_the_state(machine: Machine, operator: Operator, user: str) -> None:
    operator.register("app", ["A"])
    make = {"op": "make", "project": "attacker", "owner": "/", "kinds": ["client"], "renew": True}
    read = {"project_path": "/", "name": "attacker", "max_ttl_seconds": 1, "max_entries": 1}
    assert intrude(machine, user, "ask", f"{RUN}/internal/bind.sock", json.dumps(make)) == set()
    assert intrude(machine, user, "ask", f"{RUN}/internal/manifest.sock", json.dumps(read)) == set()
    machine.write("/tmp/forged", '{"version":1,"projects":[]}')
    assert intrude(machine, user, "state", STATE) == set()


def test_the_brokers_user_cannot_trace_it_at_any_moment(machine: Machine, operator: Operator) -> None:
    """From exec on, before the broker has made any system call; where it gets its capability, not
    even from its group, which no other process has."""
    operator.do("status")
    user = ITS_PROCESS if may_pass_on_locking(machine) else BROKER
    watcher = machine.popen(["/usr/bin/python3", "-IS", INTRUDER, "trace", str(TRACE_SECONDS)], user=user)
    while watcher.poll() is None:
        machine.systemctl("restart", SERVICE)
    output, _ = watcher.communicate(timeout=60)
    seen = output.splitlines()
    assert sum(line.startswith("saw ") for line in seen) > 1
    assert {line for line in seen if not line.startswith("saw ")} == set()


def test_a_state_file_of_another_user_is_not_read(machine: Machine, operator: Operator) -> None:
    operator.register("app", ["A"])
    machine.systemctl("stop", SERVICE)
    file = f"{STATE}/registrations.json"
    for prepare in (
        f"mv {file} /srv/forged.json && ln -s /srv/forged.json {file}",
        f"rm {file} && mv /srv/forged.json {file} && chown nobody {file} && chmod 0644 {file}",
        f"chown {BROKER} {file} && chmod 0666 {file}",
    ):
        machine.run(["sh", "-c", prepare])
        assert operator.do("status")["projects"] == []
        machine.systemctl("stop", SERVICE)
    machine.run(["chmod", "0600", file])
    assert [one["name"] for one in operator.do("status")["projects"]] == ["app"]


# --- the manifest reader ---------------------------------------------------------------------------------------------


def in_the_readers_place(machine: Machine, attempt: str, changed: str = "") -> str:
    """Put another program in the reader's place, in its sandbox; return the file with its
    output."""
    result = "/run/intruder-result"
    machine.run(["install", "-m", "666", "/dev/null", result])
    machine.write(
        "/run/systemd/system/remo-broker-manifest@.service.d/test.conf",
        f"[Service]\nExecStart=\nExecStart=/usr/bin/python3 -IS {INTRUDER} {attempt}\nStandardOutput=append:{result}\n"
        f"LimitFSIZE=infinity\n{changed}",
    )
    machine.systemctl("daemon-reload")
    return result


def seen_by_the_reader(machine: Machine, operator: Operator, changed: str = "") -> set[str]:
    """What another program in the reader's place can reach; `changed` has settings of its unit."""
    operator.register("other", ["A"])  # so that there are a state and a project
    machine.run(["install", "-d", "-m", "777", "/home/open", "/root/open"])
    result = in_the_readers_place(machine, "look", changed)
    operator.ask("register", name="app", project_path="/home/dev/projects/app")
    # It writes its result when it exits.
    return set(poll("the reader's word", lambda: machine.path(result).read_text().splitlines()))


def test_the_reader_sees_projects_and_nothing_else(machine: Machine, operator: Operator) -> None:
    """Tested in its unit's own sandbox, with another program in the reader's place."""
    uid, _ = machine.ids(READER)
    assert seen_by_the_reader(machine, operator) == {"saw /home", f"uid {uid}"}
    assert uid != machine.ids(BROKER)[0]


@pytest.mark.parametrize("gone", ["ProtectSystem=no\n", "SystemCallFilter=\n", "mode of the state"])
def test_each_restriction_of_the_reader_holds_by_itself(machine: Machine, operator: Operator, gone: str) -> None:
    """Each is tested with the outer one removed."""
    uid, _ = machine.ids(READER)
    if gone == "mode of the state":
        machine.path(STATE).chmod(0o777)
        gone = ""
    assert seen_by_the_reader(machine, operator, gone) == {"saw /home", f"uid {uid}"}


def test_a_compromised_reader_cannot_affect_other_readers(machine: Machine, operator: Operator) -> None:
    """Otherwise one project's manifest could decide what another's allows: both readers have the
    same user."""
    result = in_the_readers_place(machine, "neighbours 1.5")

    def met() -> set[str]:
        with ThreadPoolExecutor() as both:
            for name in ("app", "other"):
                both.submit(operator.ask, "register", name=name, project_path=f"/home/dev/projects/{name}")
        return set(machine.path(result).read_text().splitlines())

    assert poll("two readers at one time", met) == {"saw a neighbour"}


def test_the_broker_sees_no_project(machine: Machine, operator: Operator) -> None:
    """In all the places where projects usually are."""
    operator.register("app", ["A"])
    enter = ["nsenter", "-t", str(operator.main_pid()), "-m", "--"]
    for directory in ("/home", "/root", "/srv", "/mnt", "/media", "/opt", "/tmp", "/var/tmp"):
        project = f"{directory}/of-a-project"
        machine.write(project, "")
        shown = machine.run([*enter, "ls", "-A", directory], check=False).stdout
        machine.path(project).unlink()
        assert shown == "", directory


def test_the_error_for_an_unreadable_manifest_names_the_command(machine: Machine, operator: Operator) -> None:
    """The hints are executed literally until the project can be registered."""
    if machine.run(["sh", "-c", "command -v setfacl"], check=False).returncode != 0:
        unavailable("setfacl is not installed here: ./run test installs it")
    machine.run(["sh", "-c", "rm -rf /home/closed; mkdir -p /home/closed; chmod 0700 /home/closed"])
    path = operator.manifest("app", ["A"], parent="/home/closed/src dir")
    machine.run(["chmod", "0700", "/home/closed/src dir"])
    machine.path(f"{path}/.devcontainer/remo-broker.toml").chmod(0o600)
    for _ in range(5):
        reply = operator.ask("register", name="app", project_path=path)
        if reply["ok"]:
            break
        assert reply["code"] == "manifest_unreadable"
        assert READER in reply["message"]
        command = reply["message"].partition("run: ")[2].partition(" (package")[0]
        assert command.startswith("setfacl -m ")
        machine.run(["sh", "-c", command])
    assert reply["ok"]


def test_register_opens_a_closed_home_for_the_reader_alone(machine: Machine, operator: Operator) -> None:
    """With each owner's rights, and permanently: even for a file with which an editor replaces the
    manifest."""
    if machine.run(["sh", "-c", "command -v setfacl"], check=False).returncode != 0:
        unavailable("setfacl is not installed here: ./run test installs it")
    machine.run(["sh", "-c", "rm -rf /home/closed; useradd -M -d /home/closed closed 2>/dev/null; mkdir /home/closed"])
    path = operator.manifest("app", ["A"], parent="/home/closed/src dir")
    machine.run(["sh", "-c", "chown -R closed: /home/closed; chmod -R go= /home/closed"])
    tried = operator.command("register", path, check=False)
    assert (tried.returncode, "--fix-acl" in tried.stderr.splitlines()[1]) == (1, True)
    # The process that runs as the owner, whom it cannot hide from, has no variables of root's.
    tools = "/tmp/tools"
    machine.run(["sh", "-c", f"rm -rf {tools}; mkdir -m 777 {tools}"])
    machine.write(f"{tools}/setfacl", f'#!/bin/sh\nenv >>{tools}/$(id -u)\nexec /usr/bin/setfacl "$@"\n')
    machine.path(f"{tools}/setfacl").chmod(0o755)
    env = {"PATH": f"{tools}:/usr/bin:/bin", "VAULT_TOKEN": "zqMarkerqz"}
    done = machine.run(["remo-brokerctl", "register", "--fix-acl", path], env=env)
    assert done.stdout.count("Ran setfacl ") == 6
    seen = machine.path(f"{tools}/{machine.ids('closed')[0]}").read_text()
    assert ("LC_ALL" in seen, "zqMarkerqz" in seen) == (True, False)
    assert "Ran setfacl -m u:remo-broker-manifest:x '/home/closed/src dir'" in done.stdout
    assert "Ran setfacl" not in operator.command("register", "--fix-acl", "--replace", path).stdout
    for save in ('cp -p "$1" "$1.x"; echo "# edited" >>"$1.x"', 'umask 077; cat "$1" >"$1.x"; chmod 640 "$1.x"'):
        manifest = f"{path}/.devcontainer/remo-broker.toml"
        machine.run(["sh", "-c", f'{save}; mv "$1.x" "$1"', "sh", manifest])
    assert operator.do("reload", name="app")["allowlist"] == ["A"]
    for user in ("nobody", BROKER):
        assert machine.run(["ls", "/home/closed"], user=user, check=False).returncode != 0


def test_no_link_of_a_project_leads_root_to_another_file(machine: Machine, operator: Operator) -> None:
    if machine.run(["sh", "-c", "command -v setfacl"], check=False).returncode != 0:
        unavailable("setfacl is not installed here: ./run test installs it")
    machine.run(["sh", "-c", "rm -rf /home/closed; useradd -M -d /home/closed closed 2>/dev/null; mkdir /home/closed"])
    keep = "rm -rf /root/kept; install -d -m 700 /root/kept; install -m 600 /dev/null /root/kept/remo-broker.toml"
    machine.run(["sh", "-c", keep])
    for make in (
        "ln -s /root/kept $p/.devcontainer",
        "mkdir $p/.devcontainer; ln -s /root/kept/remo-broker.toml $p/.devcontainer/",
        "mkdir $p/.devcontainer; ln /root/kept/remo-broker.toml $p/.devcontainer/",
    ):
        machine.run(
            ["sh", "-c", f"p=/home/closed/app; rm -rf $p; mkdir -p $p; {make}; chown -h closed: $p $p/*"], check=False
        )
        tried = operator.command("register", "--fix-acl", "/home/closed/app", check=False)
        assert tried.returncode == 1
        for kept in ("/root/kept", "/root/kept/remo-broker.toml"):
            assert READER not in machine.run(["getfacl", "-p", kept]).stdout


# --- other users -----------------------------------------------------------------------------------------------------


def test_no_user_outside_the_group_enters_the_mount_directory(machine: Machine, operator: Operator, guest: str) -> None:
    operator.register("app", ["A"])
    assert intrude(machine, guest, "gate", f"{RUN}/mount", "app") == set()
    assert intrude(machine, guest, "plant", RUN) == set()
    uid, gid = machine.ids(guest)
    drop = f"setpriv --reuid={uid} --regid={gid} --clear-groups"
    script = f"exec {drop} /usr/bin/python3 -IS {INTRUDER} inherited 9 app 9<{RUN}/mount"
    assert machine.run(["sh", "-c", script]).stdout == ""
    # The same socket in a container, whose path does not lead through the gate.
    machine.run(["sh", "-c", f"mkdir -p /run/inside && mount --bind {RUN}/mount/app /run/inside"])
    try:
        assert machine.ask("/run/inside/broker.sock", {"op": "ping"}, user=guest)["project"] == "app"
    finally:
        machine.run(["umount", "/run/inside"])


def test_a_recreated_mount_directory_is_closed(machine: Machine, operator: Operator, guest: str) -> None:
    """The helper does not recreate it open to all."""
    machine.run(["rm", "-r", f"{RUN}/mount"])
    operator.register("app", ["A"])
    assert intrude(machine, guest, "gate", f"{RUN}/mount", "app") == set()
    assert machine.ask(operator.mount("app"), {"op": "ping"})["ok"]


@pytest.mark.parametrize("left", ["nothing", "what a container engine makes"])
def test_no_unit_listens_in_a_mount_directory_that_is_open(
    machine: Machine, operator: Operator, guest: str, left: str
) -> None:
    """It is closed first, whoever made it."""
    operator.register("app", ["A"])
    machine.systemctl("stop", SERVICE)
    machine.systemctl("stop", "remo-broker-client@app.socket", "remo-broker-mount@app.socket")
    machine.run(["rm", "-r", f"{RUN}/mount"])
    if left != "nothing":
        machine.run(["sh", "-c", f"umask 022 && mkdir -p {RUN}/mount/app"])
    machine.systemctl("start", "remo-broker-client@app.socket")
    for number in range(RATE_LIMIT_OF_STARTS):  # as at a stop, one after the other
        machine.systemctl("start", f"remo-broker-mount@p{number}.socket")
    assert machine.systemctl("is-active", "remo-broker-mount@app.socket") == "active"
    assert intrude(machine, guest, "gate", f"{RUN}/mount", "app") == set()
    assert machine.ask(operator.mount("app"), {"op": "ping"})["ok"]


def test_a_mount_keeps_its_allowed_uids(machine: Machine, operator: Operator, guest: str) -> None:
    uid, _ = machine.ids(guest)
    operator.register("listed", ["A"], allowed_uids=[uid])
    machine.run(["sh", "-c", f"mkdir -p /run/inside && mount --bind {RUN}/mount/listed /run/inside"])
    try:
        assert machine.ask("/run/inside/broker.sock", {"op": "ping"}, user=guest)["ok"]
        assert machine.ask("/run/inside/broker.sock", {"op": "ping"}, user="nobody")["code"] == "peer_unexpected"
    finally:
        machine.run(["umount", "/run/inside"])


def test_silent_connections_of_a_wrong_uid_are_recorded(machine: Machine, operator: Operator, guest: str) -> None:
    """When accepted, and counted by uid: neither hides the other."""
    machine.run(["usermod", "-aG", "remo-broker", guest])
    uid, _ = machine.ids(guest)
    operator.register("quiet", ["A"], allowed_uids=[0])
    code = (
        "import socket, sys, time\n"
        "held = [socket.socket(socket.AF_UNIX) for _ in range(16)]\n"
        "for one in held: one.connect(sys.argv[1])\n"
        "time.sleep(1.5)\n"
    )
    quiet = machine.popen(["/usr/bin/python3", "-ISc", code, operator.socket("quiet")], user=guest)
    time.sleep(0.3)
    member = operator.member()
    machine.run(["/usr/bin/python3", "-ISc", CONNECT, operator.socket("quiet")], user=member)
    quiet.communicate()

    def counted() -> dict[str, int]:
        counts: dict[str, int] = {}
        for entry in machine.journal("REMO_EVENT=peer.refused", "REMO_PROJECT=quiet"):
            counts[entry["REMO_PEER_UID"]] = counts.get(entry["REMO_PEER_UID"], 0) + int(entry["REMO_COUNT"])
        return counts

    other, _ = machine.ids(member)
    poll("all to be recorded", lambda: counted() == {str(uid): 16, str(other): 1})


@pytest.mark.usefixtures("loopback")
def test_a_descriptor_that_takes_long_to_close_delays_no_client(
    machine: Machine, operator: Operator, guest: str
) -> None:
    """Neither one sent to the running broker, nor one sent before its start."""
    require_refusal()
    machine.run(["usermod", "-aG", "remo-broker", guest])
    for name in ("app", "other"):
        operator.register(name, ["A"])
    machine.systemctl("stop", SERVICE)
    machine.systemctl("start", "remo-broker-client@app.socket")
    for says in ("sent", "Operation not permitted"):
        command = ["/usr/bin/python3", "-IS", SLOW_DESCRIPTOR, operator.socket("app"), '{"op":"ping"}']
        hostile = machine.popen(command, user=guest)
        try:
            assert hostile.stdout is not None
            assert says in hostile.stdout.readline()
            operator.push({"A": "a"})
            assert operator.get("other", "A")["value"] == "a"
            assert operator.get("app", "A")["value"] == "a"
            assert machine.show(SERVICE, "NRestarts") == {"NRestarts": "0"}, "the watchdog ends one that waits"
        finally:
            if says != "sent":
                machine.systemctl("restart", SERVICE)
            hostile.communicate(timeout=60)
