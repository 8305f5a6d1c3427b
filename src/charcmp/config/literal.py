"""Paths on a command line, taken as typed.

Hydra's grammar gives commas, brackets, equals signs, quotes and spaces a meaning of their own and
has no letters beyond ASCII, so paths with any of them have to be quoted.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

PATH_KEYS = ("dataset.path", "data_dir", "results_dir")
PATH = re.compile(
    rf"(?P<key>\+{{0,2}}(?P<name>{'|'.join(map(re.escape, PATH_KEYS))}))=(?P<value>.+)", re.S
)
PLAIN = re.compile(r"(?!\.?\d)[A-Za-z_./][A-Za-z0-9_./-]*")  # Hydra reads these as plain text ...
NO_TEXT = ("null", "true", "false", "nan", "inf")  # ... except for these
QUOTED = re.compile(r"'.*'|\".*\"", re.S)
SWEEP = re.compile(r"(choice|glob|range|shuffle|sort)\(.*\)", re.S)


def literal_path(arg: str) -> str:
    """Rewrites a path's override in Hydra's grammar so that it names the path as typed.

    Hydra's own forms keep their meaning unless a file has that name: a quoted value,
    `choice(a.txt,b.txt)`, `null`, `${...}`, and for dataset.path several files, `a.txt,b.txt`.
    """
    if not (override := PATH.fullmatch(arg)):
        return arg
    key, value = override["key"], override["value"]
    is_there = os.path.lexists(value)
    if not is_there and (QUOTED.fullmatch(value) or SWEEP.fullmatch(value) or value == "null"):
        return arg
    value = expanded(value)
    files = value.split(",")
    if override["name"] == "dataset.path" and not is_there and any(map(os.path.isfile, files)):
        return f"{key}={','.join(map(_in_hydras_grammar, files))}"
    return f"{key}={_in_hydras_grammar(value, is_there)}"


def expanded(path: str) -> str:
    """Returns a path with the home folder for a leading ~/, which shells leave after key=."""
    is_home = path.startswith("~/") and not os.path.lexists(path)
    return str(Path(path).expanduser()) if is_home else path


def _in_hydras_grammar(path: str, is_there: bool = True) -> str:
    if PLAIN.fullmatch(path) and path.lower() not in NO_TEXT:
        return path
    return quoted(path) if is_there else quoted(path, interpolate=True)


def unescaped(text: str) -> str:
    """Undoes the escapes with which `quoted` keeps `${x}` from being resolved."""
    return re.sub(r"(?<!\\)(\\*)\1\\\$\{", r"\1${", text)


def quoted(text: str, interpolate: bool = False) -> str:
    """Quotes a text in Hydra's grammar; `${x}` in it is literal unless `interpolate` is set."""
    from hydra.core.override_parser.types import Quote, QuotedString

    if not interpolate:
        text = re.sub(r"(\\*)\$\{", r"\1\1\\${", text)
    return QuotedString(text, Quote.single).with_quotes()
