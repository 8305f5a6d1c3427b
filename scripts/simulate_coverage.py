"""Simulates how often the report's 95 % intervals cover the truth, and how often it is wrong.

    python scripts/simulate_coverage.py [--simulations 2000]
    python scripts/simulate_coverage.py --one-series [--simulations 2000]
    python scripts/simulate_coverage.py --report [--simulations 1000]

Without these, simulates the losses of two cells on a test text of 100 rows x 33 base blocks, the
shape of War and Peace. The loss of a block has four parts: what is hard for both cells (left out,
as it cancels), what is hard for one of them (dependent within a row, by an AR(1) process or by an
effect of the whole row), what is hard for a single seed, and the seed's own level. Each simulation
draws a new text and new seeds; the truth is the difference of the two cells over all texts and all
seeds. Losses are skewed (gamma).

With --one-series, simulates the difference of two models on a test text that is one series, as
one's own text is (`contiguous`), for several kinds of text (ONE_SERIES) and several lengths. The
truth is the difference over all texts of that kind.

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
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

from charcmp.models.budget import Shape, solve, target_params
from charcmp.models.cells.registry import cell_config
from charcmp.report.analysis.comparisons import PLANNED, analyse
from charcmp.report.analysis.verdicts import FAILS, HOLDS, verdicts
from charcmp.report.filters import Filters
from charcmp.report.load import Run
from charcmp.report.tables import make_tables
from charcmp.report.writing.layout import ENOUGH_BLOCKS
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


@dataclass(frozen=True)
class Series:
    """How the difference of two models' losses varies along a text, in base blocks.

    A text consists of pieces, such as files or chapters. Their lengths have a log-normal
    distribution, and each has a level of its own. To the levels is added an AR(1) process; the rest
    of the variance is independent from block to block.
    """

    share_of_levels: float = 0.0  # of the variance
    piece_length: float = 1.0  # base blocks, the median
    piece_spread: float = 0.0  # SD of the logarithm of the length
    share_of_ar: float = 0.0
    autocorrelation: float = 0.0


# Prose: measured on War and Peace, whose chapters have some 8,000 characters. The other two: the
# differences of the models in results/example have about these autocorrelations (LOG.md).
ONE_SERIES = {
    "independent": Series(),
    "AR(1), 0.7": Series(share_of_ar=1.0, autocorrelation=0.7),
    "AR(1), 0.9": Series(share_of_ar=1.0, autocorrelation=0.9),
    "AR(1), 0.97": Series(share_of_ar=1.0, autocorrelation=0.97),
    "prose": Series(0.025, 80, 0.5),
    "documentation": Series(0.2, 17, 1.4, 0.35, 0.8),
    "source code": Series(0.27, 20, 1.2, 0.27, 0.6),
}
SERIES_LENGTHS = (30, 100, 300, 1000, 3000)  # base blocks: 3,000 to 300,000 characters
SEEDS_TO_TEXT = (1 / 3, 1.0)  # how much seeds move a difference, as a multiple of the text

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


def one_series(
    rng: np.random.Generator, series: Series, num: int, length: int
) -> NDArray[np.float64]:
    """Draws texts of one series, (num, length); mean 0 and variance 1 over all texts."""
    shocks = np.sqrt(1 - series.autocorrelation**2) * skewed(rng, (num, length))
    before = series.autocorrelation * rng.standard_normal((num, 1))
    dependent, _ = lfilter([1.0], [1.0, -series.autocorrelation], shocks, axis=1, zi=before)
    levels = np.stack([piece_levels(rng, series, length) for _ in range(num)])
    rest = 1 - series.share_of_ar - series.share_of_levels
    parts = ((series.share_of_ar, dependent), (series.share_of_levels, levels),
             (rest, skewed(rng, (num, length))))  # fmt: skip
    return np.asarray(sum(math.sqrt(share) * part for share, part in parts))


def piece_levels(rng: np.random.Generator, series: Series, length: int) -> NDArray[np.float64]:
    """Draws the level of the piece that each block of a text belongs to, (length,).

    The text is a random part of a longer one, so that it may begin and end within a piece.
    """
    mean_length = series.piece_length * math.exp(series.piece_spread**2 / 2)
    num_pieces = 30 + math.ceil(3 * length / mean_length)
    ends = np.zeros(num_pieces)
    while ends[-1] <= length:
        logs = rng.normal(math.log(series.piece_length), series.piece_spread, num_pieces)
        ends = np.cumsum(np.maximum(1, np.rint(np.exp(logs))))
    blocks = rng.integers(int(ends[-1]) - length) + np.arange(length)
    return skewed(rng, (num_pieces,))[np.searchsorted(ends, blocks, side="right")]


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
            difference.both.significant
            for difference in analysis.differences_of(family)
            if difference.both is not None
        )
        for family in PLANNED
    }
    bold = analysis.not_worse(row)
    found["bold"] = bool(bold) and len(bold) < len(table.entries)
    found["claims"] = any(
        verdict.verdict == FALSE_VERDICTS.get(verdict.claim.split(".")[0])
        for verdict in verdicts([analysis])
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


def covers(difference: Estimate, truth: float) -> bool:
    low, high = difference.interval()
    return low <= truth <= high


def coverage(num_simulations: int, seed: int) -> None:
    """Prints the table of the two cells."""
    print(f"{num_simulations} simulations a line; coverage of 95 % intervals, in percent")
    print("| dependence | seeds' SD | seeds | text | both | whole rows chosen | median df |")
    print("|---|---|--:|--:|--:|--:|--:|")
    for (name, dependence), (of_sd, ratios), num_seeds in product(
        DEPENDENCE.items(), SEED_SDS.items(), (2, 3, 5)
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


@dataclass(frozen=True)
class SeriesResult:
    """What was found for one kind of text and one length.

    Shares are of the simulated texts. Widths are median half widths of 95 % intervals, in units of
    what they would be if the variances were known. Of intervals over seeds and text there is one
    for each of SEEDS_TO_TEXT.
    """

    covered_by_text: float  # how often the interval over text covers the truth
    covered_without_note: float  # how often it does where the report has no note on few blocks
    noted: float
    covered_by_both: list[float]
    text_width: float
    both_widths: list[float]
    num_blocks: float  # median


def simulate_one_series(
    rng: np.random.Generator, series: Series, length: int, num_simulations: int
) -> SeriesResult:
    """Simulates the comparison of two models with three seeds each on texts of one series."""
    losses_NJ = one_series(rng, series, num_simulations, length)
    sd = float(losses_NJ.mean(axis=1).std())
    texts = [found for losses in losses_NJ if (found := text_variance(losses[np.newaxis]))]
    over_text = [
        estimate(float(losses.mean()), [text.component])
        for losses, text in zip(losses_NJ, texts, strict=True)
    ]
    hits = np.array([covers(found, 0.0) for found in over_text])
    noted = np.array([text.num_required < ENOUGH_BLOCKS for text in texts])
    over_both = [
        [
            with_seeds(rng, found, text, ratio * sd)
            for found, text in zip(over_text, texts, strict=True)
        ]
        for ratio in SEEDS_TO_TEXT
    ]
    return SeriesResult(
        covered_by_text=float(hits.mean()),
        covered_without_note=float(hits[~noted].mean()) if not noted.all() else math.nan,
        noted=float(noted.mean()),
        covered_by_both=[
            float(np.mean([covers(difference, 0.0) for difference in found])) for found in over_both
        ],
        text_width=median_width(over_text) / sd,
        both_widths=[
            median_width(found) / (math.hypot(1, ratio) * sd)
            for found, ratio in zip(over_both, SEEDS_TO_TEXT, strict=True)
        ],
        num_blocks=float(np.median([text.num_blocks for text in texts])),
    )


def with_seeds(
    rng: np.random.Generator, over_text: Estimate, text: TextVariance, seed_sd: float
) -> Estimate:
    """Adds three seeds of each model to a difference, which `seed_sd` says how much they move."""
    seeds = rng.normal(0.0, seed_sd * math.sqrt(3 / 2), (2, 3))
    parts = [part for of_cell in seeds if (part := seed_component(of_cell.tolist())) is not None]
    moved = float(seeds[0].mean() - seeds[1].mean())
    return estimate(over_text.difference + moved, [text.component, *parts])


def median_width(found: list[Estimate]) -> float:
    """Returns the median half width of the 95 % intervals, in 1.96 nats."""
    return float(np.median([np.ptp(difference.interval()) for difference in found])) / (2 * 1.96)


def one_series_coverage(num_simulations: int, seed: int) -> None:
    """Prints the table of texts of one series."""
    print(
        f"{num_simulations} simulations a line; coverage of 95 % intervals, in percent; widths in "
        "units of what they would be if the variances were known"
    )
    print(
        "| text | base blocks | text | without a note | noted | both, seeds 1/3 of text "
        "| both, seeds as text | widths: text | both, 1/3 | both, as text | blocks |"
    )
    print(f"|---|{'--:|' * 10}")
    for (name, series), length in product(ONE_SERIES.items(), SERIES_LENGTHS):
        rng = np.random.default_rng([seed, length, len(name)])
        found = simulate_one_series(rng, series, length, num_simulations)
        both = " | ".join(f"{100 * share:.1f}" for share in found.covered_by_both)
        widths = " | ".join(f"{width:.2f}" for width in (found.text_width, *found.both_widths))
        without_note = "—" if found.noted == 1 else f"{100 * found.covered_without_note:.1f}"
        print(
            f"| {name} | {length} | {100 * found.covered_by_text:.1f} | {without_note} "
            f"| {100 * found.noted:.0f} | {both} | {widths} | {found.num_blocks:.0f} |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    kinds = parser.add_mutually_exclusive_group()
    kinds.add_argument("--report", action="store_true", help="of the whole report")
    kinds.add_argument("--one-series", action="store_true", help="of one's own text")
    parser.add_argument("--simulations", type=int, help="a line; default 2000, of reports 1000")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.report:
        report_errors(options.simulations or 1000, options.seed)
    elif options.one_series:
        one_series_coverage(options.simulations or 2000, options.seed)
    else:
        coverage(options.simulations or 2000, options.seed)


if __name__ == "__main__":
    main()
