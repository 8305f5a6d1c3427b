"""Reads a command's line: its own flags, Hydra's flags, and overrides in Hydra's grammar."""

from __future__ import annotations

import stat
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from charcmp.cli.commands import COMMANDS, GROUPS, SELECT, Flag, config_folders
from charcmp.cli.one_line import in_one_line, one_line_errors
from charcmp.config.compose import VERSION_BASE, Composer, compose_line
from charcmp.config.keys import all_keys
from charcmp.config.literal import literal_path
from charcmp.config.schema import register_schemas
from charcmp.files import config_dir, is_there
from charcmp.output import fail
from charcmp.values import did_you_mean

# Hydra's flags that make sense here. The others are refused like unknown flags: they would print
# Hydra's plugins, or run something that is no command of ours.
HYDRA_FLAGS = (
    *("--cfg", "-c", "--package", "-p", "--resolve"),
    *("--config-path", "--config-name", "--config-dir", "-cp", "-cn", "-cd"),
)
FLAGS_WITH_A_VALUE = (
    *("--cfg", "-c", "--package", "-p"),
    *("--config-path", "-cp", "--config-name", "-cn", "--config-dir", "-cd"),
)


@dataclass(frozen=True)
class Line:
    """The words typed after a command."""

    flags: frozenset[str]  # the command's own flags that take no value
    options: dict[str, str]  # the command's own flags that take one, with their values
    hydra: list[str]  # the rest, in Hydra's order: overrides, then Hydra's own flags

    @property
    def only_prints(self) -> bool:
        """Whether Hydra only prints the configuration, and nothing is run."""
        return only_prints(self.hydra)


def only_prints(args: Sequence[str]) -> bool:
    return any(word.split("=")[0] in ("--cfg", "-c") for word in args)


def read_line(command: str, args: Sequence[str]) -> Line:
    """Takes a line apart; if it is not understood, ends the program with a one-line message.

    Args:
        command: the command's name. Its row in COMMANDS says which flags it has; one with a value
            is written `--format csv` or `--format=csv`.
        args: the words that follow it.
    """
    known = {flag.name: flag for flag in COMMANDS[command].flags}
    given: set[str] = set()
    values: dict[str, str] = {}
    rest: list[str] = []
    texts: list[str] = []
    words = iter(args)
    for word in words:
        name, equals, value = word.partition("=")
        flag = known.get(name)
        if flag is not None and flag.value:
            values[name] = value if equals else next(words, "")
            _check_value(command, flag, values[name])
        elif word in known:
            given.add(word)
        elif word.startswith("-") and name not in HYDRA_FLAGS:
            fail(_unknown_flag(command, name))
        elif COMMANDS[command].takes_text and _is_text(word, rest[-1:]):
            texts.append(word)
        else:
            rest.append(word)
    rest += _of_text(command, texts, rest)
    line = Line(frozenset(given), values, _overrides_first(rest))
    for folder in config_folders(rest):
        if not is_there(Path(folder), stat.S_ISDIR):
            fail(f"--config-dir={folder}: no such folder")
    if "--resolve" in rest and not line.only_prints:
        fail("--resolve needs --cfg job")
    return line


def _is_text(word: str, before: Sequence[str]) -> bool:
    """Returns whether a word names a text: a file, even one with a `=` in its name, or no key.

    Keys come first: `cell=gru` sets one even where a file is called so. If the word can be neither
    an override nor a file, ends the program with a one-line message.

    Args:
        before: the word before it, if there is one.
    """
    if word.startswith("-") or (before and is_flags_value(before[0], word)):
        return False
    name, equals, _ = word.partition("=")
    is_override = bool(equals) or word.startswith("~")  # `~key` deletes the key in Hydra's grammar
    is_known = name.lstrip("+~") in {key.name for key in all_keys()}
    if is_override and is_known:
        return False
    if is_there(Path(word), stat.S_ISREG):
        return True
    if is_override and not word.startswith("~/"):
        return False  # of a key that Hydra or our own check knows not, and they say so
    if is_there(Path(word), stat.S_ISDIR):
        fail(f"{word}: a folder, not a file")
    if is_known or ("." not in word and "/" not in word):
        fail(f"{word}: no such file; keys are set by key=value")
    return True  # the loader says that there is no such file


def _of_text(command: str, texts: Sequence[str], rest: Sequence[str]) -> list[str]:
    """Returns the overrides that make a file the command's text."""
    if len(texts) > 1:
        fail(f"{command} takes one text, not {len(texts)}: {' '.join(texts)}")
    others = [word for word in rest if word.lstrip("+").startswith(("dataset=", "dataset.path="))]
    if texts and others:
        fail(f"{command} takes one text, not both {texts[0]} and {others[0]}")
    return [word for text in texts for word in ("dataset=text", f"dataset.path={text}")]


def _check_value(command: str, flag: Flag, value: str) -> None:
    if not value:
        fail(f"{flag.name} needs a value: charcmp {command} --help")
    for part in value.split(",") if flag.choices else ():
        if part not in flag.choices:
            meant = did_you_mean(part, flag.choices)
            fail(f"{flag.name} {part}: one or more of {', '.join(flag.choices)}{meant}")


def _unknown_flag(command: str, name: str) -> str:
    if name in ("--multirun", "-m"):
        return f"{command} has no {name}: charcmp sweep trains a grid of runs"
    flags = [flag.name for flag in COMMANDS[command].all_flags]
    meant = did_you_mean(name, flags)
    return f"{command} has no {name}{meant or '; its flags: ' + ', '.join(flags)}"


def _overrides_first(args: list[str]) -> list[str]:
    """Returns the line's overrides in Hydra's grammar, then Hydra's own flags with their values.

    Hydra's parser wants all overrides in one piece.
    """
    flags: list[str] = []
    overrides: list[str] = []
    for before, word in zip(["", *args], args, strict=False):
        is_flags = word.startswith("-") or is_flags_value(before, word)
        (flags if is_flags else overrides).append(word)
    return [*(literal_path(_as_one_override(override)) for override in overrides), *flags]


def is_flags_value(before: str, word: str) -> bool:
    """Returns whether a word is the value of the Hydra flag before it."""
    return before in FLAGS_WITH_A_VALUE and "=" not in word


def _as_one_override(arg: str) -> str:
    """Returns a word as one override that Hydra understands.

    `dropout=select` and the like become their values. `gpus=0,1` is quoted, since it is one value,
    not two. Keys in a free-form mapping get a `+`, which adds names that nobody has declared.
    """
    if arg in SELECT:
        return SELECT[arg]
    key, _, value = arg.partition("=")
    if value and key in {known.name for known in all_keys() if known.default == "{}"}:
        return f"+{arg}"
    return f"gpus='{value}'" if key == "gpus" and value[:1] not in ("'", '"') else arg


def run_hydra(args: Sequence[str]) -> None:
    """Runs hydra.main: the training task, the sweeper (with --multirun), or only printing."""
    import hydra

    from charcmp.cli.task import train_task

    _refuse_what_hydra_cannot_read(args)
    register_schemas()
    sys.argv = [sys.argv[0], *args]
    run = hydra.main(version_base=VERSION_BASE, config_path=str(config_dir()), config_name="config")
    with in_one_line(only_prints(args)):
        run(train_task)()


def run_composed(line: Line, run: Callable[[Composer], None]) -> None:
    """Runs a command on the configuration of its line, or lets Hydra print what it was asked for.

    A user's mistake ends the program with a one-line message.
    """
    if line.only_prints:
        run_hydra(line.hydra)
        return
    _refuse_what_hydra_cannot_read(line.hydra)
    with in_one_line(), one_line_errors():
        run(_composed(line.hydra))


def _composed(args: Sequence[str]) -> Composer:
    from hydra._internal.utils import compute_search_path_dir, get_args_parser

    given = get_args_parser().parse_args(args)
    folder = given.config_path and compute_search_path_dir(None, __name__, given.config_path)
    extra = given.config_dir and str(Path(given.config_dir).absolute())
    return compose_line(given.overrides, folder, given.config_name or "config", extra)


def _refuse_what_hydra_cannot_read(args: Sequence[str]) -> None:
    for group in GROUPS:  # Hydra itself ends in a traceback here
        if f"{group}=null" in args or f"{group}=" in args:
            fail(f"{group} needs a choice: charcmp train --help lists them")
    if any("\udc80" <= char <= "\udcff" for arg in args for char in arg):
        fail(
            "the command line has bytes that are not text in this terminal's encoding; rename the "
            "file that it names"
        )
