"""Writes docs/options.md from the table of commands and the declarations of the keys.

python scripts/write_options.py            (writes the document)
python scripts/write_options.py --check    (exit status 1 if the document is out of date)
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from tabulate import tabulate

from charcmp.cli.commands import COMMANDS, COMPOSING_FLAGS, Command, Flag
from charcmp.cli.help import flag_columns, other_defaults_text, owners_text
from charcmp.config.keys import SECTIONS, Key, all_keys, default_of

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "options.md"
HEAD = """\
# Every command, flag and key

Made by `python scripts/write_options.py` from the same declarations as `charcmp COMMAND --help`.

A key is set as `key=value`. In `sweep`, `params` and `baselines` several values make a grid:
`layers=1,2`. In `recommend` only budget, cell, cell.target and layers take several. In `status` and
`report` they name the runs to show. Values are written in [Hydra's grammar](https://hydra.cc); a
path is taken as typed.
"""


def document() -> str:
    composed = names([command.name for command in COMMANDS.values() if command.is_composed])
    shared = f"{flag_table(COMPOSING_FLAGS)}\n"
    parts = [HEAD, "## Commands\n", *map(command_text, COMMANDS.values())]
    parts += [f"### Flags that several commands have: {composed}\n", shared, "## Keys of a run\n"]
    for section in SECTIONS:
        keys = [key for key in all_keys() if key.section == section]
        parts.append(f"### {section}\n\n{key_table(keys)}\n")
    return "\n".join(parts)


def command_text(command: Command) -> str:
    """Returns a command's section."""
    lines = [f"### charcmp {command.name}\n", f"{command.about}\n", "```sh"]
    left = max(len(line) for line, _ in command.examples) + 2
    lines += [
        f"{line:{left}}# {meaning}" if meaning else line for line, meaning in command.examples
    ]
    lines.append("```\n")
    if command.flags:
        lines.append(f"{flag_table(command.flags)}\n")
    if command.narrowed_by:
        lines.append(f"Keys that name the runs to show: {names(command.narrowed_by)}.\n")
    if command.own_keys:
        lines.append(f"{key_table(command.own_keys)}\n")
    lines.append(run_keys_text(command))
    return "\n".join(lines).rstrip() + "\n"


def run_keys_text(command: Command) -> str:
    """Returns a sentence on which keys of a run a command has."""
    its_keys = [key.name for key in command.run_keys]
    missing = [key.name for key in all_keys() if key.name not in its_keys]
    if not its_keys:
        return ""
    if not missing:
        return "It also accepts all [keys of a run](#keys-of-a-run).\n"
    if len(missing) < len(its_keys):
        return f"It also accepts all [keys of a run](#keys-of-a-run) but {names(missing)}.\n"
    return f"It also accepts these [keys of a run](#keys-of-a-run): {names(its_keys)}.\n"


def flag_table(flags: Sequence[Flag]) -> str:
    rows = [(code(flag), text(meaning)) for flag, meaning in map(flag_columns, flags)]
    return table(("flag", "meaning"), rows)


def key_table(keys: Sequence[Key]) -> str:
    rows = [(code(key.name), default_text(key), values_text(key), meaning_text(key))
            for key in keys]  # fmt: skip
    return table(("key", "default", "values", "meaning"), rows)


def default_text(key: Key) -> str:
    others = other_defaults_text(key)
    return code(default_of(key)) + (f"<br>{text(others)}" if others else "")


def values_text(key: Key) -> str:
    if key.choices:
        return ", ".join(map(code, key.choices))
    return text(key.rule.wanted.removeprefix("must be "))


def meaning_text(key: Key) -> str:
    return text(key.meaning + (f" ({owners_text(key)})" if key.owners else ""))


def names(keys: Sequence[str]) -> str:
    return ", ".join(map(code, keys))


def code(word: str) -> str:
    return f"`{word}`" if word else ""


def text(words: str) -> str:
    """Escapes the characters of a sentence in a table that Markdown would take for its own."""
    for special in ("_", "*", "[", "]", "<", "|"):
        words = words.replace(special, f"\\{special}")
    return words


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return tabulate(rows, header, tablefmt="pipe", disable_numparse=True)


def main() -> None:
    new = document()
    if "--check" in sys.argv[1:]:
        sys.exit(int(not DOCUMENT.is_file() or new != DOCUMENT.read_text()))
    DOCUMENT.write_text(new)


if __name__ == "__main__":
    main()
