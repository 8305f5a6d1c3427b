"""Simulates how often the report's 95 % intervals cover the truth, and how often it is wrong.

    python scripts/simulate_coverage.py [--simulations 2000]
    python scripts/simulate_coverage.py --report [--simulations 1000]

Without --report, simulates the losses of two cells on a test text of 100 rows x 33 base blocks, the
shape of War and Peace. The loss of a block has four parts: what is hard for both cells (left out,
as it cancels), what is hard for one of them (dependent within a row, by an AR(1) process or by an
effect of the whole row), what is hard for a single seed, and the seed's own level. Each simulation
draws a new text and new seeds; the truth is the difference of the two cells over all texts and all
seeds. Losses are skewed (gamma).

With --report, simulates the whole report, from made-up runs to verdicts, of a row of nine models
that are all equally good. For each planned family it prints the share of reports with at least one
significant difference (the family-wise error); for bold, the share in which at least one of the
models, though all are the best, is not bold. Each model has text effects of its own; each seed has
a level and text effects of its own. A test text is 100 independent stretches, as the rule for
blocks chooses on the real ones.
"""

from __future__ import annotations

import argparse
import math
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from charcmp.models.budget import Shape, solve, target_params
from charcmp.models.cells.registry import cell_config
from charcmp.report.analysis.comparisons import PLANNED, analyse
from charcmp.report.analysis.verdicts import FAILS, HOLDS, verdicts
from charcmp.report.filters import Filters
from charcmp.report.load import Run
from charcmp.report.tables import make_tables
from charcmp.uncertainty.intervals import Estimate, estimate, seed_component
from charcmp.uncertainty.losses import LossSummary
from charcmp.uncertainty.text_variance import Component, TextVariance, text_variance

ROWS, BLOCKS = 100, 33
TRUTH = 0.01  # nats per character
TEXT_SE = 0.0015  # of a difference: about that on War and Peace
BURN_IN = 20
DEPENDENCE = {  # (autocorrelation of neighbouring blocks, share of variance due to whole rows)
    "none": (0.0, 0.0),
    "AR(1), 0.3": (0.3, 0.0),
    "AR(1), 0.7": (0.7, 0.0),
    "whole rows": (0.1, 0.02),
}
SEED_SDS = {  # of each cell's mean over seeds, as a multiple of one cell's SE over text
    "seeds 1/3 of text": (1 / 3, 1 / 3),
    "seeds as text": (1.0, 1.0),
    "seeds 3 x text": (3.0, 3.0),
    "seeds as text and 5 x": (5.0, 1.0),  # a gated cell beside an RNN
}


STRETCHES = 100
MODELS = [(cell, layers) for cell in ("lstm", "gru", "rnn") for layers in (1, 2, 3)]
MODEL_SEED_SDS = {  # of a model's test loss over seeds, nats per character
    "equal": dict.fromkeys(MODELS, 0.005),
    "as published": dict(  # War and Peace, 50k
        zip(MODELS, (0.0042, 0.0074, 0.0180, 0.0036, 0.0044, 0.0114, 0.0012, 0.0011, 0.0006),
            strict=True)
    ),
}  # fmt: skip
SEED_TEXT_SD = 0.0035  # of a stretch, of one seed: 0.00035 of its mean
FALSE_VERDICTS = {"1": FAILS, "2a": FAILS, "2b": HOLDS}  # if all models are equally good
REPORT_COLUMNS = (*(family for family in PLANNED if family != "variants"), "bold", "claims")


def skewed(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Draws numbers with mean 0, variance 1 and skewness 1."""
    return (rng.gamma(4.0, 1.0, shape) - 4.0) / 2.0


def text_effect(
    rng: np.random.Generator, autocorrelation: float, share_of_rows: float
) -> NDArray[np.float64]:
    """Draws what is hard for one cell, by block (R, J); its mean has the SD TEXT_SE / sqrt(2)."""
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
    """Simulates one comparison of two cells.

    Returns:
        The estimate over text; that over text and seeds; the true difference of these trained
        models; the variance over text.
    """
    means, blocks, true_means = [], [], []
    for level, seed_sd in zip((1.4 + TRUTH, 1.4), seed_sds, strict=True):
        of_cell = text_effect(rng, *dependence)
        levels = level + seed_sd * rng.standard_normal(num_seeds)
        of_seeds = 0.02 * skewed(rng, (num_seeds, ROWS, BLOCKS))
        losses = levels[:, np.newaxis, np.newaxis] + of_cell + of_seeds
        means.append(losses.mean(axis=(1, 2)))
        blocks.append(losses.mean(axis=0))
        true_means.append(levels.mean())
    text = text_variance(blocks[0] - blocks[1])
    assert text is not None
    difference = float(means[0].mean() - means[1].mean())
    parts = [part for of_cell in means if (part := seed_component(of_cell.tolist())) is not None]
    both: list[Component] = [text.component, *parts]
    true_of_these = float(true_means[0] - true_means[1])
    return estimate(difference, [text.component]), estimate(difference, both), true_of_these, text


def made_up_runs(
    rng: np.random.Generator, num_seeds: int, seed_sds: dict[tuple[str, int], float]
) -> list[Run]:
    """Makes up all seeds of all models of a 50k row; all models are equally good."""
    own_sd = TEXT_SE / np.sqrt(2) * np.sqrt(STRETCHES)  # of a stretch, of one model
    hard_for_all = 0.08 * skewed(rng, (STRETCHES,))
    runs = []
    for (cell, layers), seed_sd in seed_sds.items():
        own, own_val = own_sd * skewed(rng, (2, STRETCHES))
        for seed in range(num_seeds):
            level = 1.4 + seed_sd * rng.standard_normal()
            of_seed, of_seed_val = SEED_TEXT_SD * skewed(rng, (2, STRETCHES))
            losses = level + hard_for_all + own + of_seed
            val_nats = level + float(own_val.mean() + of_seed_val.mean())
            runs.append(made_up_run(cell, layers, seed, losses, val_nats))
    return runs


def made_up_run(
    cell: str, layers: int, seed: int, losses: NDArray[np.float64], val_nats: float
) -> Run:
    """Makes up a finished run with these losses, one for each series of its test text."""
    num_symbols = 80
    target = target_params("50k", num_symbols)
    shape = solve(Shape(cell_config(cell), layers, 1, num_symbols), target)
    size = len(losses)
    summary = LossSummary(
        block_sums_K=losses.astype(np.float32),
        sum_of_squares=float(np.square(losses).sum()),
        block_length=1,
        num_series=size,
        positions_S=np.arange(size, dtype=np.uint32),
        nll_S=losses.astype(np.float16),
    )
    nats = float(losses.mean())
    return Run(
        schema_version=1, run_id=f"{cell}-{layers}-s{seed}", status="done", dataset="made up",
        corpus_sha256="0" * 64, corpus_note=None, num_symbols=num_symbols, layout="columns",
        split=[80.0, 10.0, 10.0], cell=cell, layers=layers, budget="50k", target_params=target,
        hidden_size=shape.hidden_size, num_params=shape.num_params,
        seed=seed, dropout=0.0, protocol_version=1, precision="float32", epochs=50,
        batch_size=100, unroll_steps=100, num_test_chars=size, seconds_train=1.0,
        chars_per_second=1.0, seconds_per_sampled_char=None, device="cpu", best_epoch=50,
        identity={}, train_nats_per_char=1.3, val_nats_per_char=val_nats,
        test_nats_per_char=nats, test_perplexity=math.exp(nats),
        test_bits_per_char=nats / math.log(2), losses=summary, folder=Path(),
    )  # fmt: skip


def false_findings(runs: list[Run]) -> dict[str, bool]:
    """Returns by column whether the report of these equally good models has a false finding."""
    (table,) = make_tables(runs, Filters())
    analysis = analyse(table, num_resamples=10)
    (row,) = table.rows
    found = {
        family: any(
            one.both.significant for one in analysis.differences_of(family) if one.both is not None
        )
        for family in PLANNED
    }
    bold = analysis.not_worse(row)
    found["bold"] = bool(bold) and len(bold) < len(table.entries)
    found["claims"] = any(
        one.verdict == FALSE_VERDICTS.get(one.claim.split(".")[0]) for one in verdicts([analysis])
    )
    return found


def report_errors(num_simulations: int, seed: int) -> None:
    """Prints the table of --report."""
    error = 100 * np.sqrt(0.05 * 0.95 / num_simulations)
    print(
        f"{num_simulations} reports a line: percent with at least one false finding, nominal 5 % "
        f"(Monte Carlo standard error there {error:.1f})"
    )
    print(f"| seeds' SD | seeds | {' | '.join(REPORT_COLUMNS)} |")
    print(f"|---|{'--:|' * (1 + len(REPORT_COLUMNS))}")
    for (name, seed_sds), num_seeds in product(MODEL_SEED_SDS.items(), (2, 3, 5)):
        rng = np.random.default_rng([seed, num_seeds, len(name)])
        counts = dict.fromkeys(REPORT_COLUMNS, 0)
        for _ in range(num_simulations):
            found = false_findings(made_up_runs(rng, num_seeds, seed_sds))
            for column in REPORT_COLUMNS:
                counts[column] += found[column]
        shares = [f"{100 * count / num_simulations:.1f}" for count in counts.values()]
        print(f"| {name} | {num_seeds} | {' | '.join(shares)} |", flush=True)


def covers(one: Estimate, truth: float) -> bool:
    low, high = one.interval()
    return low <= truth <= high


def coverage(num_simulations: int, seed: int) -> None:
    """Prints the table of the two cells."""
    print(f"{num_simulations} simulations a line; coverage of 95 % intervals, in percent")
    print("| dependence | seeds' SD | seeds | text | both | whole rows chosen | median df |")
    print("|---|---|--:|--:|--:|--:|--:|")
    for (name, dependence), (of_sd, ratios), num_seeds in product(
        DEPENDENCE.items(), SEED_SDS.items(), (3, 5)
    ):
        rng = np.random.default_rng([seed, num_seeds, round(100 * ratios[0]), len(name)])
        text_hits, both_hits, rows_chosen, dfs = 0, 0, 0, []
        sd_a, sd_b = (ratio * TEXT_SE * np.sqrt(num_seeds / 2) for ratio in ratios)
        for _ in range(num_simulations):
            text_only, both, true_of_these, text = simulate(
                rng, num_seeds, (sd_a, sd_b), dependence
            )
            text_hits += covers(text_only, true_of_these)
            both_hits += covers(both, TRUTH)
            rows_chosen += text.block_length == BLOCKS
            dfs.append(both.df)
        shares = [100 * hits / num_simulations for hits in (text_hits, both_hits, rows_chosen)]
        print(
            f"| {name} | {of_sd} | {num_seeds} | {shares[0]:.1f} | {shares[1]:.1f} "
            f"| {shares[2]:.0f} | {np.median(dfs):.1f} |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--report", action="store_true", help="of the whole report")
    parser.add_argument("--simulations", type=int, help="a line; default 2000, of reports 1000")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.report:
        report_errors(options.simulations or 1000, options.seed)
    else:
        coverage(options.simulations or 2000, options.seed)


if __name__ == "__main__":
    main()
