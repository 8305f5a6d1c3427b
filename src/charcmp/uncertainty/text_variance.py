"""The variance of a mean over test text, from blocks as long as the text's dependence requires."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float64]
# Block lengths in base blocks; the rule's answer is rounded up to one of these or a whole series.
LENGTHS = (1, *(factor * 2**power for power in range(20) for factor in (2, 3)))
MIN_BLOCKS = 2  # fewer have no variance
MIN_SERIES = 10  # fewer whole series are too few blocks to estimate a variance from
FEW_BLOCKS = 8  # that fewer series are cut into: see text_variance


@dataclass(frozen=True)
class Component:
    """An independent part of a variance, and the degrees of freedom of its estimate."""

    variance: float
    df: float
    is_over_seeds: bool = False


@dataclass(frozen=True)
class TextVariance:
    """The variance of the mean over the test text, and how the block length was chosen."""

    variance: float
    block_length: int  # in base blocks
    rule_length: int  # from the automatic rule, rounded up
    num_blocks: float  # of the chosen length
    num_required: float  # of the length that the visible dependence requires
    se_of_length: dict[int, float]  # the check: standard errors by block length

    @property
    def se(self) -> float:
        return math.sqrt(self.variance)

    @property
    def component(self) -> Component:
        return Component(self.variance, self.num_blocks - 1)


def text_variance(means_RJ: Floats) -> TextVariance | None:
    """Returns the variance of the mean of base blocks, from blocks as long as dependence requires.

    Returns None for a single base block, which has no variance. Otherwise at least two blocks are
    left, however strong the dependence.

    The automatic rule chooses the length, and a check follows: if there are MIN_SERIES series, and
    the standard error with whole series as blocks is larger by more than chance explains
    (one-sided, 5 %), there is dependence that short blocks miss, and whole series are used.

    With fewer series, as for one's own text, which is one, there is nothing to check against. The
    rule does not see levels of whole chapters or files, which are weak from block to block but
    dominate a long mean. So blocks are then so long that the text has about FEW_BLOCKS of them, or
    longer if the rule says so; Student's t makes up for their small number, as for the means of
    independent groups (Ibragimov & Müller 2010). It costs independent losses 15 % of width.
    """
    num_series, series_length = means_RJ.shape
    longest = means_RJ.size / MIN_BLOCKS
    if longest < 1:
        return None
    wanted = automatic_block_length(means_RJ)
    possible = [length for length in LENGTHS if length < series_length and length <= longest]
    if series_length <= longest:
        possible.append(series_length)
    long_enough = [length for length in possible if length >= wanted]
    rule_length = chosen = min(long_enough, default=max(possible))
    num_required = means_RJ.size / rule_length
    if num_series < MIN_SERIES:
        chosen = max(rule_length, min(means_RJ.size // FEW_BLOCKS, series_length))
    lengths = {1, rule_length, chosen, min(2 * chosen, series_length), series_length}
    se = {
        length: math.sqrt(block_variance(means_RJ, length))
        for length in sorted(lengths) if length <= longest
    }  # fmt: skip
    if num_series >= MIN_SERIES:
        # An SD estimated from n values has a relative standard error of about 1 / sqrt(2 (n - 1)).
        tolerance = 1 + stats.norm.isf(0.05) / math.sqrt(2 * (num_series - 1))
        if se[series_length] > tolerance * se[chosen]:
            chosen = series_length
            num_required = num_series
    return TextVariance(
        variance=se[chosen] ** 2,
        block_length=chosen,
        rule_length=rule_length,
        num_blocks=means_RJ.size / chosen,
        num_required=num_required,
        se_of_length=se,
    )


def block_variance(means_RJ: Floats, length: int) -> float:
    """Returns the variance of the mean when circular blocks of `length` base blocks are resampled.

    It is computed in closed form, with the divisor of an unbiased estimate: m - 1 for m blocks. It
    is NaN if there is no more than one block.
    """
    num_blocks = means_RJ.size / length
    if num_blocks <= 1:
        return math.nan
    return float(block_means(means_RJ, length).var()) / (num_blocks - 1)


def block_means(means_RJ: Floats, length: int) -> Floats:
    """Returns the means of the circular blocks that start at each base block, (R, J)."""
    wrapped = (np.zeros_like(means_RJ[:, :1]), means_RJ, means_RJ[:, : length - 1])
    sums = np.cumsum(np.concatenate(wrapped, axis=1), axis=1)
    return (sums[:, length:] - sums[:, :-length]) / length


def automatic_block_length(means_RJ: Floats) -> float:
    """Returns the block length that minimises the error of the variance.

    The rule is that of Politis & White 2004 and Patton 2009. It is computed as by
    arch.bootstrap.optimal_block_length for the circular bootstrap, but over several series, whose
    autocovariances are pooled; for a single long series the result is arch's.
    """
    size = means_RJ.size
    covariance = _pooled_autocovariances(means_RJ)
    if covariance[0] <= 0 or len(covariance) == 1:
        return 1.0
    run = max(5, int(math.log10(size)))  # this many small autocorrelations in a row end the search
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


def _pooled_autocovariances(means_RJ: Floats) -> Floats:
    """Returns autocovariances by lag, up to J - 1; only pairs within a series count."""
    num_series, series_length = means_RJ.shape
    centred = means_RJ - means_RJ.mean()
    power = np.abs(np.fft.rfft(centred, 2 * series_length, axis=1)) ** 2
    sums = np.fft.irfft(power.sum(axis=0))[:series_length]
    covariances: Floats = sums / (num_series * np.arange(series_length, 0, -1))
    return covariances
