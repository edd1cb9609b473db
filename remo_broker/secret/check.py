"""`remo-secret check`: whether each secret can be fetched. Fetches nothing, shows no value."""

from __future__ import annotations

from functools import partial

from remo_broker.cli.options import Arguments
from remo_broker.protocol.clock import monotonic
from remo_broker.protocol.replies import Explanation
from remo_broker.secret.bindings import find_bindings
from remo_broker.secret.commands import EXIT_DENIED, EXIT_NOT_FOUND, WAIT
from remo_broker.secret.fetching import RATE_LIMIT_SECONDS, retry_rate_limited
from remo_broker.secret.get import write_lines
from remo_broker.secret.project_socket import open_client
from remo_broker.secret.wait_option import wait_as_asked

PRESENT, ABSENT, DENIED, EXPIRED = "present", "absent", "denied", "expired"


def check(arguments: Arguments) -> int:
    """Exit status 0 if every secret that is not optional is present."""
    if arguments.flag(WAIT):
        wait_as_asked(arguments)
    with open_client(arguments) as client:
        bound = find_bindings(arguments, client)
        names = arguments.operands or list(bound.bindings)
        until = monotonic() + RATE_LIMIT_SECONDS
        states = {name: state(retry_rate_limited(partial(client.peek, name), until)) for name in names}
    optional = {name for name, own in bound.bindings.items() if all(one.optional for one in own)}
    width = max((len(name) for name in states), default=0)
    write_lines(
        [f"{name:{width}}  {found}{' (optional)' if name in optional else ''}" for name, found in states.items()]
    )
    missing = {
        found for name, found in states.items() if found != PRESENT and not (name in optional and found != DENIED)
    }
    if DENIED in missing:
        return EXIT_DENIED
    return EXIT_NOT_FOUND if missing else 0


def state(explanation: Explanation) -> str:
    if explanation.outcome == "ok":
        return PRESENT
    if explanation.outcome == "denied":
        return DENIED
    return EXPIRED if explanation.reason == "expired" else ABSENT
