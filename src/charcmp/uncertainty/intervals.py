"""How sure a difference of two mean losses is: over test text, over seeds, over both.

Text: paired circular block bootstrap (Politis & Romano 1992) over the differences of the base
blocks that a run keeps (losses.py). Blocks stay within a series and wrap round in it. The resampled
mean averages independent draws, so its variance has a closed form; `resample` draws anyway, and a
test compares the two. Seeds: Welch's t. Both: the variances add, with degrees of freedom by
Satterthwaite, but never more than the seeds have.

Shape suffixes: R series, J base blocks of a series, K = R·J base blocks, C comparisons.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special, stats

from charcmp.uncertainty.text_variance import Component, Floats, block_means

ALPHA = 0.05
POWER = 0.8
NUM_RESAMPLES = 10_000
RESAMPLE_SEED = 1506_02078
RESAMPLES_AT_ONCE = 500
MANY_DF = 200  # from here on Student's t and the normal distribution give the same figures
MAX_SEEDS = 1000


def resample(
    blocks: Sequence[Floats], length: int, num_resamples: int = NUM_RESAMPLES
) -> NDArray[np.float64]:
    """Returns bootstrap means, (C, resamples), of several arrays of base blocks, each (R, J).

    The same blocks are drawn from all arrays, and at every call, so a report made twice is the same
    report.
    """
    step = length if length == blocks[0].shape[1] else 1  # all rotations of a series have one mean
    means_KC = np.stack(
        [block_means(blocks_RJ, length)[:, ::step].ravel() for blocks_RJ in blocks], axis=1
    )
    num_starts, num_blocks = len(means_KC), round(blocks[0].size / length)
    rng = np.random.default_rng(RESAMPLE_SEED)
    parts = []
    for start in range(0, num_resamples, RESAMPLES_AT_ONCE):
        draws = min(RESAMPLES_AT_ONCE, num_resamples - start)
        drawn = rng.integers(num_starts, size=(draws, num_blocks))
        if num_blocks * len(blocks) < num_starts:  # few of a long text: counts would fill memory
            parts.append(means_KC[drawn].mean(axis=1))
            continue
        drawn += num_starts * np.arange(draws)[:, np.newaxis]
        counts = np.bincount(drawn.ravel(), minlength=draws * num_starts)
        parts.append(counts.reshape(draws, num_starts).astype(np.float64) @ means_KC / num_blocks)
    return np.concatenate(parts).T


def seed_component(values: Sequence[float]) -> Component | None:
    """Returns the variance of a mean over seeds, or None for a single seed."""
    if len(values) < 2:
        return None
    return Component(float(np.var(values, ddof=1)) / len(values), len(values) - 1, True)


@dataclass(frozen=True)
class Estimate:
    """A difference (nats per character), its standard error and degrees of freedom."""

    difference: float
    se: float
    df: float

    @property
    def p_value(self) -> float:
        """Two-sided, for the hypothesis of no difference."""
        if self.se == 0:
            return float(self.difference == 0)
        # Not stats.t, which gives the same but slowly: a simulation needs many p-values.
        return float(2 * special.stdtr(self.df, -abs(self.difference) / self.se))

    def interval(self, alpha: float = ALPHA) -> tuple[float, float]:
        margin = float(special.stdtrit(self.df, 1 - alpha / 2)) * self.se
        return self.difference - margin, self.difference + margin


def estimate(difference: float, components: Sequence[Component]) -> Estimate:
    """Adds independent variances; degrees of freedom by Satterthwaite, capped by the seeds'.

    Two or three seeds sometimes lie close together by chance. Satterthwaite then takes the text's
    many degrees of freedom, just where the seeds' variance is underestimated: without the cap,
    p-values as small as Holm requires occur 2 to 5 times too often (scripts/simulate_coverage.py).
    """
    variance = sum(part.variance for part in components)
    if variance == 0:
        return Estimate(difference, 0.0, min(part.df for part in components))
    df = variance**2 / sum(part.variance**2 / part.df for part in components)
    if of_seeds := [part.df for part in components if part.is_over_seeds]:
        df = min(df, sum(of_seeds))  # two cells: n_a + n_b - 2
    return Estimate(difference, math.sqrt(variance), df)


@dataclass(frozen=True)
class Judged:
    """An estimate, judged in its family.

    The interval is a plain one of 95 %; only the p-value is adjusted for the family. So an interval
    may leave out 0 although the difference is not significant.
    """

    estimate: Estimate
    p_holm: float
    significant: bool  # Holm, 5 %

    @property
    def interval(self) -> tuple[float, float]:
        return self.estimate.interval()

    @property
    def sign(self) -> int:
        """-1 or 1 if the difference is significant after Holm, else 0."""
        return _sign(self.estimate.difference) if self.significant else 0

    @property
    def plain_sign(self) -> int:
        """-1 or 1 if the plain 95 % interval leaves out 0, else 0."""
        return _sign(self.estimate.difference) if self.estimate.p_value <= ALPHA else 0


def _sign(difference: float) -> int:
    return int(math.copysign(1, difference))


def judge(family: Sequence[Estimate], family_size: int | None = None) -> list[Judged]:
    """Judges a family by Holm's step-down test, at a family-wise error rate of 5 %.

    Args:
        family: the estimates that there are.
        family_size: how many comparisons the family has; those without an estimate count as
            p = 1, so that an estimate added later does not change the multiplicity of the others.
    """
    size = max(len(family), family_size or 0)
    p_values = np.array([difference.p_value for difference in family])
    judged: dict[int, Judged] = {}
    p_holm = 0.0
    for step, number in enumerate(np.argsort(p_values, kind="stable")):
        p_holm = max(p_holm, min(1.0, float(p_values[number]) * (size - step)))
        judged[int(number)] = Judged(family[number], p_holm, p_holm <= ALPHA)
    return [judged[number] for number in range(len(family))]


def detectable_difference(se: float, df: float, alpha: float) -> float:
    """Returns the smallest true difference that a two-sided t test finds with probability POWER.

    It is NaN if the standard error is not finite or there are no degrees of freedom.
    """
    if not (math.isfinite(se) and df > 0):
        return math.nan
    if df > MANY_DF:
        return float(stats.norm.isf(alpha / 2) + stats.norm.ppf(POWER)) * se
    critical = stats.t.isf(alpha / 2, df)

    def shortfall(shift: float) -> Any:
        return 1 - special.nctdtr(df, shift, critical) - POWER

    high = critical + stats.norm.ppf(POWER)
    while shortfall(high) < 0:
        high *= 2
    return float(optimize.brentq(shortfall, 0, high)) * se


def detectable_with(
    num_seeds: int, text: Component, seed_variance: float, alpha: float = ALPHA
) -> float:
    """Returns detectable_difference for two cells with `num_seeds` each and equal seed variances.

    With one seed each, it is over the text alone.
    """
    if num_seeds < 2:
        return detectable_difference(math.sqrt(text.variance), text.df, alpha)
    of_seeds = Component(seed_variance / num_seeds, num_seeds - 1, is_over_seeds=True)
    planned = estimate(0.0, [text, of_seeds, of_seeds])
    return detectable_difference(planned.se, planned.df, alpha)


def seeds_needed(
    difference: float, text: Component, seed_variance: float, alpha: float = ALPHA
) -> int | None:
    """Returns how many seeds per cell it takes to find a difference of this size.

    Returns None if it takes more text, or more than MAX_SEEDS seeds. The answer is as good as the
    estimate of the variance over seeds, which is rough if it comes from three seeds.
    """
    goal = abs(difference)
    if detectable_difference(math.sqrt(text.variance), text.df, alpha) > goal:
        return None
    low, high = 1, 2
    while detectable_with(high, text, seed_variance, alpha) > goal:
        low, high = high, 2 * high
        if low > MAX_SEEDS:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        if detectable_with(middle, text, seed_variance, alpha) > goal:
            low = middle
        else:
            high = middle
    return high
