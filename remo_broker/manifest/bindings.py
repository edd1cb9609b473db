"""Where a secret goes: the tables of a manifest's bindings as objects.

The broker's side and `remo-secret` both use this; `remo-secret` applies it to the broker's reply,
in any Python from 3.9 on.
"""

from __future__ import annotations

from remo_broker.manifest.constants import ENV_VAR_PATTERN, FILE_MODE_PATTERN, FILE_PATH_PATTERN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

# `{{field}}` or `{{field|filter}}`.
_PLACEHOLDER = r"\{\{([^{}]*)\}\}"


class Binding:
    """Compared and shown by its attributes.

    Not a dataclass: importing that takes longer than all the rest.
    """

    __slots__: tuple[str, ...] = ()
    optional: bool

    def _values(self) -> list[object]:
        return [type(self), *(getattr(self, name) for name in self.__slots__)]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Binding) and self._values() == other._values()

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.__slots__)
        return f"{type(self).__name__}({shown})"


class EnvBinding(Binding):
    """The secret goes into environment variables: for each variable, the whole secret or a field.

    `explicit` tells whether the manifest names the variables; the default is the secret's name in
    upper case.
    """

    __slots__ = ("explicit", "optional", "variables")

    def __init__(self, variables: dict[str, str | None], optional: bool = False, explicit: bool = True) -> None:
        self.variables = variables
        self.optional = optional
        self.explicit = explicit


class FileBinding(Binding):
    """The secret goes into a file.

    `file_path` is as written, with `~` or relative; `file_mode` holds the permission bits.
    """

    __slots__ = ("base", "file_mode", "file_path", "optional", "place", "template")

    def __init__(
        self,
        file_path: str,
        file_mode: int,
        template: str,
        optional: bool = False,
        base: str = "home",
        place: str = "link",
    ) -> None:
        self.file_path = file_path
        self.file_mode = file_mode
        self.template = template
        self.optional = optional
        self.base = base
        self.place = place


def bindings(allowlist: Iterable[str], tables: dict[str, list[dict[str, Any]]]) -> dict[str, list[Binding]]:
    """The bindings of each allowed name.

    Raises ValueError, KeyError or TypeError for tables that break a rule.
    """
    return {
        name: [_binding(name, table) for table in tables[name]] if name in tables else [_default(name)]
        for name in allowlist
    }


def _default(name: str) -> EnvBinding:
    # Like a secret's name, it may begin with a digit: execve accepts that, though no shell can
    # express it.
    return EnvBinding({name.upper(): None}, explicit=False)


def _binding(name: str, table: dict[str, Any]) -> Binding:
    kind, optional = table.get("fetch_as", "env"), table.get("optional", False)
    if not isinstance(optional, bool):
        raise TypeError
    if kind == "file":
        base, place = table.get("base", "home"), table.get("place", "link")
        if not isinstance(table["template"], str) or base not in ("home", "project") or place not in ("link", "copy"):
            raise TypeError
        return FileBinding(
            file_path=_matching(FILE_PATH_PATTERN, table["file_path"]),
            file_mode=int(_matching(FILE_MODE_PATTERN, table["file_mode"]), 8),
            template=table["template"],
            optional=optional,
            base=base,
            place=place,
        )
    if kind != "env":
        raise ValueError
    if "env" in table:
        fields = {_matching(ENV_VAR_PATTERN, variable): str(field) for variable, field in table["env"].items()}
        return EnvBinding(dict(fields), optional)
    if "env_var" in table:
        return EnvBinding({_matching(ENV_VAR_PATTERN, table["env_var"]): None}, optional)
    return EnvBinding({name.upper(): None}, optional, explicit=False)


def filters_in(template: str) -> list[str]:
    """The filters in a template's placeholders: `shell` for `{{field|shell}}`."""
    import re

    return [found.partition("|")[2].strip() for found in re.findall(_PLACEHOLDER, template) if "|" in found]


def _matching(pattern: str, text: str) -> str:
    import re  # 3 ms of an `exec`, most of which bind nothing explicitly

    if re.fullmatch(pattern[1:-1], text) is None:
        raise ValueError
    return text
