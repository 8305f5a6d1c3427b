"""Declarations of options: the default, the meaning and the allowed values, in one place.

Checks, `--help`, tab completion and docs/options.md all read them from there.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import field, fields
from typing import Any, NamedTuple

MISSING = "???"  # omegaconf.MISSING, without importing omegaconf: a value that must be given


class Rule(NamedTuple):
    """Which values an option may have."""

    holds: Callable[[Any], object]  # whether it may have this one
    wanted: str  # what the error message says is allowed
    choices: tuple[str, ...] = ()  # all allowed values, if they can be listed

    def problem(self, key: str, value: Any) -> str | None:
        """Returns the message for a value that the option may not have; None if it may."""
        if self.holds(value):
            return None
        return f"{key}={value}: {self.wanted}{did_you_mean(str(value), self.choices)}"


def any_value(value: Any) -> bool:
    return True


ANY = Rule(any_value, "")  # of the right type; the module that uses the option may check more


def option(default: Any, meaning: str, rule: Rule = ANY) -> Any:
    """Returns a dataclass field with its default, its line of `--help` and its allowed values.

    A default that is a list or a dict is copied for each instance.
    """
    metadata = {"meaning": meaning, "rule": rule}
    if isinstance(default, list | dict):
        return field(default_factory=default.copy, metadata=metadata)
    return field(default=default, metadata=metadata)


def rules_of(schema: Any) -> dict[str, Rule]:
    """Returns the rules of a dataclass's fields, by field; fields without one are left out."""
    return {f.name: f.metadata["rule"] for f in fields(schema) if "rule" in f.metadata}


def one_of(choices: Iterable[str], note: str = "") -> Rule:
    choices = tuple(choices)
    return Rule(lambda value: value in choices, f"one of {', '.join(choices)}{note}", choices)


def matching(pattern: str, wanted: str) -> Rule:
    return Rule(re.compile(pattern).fullmatch, wanted)


def or_null(rule: Rule) -> Rule:
    holds, wanted, choices = rule
    return Rule(lambda value: value is None or holds(value), f"{wanted}, or null", choices)


def whole_up_to(most: int) -> Rule:
    return Rule(lambda value: 1 <= value <= most, f"must be at least 1 and at most {most:,}")


AT_LEAST_1 = Rule(lambda value: value >= 1, "must be at least 1")
NOT_NEGATIVE = Rule(lambda value: value >= 0, "must be 0 or more")
POSITIVE = Rule(lambda value: 0 < value < math.inf, "must be positive and finite")
BELOW_1 = Rule(lambda value: 0 <= value < 1, "must be in [0, 1)")
FINITE = Rule(math.isfinite, "must be a finite number")
FINITE_NOT_NEGATIVE = Rule(lambda value: 0 <= value < math.inf, "must be 0 or more and finite")


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """Returns `; did you mean gru?`, or "" if no known word is like this one.

    For keys with dots, such as `optimizer.lr`, the last part alone is enough.
    """
    for alike in _alike(word, known):
        return f"; did you mean {alike}?"
    return ""


def _alike(word: str, known: Sequence[str]) -> Iterator[str]:
    last_parts = {name.rpartition(".")[2]: name for name in reversed(known)}
    if word in last_parts:
        yield last_parts[word]
    yield from difflib.get_close_matches(word, known, n=1)
    yield from (last_parts[part] for part in difflib.get_close_matches(word, last_parts, n=1))
