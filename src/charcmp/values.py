"""What can be said of an option where it is declared: its default, its meaning, its values.

Checks, `--help`, tab completion and docs/options.md all read it there.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import field, fields
from typing import Any, NamedTuple

MISSING = "???"  # omegaconf.MISSING, without its import: a value that somebody else must give


class Rule(NamedTuple):
    """Which values will do."""

    holds: Callable[[Any], object]  # whether this one does
    wanted: str  # what a user reads where one does not
    choices: tuple[str, ...] = ()  # all of them, where they can be listed


def any_value(value: Any) -> bool:
    return True


ANY = Rule(any_value, "")  # of its type; or the module that uses it knows which


def option(default: Any, meaning: str, rule: Rule = ANY) -> Any:
    """A dataclass's field: its default, what it means in a line of `--help`, its values.

    A list or a dict as default is copied for each instance.
    """
    metadata = {"meaning": meaning, "rule": rule}
    if isinstance(default, list | dict):
        return field(default_factory=default.copy, metadata=metadata)
    return field(default=default, metadata=metadata)


def rules_of(schema: Any) -> dict[str, Rule]:
    """The rules that a dataclass's own fields name, by field."""
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
    """`; did you mean gru?`, or nothing where no known word is like this one.

    Of keys with dots, such as `optimizer.lr`, the last part alone is enough.
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
