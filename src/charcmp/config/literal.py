"""Paths on a command line, taken as typed: Hydra's grammar has a meaning for commas, brackets,
equals signs, quotes and blanks, and none for letters beyond ASCII."""

from __future__ import annotations

import os
import re
from pathlib import Path

PATH_KEYS = ("dataset.path", "data_dir", "results_dir")
PATH = re.compile(
    rf"(?P<key>\+{{0,2}}(?P<name>{'|'.join(map(re.escape, PATH_KEYS))}))=(?P<value>.+)", re.S
)
PLAIN = re.compile(r"(?!\.?\d)[A-Za-z_./][A-Za-z0-9_./-]*")  # Hydra reads it as it is
NO_TEXT = ("null", "true", "false", "nan", "inf")  # ... but not these
QUOTED = re.compile(r"'.*'|\".*\"", re.S)
SWEEP = re.compile(r"(choice|glob|range|shuffle|sort)\(.*\)", re.S)


def literal_path(arg: str) -> str:
    """An override in Hydra's grammar that names the same path as the given one, as typed.

    Hydra's own forms keep their meaning where there is no file of that name: a quoted value,
    `choice(a.txt,b.txt)`, `null`, `${...}`, and for dataset.path several files, `a.txt,b.txt`.
    """
    if not (override := PATH.fullmatch(arg)):
        return arg
    key, value = override["key"], override["value"]
    is_there = os.path.lexists(value)
    if not is_there and (QUOTED.fullmatch(value) or SWEEP.fullmatch(value) or value == "null"):
        return arg
    if value.startswith("~/") and not is_there:  # no shell puts a home folder there
        value = str(Path(value).expanduser())
    files = value.split(",")
    if override["name"] == "dataset.path" and not is_there and any(map(os.path.isfile, files)):
        return f"{key}={','.join(map(_in_hydras_grammar, files))}"
    return f"{key}={_in_hydras_grammar(value, is_there)}"


def _in_hydras_grammar(path: str, is_there: bool = True) -> str:
    if PLAIN.fullmatch(path) and path.lower() not in NO_TEXT:
        return path
    return quoted(path) if is_there else quoted(path, interpolate=True)


def unescaped(text: str) -> str:
    """A text in which `quoted` has kept `${x}` from being resolved, as it was."""
    return re.sub(r"(?<!\\)(\\*)\1\\\$\{", r"\1${", text)


def quoted(text: str, interpolate: bool = False) -> str:
    """A text as Hydra's grammar quotes it; `${x}` in it stands for itself unless told otherwise."""
    from hydra.core.override_parser.types import Quote, QuotedString

    if not interpolate:
        text = re.sub(r"(\\*)\$\{", r"\1\1\\${", text)
    return QuotedString(text, Quote.single).with_quotes()
