"""Completions for bash, zsh and fish, from the tables of both programs.

    python3 -m remo_broker.build.completions DIRECTORY

writes nine files: `PROGRAM.bash`, `_PROGRAM` for zsh and `PROGRAM.fish`. Project names come from
the names of their sockets, so that pressing Tab neither wakes an idle broker nor needs a
permission. Secret names come from the broker, by requests that are not audited.

Any user who can create a file beside the sockets, or listens on a project's socket, chooses these
names. So no shell evaluates them: only lines that are a valid name pass, and bash gets them without
`compgen -W`, which expands its words.
"""

from __future__ import annotations

import pathlib
import sys
from typing import TYPE_CHECKING

from remo_broker.cli.options import Command, Operand, Option, Program
from remo_broker.ctl.commands import PROGRAM as BROKERCTL
from remo_broker.protocol import paths
from remo_broker.protocol.names import RESERVED_PROJECT_NAMES
from remo_broker.secret.commands import PROGRAM as SECRET
from remo_broker.sidecar.commands import PROGRAM as SIDECAR

if TYPE_CHECKING:
    from collections.abc import Iterable

PROGRAMS = (BROKERCTL, SECRET, SIDECAR)

# These print names, one per line, in any of the three shells.
_RESERVED = "".join(rf"/^{name}[.]sock$/d; " for name in sorted(RESERVED_PROJECT_NAMES))
PROJECTS = (
    f"ls {paths.SOCKET_DIR} 2>/dev/null | "
    rf"LC_ALL=C sed -n '{_RESERVED}s/^\([a-z0-9][a-z0-9_-]\{{0,63\}}\)[.]sock$/\1/p'"
)
_VALID_SECRETS = r"2>/dev/null | LC_ALL=C sed -n '/^[A-Za-z0-9_]\{1,128\}$/p'"
SECRETS = f"remo-secret list {_VALID_SECRETS}"
# What a project may fetch; the shell's words for the project are inserted.
ALLOWED = f"remo-brokerctl show --names -- %s {_VALID_SECRETS}"


def identifier(program: Program) -> str:
    return "_" + program.name.replace("-", "_")


def quoted(text: str) -> str:
    """In single quotes, for bash and zsh."""
    return "'" + text.replace("'", "'\\''") + "'"


# --- bash -----------------------------------------------------------------------------------------


def bash(program: Program) -> str:
    name = identifier(program)
    options = every_option(program)
    lines = [
        f"# bash completion for {program.name}; generated from its command line",
        f"{name}_offer() {{",
        "    # Those of the lines on standard input that begin with what was typed.",
        "    local line",
        '    while IFS= read -r line; do if [[ $line == "$cur"* ]]; then COMPREPLY+=("$line"); fi; done',
        "}",
        f"{name}() {{",
        "    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} command= first= operands=0 takes= word i",
        "    # bash takes --name=value for three words.",
        '    if [[ $cur == "=" ]]; then cur=; elif [[ $prev == "=" ]]; then prev=${COMP_WORDS[COMP_CWORD-2]}; fi',
        "    for ((i = 1; i < COMP_CWORD; i++)); do",
        "        word=${COMP_WORDS[i]}",
        '        if [[ $word == "=" ]]; then continue; fi',
        "        if [[ $takes ]]; then takes=; continue; fi",
        "        case $word in",
        f"            {'|'.join(names(option for option in options if option.value))}) takes=1 ;;",
        "            -?*) ;;",
        "            *) if [[ ! $command ]]; then command=$word; else first=${first:-$word}; ((++operands)); fi ;;",
        "        esac",
        "    done",
        "    COMPREPLY=()",
        "    case $command:$prev in",
    ]
    for command, option in valued_options(program):
        pattern = "|".join(f"{command.name if command else '*'}:{name}" for name in option.names)
        lines.append(f"        {pattern}) {bash_values(name, option.kind, option.choices)}; return ;;")
    lines += ["    esac", "    if [[ $cur == -* ]]; then", "        case $command in"]
    lines += [
        f'            {command.name}) COMPREPLY=($(compgen -W {quoted(" ".join(flags(program, command)))} -- "$cur")) ;;'
        for command in program.commands.values()
    ]
    lines += [
        f'            *) COMPREPLY=($(compgen -W {quoted(" ".join(flags(program, None)))} -- "$cur")) ;;',
        "        esac",
        "        return",
        "    fi",
        "    case $command:$operands in",
        f'        :*) COMPREPLY=($(compgen -W {quoted(" ".join(program.commands))} -- "$cur")) ;;',
    ]
    for command in program.commands.values():
        for place, operand in enumerate(command.operands):
            pattern = f"{command.name}:{'*' if operand.many else place}"
            lines.append(f"        {pattern}) {bash_values(name, operand.kind, operand.choices)} ;;")
            if operand.rest:
                lines.append(f"        {command.name}:*) {bash_values(name, 'file', ())} ;;")
    lines += ["    esac", "}", f"complete -F {name} {program.name}", ""]
    return "\n".join(lines)


def bash_values(name: str, kind: str, choices: Iterable[str]) -> str:
    words = " ".join(choices)
    if words:
        return f'COMPREPLY=($(compgen -W {quoted(words)} -- "$cur"))'
    names = {"project": PROJECTS, "secret": SECRETS, "allowed": ALLOWED % '"$first"'}.get(kind)
    if names is not None:
        return f"{name}_offer < <({names})"
    action = {"file": "-f", "directory": "-d", "command": "-c"}.get(kind)
    if action is None:
        return ":"
    return f'compopt -o filenames; mapfile -t COMPREPLY < <(compgen {action} -- "$cur")'


# --- zsh ------------------------------------------------------------------------------------------


def zsh(program: Program) -> str:
    name = identifier(program)
    lines = [
        f"#compdef {program.name}",
        f"# generated from the command line of {program.name}",
        f'{name}_project() {{ compadd -- ${{(f)"$({PROJECTS})"}} }}',
        f'{name}_secret() {{ compadd -- ${{(f)"$({SECRETS})"}} }}',
        # _arguments leaves the operands in `line`; the first is the project.
        f'{name}_allowed() {{ compadd -- ${{(f)"$({ALLOWED % "$line[1]"})"}} }}',
        f"{name}() {{",
        "    local curcontext=$curcontext state line",
        "    typeset -A opt_args",
        "    local -a everywhere=(",
        *(f"        {quoted(spec)}" for option in program.options for spec in zsh_specs(name, option)),
        "    )",
        "    local -a commands=(",
        *(f"        {quoted(f'{one.name}:{one.summary}')}" for one in program.commands.values()),
        "    )",
        "    _arguments -C -S $everywhere '1: :->command' '*:: :->operands'",
        "    case $state in",
        "        command) _describe command commands ;;",
        "        operands)",
        "            case $line[1] in",
    ]
    for command in program.commands.values():
        specs = [spec for option in command.options for spec in zsh_specs(name, option)]
        specs += [zsh_operand(name, place, operand) for place, operand in enumerate(command.operands, 1)]
        lines.append(f"                {command.name}) _arguments -S $everywhere {' '.join(map(quoted, specs))} ;;")
    lines += ["            esac ;;", "    esac", "}", f'{name} "$@"', ""]
    return "\n".join(lines)


def zsh_specs(name: str, option: Option) -> list[str]:
    """One specification per name, for _arguments."""
    about = option.help.replace("[", "(").replace("]", ")")
    value = f":{option.value}:{zsh_action(name, option.kind, option.choices)}" if option.value else ""
    joined = {True: "=", False: "+"}
    return [f"{one}{joined[one.startswith('--')] if option.value else ''}[{about}]{value}" for one in option.names]


def zsh_operand(name: str, place: int, operand: Operand) -> str:
    if operand.rest:
        return "*::command:_normal"
    where = "*" if operand.many else f"{place}{':' * operand.optional}"
    return f"{where}:{operand.name}:{zsh_action(name, operand.kind, operand.choices)}"


def zsh_action(name: str, kind: str, choices: Iterable[str]) -> str:
    words = " ".join(choices)
    if words:
        return f"({words})"
    return {
        "file": "_files",
        "directory": "_files -/",
        "project": f"{name}_project",
        "secret": f"{name}_secret",
        "allowed": f"{name}_allowed",
    }.get(kind, "")


# --- fish -----------------------------------------------------------------------------------------


# The words before the cursor without options: the program, the command, the operands.
FISH_WORDS = "(commandline -opc | string match -v -- '-*')"
FISH_FIRST = f"{FISH_WORDS}[3]"


def fish(program: Program) -> str:
    start = f"complete -c {program.name}"
    lines = [f"# generated from the command line of {program.name}", f"{start} -f"]
    lines += [f"{start} {fish_option(option)}" for option in program.options]
    for command in program.commands.values():
        lines.append(f"{start} -n __fish_use_subcommand -a {command.name} -d {fish_quoted(command.summary)}")
        there = f"{start} -n '__fish_seen_subcommand_from {command.name}'"
        lines += [f"{there} {fish_option(option)}" for option in command.options]
        for place, operand in enumerate(command.operands):
            values = fish_values(operand.kind, operand.choices)
            # Programs and commands count too: after two words, the first operand is offered.
            here = f"; and test (count {FISH_WORDS}) -eq {place + 2}" if operand.kind in ("project", "allowed") else ""
            if values:
                lines.append(f"{start} -n {fish_quoted(f'__fish_seen_subcommand_from {command.name}{here}')} {values}")
    return "\n".join(lines) + "\n"


def fish_option(option: Option) -> str:
    letters = [f"-s {name[1:]}" for name in option.names if not name.startswith("--")]
    words = [f"-l {name[2:]}" for name in option.names if name.startswith("--")]
    values = ["-r", fish_values(option.kind, option.choices)] if option.value else []
    return " ".join([*letters, *words, *filter(None, values), "-d", fish_quoted(option.help)])


def fish_values(kind: str, choices: Iterable[str]) -> str:
    words = " ".join(choices)
    if words:
        return f"-a {fish_quoted(words)}"
    return {
        "file": "-F",
        "directory": "-a '(__fish_complete_directories)'",
        "command": "-a '(__fish_complete_subcommand)'",
        "project": f"-a {fish_quoted(f'({PROJECTS})')}",
        "secret": f"-a {fish_quoted(f'({SECRETS})')}",
        "allowed": f"-a {fish_quoted(f'({ALLOWED % FISH_FIRST})')}",
    }.get(kind, "")


def fish_quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


# --- all ------------------------------------------------------------------------------------------


def every_option(program: Program) -> list[Option]:
    return [*program.options, *(option for command in program.commands.values() for option in command.options)]


def valued_options(program: Program) -> list[tuple[Command | None, Option]]:
    """Each option that takes a value, with its command.

    Commands come first: their options are more specific.
    """
    found: list[tuple[Command | None, Option]] = []
    for command in program.commands.values():
        found += [(command, option) for option in command.options if option.value]
    return found + [(None, option) for option in program.options if option.value]


def names(options: Iterable[Option]) -> list[str]:
    return list(dict.fromkeys(name for option in options for name in option.names))


def flags(program: Program, command: Command | None) -> list[str]:
    return names([*(command.options if command else ()), *program.options])


def files() -> dict[str, str]:
    """The text of each file, by its name."""
    found = {}
    for program in PROGRAMS:
        found[f"{program.name}.bash"] = bash(program)
        found[f"_{program.name}"] = zsh(program)
        found[f"{program.name}.fish"] = fish(program)
    return found


def main() -> int:
    if len(sys.argv) != 2:
        print("usage: python3 -m remo_broker.build.completions DIRECTORY", file=sys.stderr)
        return 2
    directory = pathlib.Path(sys.argv[1])
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in files().items():
        (directory / name).write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
