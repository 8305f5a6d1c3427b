"""The margins of elimination, fitted to races over stored runs.

After a rung a model may stay if it is behind by no more than a margin. The right margin is what the
models that end near the best one are behind by on the way, in all but a tenth of races on a text of
a new kind. A maximum over the texts at hand would be passed by a new kind in one case of n + 1; so
the margin is the upper 90 % bound for a new kind, shrunk to what was judged beforehand:

1. Races in which nobody is eliminated tell, after each rung, how far each model is behind the
   leader beyond what its text explains. It counts by the probability that the model ends near
   the best one.
2. The 90 % quantile q of these in a kind of text gives y = log(max(q, 0) + SHIFT).
3. The y of kinds are normal with unknown mean and variance, and a conjugate prior at the judged
   margin. The bound is that of the predictive t distribution for one more kind.
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

NEAR_BEST = 0.005  # nats: a model that ends so near the best one should not be lost on the way
RACES = 300  # of each text
QUANTILE = 0.9
SHIFT = 0.02  # nats: deficits of a first rung have a long tail, those of the last one are near 0
PRIOR_KINDS, PRIOR_DF, PRIOR_SD = 1.0, 3.0, 0.5  # what the judged margin counts, and its spread


class Everyone(Race):
    """A race in which nobody is eliminated."""

    def _survivors(self, rung: int) -> list[Model]:
        found = self._first_seeds(rung)
        return [model for model, arm in best_arms(found).items() if found[arm].is_usable]


class Deficits:
    """Of a text: how far behind models were after each rung, and what each such number counts."""

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
    """The probability that each model ends within NEAR_BEST of the best one."""
    means: dict[Model, float] = {}
    variances: dict[Model, float] = {}
    for model in stored.models:
        runs = [
            min(run.test_nats, stored.worst) for run in stored.of(stored.tuned(model), stored.last)
        ]
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
    """Of the first column, each row counting as much as its second says."""
    ordered = pairs[np.argsort(pairs[:, 0], kind="stable")]
    shares = np.cumsum(ordered[:, 1]) / ordered[:, 1].sum()
    return float(ordered[np.searchsorted(shares, quantile), 0])


def shrunk(judged: float, quantiles: Sequence[float]) -> float:
    """The bound for a new kind, from the quantiles of so many kinds; of none, what was judged."""
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
    for one in found:
        kinds[one.kind].append(one)
    return kinds


def kind_quantile(of_kind: Sequence[Deficits], rung: int) -> float:
    return weighted_quantile(np.concatenate([one.of_rung[rung] for one in of_kind]), QUANTILE)


def fitted_margins(found: Sequence[Deficits]) -> list[float]:
    """One for each rung."""
    kinds = by_kind(found)
    return [
        shrunk(judged, [kind_quantile(of_kind, rung) for of_kind in kinds.values()])
        for rung, judged in enumerate(MARGINS)
    ]


def fitted_to_others(found: Sequence[Deficits], kind: str) -> list[float]:
    """Margins for a text: fitted to those that are of another kind than it."""
    return fitted_margins([one for one in found if one.kind != kind])


def passed(of_kind: Sequence[Deficits], margins: Sequence[float]) -> Mapping[int, float]:
    """By rung, the weighted share of models near the best one that such margins would put out."""
    shares = {}
    for rung, margin in enumerate(margins):
        deficits, weights = np.concatenate([one.of_rung[rung] for one in of_kind]).T
        shares[rung] = float(weights[deficits > margin].sum() / weights.sum())
    return shares
