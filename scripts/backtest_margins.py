"""Fits the margins of elimination to races over stored runs.

After a rung a model may stay in if it is behind by no more than a margin. On the way, a model that
ends near the best one should be behind by no more than that in nine of ten races on a text of a new
kind. With the maximum over the texts at hand as margin, a new kind would exceed it in one case of
n + 1. So the margin is the upper 90 % bound for a new kind, shrunk towards what was judged
beforehand:

1. Races in which no model is eliminated show how far each model is behind the leader after each
   rung, beyond what its text explains. Each such deficit is weighted by the probability that the
   model ends near the best one.
2. Their 90 % quantile in a text, or q, the mean of it over the texts of a kind, gives
   y = log(max(q, 0) + SHIFT).
3. The y of the kinds are taken as normal with unknown mean and variance, with a conjugate prior at
   the judged margin. The bound is that of the predictive t distribution for one more kind.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from backtest_replay import Draw, Replay, Stored
from numpy.typing import NDArray
from scipy import stats

from charcmp.sweeping.race.arms import Model
from charcmp.sweeping.race.decide import MARGINS, best_arms, least_lead
from charcmp.sweeping.race.race import Race

NEAR_BEST = 0.005  # nats: a model that ends this near the best one should not be eliminated
RACES = 300  # of each text
QUANTILE = 0.9
SHIFT = 0.02  # nats: deficits of a first rung have a long tail, those of the last one are near 0
PRIOR_KINDS, PRIOR_DF, PRIOR_SD = 1.0, 3.0, 0.5  # the judged margin's weight, df and spread


class Everyone(Race):
    """A race in which nobody is eliminated."""

    def _survivors(self, rung: int) -> list[Model]:
        found = self._first_seeds(rung)
        return [model for model, arm in best_arms(found).items() if found[arm].is_usable]

    def _is_worse(self, rung: int) -> bool:
        return False  # every rung shows deficits, also on a text that longer training over-fits


class Deficits:
    """How far behind the leader a text's models were after each rung, with a weight for each."""

    def __init__(self, stored: Stored, races: int = RACES) -> None:
        self.kind = stored.kind
        weights = near_the_end(stored)
        found: dict[int, list[tuple[float, float]]] = defaultdict(list)
        rng = np.random.default_rng(0)
        speeds = dict.fromkeys(stored.models, 1.0)
        for _ in range(races):
            replay = Replay(Draw(stored, rng), speeds, math.inf)
            race = Everyone(stored.models, replay, replay)
            race.run()
            for rung, outcomes in race.outcomes.items():
                first = {arm: runs[0] for arm, runs in outcomes.items()}
                best = best_arms(first)
                leader = first[next(iter(best.values()))]
                found[rung] += [
                    (least_lead(first[arm], leader), weights[model])
                    for model, arm in best.items() if first[arm].is_usable
                ]  # fmt: skip
        self.of_rung = {rung: np.array(pairs) for rung, pairs in found.items()}


def near_the_end(stored: Stored) -> dict[Model, float]:
    """Returns the probability that each model ends within NEAR_BEST of the best one."""
    means: dict[Model, float] = {}
    variances: dict[Model, float] = {}
    for model in stored.models:
        runs = [min(run.test_nats, stored.worst) for run in stored.tuned_runs(model)]
        means[model] = float(np.mean(runs))
        variances[model] = float(np.var(runs, ddof=1)) / len(runs) if len(runs) > 1 else 0.0
    best = min(means, key=lambda model: means[model])
    chances = {}
    for model, mean in means.items():
        behind = mean - means[best] - NEAR_BEST
        se = math.sqrt(variances[model] + variances[best] * (model != best))
        chances[model] = float(stats.norm.sf(behind / se)) if se else float(behind <= 0)
    return chances


def weighted_quantile(pairs: NDArray[np.float64], quantile: float) -> float:
    """Returns a quantile of the first column, weighted by the second."""
    ordered = pairs[np.argsort(pairs[:, 0], kind="stable")]
    shares = np.cumsum(ordered[:, 1]) / ordered[:, 1].sum()
    return float(ordered[np.searchsorted(shares, quantile), 0])


def shrunk(judged: float, quantiles: Sequence[float]) -> float:
    """Returns the bound for a new kind, from the quantiles of known kinds; `judged` without any."""
    upper = stats.t.ppf(QUANTILE, PRIOR_DF) * PRIOR_SD * math.sqrt(1 + 1 / PRIOR_KINDS)
    prior_mean = math.log(judged + SHIFT) - upper
    y = np.log(np.maximum(quantiles, 0.0) + SHIFT)
    n = len(y)
    kinds, df = PRIOR_KINDS + n, PRIOR_DF + n
    mean, squares = prior_mean, PRIOR_DF * PRIOR_SD**2
    if n:
        mean = (PRIOR_KINDS * prior_mean + n * y.mean()) / kinds
        squares += ((y - y.mean()) ** 2).sum()
        squares += PRIOR_KINDS * n / kinds * (y.mean() - prior_mean) ** 2
    spread = math.sqrt(squares / df * (1 + 1 / kinds))
    return math.exp(mean + float(stats.t.ppf(QUANTILE, df)) * spread) - SHIFT


def by_kind(found: Sequence[Deficits]) -> dict[str, list[Deficits]]:
    kinds: dict[str, list[Deficits]] = defaultdict(list)
    for of_text in found:
        kinds[of_text.kind].append(of_text)
    return kinds


def kind_quantile(of_kind: Sequence[Deficits], rung: int) -> float:
    """Returns the mean of the quantiles of a kind's texts; that of all their deficits together
    would be of a mixture, and less extreme than those of single texts."""
    return float(np.mean([weighted_quantile(text.of_rung[rung], QUANTILE) for text in of_kind]))


def fitted_margins(found: Sequence[Deficits]) -> list[float]:
    """Returns a fitted margin for each rung."""
    kinds = by_kind(found)
    return [
        shrunk(judged, [kind_quantile(of_kind, rung) for of_kind in kinds.values()])
        for rung, judged in enumerate(MARGINS)
    ]


def fitted_to_others(found: Sequence[Deficits], kind: str) -> list[float]:
    """Returns the margins for a kind of text, fitted to the texts of all other kinds."""
    return fitted_margins([of_text for of_text in found if of_text.kind != kind])


def passed(of_kind: Sequence[Deficits], margins: Sequence[float]) -> Mapping[int, float]:
    """Returns by rung the weighted share of near-best models that the margins would eliminate."""
    shares = {}
    for rung, margin in enumerate(margins):
        deficits, weights = np.concatenate([of_text.of_rung[rung] for of_text in of_kind]).T
        shares[rung] = float(weights[deficits > margin].sum() / weights.sum())
    return shares
