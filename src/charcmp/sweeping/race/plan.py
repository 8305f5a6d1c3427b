"""Plans how long a race's runs are, so that all of them fit into the minutes given.

A race has three rungs of annealed runs, each about three times as long as the one before. The time
left after them goes into further seeds of the last models. Before each rung the rest of the race is
planned again, for the time and the models that are left.

Runs go in batches: the next batch cannot begin before the last run of the one before has ended. So
a batch takes whole rounds of the slots, however few runs its last round has.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

from charcmp.errors import UserError

# Length of each rung's runs as a share of the last rung's. Losses in the middle of a schedule are
# never compared: the runs of every rung are annealed to zero.
RUNG_SHARES = (1 / 8, 1 / 3, 1.0)
# Of each rung after the first: how many models it has room for; the safe choice may be one more.
MOST_MODELS = {1: 5, 2: 3}
# Of each rung: the rates that each model is first tried at, and for how many more the plan leaves
# time (for every second model a fourth one in the first rung), which are run when those have ended.
FIRST_RATES_EACH = (3, 2, 1)
FURTHER_RATES_EACH = (0.5, 0.0, 0.0)
SEEDS_PLANNED = 3  # of the leader and its challenger, for which the plan leaves time
MIN_UPDATES = 100  # of the first rung: fewer distinguish models no better than a coin
# Limits of the last rung; time that is left then goes into seeds. A model needs fewer epochs than
# this to learn a short text by heart.
MAX_UPDATES, MAX_EPOCHS = 24_000, 100
USABLE = 0.95  # of the time; the rest is lost waiting for the slowest run of each batch
SECONDS_PER_RUN = 0.5  # to start a run and to write its files
SECONDS_OF_CHECKS = 0.5  # of a class of the user's, before its first step


class Cost(NamedTuple):
    """How long the runs of a model take in one slot; seconds."""

    per_run: float  # however short it is: its start, its evaluations
    per_update: float


class TooLittleTimeError(UserError):
    """Not even a race of the shortest rungs fits into the time that is left."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"a race takes at least {seconds:.0f} seconds")
        self.seconds = seconds  # that such a race takes


def num_planned_runs(rung: int, num_models: int, num_slots: int) -> list[int]:
    """Returns how many runs the slots have time for in this rung and in each later one; those of
    the last include further seeds."""

    def whole_rounds(runs: float) -> int:
        return num_slots * math.ceil(runs / num_slots)

    models = {rung: num_models} | {
        later: min(most, num_models) for later, most in MOST_MODELS.items() if later > rung
    }
    runs = [
        whole_rounds(models_here * FIRST_RATES_EACH[here])
        + whole_rounds(models_here * FURTHER_RATES_EACH[here])
        for here, models_here in models.items()
    ]
    runs[-1] += whole_rounds((SEEDS_PLANNED - 1) * min(2, num_models))
    return runs


def longest_run(
    rung: int, seconds_left: float, num_slots: int, costs: Sequence[Cost], num_models: int
) -> float:
    """Returns the updates of a last-rung run with which this rung and those after it fit.

    Args:
        rung: the next one, counted from 0.
        seconds_left: until the race ends.
        num_slots: how many runs go on at once.
        costs: of each arm of this rung.
        num_models: in this rung.

    Raises:
        TooLittleTimeError: before the first rung, if not even the shortest rungs fit.
    """
    # A batch of one round takes as long as its slowest run; longer ones even out.
    typical = max if len(costs) <= num_slots else statistics.fmean
    per_run, per_update = (typical(column) for column in zip(*costs, strict=True))
    runs = num_planned_runs(rung, num_models, num_slots)
    fixed = per_run * sum(runs)
    by_length = per_update * sum(
        n * share for n, share in zip(runs, RUNG_SHARES[rung:], strict=True)
    )
    longest = (USABLE * num_slots * seconds_left - fixed) / by_length
    shortest = MIN_UPDATES / RUNG_SHARES[0]
    if rung == 0 and longest < shortest:
        raise TooLittleTimeError((fixed + shortest * by_length) / USABLE / num_slots)
    return min(longest, MAX_UPDATES)


def nearest_length(updates: float, updates_per_epoch: int, most: float = math.inf) -> int:
    """Returns the closest length that a run can have: part of one epoch, or whole epochs; one epoch
    less if that is more than `most` updates."""
    if updates < updates_per_epoch:
        return max(1, round(updates))
    epochs = min(round(updates / updates_per_epoch), MAX_EPOCHS)
    if epochs * updates_per_epoch > most and epochs > 1:
        epochs -= 1
    return epochs * updates_per_epoch
