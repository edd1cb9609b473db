"""`remo-secret exec` and `render`: fetch everything, then write the files, then become the command."""

from __future__ import annotations

from remo_broker.cli.options import Arguments
from remo_broker.cli.program import Problem
from remo_broker.cli.text import listed
from remo_broker.client.value import SecretValue
from remo_broker.manifest.result import FileBinding
from remo_broker.secret.become import become, find_program
from remo_broker.secret.bindings import Bound, find_bindings, names_given
from remo_broker.secret.commands import MANIFEST, ONLY, REMOVE
from remo_broker.secret.fetching import fetch
from remo_broker.secret.get import write_lines
from remo_broker.secret.locate import open_client
from remo_broker.secret.places import environment, files, variables
from remo_broker.secret.rendering import File, Rendering, remove
from remo_broker.secret.tmpfs import rendered_projects
from remo_broker.secret.wait import with_secrets

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn


def execute(arguments: Arguments) -> NoReturn:
    """Raises `Problem` if the command is not started."""
    program = find_program(arguments.operands[0])
    bound, secrets = with_secrets(arguments, lambda: _fetch_all(arguments))
    added = variables(bound, secrets)
    rendering = write_files(bound.project, files(bound, secrets))
    try:
        become(program, arguments.operands, environment() | added)
    except BaseException:
        if rendering is not None:
            rendering.undo()
        raise


def render(arguments: Arguments) -> None:
    """Write the files of the manifest's bindings, and print their paths."""
    if arguments.flag(REMOVE):
        remove_files(arguments)
        return
    bound, secrets = with_secrets(arguments, lambda: _fetch_all(arguments, files_only=True))
    found = files(bound, secrets)
    write_files(bound.project, found)
    write_lines([file.target for file in found.values()])


def _fetch_all(arguments: Arguments, *, files_only: bool = False) -> tuple[Bound, dict[str, SecretValue]]:
    with open_client(arguments) as client:
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
    """Write all of them or, if one cannot be written, none."""
    return Rendering(project, found) if found else None


def remove_files(arguments: Arguments) -> None:
    """Needs neither the broker nor the manifest by which the files were rendered, only the project's name."""
    from remo_broker.secret.manifests import project_of, projects_nearby

    only = names_given(arguments) if arguments.flag(ONLY) else None
    rendered = rendered_projects()
    given = arguments.value(MANIFEST)
    nearby = projects_nearby() if given is None else [project_of(given)]
    if not nearby and len(rendered) > 1:
        raise Problem(f"there are files of {listed(rendered)}", hint="choose the project with --manifest")
    for project in [project for project in nearby or rendered if project in rendered][:1]:
        remove(project, only)
