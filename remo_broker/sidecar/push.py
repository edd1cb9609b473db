"""`remo-sidecar push`, and the push operation itself."""

from __future__ import annotations

from remo_broker.cli.changes import show_changes
from remo_broker.cli.program import Problem, complain
from remo_broker.cli.terminal import Output
from remo_broker.client.admin import AdminClient, push_request
from remo_broker.client.exchange import encode
from remo_broker.protocol.hardening import forbid_dumps
from remo_broker.protocol.names import counted
from remo_broker.protocol.replies import Pushed
from remo_broker.protocol.shared_limits import MAX_PUSH
from remo_broker.sidecar import configuration
from remo_broker.sidecar.commands import ADMIN_SOCKET, JSON, PROGRAM, SOCKET
from remo_broker.sidecar.sizes import check_sizes
from remo_broker.sidecar.sources import read_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from remo_broker.cli.options import Arguments
    from remo_broker.cli.secrets_file import Secrets
    from remo_broker.protocol.ops import PushCreds


def push(arguments: Arguments) -> int:
    forbid_dumps()
    sources = configuration.read(arguments)
    reading = read_all(sources)
    if reading.failures:
        *others, last = reading.failures.values()
        for problem in others:
            complain(PROGRAM, str(problem), problem.hint)
        raise last
    with AdminClient(socket_path(arguments)) as client:
        pushed = client.ask(request_for(reading.secrets, changes=True)[0], Pushed)
    output = open_output(arguments)
    if output.json != "off":
        fields = pushed.to_json()
        del fields["ok"]
        output.show_json(fields)
    else:
        output.line(f"Pushed {counted(pushed.secret_count, 'secret')}; generation {pushed.generation}.")
        show_changes(output, pushed.changes)
    return 0


def request_for(secrets: Secrets, *, changes: bool = False) -> tuple[PushCreds, int]:
    """The request that pushes `secrets`, and a hash of it. Raises `Problem` if it, or a value, is
    too long."""
    check_sizes(secrets)
    request = push_request(secrets.texts, secrets.binaries, secrets.expires, changes=changes)
    line = encode(request)
    size = len(line)
    if size > MAX_PUSH:
        raise Problem(
            f"all sources: a push of {size} bytes, more than {MAX_PUSH}", hint="exclude some secrets with only"
        )
    return request, hash(line)


def socket_path(arguments: Arguments) -> str:
    return arguments.value(SOCKET) or ADMIN_SOCKET


def open_output(arguments: Arguments) -> Output:
    return Output(json_mode=arguments.value(JSON) or "off", legend=True, pager=False)
