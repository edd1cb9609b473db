"""Turn bindings and secrets into a command's variables and files."""

from __future__ import annotations

import os

from remo_broker.cli.program import Problem
from remo_broker.client.value import SecretValue
from remo_broker.manifest.bindings import EnvBinding, FileBinding
from remo_broker.secret.bindings import Bound
from remo_broker.secret.loader_variables import changes_loading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from remo_broker.secret.rendering import File

# The bits of file_mode that are used. The project also writes the template, so a set-user-ID bit
# would make it a program; and only the user who renders a secret may read it.
OWNER = 0o700
PERMISSIONS = 0o777


def variables(bound: Bound, secrets: dict[str, SecretValue]) -> dict[bytes, bytes]:
    """The environment variables to add."""
    found: dict[bytes, bytes] = {}
    for name, secret in secrets.items():
        for binding in bound.bindings[name]:
            if not isinstance(binding, EnvBinding):
                continue
            for variable, field in binding.variables.items():
                if not binding.explicit and changes_loading(variable):
                    raise Problem(
                        f"{name} would set {variable}, a variable that decides which code programs run",
                        hint=f"if that is intended, set env_var for {name} in the manifest and have an operator reload it",
                    )
                content = _content(secret, field)
                if b"\0" in content:
                    raise Problem(
                        f"{name} has a zero byte, which no variable can hold", hint="bind it to a file in the manifest"
                    )
                key = variable.encode("ascii")
                if key in found:
                    raise Problem(
                        f"{name} and another secret set the same variable {variable}", hint="use another env_var"
                    )
                found[key] = content
    return found


def _content(secret: SecretValue, field: str | None) -> bytes:
    if field is None:
        return secret.reveal_bytes()
    fields = secret.reveal_fields()
    if fields is None or field not in fields:
        why = "is not a bundle" if fields is None else "lacks this field"
        raise Problem(
            f"the manifest binds the field {field} of {secret.name}, which {why}",
            hint="push a bundle that has the field, or correct the binding in the manifest",
        )
    return fields[field].encode("utf-8")


def files(bound: Bound, secrets: dict[str, SecretValue]) -> dict[str, File]:
    """The files to write, by name: the secret's name, with a number from its second file on."""
    found: dict[str, File] = {}
    places: dict[str, str] = {}
    if not any(isinstance(one, FileBinding) for own in bound.bindings.values() for one in own):
        return found  # without what writing files imports
    from remo_broker.secret.links import real_place, target_of
    from remo_broker.secret.rendering import File
    from remo_broker.secret.template import fill

    for secret, value in secrets.items():
        own = [one for one in bound.bindings[secret] if isinstance(one, FileBinding)]
        for number, binding in enumerate(own):
            name = f"{secret}-{number + 1}" if number else secret
            if binding.file_mode & ~PERMISSIONS:
                raise Problem(
                    f"the file_mode of {secret} sets more than permissions",
                    hint="in the manifest, give a file_mode whose first digit is 0",
                )
            base = inside = None
            if binding.base == "project":
                from remo_broker.secret.project_directory import check_inside, check_untracked, project_directory

                base = project_directory(bound.info)
            target = target_of(binding.file_path, base)
            if base is not None:
                inside = check_inside(base, target)
                check_untracked(base, target)
            _check_distinct(secret, target, places)
            places[name] = real_place(target)
            content = fill(binding.template, value)
            found[name] = File(target, content, binding.file_mode & OWNER, copy=binding.place == "copy", inside=inside)
    return found


def _check_distinct(secret: str, target: str, places: dict[str, str]) -> None:
    from remo_broker.secret.links import real_place

    place = real_place(target)
    for other, taken in places.items():
        if place == taken:
            raise Problem(f"{secret} and {other} have the same file {place}", hint="use another file_path")
        if place.startswith(f"{taken}/") or taken.startswith(f"{place}/"):
            raise Problem(f"{place} and {taken} cannot both be files", hint=f"use another file_path for {secret}")


def environment() -> dict[bytes, bytes]:
    """The environment of this process, in bytes."""
    return dict(os.environb)
