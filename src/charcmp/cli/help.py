"""`charcmp --help` and `charcmp COMMAND --help`, made from the table of commands."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterable

from charcmp.cli.commands import COMMANDS, Command, Flag
from charcmp.config.keys import SECTIONS, Key, all_keys, default_of, other_defaults_of

NARROWEST, WIDEST = 60, 100  # columns
LEFT = 30  # columns of a key or flag, before its meaning
LONGEST = 52  # likewise of an example
FEW_KEYS = 3  # at most so many are listed without sections

FIRST_STEPS = (
    ("charcmp recommend my.txt", "which model to use for your text; half an hour"),
    ("charcmp sweep experiment=demo", "a small grid in minutes, on Python's own texts"),
    ("charcmp sweep --dry-run", "the paper's 72 models, and the time they take"),
)


def overview() -> str:
    """Returns the help that fits on one screen, with a line for each command."""
    lines = [
        "charcmp: which recurrent cell for a text, compared at equal parameter counts",
        "",
        *(
            f"  {f'charcmp {command.name} {command.args}':{LEFT}}{command.summary}"
            for command in COMMANDS.values()
        ),
        "",
        "Begin with:",
        *(f"  {line:{LEFT}}{meaning}" for line, meaning in FIRST_STEPS),
        "",
        "charcmp COMMAND --help lists the command's flags and keys.",
        "Everything in one document: docs/options.md",
    ]
    return "\n".join(lines) + "\n"


def command_help(command: Command) -> str:
    """Returns a command's help: what it is for, examples, flags and keys."""
    parts = [_paragraph(command.about), _examples(command.examples)]
    if command.all_flags:
        parts.append(_table("Flags", map(flag_columns, command.all_flags)))
    if command.narrowed_by:
        named = {key.name: key for key in all_keys()}
        axes = [named[name] for name in command.narrowed_by]
        title = "Only the runs that have these values (several: layers=1,2)"
        parts.append(_table(title, ((f"{key.name}=", meaning(key)) for key in axes)))
    if command.own_keys:
        parts.append(_table("Keys", map(_key, command.own_keys)))
    rest = command.run_keys
    for section in SECTIONS if len(rest) > FEW_KEYS else ():
        if of_section := [key for key in rest if key.section == section]:
            parts.append(_table(section, map(_key, of_section)))
    if 0 < len(rest) <= FEW_KEYS:
        parts.append(_table("Keys", map(_key, rest)))
    return "\n\n".join(parts) + "\n"


def _width() -> int:
    return min(WIDEST, max(NARROWEST, shutil.get_terminal_size().columns))


def _paragraph(text: str) -> str:
    return textwrap.fill(text, _width(), break_on_hyphens=False)


def _examples(examples: tuple[tuple[str, str], ...]) -> str:
    left = max((len(line) for line, meaning in examples if meaning), default=0) + 4
    return "\n".join(_row(line, meaning, min(left, LONGEST)) for line, meaning in examples)


def flag_columns(flag: Flag) -> tuple[str, str]:
    choices = f": {','.join(flag.choices)}" if flag.choices else ""
    return f"{flag.name} {flag.value}".strip(), flag.meaning + choices


def _key(key: Key) -> tuple[str, str]:
    return f"{key.name}={default_of(key)}", meaning(key)


def meaning(key: Key) -> str:
    """Returns what a key means, its choices, and which cells or optimisers have it."""
    text = key.meaning
    if key.rule.choices:
        text = f"{' | '.join(key.rule.choices)}: {text}"
    if key.owners:
        text += f" ({owners_text(key)})"
    if others := other_defaults_text(key):
        text += f" [{others}]"
    return text


def owners_text(key: Key) -> str:
    """Returns which choices have a key: `adam, adamw`, or `all but module` if that is shorter."""
    group = next(known for known in all_keys() if known.name == key.name.partition(".")[0])
    others = [choice for choice in group.choices if choice not in key.owners]
    if len(others) < len(key.owners) / 2:
        return f"all but {', '.join(others)}"
    return ", ".join(key.owners)


def other_defaults_text(key: Key) -> str:
    """Returns a key's other defaults as text: `adagrad: 0.05; adam, adamw, sgd: 0.01`."""
    choices: dict[str, list[str]] = {}
    for choice, value in other_defaults_of(key):
        choices.setdefault(value, []).append(choice)
    return "; ".join(f"{', '.join(of_value)}: {value}" for value, of_value in choices.items())


def _table(title: str, rows: Iterable[tuple[str, str]]) -> str:
    return "\n".join([f"{title}:", *(_row(left, right) for left, right in rows)])


def _row(left: str, right: str, columns: int = LEFT) -> str:
    """Formats two columns; a left side too long for its column gets a line of its own."""
    if not right:
        return f"  {left}"
    indent = " " * columns
    wrapped = textwrap.fill(
        right, _width(), initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False
    )
    if len(left) + 2 >= columns:
        return f"  {left}\n{wrapped}"
    return f"  {left:{columns - 2}}{wrapped[columns:]}"
