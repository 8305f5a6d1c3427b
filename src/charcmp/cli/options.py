"""The keys of `charcmp sample`, `score` and `doctor`: key=value, with the values taken as typed.

These commands configure no run, so they do without Hydra, and values need no quoting for its
grammar: a prime may contain commas, brackets and `=`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from charcmp.config.literal import expanded
from charcmp.config.schema import DEVICE, PRECISION
from charcmp.errors import UserError, require
from charcmp.files import is_there
from charcmp.values import (
    ANY,
    AT_LEAST_1,
    POSITIVE,
    Rule,
    did_you_mean,
    one_of,
    option,
    or_null,
    rules_of,
)

Options = TypeVar("Options", "SampleOptions", "ScoreOptions", "DoctorOptions")

SPLITS, UNKNOWN = ("train", "val", "test"), ("error", "skip")
SEED = Rule(lambda seed: 0 <= seed < 2**63, "must be in [0, 2^63)")  # what torch's generators take
PATH_KEYS = ("run", "target", "results_dir", "data_dir")
RUN = "a run's id, a beginning that only one id has, or a run's folder"
TARGET = "for a run of cell=module, its class: package.Class or my_cell.py:MyCell"
RESULTS_DIR = "folder of runs/, where run= is looked for"
DATA_DIR = "folder of the run's corpus; null: $CHARCMP_DATA, or the cache"


@dataclass(frozen=True)
class SampleOptions:
    """The keys of `charcmp sample`; UserError without a run."""

    run: str = option("", RUN)
    temperature: float = option(
        1.0, "below 1: likelier text; near 0: always the likeliest byte", POSITIVE
    )
    length: int = option(2000, "bytes to generate", AT_LEAST_1)
    prime: str = option("", "what the text begins with; without it, a byte drawn uniformly")
    seed: int = option(0, "the same seed gives the same text", SEED)
    top_k: int | None = option(None, "draw among the k most likely bytes only", or_null(AT_LEAST_1))
    raw: bool = option(
        False, "true: the bytes as they are, for a file or a pipe; false: decoded as UTF-8"
    )
    target: str | None = option(None, TARGET)
    results_dir: str = option("results", RESULTS_DIR)
    data_dir: str | None = option(None, DATA_DIR)

    def __post_init__(self) -> None:
        require(
            bool(self.run), "sample needs a run: charcmp sample run=RUN; charcmp status lists them"
        )


@dataclass(frozen=True)
class ScoreOptions:
    """The keys of `charcmp score`; UserError unless they name a run and one text."""

    run: str = option("", RUN)
    file: str | None = option(None, "the text file, given on the command line without key=")
    split: str | None = option(
        None, "a part of the run's own corpus, in place of a file", or_null(one_of(SPLITS))
    )
    unknown_bytes: str = option(
        "error",
        "what to do with bytes that the run's corpus lacks; skip: leave out and count",
        one_of(UNKNOWN),
    )
    target: str | None = option(None, TARGET)
    results_dir: str = option("results", RESULTS_DIR)
    data_dir: str | None = option(None, DATA_DIR)

    def __post_init__(self) -> None:
        require(bool(self.run), "score needs a run: charcmp score run=RUN FILE")
        require(
            (self.file is None) != (self.split is None),
            "score needs either a FILE or split=test",
        )
        require(
            self.split is None or self.unknown_bytes == "error",
            "unknown_bytes has no effect on a split: its bytes are the run's own",
        )


@dataclass(frozen=True)
class DoctorOptions:
    """The keys of `charcmp doctor`."""

    device: str = option("auto", "what to check; cuda:1 is the second GPU", DEVICE)
    precision: str = option(
        "float32", "precision of the matrix products that are checked", PRECISION
    )


def parse(args: list[str], options: type[Options]) -> Options:
    """Returns the options in the arguments.

    A command with the option `file` takes a word for it that is not key=value, or that is no key
    of its own but names a file.

    Raises:
        UserError: for an unknown key, one given twice, or a value that it cannot have.
    """
    types, rules = get_type_hints(options), rules_of(options)
    given: dict[str, Any] = {}
    for arg in args:
        key, equals, text = arg.partition("=")
        looks_like_a_key = equals and re.fullmatch(r"[a-z_]+", key)
        is_word = not looks_like_a_key and not arg.startswith("--")
        if "file" in types and (is_word or (key not in types and is_there(Path(arg)))):
            key, text = "file", arg
        elif not equals or key not in types:
            command = options.__name__.removesuffix("Options").lower()
            meant = did_you_mean(key, list(types)) or ";"
            raise UserError(f"{arg}: not understood{meant} charcmp {command} --help lists the keys")
        if key in given:
            raise UserError(f"{arg}: {key} is given twice")
        given[key] = value = _convert(key, text, types[key])
        if problem := rules.get(key, ANY).problem(key, value):
            raise UserError(problem)
    return options(**given)


def _convert(key: str, text: str, to: Any) -> Any:
    """Converts a value as typed; raises UserError if it is not of this type."""
    if to in (str, str | None):
        if to is not str and text == "null":
            return None
        return expanded(text) if key in PATH_KEYS else text
    if to is bool:
        require(text in ("true", "false"), f"{key}={text}: true or false")
        return text == "true"
    if to == int | None and text == "null":
        return None
    try:
        return float(text) if to is float else int(text)
    except ValueError:
        raise UserError(f"{key}={text}: not a {'' if to is float else 'whole '}number") from None
