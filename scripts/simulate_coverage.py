"""How often the report's 95 % intervals cover the true difference of two cells.

    python scripts/simulate_coverage.py [--simulations 2000]

The losses of two cells on a test text of 100 rows x 33 base blocks, the shape of War and Peace.
A block's loss: what is hard for both cells (it cancels), what is hard for one of them
(autocorrelated within a row, by an AR(1) process or by an effect of the whole row), what is hard
for a single seed, and the seed's own level. Text and seeds are drawn anew in each simulation; the
truth is the difference of the two cells over all texts and all seeds. Losses are skewed (gamma).
"""

from __future__ import annotations

import argparse
from itertools import product

import numpy as np
from numpy.typing import NDArray

from charcmp.report.statistics import (
    Component,
    Estimate,
    TextVariance,
    estimate,
    seed_component,
    text_variance,
)

ROWS, BLOCKS = 100, 33
TRUTH = 0.01  # nats per character
TEXT_SE = 0.0015  # of a difference, about what War and Peace gives
BURN_IN = 20
DEPENDENCE = {  # (autocorrelation of neighbouring blocks, share of variance that a whole row has)
    "none": (0.0, 0.0),
    "AR(1), 0.3": (0.3, 0.0),
    "AR(1), 0.7": (0.7, 0.0),
    "whole rows": (0.1, 0.02),
}
SEED_SDS = {  # of either cell's mean over seeds, as a multiple of what the text gives one cell
    "seeds 1/3 of text": (1 / 3, 1 / 3),
    "seeds as text": (1.0, 1.0),
    "seeds 3 x text": (3.0, 3.0),
    "seeds as text and 5 x": (5.0, 1.0),  # a gated cell beside an RNN
}


def skewed(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Mean 0, variance 1, skewness 1."""
    return (rng.gamma(4.0, 1.0, shape) - 4.0) / 2.0


def text_effect(
    rng: np.random.Generator, autocorrelation: float, share_of_rows: float
) -> NDArray[np.float64]:
    """One cell's own difficulties by block (R, J): its mean has the SD TEXT_SE / sqrt(2)."""
    noise = skewed(rng, (BURN_IN + BLOCKS, ROWS))
    state, blocks = np.zeros(ROWS), []
    for shock in noise:
        state = autocorrelation * state + np.sqrt(1 - autocorrelation**2) * shock
        blocks.append(state)
    effect = np.stack(blocks[BURN_IN:], axis=1) * np.sqrt(1 - share_of_rows)
    effect += np.sqrt(share_of_rows) * skewed(rng, (ROWS, 1))
    lags = np.arange(1, BLOCKS)
    within = (1 - share_of_rows) * autocorrelation**lags + share_of_rows
    inflation = 1 + 2 * float(((1 - lags / BLOCKS) * within).sum())
    return effect * TEXT_SE / np.sqrt(2 * inflation / (ROWS * BLOCKS))


def simulate(
    rng: np.random.Generator,
    num_seeds: int,
    seed_sds: tuple[float, float],
    dependence: tuple[float, float],
) -> tuple[Estimate, Estimate, float, TextVariance]:
    """Both estimates of one simulated comparison, and what is true of these very models."""
    means, series, true_means = [], [], []
    for level, seed_sd in zip((1.4 + TRUTH, 1.4), seed_sds, strict=True):
        of_cell = text_effect(rng, *dependence)
        levels = level + seed_sd * rng.standard_normal(num_seeds)
        of_seeds = 0.02 * skewed(rng, (num_seeds, ROWS, BLOCKS))
        losses = levels[:, np.newaxis, np.newaxis] + of_cell + of_seeds
        means.append(losses.mean(axis=(1, 2)))
        series.append(losses.mean(axis=0))
        true_means.append(levels.mean())
    text = text_variance(series[0] - series[1])
    difference = float(means[0].mean() - means[1].mean())
    parts = [part for of_cell in means if (part := seed_component(of_cell.tolist())) is not None]
    both: list[Component] = [text.component, *parts]
    true_of_these = float(true_means[0] - true_means[1])
    return estimate(difference, [text.component]), estimate(difference, both), true_of_these, text


def covers(one: Estimate, truth: float) -> bool:
    low, high = one.interval()
    return low <= truth <= high


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--simulations", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(f"{options.simulations} simulations a line; coverage of 95 % intervals, in percent")
    print("| dependence | seeds' SD | seeds | text | both | whole rows chosen | median df |")
    print("|---|---|--:|--:|--:|--:|--:|")
    for (name, dependence), (of_sd, ratios), num_seeds in product(
        DEPENDENCE.items(), SEED_SDS.items(), (3, 5)
    ):
        rng = np.random.default_rng([options.seed, num_seeds, round(100 * ratios[0]), len(name)])
        text_hits, both_hits, rows_chosen, dfs = 0, 0, 0, []
        sd_a, sd_b = (ratio * TEXT_SE * np.sqrt(num_seeds / 2) for ratio in ratios)
        for _ in range(options.simulations):
            text_only, both, true_of_these, text = simulate(
                rng, num_seeds, (sd_a, sd_b), dependence
            )
            text_hits += covers(text_only, true_of_these)
            both_hits += covers(both, TRUTH)
            rows_chosen += text.block_length == BLOCKS
            dfs.append(both.df)
        shares = [100 * hits / options.simulations for hits in (text_hits, both_hits, rows_chosen)]
        print(
            f"| {name} | {of_sd} | {num_seeds} | {shares[0]:.1f} | {shares[1]:.1f} "
            f"| {shares[2]:.0f} | {np.median(dfs):.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
