"""Who races: models of one budget, each at several learning rates."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from charcmp.config.literal import quoted
from charcmp.models.cells.registry import CELLS as CELL_ROWS
from charcmp.models.cells.registry import MODULE

CELLS = ("lstm", "gru", "rnn")
DEPTHS = (1, 2, 3)
# Every rate is twice the one before. A cell's search begins with the three rates among which its
# best one lay in short trainings, and goes on from there: in ten epochs of War and Peace the LSTMs'
# best is 0.048, and 0.096 is worse (LOG.md).
LADDER = (0.0015, 0.003, 0.006, 0.012, 0.024, 0.048)
FIRST_RATES = {"rnn": (0.003, 0.006, 0.012)}
OTHER_FIRST_RATES = (0.006, 0.012, 0.024)
# The constant advice that does well without any race. It stays up to the last rung and goes on from
# there only if it is near the best, so that the race is worse than it by no more than chance.
SAFE_CHOICE = ("gru", 2)


class Model(NamedTuple):
    """What a race is about: a cell and a depth, at a budget."""

    budget: str
    cell: str  # one of the registry, or the target of a class, as `cell.target=` takes it
    layers: int

    @property
    def is_class(self) -> bool:
        """Whether its cell is a class that the user names."""
        return is_class(self.cell)

    @property
    def overrides(self) -> list[str]:
        """What on a run's command line makes it one of this model."""
        chosen = [f"cell={MODULE}", f"cell.target={quoted(self.cell)}"]
        cell = chosen if self.is_class else [f"cell={self.cell}"]
        return [*cell, f"layers={self.layers}", f"budget={self.budget}"]


def is_class(cell: str) -> bool:
    """Whether a model's cell is not one of the registry but a class that the user names."""
    return cell not in CELL_ROWS


def cell_label(cell: str) -> str:
    """`GRU`; a class by its target, as another cell may have its name."""
    return cell if is_class(cell) else CELL_ROWS[cell].label


def label(model: Model) -> str:
    """`GRU 2`"""
    return f"{cell_label(model.cell)} {model.layers}"


class Arm(NamedTuple):
    """A model at one learning rate."""

    model: Model
    rate: float


def first_arms(models: Iterable[Model]) -> list[Arm]:
    """The arms that the race begins with."""
    return [
        Arm(model, rate)
        for model in models
        for rate in FIRST_RATES.get(model.cell, OTHER_FIRST_RATES)
    ]


def next_rate(losses: dict[float, float]) -> float | None:
    """The rate of the ladder to try next to the best one, if that lies at an end of those tried.

    Args:
        losses: of one model by rate, infinite where it diverged; nats per character.
    """
    best = min(losses, key=lambda rate: (losses[rate], rate))
    tried = sorted(losses)
    step = {tried[0]: -1, tried[-1]: 1}.get(best, 0) if len(tried) > 1 else 1
    place = LADDER.index(best) + step
    if step == 0 or not 0 <= place < len(LADDER) or LADDER[place] in losses:
        return None
    return LADDER[place]


def lower_rate(losses: dict[float, float], shorter: dict[float, float]) -> float | None:
    """The rate to try next where a longer training came out worse than a shorter one.

    A rate that is best in short trainings can throw a model off in a long one, late and all of a
    sudden (LOG.md). None where longer was better, or a lower rate has been tried and is no better.

    Args:
        losses: of one model by rate, infinite where it diverged; nats per character.
        shorter: the same of the shorter training.
    """
    best = min(losses, key=lambda rate: (losses[rate], rate))
    if losses[best] <= min(shorter.values()) or best > min(losses):
        return None
    place = LADDER.index(best) - 1
    return LADDER[place] if place >= 0 else None


def best_neighbours(losses: dict[float, float]) -> list[float]:
    """A model's best rate and the better of its neighbours, the best first."""
    best = min(losses, key=lambda rate: (losses[rate], rate))
    place = LADDER.index(best)
    beside = [rate for rate in LADDER[max(0, place - 1) : place + 2] if rate != best]
    tried: Sequence[float] = [rate for rate in beside if rate in losses]
    return [best, *sorted(tried, key=lambda rate: losses[rate])[:1]]
