"""The learning rates and dropouts that a model was trained at, and the choice among them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from functools import cache
from typing import NamedTuple

from charcmp.report import paper
from charcmp.report.load import Run

Candidate = tuple[float, float]  # a learning rate and a dropout


def rate_of(run: Run) -> float:
    """Returns a run's learning rate; NaN if it is an optimiser's default that no file has."""
    if "optimizer.lr" in run.identity:
        rate = run.identity["optimizer.lr"]
        return rate if isinstance(rate, float) else math.nan
    return run.default_rate if "optimizer.name" in run.identity else paper.LEARNING_RATE


def candidate_of(run: Run) -> Candidate:
    return rate_of(run), run.dropout


class Choice(NamedTuple):
    """The candidate with the lowest validation loss, and how it was found."""

    candidate: Candidate
    num_compared: int  # in the last comparison, the chosen one included, without diverged ones
    num_seeds: int  # of the chosen one in that comparison

    @property
    def lead_by_chance(self) -> float:
        """How much lower the sum of its losses over those seeds is expected to be if the candidates
        compared are equally good; SDs of one seed."""
        return expected_lead(self.num_compared) * math.sqrt(self.num_seeds)


@cache
def expected_lead(num_draws: int, num_points: int = 10_000) -> float:
    """Returns how far the lowest of several draws from a normal distribution lies below its mean.

    In SDs: 0.56 for two draws, 0.85 for three, 1.03 for four. The highest of n draws is distributed
    as the quantile function at U^(1/n), with U uniform; this averages it over evenly spaced U.
    """
    if num_draws == 1:
        return 0.0
    quantile = statistics.NormalDist().inv_cdf
    points = ((number + 0.5) / num_points for number in range(num_points))
    return statistics.fmean(quantile(point ** (1 / num_draws)) for point in points)


def chosen_by_validation(candidates: Mapping[Candidate, Sequence[Run]]) -> Choice:
    """Returns the candidate with the lowest mean validation loss over the seeds that all have.

    So no candidate wins because it had more seeds. If exactly the best ones share further seeds, as
    after a first look at all with one seed, they are compared again by all seeds that they share. A
    candidate with a diverged run among the compared seeds comes last. If no seed is common to all,
    each candidate is judged by its own seeds.
    """
    seeds = {candidate: {run.seed for run in runs} for candidate, runs in candidates.items()}
    common = set.intersection(*seeds.values())

    def compared(candidate: Candidate) -> Sequence[Run]:
        runs = candidates[candidate]
        return [run for run in runs if run.seed in common] or runs

    def mean_loss(candidate: Candidate) -> float:
        runs = compared(candidate)
        if any(run.status != "done" for run in runs):
            return math.inf
        return statistics.fmean(run.val_nats_per_char for run in runs)

    ranked = sorted(candidates, key=lambda candidate: (mean_loss(candidate), candidate))
    further = [candidate for candidate in ranked if seeds[candidate] > common]
    if common and further == ranked[: len(further)] and len(further) > 1:
        shared = set.intersection(*(seeds[candidate] for candidate in further))
        if shared > common:
            return chosen_by_validation({candidate: candidates[candidate] for candidate in further})
    num_usable = sum(math.isfinite(mean_loss(candidate)) for candidate in ranked)
    return Choice(ranked[0], max(1, num_usable), len(compared(ranked[0])))
