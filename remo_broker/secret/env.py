"""`remo-secret env`: the variables of `exec` on standard output, for direnv and compose files."""

from __future__ import annotations

import json

from remo_broker.cli.options import Arguments
from remo_broker.cli.program import Problem, write_value
from remo_broker.manifest.bindings import EnvBinding
from remo_broker.secret.apply_bindings import variables
from remo_broker.secret.bindings import find_bindings
from remo_broker.secret.commands import FORMAT
from remo_broker.secret.fetching import fetch
from remo_broker.secret.project_socket import open_client
from remo_broker.secret.wait_option import with_secrets


def env(arguments: Arguments) -> None:
    """Fetch only the secrets bound to variables; files are for `render`."""

    def found() -> dict[bytes, bytes]:
        with open_client(arguments) as client:
            bound = find_bindings(arguments, client)
            bound.bindings = {
                name: own for name, own in bound.bindings.items() if any(isinstance(one, EnvBinding) for one in own)
            }
            return variables(bound, fetch(client, bound.bindings))

    texts = {}
    for name, value in with_secrets(arguments, found).items():
        try:
            texts[name.decode("ascii")] = value.decode("utf-8")
        except UnicodeDecodeError:
            texts = {}
        if not texts:
            # Raised outside the handler: UnicodeDecodeError holds the value.
            raise Problem(f"{name.decode('ascii')} is not UTF-8", hint="bind this secret to a file in the manifest")
    write = {"json": _json, "shell": _shell, "dotenv": _dotenv}[arguments.value(FORMAT) or "dotenv"]
    write_value("a variable", write(texts).encode("utf-8"))


def _json(texts: dict[str, str]) -> str:
    return json.dumps(texts, ensure_ascii=False, indent=2) + "\n"


def _shell(texts: dict[str, str]) -> str:
    """For `eval` in a POSIX shell."""
    return "".join("export {}='{}'\n".format(name, text.replace("'", "'\"'\"'")) for name, text in texts.items())


def _dotenv(texts: dict[str, str]) -> str:
    """For compose and for shells that source it, the values as both read them.

    In single quotes, where no character is special but a backslash before the end; otherwise in
    double quotes, escaped. Line ends are written as they are: a shell keeps `\\n`.
    """
    lines = []
    for name, text in texts.items():
        is_double = "'" in text or text.endswith("\\")
        if is_double and "`" in text:  # a shell needs a backslash before it, which compose keeps
            raise Problem(
                f"{name} has a backtick and what only double quotes can hold; dotenv readers differ on that",
                hint="use --format=shell or --format=json, or run the command under 'remo-secret exec'",
            )
        if not is_double:
            lines.append(f"{name}='{text}'\n")
            continue
        for special in ("\\", '"', "$"):
            text = text.replace(special, f"\\{special}")  # noqa: PLW2901
        lines.append(f'{name}="{text}"\n')
    return "".join(lines)
