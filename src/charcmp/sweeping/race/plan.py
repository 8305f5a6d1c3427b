"""How long a race's runs are, so that all of them fit into the minutes that there are.

A race has three rungs of annealed runs, each about three times as long as the one before; what is
left of the time goes into further seeds of the last models.
"""

from __future__ import annotations

from dataclasses import dataclass

from charcmp.errors import UserError

# Of the last rung's updates. Losses in the middle of a schedule are never compared: every rung is
# annealed to zero.
RUNG_SHARES = (1 / 8, 1 / 3, 1.0)
# Models and arms that a plan makes room for; fewer may be left.
MOST_MODELS = (9, 5, 3)
ARMS_PER_MODEL = (3.5, 2.0, 1.0)  # the first rung tries three rates, at times a fourth
SEEDS = 3  # of the last models, in all
MIN_UPDATES = 150  # of the first rung: fewer tell learning from chance no better than a coin
MAX_UPDATES = 24_000  # of the last rung: what is left then goes into seeds
USABLE = 0.9  # of the slots' time: starting runs and waiting for the last ones takes the rest


@dataclass(frozen=True)
class Plan:
    """The rungs of a race."""

    updates: tuple[int, ...]  # of a run, by rung
    epochs: tuple[int, ...]  # the same in whole epochs of this text
    seconds: float  # that all of it will take on one slot


def make_plan(slot_seconds: float, seconds_per_update: list[float], updates_per_epoch: int) -> Plan:
    """The longest rungs that fit.

    Args:
        slot_seconds: the time that there is, times the runs at once.
        seconds_per_update: of each model, in a slot.
        updates_per_epoch: of this text.

    Raises:
        UserError: if not even the shortest rungs fit; says how many minutes they take.
    """
    num_models = len(seconds_per_update)
    mean = sum(seconds_per_update) / num_models
    runs_of_last = 0.0
    for share, models, arms in zip(RUNG_SHARES, MOST_MODELS, ARMS_PER_MODEL, strict=True):
        runs_of_last += share * min(models, num_models) * arms
    runs_of_last += (SEEDS - 1) * min(2, num_models)
    longest = USABLE * slot_seconds / (runs_of_last * mean)
    shortest = MIN_UPDATES / RUNG_SHARES[0]
    if longest < shortest:
        needed = shortest * runs_of_last * mean / USABLE
        raise UserError(
            f"too little time: a race of {num_models} models takes at least {needed / 60:.1f} "
            "minutes of one slot of this machine; fewer models (cell=, layers=) take less"
        )
    longest = min(longest, MAX_UPDATES)
    epochs = tuple(max(1, round(share * longest / updates_per_epoch)) for share in RUNG_SHARES)
    updates = tuple(number * updates_per_epoch for number in epochs)
    return Plan(updates, epochs, updates[-1] * runs_of_last * mean)
