"""Lets measurements take turns, so that what else the machine does affects all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TypeVar

Name = TypeVar("Name")
Measured = TypeVar("Measured")


def take_turns(
    measurements: Mapping[Name, Callable[[], Measured]], rounds: int, warm_up: int = 0
) -> dict[Name, list[Measured]]:
    """Makes each measurement once a round; returns by name what it returned in every round.

    Args:
        measurements: called in this order in every round.
        rounds: how many are returned.
        warm_up: rounds before these, which are not returned.
    """
    found: dict[Name, list[Measured]] = {name: [] for name in measurements}
    for number in range(warm_up + rounds):
        for name, measure in measurements.items():
            value = measure()
            if number >= warm_up:
                found[name].append(value)
    return found


def seconds_of(call: Callable[[], object]) -> float:
    """Returns the seconds of the clock that a call takes."""
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun
