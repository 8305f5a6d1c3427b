"""Rules for the value of an option: which values will do, and what a user reads where one does not.

An option of a cell or an optimiser names its rule where it is declared (`option`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import field, fields
from typing import Any

Rule = tuple[Callable[[Any], object], str]  # whether a value will do, and what is wanted


def option(default: Any, rule: Rule) -> Any:
    """A dataclass's field with a default and a rule for its values."""
    return field(default=default, metadata={"rule": rule})


def rules_of(schema: Any) -> dict[str, Rule]:
    """The rules that a dataclass's own fields name, by field."""
    return {f.name: f.metadata["rule"] for f in fields(schema) if "rule" in f.metadata}


def one_of(choices: Iterable[str], remark: str = "") -> Rule:
    return (lambda value: value in choices), f"one of {', '.join(choices)}{remark}"


def matching(pattern: str, wanted: str) -> Rule:
    return re.compile(pattern).fullmatch, wanted


def or_null(rule: Rule) -> Rule:
    holds, wanted = rule
    return (lambda value: value is None or holds(value)), f"{wanted}, or null"


def whole_up_to(most: int) -> Rule:
    return (lambda value: 1 <= value <= most), f"must be at least 1 and at most {most:,}"


AT_LEAST_1: Rule = (lambda value: value >= 1, "must be at least 1")
NOT_NEGATIVE: Rule = (lambda value: value >= 0, "must be 0 or more")
POSITIVE: Rule = (lambda value: 0 < value < math.inf, "must be positive and finite")
BELOW_1: Rule = (lambda value: 0 <= value < 1, "must be in [0, 1)")
FINITE: Rule = (math.isfinite, "must be a finite number")
FINITE_NOT_NEGATIVE: Rule = (lambda value: 0 <= value < math.inf, "must be 0 or more and finite")
