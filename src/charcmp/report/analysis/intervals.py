"""How sure a difference of two mean losses is: over test text, over seeds, over both.

Text: paired circular block bootstrap (Politis & Romano 1992) over the differences of the base
blocks that a run keeps (losses.py). Blocks stay within a row of the split, wrapping round in it.
The resampled mean averages independent draws, so its variance has a closed form; `resample` draws
all the same, and a test holds one against the other. Seeds: Welch's t. Both: the variances add,
degrees of freedom by Satterthwaite, but never more than the seeds have.

Shape suffixes: R rows of the split, J base blocks of a row, K = R·J base blocks, C comparisons.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special, stats

Floats = NDArray[np.float64]

ALPHA = 0.05
POWER = 0.8
NUM_RESAMPLES = 10_000
RESAMPLE_SEED = 1506_02078
RESAMPLES_AT_ONCE = 500
# Block lengths in base blocks; the rule's answer is rounded up to one of them, or to a whole row.
LENGTHS = (1, *(factor * 2**power for power in range(20) for factor in (2, 3)))
MIN_BLOCKS = 2  # fewer have no variance
MIN_ROWS = 10  # fewer whole rows are too few blocks to estimate a variance from
MANY_DF = 200  # from here on Student's t and the normal distribution give the same figures
MAX_SEEDS = 1000


@dataclass(frozen=True)
class Component:
    """An independent part of a variance, and the degrees of freedom of its estimate."""

    variance: float
    df: float
    is_over_seeds: bool = False


@dataclass(frozen=True)
class TextVariance:
    """Of the mean over the test text, and how the block length came about."""

    variance: float
    block_length: int  # in base blocks
    rule_length: int  # what the automatic rule says, rounded up
    num_blocks: float  # of the chosen length
    se_of_length: dict[int, float]  # the check: standard errors by block length

    @property
    def se(self) -> float:
        return math.sqrt(self.variance)

    @property
    def component(self) -> Component:
        return Component(self.variance, self.num_blocks - 1)


def text_variance(series_RJ: Floats) -> TextVariance | None:
    """The variance of the mean of a series, by blocks as long as its dependence asks for.

    None for a series of a single base block, which has no variance. Otherwise at least two blocks
    are left, however strong the dependence.

    The length is the automatic one. The check: where whole rows give a standard error that is
    larger by more than chance explains (one-sided, 5 %), there is dependence that short blocks do
    not see, and whole rows are the blocks.
    """
    num_rows, row_length = series_RJ.shape
    longest = series_RJ.size / MIN_BLOCKS
    if longest < 1:
        return None
    wanted = automatic_block_length(series_RJ)
    possible = [length for length in LENGTHS if length < row_length and length <= longest]
    if row_length <= longest:
        possible.append(row_length)
    long_enough = [length for length in possible if length >= wanted]
    rule_length = chosen = min(long_enough, default=max(possible))
    lengths = {1, rule_length, min(2 * rule_length, row_length), row_length}
    se = {
        length: math.sqrt(block_variance(series_RJ, length))
        for length in sorted(lengths) if length <= longest
    }  # fmt: skip
    if num_rows >= MIN_ROWS:
        tolerance = 1 + stats.norm.isf(0.05) / math.sqrt(2 * (num_rows - 1))
        if se[row_length] > tolerance * se[chosen]:
            chosen = row_length
    return TextVariance(
        variance=se[chosen] ** 2,
        block_length=chosen,
        rule_length=rule_length,
        num_blocks=series_RJ.size / chosen,
        se_of_length=se,
    )


def block_variance(series_RJ: Floats, length: int) -> float:
    """Variance of the mean when circular blocks of `length` base blocks are resampled.

    In closed form, with the divisor of an unbiased estimate: m blocks count as m - 1.
    """
    num_blocks = series_RJ.size / length
    if num_blocks <= 1:
        return math.nan
    return float(block_means(series_RJ, length).var()) / (num_blocks - 1)


def block_means(series_RJ: Floats, length: int) -> Floats:
    """Means of the blocks that start at each base block, (R, J)."""
    wrapped = np.concatenate([series_RJ, series_RJ[:, : length - 1]], axis=1)
    sums = np.cumsum(np.pad(wrapped, ((0, 0), (1, 0))), axis=1)
    return (sums[:, length:] - sums[:, :-length]) / length


def automatic_block_length(series_RJ: Floats) -> float:
    """The length that minimises the error of the variance (Politis & White 2004, Patton 2009).

    As arch.bootstrap.optimal_block_length for the circular bootstrap, but over several rows, whose
    autocovariances are pooled; a single long row gives arch's answer.
    """
    size = series_RJ.size
    covariance = _pooled_autocovariances(series_RJ)
    if covariance[0] <= 0 or len(covariance) == 1:
        return 1.0
    run = max(5, int(math.log10(size)))  # so many small autocorrelations in a row end the search
    last = min(math.ceil(math.sqrt(size)) + run, len(covariance) - 1)
    small = np.abs(covariance) < 2 * math.sqrt(math.log10(size) / size) * covariance[0]
    ends = [lag for lag in range(1, last + 1) if small[lag : lag + run].all()]
    bandwidth = min(2 * ends[0] if ends else last, last)
    lags = np.arange(1, bandwidth + 1)
    weights = np.minimum(1.0, 2 * (1 - lags / bandwidth))  # the flat-top kernel
    long_run = covariance[0] + 2 * float(weights @ covariance[lags])
    slope = 2 * float(weights @ (lags * covariance[lags]))
    if long_run <= 0:
        return 1.0
    length = (1.5 * (slope / long_run) ** 2 * size) ** (1 / 3)
    return max(1.0, min(length, math.ceil(min(3 * math.sqrt(size), size / 3))))


def _pooled_autocovariances(series_RJ: Floats) -> Floats:
    """By lag, up to J - 1; only pairs of the same row count."""
    num_rows, row_length = series_RJ.shape
    centred = series_RJ - series_RJ.mean()
    power = np.abs(np.fft.rfft(centred, 2 * row_length, axis=1)) ** 2
    sums = np.fft.irfft(power.sum(axis=0))[:row_length]
    covariances: Floats = sums / (num_rows * np.arange(row_length, 0, -1))
    return covariances


def resample(
    series: Sequence[Floats], length: int, num_resamples: int = NUM_RESAMPLES
) -> NDArray[np.float64]:
    """Bootstrap means of several series (each (R, J)) with the same blocks drawn, (C, resamples).

    The draws are the same at every call, so a report made twice is the same report.
    """
    step = length if length == series[0].shape[1] else 1  # rotations of a row have one mean
    means_KC = np.stack([block_means(one, length)[:, ::step].ravel() for one in series], axis=1)
    num_starts, num_blocks = len(means_KC), round(series[0].size / length)
    rng = np.random.default_rng(RESAMPLE_SEED)
    parts = []
    for start in range(0, num_resamples, RESAMPLES_AT_ONCE):
        rows = min(RESAMPLES_AT_ONCE, num_resamples - start)
        drawn = rng.integers(num_starts, size=(rows, num_blocks))
        drawn += num_starts * np.arange(rows)[:, np.newaxis]
        counts = np.bincount(drawn.ravel(), minlength=rows * num_starts)
        parts.append(counts.reshape(rows, num_starts).astype(np.float64) @ means_KC / num_blocks)
    return np.concatenate(parts).T


def seed_component(values: Sequence[float]) -> Component | None:
    """The variance of a mean over seeds; None for a single one."""
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
        """Two-sided, of no difference."""
        if self.se == 0:
            return float(self.difference == 0)
        # scipy.special: stats.t gives the same, but slowly, and a simulation needs many
        return float(2 * special.stdtr(self.df, -abs(self.difference) / self.se))

    def interval(self, alpha: float = ALPHA) -> tuple[float, float]:
        margin = float(special.stdtrit(self.df, 1 - alpha / 2)) * self.se
        return self.difference - margin, self.difference + margin


def estimate(difference: float, components: Sequence[Component]) -> Estimate:
    """Adds independent variances; degrees of freedom by Satterthwaite, capped by the seeds'.

    Two or three seeds sometimes lie close together by chance. Satterthwaite then takes the text's
    many degrees of freedom, just where the seeds' variance is underestimated: without the cap,
    p-values as small as Holm asks for come 2 to 5 times too often (scripts/simulate_coverage.py).
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
    """An estimate in its family.

    The interval is a plain one of 95 %; only the p-value is adjusted for the family. So an interval
    may leave out 0 where the difference is not significant.
    """

    estimate: Estimate
    p_holm: float
    significant: bool  # Holm, 5 %

    @property
    def interval(self) -> tuple[float, float]:
        return self.estimate.interval()

    @property
    def sign(self) -> int:
        """-1 or 1 where the difference is significant after Holm, else 0."""
        return _sign(self.estimate.difference) if self.significant else 0

    @property
    def plain_sign(self) -> int:
        """-1 or 1 where the plain 95 % interval leaves out 0, else 0."""
        return _sign(self.estimate.difference) if self.estimate.p_value <= ALPHA else 0


def _sign(difference: float) -> int:
    return int(math.copysign(1, difference))


def judge(
    family: Sequence[Estimate], family_size: int | None = None, alpha: float = ALPHA
) -> list[Judged]:
    """Holm's step-down test of a family.

    Args:
        family: the estimates that there are.
        family_size: how many comparisons the family has; those without an estimate count as
            p = 1, so that an estimate added later does not change the multiplicity of the others.
        alpha: the family-wise error.
    """
    size = max(len(family), family_size or 0)
    p_values = np.array([one.p_value for one in family])
    judged: dict[int, Judged] = {}
    p_holm = 0.0
    for step, number in enumerate(np.argsort(p_values, kind="stable")):
        p_holm = max(p_holm, min(1.0, float(p_values[number]) * (size - step)))
        judged[int(number)] = Judged(family[number], p_holm, p_holm <= alpha)
    return [judged[number] for number in range(len(family))]


def detectable_difference(se: float, df: float, alpha: float, power: float = POWER) -> float:
    """The smallest true difference that a two-sided t test finds with probability `power`."""
    if not (math.isfinite(se) and df > 0):
        return math.nan
    if df > MANY_DF:
        return float(stats.norm.isf(alpha / 2) + stats.norm.ppf(power)) * se
    critical = stats.t.isf(alpha / 2, df)

    def shortfall(shift: float) -> Any:
        return 1 - special.nctdtr(df, shift, critical) - power

    high = critical + stats.norm.ppf(power)
    while shortfall(high) < 0:
        high *= 2
    return float(optimize.brentq(shortfall, 0, high)) * se


def detectable_with(
    num_seeds: int, text: Component, seed_variance: float, alpha: float = ALPHA
) -> float:
    """`detectable_difference` of two cells with so many seeds each, of one variance over seeds."""
    if num_seeds < 2:
        return detectable_difference(math.sqrt(text.variance), text.df, alpha)
    of_seeds = Component(seed_variance / num_seeds, num_seeds - 1, is_over_seeds=True)
    planned = estimate(0.0, [text, of_seeds, of_seeds])
    return detectable_difference(planned.se, planned.df, alpha)


def seeds_needed(
    difference: float, text: Component, seed_variance: float, alpha: float = ALPHA
) -> int | None:
    """Seeds per cell to find a difference of this size with; None: it takes more text.

    As good as the estimate of the variance over seeds, which from three seeds is rough.
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
