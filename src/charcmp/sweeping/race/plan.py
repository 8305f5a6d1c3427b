"""Plans how long a race's runs are, so that all of them fit into the minutes given.

A race has three rungs of annealed runs, each about three times as long as the one before. The time
left after them goes into further seeds of the last models. Before each rung the rest of the race is
planned again, for the time and the models that are left.
"""

from __future__ import annotations

from collections.abc import Sequence

from charcmp.errors import UserError

# Length of each rung's runs as a share of the last rung's. Losses in the middle of a schedule are
# never compared: the runs of every rung are annealed to zero.
RUNG_SHARES = (1 / 8, 1 / 3, 1.0)
MOST_MODELS = (9, 5, 3)  # that a rung has room for; the safe choice may be one more
ARMS_PER_MODEL = (3.5, 2.0, 1.0)  # the first rung tries three rates, sometimes a fourth
SEEDS_PLANNED = 3  # of the leader and its challenger, for which the plan leaves time
MIN_UPDATES = 100  # of the first rung: fewer distinguish models no better than a coin
# Limits of the last rung; time that is left then goes into seeds. A model needs fewer epochs than
# this to learn a short text by heart.
MAX_UPDATES, MAX_EPOCHS = 24_000, 100
USABLE = 0.9  # of the slots' time; the rest is lost waiting for the last run of each rung
SECONDS_PER_RUN = 0.5  # to start a run and to write its files


def planned_runs(rung: int, num_models: int) -> list[float]:
    """Returns how many runs this rung and each later one have; the last includes further seeds."""
    runs = [num_models * ARMS_PER_MODEL[rung]]
    for later in range(rung + 1, len(RUNG_SHARES)):
        runs.append(min(MOST_MODELS[later], num_models) * ARMS_PER_MODEL[later])
    runs[-1] += (SEEDS_PLANNED - 1) * min(2, num_models)
    return runs


def longest_run(
    rung: int, slot_seconds: float, seconds_per_update: Sequence[float], num_models: int
) -> float:
    """Returns the updates of a last-rung run with which this rung and those after it fit.

    Args:
        rung: the next one, counted from 0.
        slot_seconds: the time that is left, times the number of slots.
        seconds_per_update: of each arm of this rung, in a slot.
        num_models: in this rung.

    Raises:
        UserError: before the first rung, if not even the shortest rungs fit; says how many minutes
            of a slot they take.
    """
    mean = sum(seconds_per_update) / len(seconds_per_update)
    runs = planned_runs(rung, num_models)
    per_update = mean * sum(n * share for n, share in zip(runs, RUNG_SHARES[rung:], strict=True))
    overhead = SECONDS_PER_RUN * sum(runs)
    longest = (USABLE * slot_seconds - overhead) / per_update
    shortest = MIN_UPDATES / RUNG_SHARES[0]
    if rung == 0 and longest < shortest:
        needed = (shortest * per_update + overhead) / USABLE / 60
        raise UserError(
            f"too little time: a race of {num_models} models needs at least {needed:.1f} minutes "
            "of one slot of this machine; use fewer models (cell=, layers=) or more minutes="
        )
    return min(max(longest, shortest), MAX_UPDATES)


def nearest_length(updates: float, updates_per_epoch: int) -> int:
    """Returns the closest length that a run can have: part of one epoch, or whole epochs."""
    if updates < updates_per_epoch:
        return max(1, round(updates))
    return min(round(updates / updates_per_epoch), MAX_EPOCHS) * updates_per_epoch
