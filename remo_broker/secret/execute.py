"""`remo-secret exec` and `render`: fetch everything, write the files, then execute the command."""

from __future__ import annotations

import sys

from remo_broker.cli.options import Arguments, Usage
from remo_broker.cli.program import Problem, report
from remo_broker.cli.text import listed
from remo_broker.manifest.bindings import FileBinding
from remo_broker.secret.apply_bindings import environment, files, variables
from remo_broker.secret.bindings import Bound, find_bindings, names_given
from remo_broker.secret.commands import (
    DEFAULT_GRACE_SECONDS,
    GRACE,
    KEEP,
    LONGEST_WAIT_SECONDS,
    MANIFEST,
    ONLY,
    REMOVE_FILES,
    SIGNAL,
    WATCH,
)
from remo_broker.secret.fetching import fetch
from remo_broker.secret.get import write_lines
from remo_broker.secret.programs import find_program, replace_process
from remo_broker.secret.project_socket import open_quick
from remo_broker.secret.wait_option import with_secrets

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal

    from remo_broker.client.value import SecretValue
    from remo_broker.secret.rendering import File, Rendering


def execute(arguments: Arguments) -> int:
    """Returns only with `--watch`. Raises `Problem` if it cannot start the command."""
    program = find_program(arguments.operands[0])
    if arguments.flag(WATCH):
        return _execute_watched(arguments, program)
    for option in (SIGNAL, GRACE, KEEP):
        if arguments.flag(option):
            raise Usage(f"{option.name} requires --watch")
    bound, secrets = with_secrets(arguments, lambda: _fetch_all(arguments))
    added = variables(bound, secrets)
    rendering = write_files(bound.project, files(bound, secrets))
    try:
        replace_process(program, arguments.operands, environment() | added)
    except BaseException:
        if rendering is not None:
            rendering.undo()
        raise


def _execute_watched(arguments: Arguments, program: str) -> int:
    from remo_broker.secret.watching import run_watched

    def prepare(bound: Bound, secrets: dict[str, SecretValue]) -> dict[bytes, bytes]:
        added = variables(bound, secrets)
        rendering = write_files(bound.project, files(bound, secrets))
        if rendering is not None:
            rendering.close()
        return environment() | added

    grace = arguments.number(GRACE, 0, LONGEST_WAIT_SECONDS)
    return run_watched(
        program,
        arguments.operands,
        lambda: with_secrets(arguments, lambda: _fetch_all(arguments)),
        prepare,
        arguments,
        _signal(arguments.value(SIGNAL) or "SIGTERM"),
        DEFAULT_GRACE_SECONDS if grace is None else grace,
        arguments.flag(KEEP),
    )


def _signal(name: str) -> signal.Signals:
    import signal

    name = name.upper()
    try:
        return signal.Signals[name if name.startswith("SIG") else f"SIG{name}"]
    except KeyError:
        raise Usage("--signal must be the name of a signal, such as HUP") from None


def render(arguments: Arguments) -> None:
    """Write the files of the manifest's bindings and print their paths; with `--watch`, at each
    change.
    """
    if arguments.flag(REMOVE_FILES):
        remove_files(arguments)
        return

    def fetch_files() -> tuple[Bound, dict[str, SecretValue]]:
        return with_secrets(arguments, lambda: _fetch_all(arguments, files_only=True))

    if not arguments.flag(WATCH):
        _render(*fetch_files())
        return
    from remo_broker.secret.watching import LastFetch, follow

    watched = LastFetch(fetch_files)
    _render(*watched.current)

    def changed() -> None:
        try:
            _render(*watched.current)
        except Problem as error:
            report(f"remo-secret: the secrets changed and are not used: {error}")

    follow(arguments, watched, changed)


def _render(bound: Bound, secrets: dict[str, SecretValue]) -> None:
    found = files(bound, secrets)
    rendering = write_files(bound.project, found)
    if rendering is not None:
        from remo_broker.secret.tmpfs import ends_with_session

        rendering.close()
        if sys.stderr.isatty() and ends_with_session(rendering.directory):
            report("remo-secret: these files are removed at the end of your last session")
            report("Hint: for commands that outlive it, set XDG_RUNTIME_DIR=/dev/shm or run 'loginctl enable-linger'")
    write_lines([file.target for file in found.values()])
    sys.stdout.flush()


def _fetch_all(arguments: Arguments, *, files_only: bool = False) -> tuple[Bound, dict[str, SecretValue]]:
    with open_quick(arguments) as client:
        bound = find_bindings(arguments, client)
        if files_only:
            bound.bindings = {
                name: [one for one in own if isinstance(one, FileBinding)] for name, own in bound.bindings.items()
            }
            for name, own in bound.bindings.items():
                if arguments.flag(ONLY) and not own:
                    raise Problem(
                        f"{name} is bound to a variable; render writes files only", hint="omit it, or use exec"
                    )
            bound.bindings = {name: own for name, own in bound.bindings.items() if own}
        return bound, fetch(client, bound.bindings)


def write_files(project: str, found: dict[str, File]) -> Rendering | None:
    """Write all files, or none if one cannot be written."""
    if not found:
        return None
    from remo_broker.secret.rendering import Rendering

    return Rendering(project, found)


def remove_files(arguments: Arguments) -> None:
    """Remove the rendered files. Needs only the project's name, not the broker or the manifest."""
    from remo_broker.secret.manifests import project_of, projects_nearby
    from remo_broker.secret.rendering import remove
    from remo_broker.secret.tmpfs import rendered_projects

    only = names_given(arguments) if arguments.flag(ONLY) else None
    rendered = rendered_projects()
    given = arguments.value(MANIFEST)
    nearby = projects_nearby() if given is None else [project_of(given)]
    if not nearby and len(rendered) > 1:
        raise Problem(f"there are files of {listed(rendered)}", hint="choose the project with --manifest")
    for project in [project for project in nearby or rendered if project in rendered][:1]:
        remove(project, only)
