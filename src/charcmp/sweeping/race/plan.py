"""How long a race's runs are, so that all of them fit into the minutes that there are.

A race has three rungs of annealed runs, each about three times as long as the one before; what is
left of the time goes into further seeds of the last models. Before each rung the rest is planned
anew, by the time that is left and the models that are.
"""

from __future__ import annotations

from collections.abc import Sequence

from charcmp.errors import UserError

# Of the last rung's updates. Losses in the middle of a schedule are never compared: every rung is
# annealed to zero.
RUNG_SHARES = (1 / 8, 1 / 3, 1.0)
MOST_MODELS = (9, 5, 3)  # that a rung has room for; the safe choice may be one more
ARMS_PER_MODEL = (3.5, 2.0, 1.0)  # the first rung tries three rates, at times a fourth
SEEDS_PLANNED = 3  # of the leader and its challenger: what the plan keeps time for
MIN_UPDATES = 100  # of the first rung: fewer tell models apart no better than a coin
# Of the last rung; what time is left then goes into seeds. So many epochs of a short text are more
# than it takes to learn it by heart.
MAX_UPDATES, MAX_EPOCHS = 24_000, 100
USABLE = 0.9  # of the slots' time: waiting for the last run of a rung takes the rest
SECONDS_PER_RUN = 0.5  # to start it and to write what it leaves


def planned_runs(rung: int, num_models: int) -> list[float]:
    """How many runs this rung and each of those after it have, further seeds among the last."""
    runs = [num_models * ARMS_PER_MODEL[rung]]
    for later in range(rung + 1, len(RUNG_SHARES)):
        runs.append(min(MOST_MODELS[later], num_models) * ARMS_PER_MODEL[later])
    runs[-1] += (SEEDS_PLANNED - 1) * min(2, num_models)
    return runs


def longest_run(
    rung: int, slot_seconds: float, seconds_per_update: Sequence[float], num_models: int
) -> float:
    """Updates of a run of the last rung, so that this rung and those after it fit.

    Args:
        rung: the next, counted from 0.
        slot_seconds: the time that is left, times the runs at once.
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
            "of one slot of this machine; fewer models (cell=, layers=) or more minutes= will do"
        )
    return min(max(longest, shortest), MAX_UPDATES)


def nearest_length(updates: float, updates_per_epoch: int) -> int:
    """The length of a run closest to so many updates: of a part of an epoch, or of whole epochs."""
    if updates < updates_per_epoch:
        return max(1, round(updates))
    return min(round(updates / updates_per_epoch), MAX_EPOCHS) * updates_per_epoch
