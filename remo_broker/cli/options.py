"""Command lines as tables: one description of a program serves its parser, its help, its completions and its tests.

Not argparse, because
- `remo-secret get` may take three times what `python3 -c pass` takes, and argparse alone is a quarter of that;
- options of systemd's tools stand before or after the command, which argparse's sub-commands do not allow;
- misuse is answered in one line.

The rules are getopt_long's: `--name=value` or `--name value`, `-n5` or `-n 5`, short flags joined, `--` ends options.
After a command that runs another program, the first operand ends them too.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


class Usage(Exception):
    """The command line is wrong. The text is one line and says what to do."""


class Option:
    """One option. Without `value` it is a flag; `value` is how the help calls what it takes.

    An empty value is refused unless `empty`: it is a script's variable that is not set, and would pass for no option.
    """

    __slots__ = ("choices", "empty", "help", "kind", "names", "value")

    def __init__(
        self,
        *names: str,
        help: str,  # noqa: A002 - the table reads best so
        value: str = "",
        choices: Sequence[str] = (),
        kind: str = "",
        empty: bool = False,
    ) -> None:
        self.names = names
        self.help = help
        self.value = value
        self.choices = tuple(choices)
        self.empty = empty
        self.kind = kind
        """What its value is, for completions: `file`, `directory`, `project`, `secret` or nothing."""

    @property
    def name(self) -> str:
        """The long name."""
        return self.names[-1]

    def __repr__(self) -> str:
        return f"Option({self.name})"


class Operand:
    """One operand as the usage line shows it: `NAME`, `[FILE]`, `PATH...`. `rest` swallows all that follows.

    With `others`, words that are not among the `choices` are taken too, and only the completions keep to them.
    """

    __slots__ = ("choices", "kind", "many", "name", "optional", "others", "rest")

    def __init__(
        self,
        name: str,
        *,
        kind: str = "",
        optional: bool = False,
        many: bool = False,
        rest: bool = False,
        choices: Sequence[str] = (),
        others: bool = False,
    ) -> None:
        self.name = name
        self.kind = kind
        self.optional = optional
        self.many = many
        self.rest = rest
        self.choices = tuple(choices)
        self.others = others

    @property
    def shown(self) -> str:
        text = self.name + ("..." if self.many or self.rest else "")
        return f"[{text}]" if self.optional else text


class Command:
    """One command of a program. `run` is `package.module:function`, imported when it is called."""

    __slots__ = ("details", "name", "operands", "options", "run", "summary")

    def __init__(
        self,
        name: str,
        summary: str,
        *,
        run: str,
        operands: Sequence[Operand] = (),
        options: Sequence[Option] = (),
        details: str = "",
    ) -> None:
        self.name = name
        self.summary = summary
        self.run = run
        self.operands = tuple(operands)
        self.options = tuple(options)
        self.details = details

    @property
    def rest(self) -> bool:
        return bool(self.operands) and self.operands[-1].rest

    @property
    def synopsis(self) -> str:
        words = [self.name, *(operand.shown for operand in self.operands)]
        if self.rest:
            words.insert(-1, "--")
        return " ".join(words)


class Program:
    """A program: its commands and the options that stand with any of them."""

    __slots__ = ("commands", "epilog", "name", "options", "summary")

    def __init__(
        self, name: str, summary: str, *, options: Sequence[Option], commands: Sequence[Command], epilog: str
    ) -> None:
        self.name = name
        self.summary = summary
        self.options = tuple(options)
        self.commands = {command.name: command for command in commands}
        self.epilog = epilog


HELP = Option("-h", "--help", help="Show this help")
VERSION = Option("--version", help="Show the version")


class Arguments:
    """What a command line said."""

    __slots__ = ("_values", "command", "operands")

    def __init__(self) -> None:
        self.command: Command | None = None
        self.operands: list[str] = []
        self._values: dict[str, list[str]] = {}

    def add(self, option: Option, value: str) -> None:
        # Taken out and put in again: the order is that of the last time that each was given.
        self._values[option.name] = [*self._values.pop(option.name, []), value]

    def given(self) -> list[str]:
        """The long names of the options that were given, what was given last at the end."""
        return list(self._values)

    def flag(self, option: Option) -> bool:
        return option.name in self._values

    def value(self, option: Option) -> str | None:
        """The value that was given last."""
        return self._values[option.name][-1] if option.name in self._values else None

    def values(self, option: Option) -> list[str]:
        """Every value, in order; each may itself be a list with commas."""
        return [part for value in self._values.get(option.name, []) for part in value.split(",") if part]

    def number(self, option: Option, lowest: int, highest: int) -> int | None:
        text = self.value(option)
        if text is None:
            return None
        if not (text.isascii() and text.isdigit() and len(text) < 18 and lowest <= int(text) <= highest):
            raise Usage(f"{option.name} wants a whole number from {lowest} to {highest}")
        return int(text)


def parse(program: Program, argv: Sequence[str]) -> Arguments:
    """Raises `Usage`. A missing command is left to the caller, who may have been asked for help."""
    arguments = Arguments()
    known = {name: option for option in program.options for name in option.names}
    words = list(argv)
    while words:
        word = words.pop(0)
        if word == "--":
            _operand(program, arguments, known, words)
            break
        if word.startswith("--"):
            name, equals, value = word.partition("=")
            _take(arguments, _known(arguments, known, name), name, value if equals else None, words)
        elif word.startswith("-") and word != "-":
            letters = word[1:]
            while letters:
                name, letters = "-" + letters[0], letters[1:]
                option = _known(arguments, known, name)
                if option.value:
                    _take(arguments, option, name, letters or None, words)
                    break
                arguments.add(option, "")
        else:
            _operand(program, arguments, known, [word])
            if arguments.command is not None and arguments.command.rest and arguments.operands:
                arguments.operands += words
                break
    if arguments.command is not None and not (arguments.flag(HELP) or arguments.flag(VERSION)):
        _check_operands(arguments.command, arguments.operands)
    return arguments


def _operand(program: Program, arguments: Arguments, known: dict[str, Option], words: Sequence[str]) -> None:
    """Operands: the first one is the command, and brings its options."""
    for word in words:
        if arguments.command is not None:
            arguments.operands.append(word)
            continue
        command = program.commands.get(word)
        if command is None:
            raise Usage(f"there is no command {word!r}; give {_any_of(list(program.commands))}")
        arguments.command = command
        known.update({name: option for option in command.options for name in option.names})


def _known(arguments: Arguments, known: dict[str, Option], name: str) -> Option:
    if name not in known:
        where = f" of '{arguments.command.name}'" if arguments.command else " before the command"
        raise Usage(f"{name!r} is no option{where}")
    return known[name]


def _take(arguments: Arguments, option: Option, name: str, value: str | None, words: list[str]) -> None:
    if not option.value:
        if value is not None:
            raise Usage(f"{name} takes no value")
        arguments.add(option, "")
        return
    if value is None and words:
        value = words.pop(0)
    if value is None or not (value or option.empty):
        raise Usage(f"{name} wants a value: {option.value}")
    if option.choices and value not in option.choices:
        raise Usage(f"{name} wants {_any_of(list(option.choices))}, not {value!r}")
    arguments.add(option, value)


def _check_operands(command: Command, given: Sequence[str]) -> None:
    wanted = command.operands
    lowest = sum(not operand.optional for operand in wanted)
    most = None if any(operand.many or operand.rest for operand in wanted) else len(wanted)
    if len(given) < lowest:
        raise Usage(f"'{command.name}' wants {' '.join(operand.shown for operand in wanted)}")
    if most is not None and len(given) > most:
        # Not shown: a value given here by mistake would be repeated.
        wants = " ".join(operand.shown for operand in wanted) or "no operand"
        raise Usage(f"'{command.name}' wants {wants}, not {len(given)} operand{'s' * (len(given) != 1)}")
    if "" in given and not any(operand.rest or operand.others for operand in wanted):
        # An empty variable of a script; as a path it would be the working directory.
        raise Usage(f"'{command.name}' wants {' '.join(operand.shown for operand in wanted)}, and nothing empty")
    for operand, word in zip(wanted, given, strict=False):
        if operand.choices and not operand.others and word not in operand.choices:
            raise Usage(f"'{command.name}' wants {_any_of(list(operand.choices))}, not {word!r}")


def _any_of(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"
