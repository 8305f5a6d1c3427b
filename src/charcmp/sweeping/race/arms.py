"""The arms of a race: models of one budget, each at several learning rates."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from charcmp.config.literal import quoted
from charcmp.models.cells.registry import CELLS as CELL_ROWS
from charcmp.models.cells.registry import MODULE, cell_label

CELLS = ("lstm", "gru", "rnn")
DEPTHS = (1, 2, 3)
# Every rate is twice the one before. The search begins with the three rates among which the cell's
# best one was in short trainings, and goes on from there. In ten epochs of War and Peace the LSTMs'
# best rate is 0.048, and 0.096 is worse (LOG.md).
LADDER = (0.0015, 0.003, 0.006, 0.012, 0.024, 0.048)
FIRST_RATES = {"rnn": (0.003, 0.006, 0.012)}
OTHER_FIRST_RATES = (0.006, 0.012, 0.024)
# Nats per character: a rate that is ahead of the one below it by no more is not taken for a longer
# training, which favours lower rates. In stored races the lower one of two such rates did better in
# 8 of 12 trainings three times as long (LOG.md).
LEAN = 0.02
# The constant advice that does well without any race. It stays in until the last rung, and after it
# only if it is near the best: so a race is worse than this advice by no more than chance.
SAFE_CHOICE = ("gru", 2)


class Model(NamedTuple):
    """A cell with a number of layers, at a budget: what a race compares."""

    budget: str
    cell: str  # one of the registry, or the target of a class, as `cell.target=` takes it
    layers: int

    @property
    def is_class(self) -> bool:
        """Whether its cell is a class that the user names, not one of the registry."""
        return self.cell not in CELL_ROWS

    @property
    def cell_label(self) -> str:
        """Its cell's label, such as `GRU`; of a class the target, as names may repeat."""
        return cell_label(self.cell)

    @property
    def is_safe_choice(self) -> bool:
        return (self.cell, self.layers) == SAFE_CHOICE

    @property
    def overrides(self) -> list[str]:
        """The overrides that choose this model on a run's command line."""
        chosen = [f"cell={MODULE}", f"cell.target={quoted(self.cell)}"]
        cell = chosen if self.is_class else [f"cell={self.cell}"]
        return [*cell, f"layers={self.layers}", f"budget={self.budget}"]


def label(model: Model) -> str:
    """Returns a model's short name, such as `GRU 2`."""
    return f"{model.cell_label} {model.layers}"


class Arm(NamedTuple):
    """A model at one learning rate."""

    model: Model
    rate: float


def first_arms(models: Iterable[Model]) -> list[Arm]:
    """Returns the arms that the race begins with."""
    return [
        Arm(model, rate)
        for model in models
        for rate in FIRST_RATES.get(model.cell, OTHER_FIRST_RATES)
    ]


def best_rate(losses: Mapping[float, float]) -> float:
    """Returns the rate with the lowest loss; of several, the lowest rate.

    Args:
        losses: of one model by rate, infinite where it diverged; nats per character.
    """
    return min(losses, key=lambda rate: (losses[rate], rate))


def rate_for_longer(losses: Mapping[float, float]) -> float:
    """Returns the rate to take for a longer training: the best one, or the one below it if that is
    hardly worse.

    Args:
        losses: of one model by rate, infinite where it diverged; nats per character.
    """
    best = best_rate(losses)
    lower = LADDER[max(0, LADDER.index(best) - 1)]
    return lower if losses.get(lower, math.inf) <= losses[best] + LEAN else best


def next_rate(losses: dict[float, float]) -> float | None:
    """Returns the rate to try next: the best one's neighbour, if the best is at an end of those
    tried.

    Args:
        losses: of one model by rate, infinite where it diverged; nats per character.
    """
    best = best_rate(losses)
    tried = sorted(losses)
    step = {tried[0]: -1, tried[-1]: 1}.get(best, 0) if len(tried) > 1 else 1
    place = LADDER.index(best) + step
    if step == 0 or not 0 <= place < len(LADDER) or LADDER[place] in losses:
        return None
    return LADDER[place]


def lower_rate(losses: dict[float, float], shorter: dict[float, float]) -> float | None:
    """Returns the rate to try next if a longer training did worse than a shorter one.

    A rate that is best in short trainings can suddenly throw a model off late in a long one
    (LOG.md). None if longer training did better, or if a lower rate was tried and did no better.

    Args:
        losses: of one model by rate, infinite where it diverged; nats per character.
        shorter: the same for the shorter training.
    """
    best = best_rate(losses)
    if losses[best] <= min(shorter.values()) or best > min(losses):
        return None
    place = LADDER.index(best) - 1
    return LADDER[place] if place >= 0 else None


def best_neighbours(losses: dict[float, float]) -> list[float]:
    """Returns a model's best rate, then the better of its neighbours that were tried."""
    best = best_rate(losses)
    place = LADDER.index(best)
    beside = [rate for rate in LADDER[max(0, place - 1) : place + 2] if rate != best]
    tried: Sequence[float] = [rate for rate in beside if rate in losses]
    return [best, *sorted(tried, key=lambda rate: losses[rate])[:1]]
