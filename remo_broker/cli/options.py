"""Command lines as tables: one description serves parser, help, completions and tests.

Not argparse, because
- `remo-secret get` must take at most a small multiple of the time of `python3 -c pass`, and
  importing argparse alone takes 8 ms;
- options may come before or after the command, as in systemd's tools; argparse's sub-commands do
  not allow that.

The rules are getopt_long's: `--name=value` or `--name value`, `-n5` or `-n 5`, short flags joined,
`--` ends options. For a command that runs another program, the first operand also ends the options.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


class Usage(Exception):
    """The command line is wrong. Without a hint of its own, it refers the user to `--help`."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class Option:
    """One option. Without `value` it is a flag; `value` is the placeholder that the help shows.

    An empty value is refused unless `empty` is set: it usually comes from an unset variable in a
    script.
    """

    __slots__ = ("bare", "choices", "empty", "help", "kind", "names", "value")

    def __init__(
        self,
        *names: str,
        help: str,  # noqa: A002 - the natural keyword in the tables
        value: str = "",
        choices: Sequence[str] = (),
        kind: str = "",
        empty: bool = False,
        bare: str | None = None,
    ) -> None:
        self.names = names
        self.help = help
        self.value = value
        self.choices = tuple(choices)
        self.empty = empty
        self.bare = bare
        """The value if the option is given without one.

        Such an option takes a value as `--name=value`, or as one of its choices.
        """
        self.kind = kind
        """What completions offer: `file`, `directory`, `project`, `secret`, `allowed` or nothing.

        `allowed` are the secrets that a project may fetch.
        """

    @property
    def name(self) -> str:
        """The long name."""
        return self.names[-1]

    def __repr__(self) -> str:
        return f"Option({self.name})"


class Operand:
    """One operand as in the usage line: `NAME`, `[FILE]`, `PATH...`. `rest` takes all later words.

    With `others`, words outside `choices` are accepted too; the choices then serve completions
    only.
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
    """One command. `run` is `package.module:function`, imported when the command runs."""

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
    """A program: its commands, and the options that all of them accept."""

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
    """A parsed command line."""

    __slots__ = ("_values", "command", "operands")

    def __init__(self) -> None:
        self.command: Command | None = None
        self.operands: list[str] = []
        self._values: dict[str, list[str]] = {}

    def add(self, option: Option, value: str) -> None:
        # Removed and inserted again, so that the keys are in the order of the last occurrence.
        self._values[option.name] = [*self._values.pop(option.name, []), value]

    def given(self) -> list[str]:
        """The long names of the given options, ordered by last occurrence."""
        return list(self._values)

    def flag(self, option: Option) -> bool:
        return option.name in self._values

    def value(self, option: Option) -> str | None:
        """The last value given."""
        return self._values[option.name][-1] if option.name in self._values else None

    def values(self, option: Option) -> list[str]:
        """All values in order; each occurrence may be a comma-separated list."""
        return [part for value in self._values.get(option.name, []) for part in value.split(",") if part]

    def number(self, option: Option, lowest: int, highest: int) -> int | None:
        text = self.value(option)
        if text is None:
            return None
        if not (text.isascii() and text.isdigit() and len(text) < 18 and lowest <= int(text) <= highest):
            raise Usage(f"{option.name} must be an integer from {lowest} to {highest}")
        return int(text)


def parse(program: Program, argv: Sequence[str], arguments: Arguments | None = None) -> Arguments:
    """Parse into `arguments`, a new object by default. Raises `Usage`.

    The caller handles a missing command, because `--help` needs none. After a `Usage`, `arguments`
    holds the command.
    """
    arguments = Arguments() if arguments is None else arguments
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
    """Take operands. The first is the command; its options are added to `known`."""
    for word in words:
        if arguments.command is not None:
            arguments.operands.append(word)
            continue
        command = program.commands.get(word)
        if command is None:
            raise Usage(f"unknown command: {word!r}")
        arguments.command = command
        known.update({name: option for option in command.options for name in option.names})


def _known(arguments: Arguments, known: dict[str, Option], name: str) -> Option:
    if name not in known:
        where = f"for '{arguments.command.name}'" if arguments.command else "before the command"
        raise Usage(f"unknown option {where}: {name!r}")
    return known[name]


def _take(arguments: Arguments, option: Option, name: str, value: str | None, words: list[str]) -> None:
    if not option.value:
        if value is not None:
            raise Usage(f"{name} takes no value")
        arguments.add(option, "")
        return
    if value is None and option.bare is not None and not (words and words[0] in option.choices):
        arguments.add(option, option.bare)
        return
    if value is None and words:
        value = words.pop(0)
    if value is None or not (value or option.empty):
        raise Usage(f"{name} requires a value: {option.value}")
    if option.choices and value not in option.choices:
        raise Usage(f"{name} must be {_any_of(option.choices)}, not {value!r}")
    arguments.add(option, value)


def _check_operands(command: Command, given: Sequence[str]) -> None:
    expected = command.operands
    shown = " ".join(operand.shown for operand in expected)
    lowest = sum(not operand.optional for operand in expected)
    most = None if any(operand.many or operand.rest for operand in expected) else len(expected)
    if len(given) < lowest:
        raise Usage(f"'{command.name}' requires {shown}")
    if most is not None and len(given) > most:
        # The operands are not repeated: one may be a secret given by mistake.
        raise Usage(
            f"'{command.name}' takes {shown or 'no operands'}, not {len(given)} operand{'s' * (len(given) != 1)}"
        )
    for place, word in enumerate(given):
        operand = expected[min(place, len(expected) - 1)]
        # An empty operand usually comes from an unset variable; as a path it would be the working
        # directory.
        if not word and not (operand.rest or operand.others):
            raise Usage(f"{operand.name} must not be empty")
        if operand.choices and not operand.others and word not in operand.choices:
            raise Usage(f"{operand.name} must be {_any_of(operand.choices)}, not {word!r}")


def _any_of(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"
