"""`charcmp completion bash`: tab completion of commands, flags, keys, values, run ids and files.

The script that the shell evaluates calls `charcmp completion query SHELL LINE` at each tab. No
library fits: argcomplete and shtab complete argparse's command lines, and ours have key=value.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path

from charcmp.cli.commands import COMMANDS, GROUPS, SELECT, Command, Flag, config_folders
from charcmp.config.keys import Key, all_keys, choices_of
from charcmp.config.literal import PATH_KEYS
from charcmp.data.dataset import builtin_datasets, is_fetched
from charcmp.output import fail

BASH = """\
_charcmp() {
    COMPREPLY=()
    local candidate
    while IFS= read -r candidate; do
        COMPREPLY+=("$candidate")
    done < <("$1" completion query bash "${COMP_LINE:0:COMP_POINT}" 2>/dev/null)
    # After cell= or a folder more is to come.
    [[ ${COMPREPLY[0]} == *[=/] ]] && compopt -o nospace
}
complete -F _charcmp charcmp
"""
ZSH = """\
_charcmp() {
    local -a found
    local line="${(j: :)words[1,CURRENT-1]} $PREFIX"
    found=("${(@f)$($words[1] completion query zsh "$line" 2>/dev/null)}")
    # After cell= or a folder more is to come.
    compadd -S '' -- ${(M)found:#*[=/]}
    compadd -- ${found:#*[=/]}
}
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit }
compdef _charcmp charcmp
"""
FISH = """\
complete -c charcmp -f -a '(charcmp completion query fish (commandline -cp | string collect))'
"""
SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}


def completion(args: list[str]) -> None:
    """Runs `charcmp completion`."""
    match args:
        case [shell] if shell in SCRIPTS:
            print(SCRIPTS[shell], end="")
        case ["query", shell, line]:
            words, is_quoted = split_line(line)
            for candidate in candidates(words):
                print(_as_inserted(shell, candidate, words[-1], is_quoted))
        case _:
            fail(f"completion needs a shell: charcmp completion {'|'.join(SCRIPTS)}")


def split_line(line: str) -> tuple[list[str], bool]:
    """Returns the words of a line up to the cursor, and whether the last one's quote is open.

    The last word is empty if the line ends with a blank.
    """
    for quote in ("", "'", '"'):
        try:
            words = shlex.split(line + quote)
        except ValueError:  # an open quote, or a backslash at the end
            continue
        if not quote and re.search(r"(?<!\\)\s$", line):
            words.append("")
        return words, bool(quote)
    return shlex.split(line.rstrip("\\")), False


def _as_inserted(shell: str, candidate: str, typed: str, is_quoted: bool) -> str:
    """Returns a candidate as the shell inserts it.

    Bash breaks words at `=` and `:`, so it gets only what comes after the last of these; unless the
    user has opened a quote, special characters are escaped.
    """
    if shell != "bash":
        return candidate
    rest = candidate[max(typed.rfind("="), typed.rfind(":")) + 1 :]
    return rest if is_quoted else re.sub(r"([^\w@%+=:,./~-])", r"\\\1", rest)


def candidates(words: Sequence[str]) -> list[str]:
    """Returns what the last word can become, given those before it; the first is the program."""
    current = words[-1]
    if len(words) == 2 or words[1:-1] == ["help"]:
        return _starting(current, [*COMMANDS, *(["--help", "--version"] * (len(words) == 2))])
    if len(words) < 2 or (command := COMMANDS.get(words[1])) is None:
        return []
    flags = {flag.name: flag for flag in command.all_flags}
    before = flags.get(words[-2])
    if before is not None and before.value:
        return _of_flag(before, current)
    name, equals, value = current.partition("=")
    if name in flags and equals:
        return [f"{name}={candidate}" for candidate in _of_flag(flags[name], value)]
    if current.startswith("-"):
        return _starting(current, [*flags, "--help"])
    if equals:
        return [f"{name}={candidate}" for candidate in _of_key(command, name, value, words)]
    return _starting(current, _words_and_keys(command, words)) + (
        _files(current) if command.takes_text else []
    )


def _words_and_keys(command: Command, words: Sequence[str]) -> list[str]:
    """Returns what a new word can be: the keys that the line does not have yet, or subcommands."""
    given = _given(words)
    keys = {key.name: key for key in all_keys()}
    its_keys = [*command.own_keys, *command.run_keys]
    names = [key.name for key in its_keys] + list(command.narrowed_by)
    keys |= {key.name: key for key in command.own_keys}
    of_keys = [f"{name}=" for name in names if name not in given and _fits(keys[name], given)]
    if command.name == "data":
        subcommands = ["fetch", "build-lk"] if len(words) == 3 else []
        return subcommands + (_fetched() if words[2:3] == ["fetch"] and len(words) > 3 else [])
    if command.name == "completion":
        return list(SCRIPTS)
    return of_keys


def _fetched() -> list[str]:
    return [name for name, dataset in builtin_datasets().items() if is_fetched(dataset)]


def _given(words: Iterable[str]) -> dict[str, str]:
    """Returns the keys that the line has already, with their values."""
    parted = (word.partition("=") for word in words)
    return {key: value for key, equals, value in parted if equals}


def _fits(key: Key, given: dict[str, str]) -> bool:
    """Returns whether the line's choice of cell or optimiser has this option; yes without one."""
    group = key.name.partition(".")[0]
    chosen = given.get(group, "").split(",")
    return not key.owners or group not in given or any(choice in key.owners for choice in chosen)


def _of_flag(flag: Flag, current: str) -> list[str]:
    if flag.choices:
        return _one_more_of_list(current, flag.choices)
    if flag.value == "FOLDER":
        return [file for file in _files(current) if file.endswith("/")]
    return _starting(current, [flag.value])


def _of_key(command: Command, name: str, current: str, words: Sequence[str]) -> list[str]:
    """Returns the values that a key can have."""
    given = _given(words)
    if name in PATH_KEYS:
        return _files(current)
    if name == "run":
        ids = (Path(given.get("results_dir") or "results") / "runs").glob("*")
        return _starting(current, sorted(run.name for run in ids)) or _files(current)
    selects = [option.partition("=")[2] for option in SELECT if option.startswith(f"{name}=")]
    choices = [*_choices(command, name, words), *(selects if command.name == "sweep" else [])]
    return _one_more_of_list(current, choices)


def _choices(command: Command, name: str, words: Sequence[str]) -> tuple[str, ...]:
    if name in GROUPS:
        return choices_of(name, config_folders(words))
    known = [*all_keys(), *command.own_keys]
    return next((key.choices for key in known if key.name == name), ())


def _one_more_of_list(current: str, choices: Iterable[str]) -> list[str]:
    """Completes the last value of a list: `gru,ls` becomes `gru,lstm`."""
    before, comma, last = current.rpartition(",")
    values = before.split(",")
    return [before + comma + choice for choice in _starting(last, choices) if choice not in values]


def _starting(current: str, words: Iterable[str]) -> list[str]:
    return [word for word in words if word.startswith(current)]


def _files(current: str) -> list[str]:
    """Returns the files and folders whose path begins with `current`, folders with a slash."""
    folder, slash, start = current.rpartition("/")
    try:
        entries = sorted(
            os.scandir(Path(folder + slash).expanduser()), key=lambda entry: entry.name
        )
    except OSError:
        return []
    return [
        f"{folder}{slash}{entry.name}{'/' if entry.is_dir() else ''}"
        for entry in entries
        if entry.name.startswith(start) and not (entry.name.startswith(".") and not start)
    ]
