"""The requirements of one broker, measured on the installed unit with its audit on; but for those of `open_loop`.

N14, the time that `./run test` takes, is not measured here.
"""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING, Any

from remo_broker.broker.audit import read_back
from tests.bench import clients, credentials, helpers, journal, review, sidecar, speed
from tests.bench.broker import ALLOWED, descriptors, push_of_size, push_request, resident, secrets
from tests.bench.check import Check
from tests.bench.figures import Figure
from tests.bench.generator import FetchCommand
from tests.bench.setting import Setting, say

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.bench.broker import Unit

MIB = 2**20
MS = 1e6  # nanoseconds

GETS = 20_000
WARM_UP = 500
RECORDS = 100_000
CONNECTIONS = 50
# Fewer than the burst that the default configuration allows.
GETS_WITHIN_RATE = 500
PUSHES = 1000
LARGE_PUSHES = 50
# The largest push there may be: of secrets of a kibibyte, and, for comparison, of as many as requirement N8 has.
LARGE_PUSH_BYTES = MIB
LARGE_PUSH_SECRETS = 1000
# A client that asks so often meanwhile sees any stall that is longer.
BYSTANDER_PACE_USEC = 200
STARTS = 20
MANY_PROJECTS = 1000
MANY_SECRETS = 10_000
GROWTH_OPERATIONS = 200_000


def get_throughput(setting: Setting, unit: Unit) -> list[Check]:
    """N3: the C sender and fifty clients in turn, each with the machine to itself."""
    unit.settle()
    records = setting.many(RECORDS)
    setting.generator.latency(unit.get, 10)
    like = journal.newest_fetch()
    ratios, limits, rates, batched = [], [], [], []
    lost = 0
    with journal.held(setting.place, None):
        for _ in range(setting.rounds):
            sent = journal.blast(setting.place, like, records)
            many = journal.blast(setting.place, like, records, batch=CONNECTIONS)
            generation = unit.push(len(ALLOWED))
            with setting.place.holding(unit.pid, None):
                got = setting.generator.throughput(unit.get, records, CONNECTIONS)
            kept = journal.count(*unit.audited(generation)), sent.kept, many.kept
            lost += sum(max(0, records - one) for one in kept)  # more may be kept: see journal.rotations
            limits.append(sent.per_second)
            batched.append(many.per_second)
            rates.append(got.per_second)
            ratios.append(got.per_second / sent.per_second)
    rate, limit, best = (Figure.of(rounds).value for rounds in (rates, limits, batched))
    detail = (
        f"{rate:,.0f}/s to {limit:,.0f}/s ({best:,.0f}/s with {CONNECTIONS} records a datagram); {lost} records lost"
    )
    what = f"get, {CONNECTIONS} connections, against journald's intake"
    return [Check("N3", what, "times", 1, Figure.of(ratios), detail, at_least=True, holds=lost == 0)]


def first_answer(setting: Setting, unit: Unit) -> list[Check]:
    """N4: a stopped service and a bare interpreter in turn."""
    unit.settle(configured=False)
    interpreter = FetchCommand(("/usr/bin/python3", "-c", "pass"))
    starts, bare = [], []
    for _ in range(max(STARTS, setting.rounds)):
        unit.stop()
        bare.append(setting.generator.spawn(interpreter, 3).median_ns)
        starts.append(setting.generator.latency(dataclasses.replace(unit.ping, fresh=True), 1).median_ns)
    took, started = Figure.of(starts), Figure.of(bare)
    ratio = Figure(took.value / started.value, took.low / started.value, took.high / started.value)
    detail = f"{took.value / MS:.0f} ms to {started.value / MS:.1f} ms; {len(starts)} starts"
    return [Check("N4", "connect to first answer, against python3 -c pass", "times", 7, ratio, detail)]


def memory(setting: Setting, unit: Unit) -> list[Check]:
    """N5: after a start, a registration, a push and a fetch of each."""
    sizes = []
    for _ in range(setting.rounds):
        protection = unit.settle(configured=False)
        setting.generator.latency(unit.get, GETS_WITHIN_RATE)
        time.sleep(1)
        sizes.append(resident(unit.pid))
    return [Check("N5", "resident, 1 project, 10 secrets", "mebibytes", 16 * MIB, Figure.of(sizes), protection)]


def small_push(setting: Setting, unit: Unit) -> list[Check]:
    """N6: pushes one after another."""
    unit.settle()
    target = unit.push_target(push_request(secrets(10)))
    with setting.place.holding(unit.pid, None):
        samples = [setting.generator.latency(target, setting.many(PUSHES), warmup=20) for _ in range(setting.rounds)]
    detail = f"median {Figure.of([sample.median_ns for sample in samples]).value / 1e3:.0f} µs"
    tails = Figure.of([sample.p99_ns for sample in samples])
    return [Check("N6", "push of 10 secrets, p99", "milliseconds", 1 * MS, tails, detail)]


def large_push(setting: Setting, unit: Unit) -> list[Check]:
    """N7: pushes of 1 MiB one after another while another client sends requests regularly."""
    unit.settle()
    pushes = setting.many(LARGE_PUSHES)
    few, many = (
        unit.push_target(push_of_size(LARGE_PUSH_BYTES, count)) for count in (LARGE_PUSH_SECRETS, MANY_SECRETS)
    )
    tails, medians, many_medians, waits = [], [], [], []
    for _ in range(setting.rounds):
        for target in (few, many):
            once = setting.generator.latency(target, 5)
            # Long enough for most pushes of the round; what is left of them has nobody beside it.
            seconds = once.median_ns / 1e9 * pushes
            with (
                setting.place.holding(unit.pid, None),
                setting.generator.bystander(unit.get, BYSTANDER_PACE_USEC, seconds) as others,
            ):
                pushed = setting.generator.latency(target, pushes)
            waits.append(others[0].max_ns)
            if target is few:
                tails.append(pushed.p99_ns)
                medians.append(pushed.median_ns / MS)
            else:
                many_medians.append(pushed.median_ns / MS)
    of_many = f"{MANY_SECRETS:,} of them: median {Figure.of(many_medians).value:.1f} ms"
    detail = f"{LARGE_PUSH_SECRETS:,} secrets, median {Figure.of(medians).value:.1f} ms; {of_many}"
    longest = Figure(max(waits), min(waits), max(waits))
    return [
        Check("N7", "push of 1 MiB, p99", "milliseconds", 15 * MS, Figure.of(tails), detail),
        Check("N7", "longest wait of another client", "milliseconds", 15 * MS, longest, "while either is pushed"),
    ]


def crowded(setting: Setting, unit: Unit) -> list[Check]:
    """N8: the two populations in turn."""
    gets, cpu = setting.many(GETS), setting.place.server_cpu
    ratios, many, few = [], [], []
    for _ in range(setting.rounds):
        medians = []
        for projects, count in ((1, 10), (MANY_PROJECTS, MANY_SECRETS)):
            unit.populate(projects)
            unit.push(count)
            with setting.place.holding(unit.pid, cpu), journal.held(setting.place, setting.place.client_cpu):
                medians.append(setting.generator.latency(unit.get, gets, cpu=cpu, warmup=WARM_UP).median_ns)
        few.append(medians[0] / 1e3)
        many.append(medians[1] / 1e3)
        ratios.append(medians[1] / medians[0])
    what = f"get, median, {MANY_PROJECTS:,} projects and {MANY_SECRETS:,} secrets against 1 and 10"
    detail = f"{Figure.of(many).value:.1f} µs to {Figure.of(few).value:.1f} µs"
    return [Check("N8", what, "times", 1.1, Figure.of(ratios), detail)]


def growth(setting: Setting, unit: Unit) -> list[Check]:
    """N9 in short; the long form is `./run soak`."""
    unit.settle()
    operations = setting.many(GROWTH_OPERATIONS)
    setting.generator.throughput(unit.get, operations // 10, CONNECTIONS)
    pid = unit.pid
    size, opened = resident(pid), descriptors(pid)
    setting.generator.throughput(unit.get, operations, CONNECTIONS)
    setting.generator.latency(dataclasses.replace(unit.ping, fresh=True), operations // 20)
    setting.generator.latency(unit.push_target(push_request(secrets(10))), operations // 100)
    time.sleep(0.5)
    grown, left = resident(pid) - size, _left_open(pid, opened)
    what, detail = f"growth over {operations:,} operations", "the long form: ./run soak"
    return [
        Check("N9", f"{what}: memory", "mebibytes", 2 * MIB, Figure.of([grown]), detail),
        Check("N9", f"{what}: descriptors", "plain", 0, Figure.of([left]), detail),
    ]


def _left_open(pid: int, opened: int) -> int:
    """How many descriptors more than `opened` stay open. The check that records are stored has one
    from two seconds after the start until its helper answers."""
    until = time.monotonic() + read_back.ANSWER_SECONDS
    while (left := descriptors(pid) - opened) > 0 and time.monotonic() < until:
        time.sleep(0.1)
    return left


def sidecar_recovery(setting: Setting, unit: Unit) -> list[Check]:
    """N11: the broker is killed again and again."""
    took, detail = sidecar.recovery(setting, unit)
    return [Check("N11", "broker killed until a get succeeds again", "milliseconds", 1500 * MS, took, detail)]


def sidecar_changes(setting: Setting, unit: Unit) -> list[Check]:
    """N12, and what the sidecar takes for it."""
    took, detail = sidecar.changes(setting, unit)
    ratio, push = sidecar.start(setting, unit)
    size, woken, idle = sidecar.idle(unit)
    return [
        Check("N12", "a file's change until a get serves it", "milliseconds", 300 * MS, took, detail),
        Check("N12", "remo-sidecar push of a file, against python3 -c pass", "times", 12, ratio, push),
        Check("N12", "remo-sidecar run, resident", "mebibytes", 20 * MIB, size, idle),
        Check("N12", "remo-sidecar run, wake-ups while nothing happens", "plain", 4, woken, idle),
    ]


def helper_starts(setting: Setting, unit: Unit) -> list[Check]:
    """H1: the whole command, as installed."""
    return [
        Check("H1", f"remo-secret {name}, against python3 -c pass", "times", helpers.START_LIMIT, ratio, detail)
        for name, (ratio, detail) in helpers.starts(setting, unit).items()
    ]


def secret_rotation(setting: Setting, unit: Unit) -> list[Check]:
    """H2: a program is started again with each new secret."""
    took, detail = helpers.rotation(setting, unit)
    limit = helpers.CHANGE_LIMIT_SECONDS * 1000 * MS
    return [Check("H2", "exec --watch: a push until the program runs with it", "milliseconds", limit, took, detail)]


def waiting_units(setting: Setting, unit: Unit) -> list[Check]:
    """C1: two services with `LoadCredential=` that the next push lets start."""
    took, detail = credentials.waiting_units(setting, unit)
    what = "push until two units that wait for it are active"
    return [Check("C1", what, "milliseconds", 200 * MS, took, detail)]


CHECKS: dict[str, tuple[Callable[[Setting, Unit], list[Check]], ...]] = {
    "speed": (speed.measure,),
    "throughput": (get_throughput,),
    "start": (first_answer,),
    "memory": (memory, growth),
    "push": (small_push, large_push),
    "crowd": (crowded,),
    "clients": (clients.client_start,),
    "review": (review.report,),
    "sidecar": (sidecar_recovery, sidecar_changes),
    "helpers": (helper_starts, secret_rotation),
    "credentials": (waiting_units,),
}
"""By the name of the part of the bench that has them."""


def measure(setting: Setting, wanted: frozenset[str]) -> list[dict[str, Any]]:
    """The checks of the `wanted` parts. Needs a systemd."""
    assert setting.unit is not None
    found = []
    for part, checks in CHECKS.items():
        if part in wanted:
            for check in checks:
                say(f"{part}: {(check.__doc__ or '').splitlines()[0]}")
                found += [one.to_json() for one in check(setting, setting.unit)]
    return found
