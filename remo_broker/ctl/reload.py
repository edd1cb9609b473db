"""`remo-brokerctl reload` and `diff`: show what a manifest would change, and adopt it.

A project's own code can write its manifest, so an operator reviews what it would allow before it
takes effect.
"""

from __future__ import annotations

import json
import shlex
import sys
from typing import Any

from remo_broker.cli.options import Arguments, Usage
from remo_broker.cli.program import Problem, complain
from remo_broker.cli.terminal import Colour, Output, confirmed
from remo_broker.cli.text import escaped
from remo_broker.client.admin import AdminClient
from remo_broker.client.errors import ClientError, ManifestInvalid, ManifestNotFound
from remo_broker.ctl.commands import ALL, DIFF, PROGRAM, YES
from remo_broker.ctl.session import open_client, open_output, project_operand
from remo_broker.manifest.bindings import Binding, EnvBinding, FileBinding, bindings
from remo_broker.manifest.reader import PROJECT_PATH
from remo_broker.protocol.replies import Difference

# How much of a file's template is shown; the usual ones are shorter.
LONGEST_TEMPLATE = 400
NO_NAMES = "no names, everything is denied"


def diff(arguments: Arguments) -> int:
    name = project_operand(arguments)
    with open_client(arguments) as client:
        return show(open_output(arguments), name, preview(client, name))


def preview(client: AdminClient, name: str) -> Difference:
    """What the manifest on disk would change. An error names the project's directory."""
    try:
        return client.preview(name)
    except (ManifestInvalid, ManifestNotFound) as error:
        path = client.show(name).project_path
        hint = f"'remo-brokerctl check {shlex.quote(path)}' shows all faults and their lines"
        if isinstance(error, ManifestNotFound):
            hint = f"put it back, or 'remo-brokerctl unregister {name}'"
        message = error.message.removeprefix(f"{PROJECT_PATH}: ")
        raise Problem(f"{path}: {message}", hint=hint) from None


def reload(arguments: Arguments) -> int:
    if arguments.flag(ALL) == bool(arguments.operands):
        raise Usage("'reload' takes either a PROJECT or --all")
    output = open_output(arguments)
    with open_client(arguments) as client:
        if arguments.flag(ALL):
            return reload_all(output, client, dry_run=arguments.flag(DIFF))
        name = project_operand(arguments)
        found = preview(client, name)
        if arguments.flag(DIFF):
            return show(output, name, found)
        if found.widens and not arguments.flag(YES):
            ask(output, name, found)
        allowlist = client.reload(name, found.sha256)
    if output.json != "off":
        output.show_json({"name": name, "allowlist": allowlist})
    else:
        output.line(f"Reloaded {name}: {', '.join(allowlist) or NO_NAMES}")
    return 0


def ask(output: Output, name: str, found: Difference) -> None:
    """Return if the operator confirms. Raises `Problem` otherwise."""
    if not (sys.stdin.isatty() and output.json == "off"):
        raise Problem(
            f"the manifest of {name} would allow more; nothing was changed",
            hint=f"look at it with 'remo-brokerctl diff {name}', then adopt it with 'remo-brokerctl reload --yes {name}'",
        )
    for line in lines(output, found):
        output.line(line)
    sys.stdout.flush()
    if not confirmed(f"Allow this to {name}?"):
        raise Problem("nothing was changed")


def reload_all(output: Output, client: AdminClient, *, dry_run: bool) -> int:
    """Return 1 if a manifest could not be read; with `dry_run`, also if one changes something."""
    results: list[dict[str, Any]] = []
    status = 0
    for name in [project.name for project in client.status().projects]:
        try:
            found = client.preview(name, adopt_narrower=not dry_run)
            allowlist = client.show(name).allowlist
        except ClientError as error:
            status = 1
            complain(PROGRAM, f"{name}: {error}", error.hint)
            results.append({"name": name, "error": error.message})
            continue
        if dry_run and found.changed:
            status = 1
        results.append({"name": name, "allowlist": allowlist} | fields(found))
        if output.json != "off":
            continue
        if dry_run:
            show(output, name, found)
            continue
        output.line(f"Reloaded {name}: {', '.join(allowlist) or NO_NAMES}")
        if found.widens:
            output.line(f"  It would allow more; to see what waits for approval, run 'remo-brokerctl diff {name}'.")
    if output.json != "off":
        output.show_json(results)
    sys.stdout.flush()
    return status


def show(output: Output, name: str, found: Difference) -> int:
    """Return 0, or 1 if something would change."""
    if output.json != "off":
        output.show_json({"name": name} | fields(found))
    elif not found.changed:
        output.line(f"{name}: the manifest matches what is in force.")
    else:
        output.line(f"{name}: {escaped(found.manifest_path)}")
        for line in lines(output, found):
            output.line(line)
    return 1 if found.changed else 0


def fields(found: Difference) -> dict[str, Any]:
    document = found.to_json()
    del document["ok"]
    return document


def lines(output: Output, found: Difference) -> list[str]:
    """The changes: + for what is added, - for what is removed, and where a secret goes."""
    places = described(found)
    shown = []
    for name in found.added:
        shown += [output.paint(f"+ {name}", Colour.GREEN), *places.pop(name, [])]
    shown += [output.paint(f"- {name}", Colour.RED) for name in found.removed]
    for name in found.changed_bindings:
        if name not in (*found.added, *found.removed):
            shown += [f"~ binding of {name}", *places.pop(name, [])]
    for host in found.changed_hosts:
        secret = (found.new_hosts or {}).get(host)
        shown.append(f"~ host {escaped(host)}" + (f": {escaped(secret)}" if secret is not None else ""))
    for what, before, after in (
        ("ttl_seconds", found.ttl_seconds_now, found.ttl_seconds),
        ("max_entries", found.max_entries_now, found.max_entries),
    ):
        if before != after:
            shown.append(f"~ {what}: {before} -> {after}")
    if found.new_bindings is None and (found.changed_bindings or found.changed_hosts):
        shown.append("(the bindings and hosts are too long to show: read the manifest)")
    return [f"  {line}" for line in shown or ["~ no effective change: comments or order"]]


def described(found: Difference) -> dict[str, list[str]]:
    """By secret, where the manifest has it go: a line for each variable and file."""
    tables = found.new_bindings or {}
    try:
        places = bindings(tables, tables)
    except (AttributeError, KeyError, TypeError, ValueError):
        return {name: ["    (a binding that breaks a rule)"] for name in tables}
    return {name: [f"    {_place(one)}" for one in own] for name, own in places.items()}


def _place(binding: Binding) -> str:
    if isinstance(binding, FileBinding):
        template = escaped(json.dumps(binding.template[:LONGEST_TEMPLATE], ensure_ascii=False))
        if len(binding.template) > LONGEST_TEMPLATE:
            template += f" and {len(binding.template) - LONGEST_TEMPLATE} characters more"
        where = "the project's " if binding.base == "project" else ""
        return f"file {where}{escaped(binding.file_path)}, mode {binding.file_mode:04o}: {template}"
    assert isinstance(binding, EnvBinding)
    return "variable " + ", ".join(
        name if field is None else f"{name} ({escaped(field)})" for name, field in binding.variables.items()
    )
