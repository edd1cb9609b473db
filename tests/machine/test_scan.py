"""A package's script in a podman container tries secret names: the review alone tells where, what,
which and when."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from tests.support import engines
from tests.support.engines import MINBASE, STORAGE, Podman

if TYPE_CHECKING:
    from tests.support.machine import Machine
    from tests.support.operator import Operator

NAMES = [f"AWS_{number}" for number in range(30)]
# Debian's smallest system has perl. The name of a process that runs a script is the script's.
_SCRIPT = r"""#!/usr/bin/perl
use Socket;
socket(S, PF_UNIX, SOCK_STREAM, 0) or die;
connect(S, pack_sockaddr_un("/run/remo-broker/broker.sock")) or die "$!";
select(S); $| = 1;
for (@ARGV) { print qq({"op":"get","name":"$_"}\n); <S>; }
"""
_PLANTED = "/srv/packages/left-pad/postinstall"


def test_the_review_shows_a_scan_in_a_podman_container(machine: Machine, operator: Operator) -> None:
    operator.register("shop", ["NPM_TOKEN"])
    operator.push({"NPM_TOKEN": "zqSecretzq"})
    machine.write(_PLANTED, _SCRIPT)
    machine.path(_PLANTED).chmod(0o755)
    podman = Podman(machine)
    bound = {**engines.mounts("shop"), _PLANTED: "/work/left-pad/postinstall"}
    run = podman.argv(MINBASE, bound, "/work/left-pad/postinstall", *NAMES, "NPM_TOKEN")
    # A container removed at its end leaves no name to look up.
    create = [one for one in run if one != "--rm"]
    create[create.index("run")] = "create"
    create.insert(create.index("create") + 1, "--name=web-1")
    container = machine.run(create).stdout.strip()
    # The test machine has no control groups that podman could make its own of, so this scope stands for the one that
    # it makes of the container's id with systemd as its manager. Its names are where it keeps them by itself.
    machine.run(["ln", "-sfn", "root", f"{STORAGE}/storage"])
    engines.run_in_scope(machine, f"libpod-{container}.scope", "podman", "start", "--attach", container)

    try:
        machine.run(["journalctl", "--sync"])
        audit = ["remo-brokerctl", "audit", "--project=shop"]
        found = [json.loads(line) for line in machine.run([*audit, "-j"]).stdout.splitlines()]
        assert [one["secret"] for one in found] == [*NAMES, "NPM_TOKEN"]
        assert {(one["peer_container"], one["peer_comm"]) for one in found} == {(container, "postinstall")}
        assert [one["outcome"] for one in found] == [*(["denied"] * len(NAMES)), "ok"]

        _, *rows = machine.run(audit).stdout.splitlines()
        assert max(map(len, rows)) <= 100
        scan, fetch = rows[:2]
        assert re.search(r"30 x A.*29 ", scan), rows  # the column is narrowed for the others
        assert "NPM_TOKEN" in fetch
        for row in (scan, fetch):
            assert "postinstall in web-1" in row
            assert re.search(r"\d\d:\d\d", row)
        assert "denied" in scan
        assert "ok" in fetch
        full = machine.run([*audit, "--full"]).stdout.split()
        assert set(NAMES) <= set(full)  # individually and not shortened
        [summary] = json.loads(machine.run([*audit, "--summary", "--by=who", "--json=short"]).stdout)
        assert summary["who"].startswith("postinstall in container web-1")
        assert (summary["denied"], summary["allowed"]) == (len(NAMES), 1)
    finally:
        machine.run([*podman.environment, "podman", "rm", "--force", container])
