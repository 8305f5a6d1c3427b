"""The keys of `charcmp sample` and `charcmp score`: key=value as everywhere, but values as typed.

These commands configure no run, so Hydra has no part in them, and no value needs its quoting: a
prime may hold commas, brackets and `=`.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any, TypeVar, get_type_hints

from charcmp.errors import UserError, require

SAMPLE_USAGE = """\
charcmp sample run=RUN [key=value ...]   text from a trained run, as it is generated

  run=wp-lstm-1x64     a run id in results_dir, or a beginning that only one has, or a run's folder
  temperature=1.0      below 1 more likely text, towards 0 always the most likely byte
  length=2000          bytes to generate
  prime="Natasha "     what the text begins with; without it, a byte drawn uniformly
  seed=0               the same seed, the same text
  top_k=null           draws among the k most likely bytes only
  raw=false            true: the bytes themselves, for a file or a pipe. Otherwise they are decoded
                       as UTF-8, what is none becomes U+FFFD, and a terminal is shown control
                       characters as \\x1b (carriage returns not at all)
  target=null          of a run of cell=module, its class again: package.Class or my_cell.py:MyCell
  results_dir=results  data_dir=null
"""
SCORE_USAGE = """\
charcmp score run=RUN FILE [key=value ...] [--json]   nats per character of any text under a run
charcmp score run=RUN split=test [--json]             the same of a part of the run's own corpus

  run=wp-lstm-1x64      a run id in results_dir, or a beginning that only one has, or a run's folder
  FILE                  read as one stream from a zero state; its first byte is not predicted.
                        A run of task=fill predicts each byte from the text on both sides of it
  unknown_bytes=error   or skip: bytes the run's corpus does not have are left out and counted
  split=null            train, val or test, in the rows of the run: for test, its own test loss
  target=null          of a run of cell=module, its class again: package.Class or my_cell.py:MyCell
  results_dir=results  data_dir=null
"""
Options = TypeVar("Options", "SampleOptions", "ScoreOptions")


@dataclass(frozen=True)
class SampleOptions:
    run: str = ""
    temperature: float = 1.0
    length: int = 2000
    prime: str = ""
    seed: int = 0
    top_k: int | None = None
    raw: bool = False
    target: str | None = None
    results_dir: str = "results"
    data_dir: str | None = None

    def __post_init__(self) -> None:
        require(bool(self.run), "sample needs a run: charcmp sample run=RUN; charcmp status lists")
        require(
            0 < self.temperature < math.inf,
            f"temperature={self.temperature}: must be above 0 and finite (0.001 is nearly 0)",
        )
        require(self.length >= 1, f"length={self.length}: must be at least 1")
        require(0 <= self.seed < 2**63, f"seed={self.seed}: must be in [0, 2^63)")
        require(self.top_k is None or self.top_k >= 1, f"top_k={self.top_k}: must be at least 1")


@dataclass(frozen=True)
class ScoreOptions:
    run: str = ""
    file: str | None = None
    split: str | None = None
    unknown_bytes: str = "error"
    target: str | None = None
    results_dir: str = "results"
    data_dir: str | None = None

    def __post_init__(self) -> None:
        require(bool(self.run), "score needs a run: charcmp score run=RUN FILE")
        require(
            (self.file is None) != (self.split is None),
            "score needs a FILE or split=test, one of them",
        )
        require(
            self.split is None or self.unknown_bytes == "error",
            "unknown_bytes has no effect on a split: its bytes are the run's own",
        )
        choices = {"split": ("train", "val", "test", None), "unknown_bytes": ("error", "skip")}
        for key, values in choices.items():
            given = ", ".join(value for value in values if value)
            require(getattr(self, key) in values, f"{key}={getattr(self, key)}: one of {given}")


def parse(args: list[str], options: type[Options]) -> Options:
    """The options that arguments give; an argument that is not key=value is the file to score.

    Raises:
        UserError: for an unknown key, or a value that it cannot have.
    """
    types = get_type_hints(options)
    given: dict[str, Any] = {}
    for arg in args:
        key, equals, text = arg.partition("=")
        if not (equals and re.fullmatch(r"[a-z_]+", key)):  # not even a key: a file
            key, text = "file", arg
        if key not in types:
            command = options.__name__.removesuffix("Options").lower()
            raise UserError(f"{arg}: not understood; charcmp {command} --help lists the keys")
        if key in given:
            raise UserError(f"{arg}: {key} is given twice")
        given[key] = _convert(key, text, types[key])
    return options(**given)


def _convert(key: str, text: str, to: Any) -> Any:
    """A value as typed; UserError if it is of another type."""
    if to in (str, str | None):
        return None if to is not str and text == "null" else text
    if to is bool:
        require(text in ("true", "false"), f"{key}={text}: true or false")
        return text == "true"
    if to == int | None and text == "null":
        return None
    try:
        return float(text) if to is float else int(text)
    except ValueError:
        raise UserError(f"{key}={text}: not a {'' if to is float else 'whole '}number") from None
