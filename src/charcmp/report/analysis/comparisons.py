"""What is compared with what: families fixed beforehand, within a row of equal parameters.

A family is one kind of comparison in all rows of a block. Its size is the number of pairs that the
block's grid has, whether they have been run or not, so that runs and seeds added to one pair never
change the multiplicity of the others. Under the paper's protocol the grid is the paper's (three
cells, three depths, four budgets) and whatever was run beyond it. Each difference has up to three
estimates, which answer different questions:

text    would these very models keep their order on as much other text of this kind?
seeds   would models of other seeds keep it on this same text?
both    would models of other seeds keep it on other text? Needs two seeds of each model.
"""

from __future__ import annotations

import itertools
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from charcmp.models.budget import BUDGETS
from charcmp.report import paper
from charcmp.report.analysis.distances import Distances, prediction_distances
from charcmp.report.tables import Column, Entry, Table, base_cell, is_the_papers
from charcmp.uncertainty.intervals import (
    ALPHA,
    NUM_RESAMPLES,
    Estimate,
    Judged,
    detectable_with,
    estimate,
    judge,
    resample,
    seed_component,
)
from charcmp.uncertainty.text_variance import Floats, TextVariance, text_variance

FAMILIES = {
    "lstm_gru": "LSTM against GRU",
    "rnn": "LSTM and GRU against RNN",
    "layers": "deeper against shallower",
    "variants": "other cells against the LSTM, or against the cell of which they are a variant",
    "best": "each model against the one with the lowest validation loss of its row",
}
PLANNED = ("lstm_gru", "rnn", "layers", "variants")  # `best` is chosen by the data
FROM_LSTM = ("lstm_gru", "rnn", "variants")  # that compare other cells with the LSTM of their depth


@dataclass(frozen=True)
class Resampled:
    """What resamples of the text give, to be compared with the closed form."""

    sd: float
    interval: tuple[float, float]  # percentiles, 95 %


@dataclass(frozen=True)
class Pair:
    """Two models of a row that a family compares, whether they have been run or not."""

    family: str
    row: str
    a: Column
    b: Column


@dataclass(frozen=True)
class Difference:
    """Model a minus model b of one row, in test nats per character."""

    family: str
    row: str
    a: Entry
    b: Entry
    text_variance: TextVariance | None  # None: no losses kept, or a text of a single block
    resampled: Resampled | None
    seeds: Estimate | None
    text: Judged | None
    both: Judged | None  # over seeds and text

    @property
    def nats(self) -> float:
        return self.a.test_nats - self.b.test_nats

    @property
    def judged(self) -> Judged | None:
        """The strongest statement that the runs allow: over seeds and text, else over text."""
        return self.both or self.text

    @property
    def has_losses(self) -> bool:
        return all(any(run.losses for run in entry.runs) for entry in (self.a, self.b))

    @property
    def has_one_seed(self) -> bool:
        """Whether a model has a single seed: then nothing is known of how much seeds move it."""
        return min(len(self.a.seeds), len(self.b.seeds)) == 1

    @property
    def leaves_out_seeds(self) -> bool:
        """Whether a mean is over the seeds that did not diverge, which flatters its model."""
        return self.a.num_left_out + self.b.num_left_out > 0

    @property
    def seed_variance(self) -> float | None:
        """The variance of one run over seeds, mean of both models; None if one has one seed."""
        parts = [_seed_variance(entry) for entry in (self.a, self.b)]
        known = [part for part in parts if part is not None]
        return statistics.fmean(known) if len(known) == 2 else None

    def detectable(self, alpha: float) -> float | None:
        """Returns the smallest difference that such models and seeds would find with 80 % power;
        by the text alone if one has a single seed. None if nothing is known of the text."""
        if self.text_variance is None:
            return None
        num_seeds = min(len(self.a.seeds), len(self.b.seeds))
        text, of_seeds = self.text_variance.component, self.seed_variance or 0.0
        return detectable_with(num_seeds, text, of_seeds, alpha)


@dataclass(frozen=True)
class Power:
    """The smallest difference of LSTM and GRU that the seeds at one depth could detect.

    To detect means with 80 % power at Holm's first step. It is per depth, not per row, since seeds
    move the loss of three gated layers up to five times as much as that of one.
    """

    row: str
    layers: int
    num_seeds: int  # of the model that has fewer
    detectable: float  # nats; with one seed, by the text alone
    difference: float  # |LSTM - GRU| as measured

    @property
    def is_beyond(self) -> bool:
        """Whether the difference is smaller than what could be detected."""
        return self.difference < self.detectable


@dataclass(frozen=True)
class Analysis:
    """A block with its statistics."""

    table: Table
    differences: list[Difference] = field(default_factory=list)
    planned: list[Pair] = field(default_factory=list)  # the pairs of the grid, run or not
    power: list[Power] = field(default_factory=list)
    distances: list[Distances] = field(default_factory=list)

    def differences_of(self, family: str, row: str | None = None) -> list[Difference]:
        return [
            difference
            for difference in self.differences
            if difference.family == family and row in (None, difference.row)
        ]

    def from_lstm(self, row: str) -> dict[Column, tuple[Difference, bool]]:
        """Returns each model's planned difference from the LSTM, and whether that is turned: the
        LSTM minus the model."""
        found = {}
        for difference in self.differences:
            is_first = difference.a.cell == "lstm"
            of_lstm = is_first or difference.b.cell == "lstm"
            if difference.row == row and of_lstm and difference.family in FROM_LSTM:
                other = difference.b if is_first else difference.a
                found[other.column] = difference, is_first
        return found

    def num_planned_from_lstm(self, row: str) -> int:
        """Returns how many models of a row the grid compares with the LSTM, run or not."""
        return sum(
            pair.row == row and pair.family in FROM_LSTM and "lstm" in (pair.a[0], pair.b[0])
            for pair in self.planned
        )

    def detectable_from_best(self, row: str) -> float | None:
        """Returns how far behind the best of its row a model must be to be found worse with 80 %
        power at Holm's first step: the median over those with seeds; None without any."""
        alpha = ALPHA / self.family_size("best")
        detectable = [
            nats for found in self.differences_of("best", row)
            if found.both is not None and (nats := found.detectable(alpha)) is not None
        ]  # fmt: skip
        return statistics.median(detectable) if detectable else None

    def family_size(self, family: str) -> int:
        return family_size(self.table, self.planned, family)

    def missing(self, family: str) -> list[Pair]:
        """Returns the pairs of the grid of which a model has not been run, and none diverged."""
        return [pair for pair in self._without_difference(family) if not self._diverged(pair)]

    def diverged(self, family: str) -> list[Pair]:
        """Returns the pairs of the grid of which every run of a model diverged."""
        return [pair for pair in self._without_difference(family) if self._diverged(pair)]

    def _without_difference(self, family: str) -> list[Pair]:
        run = {
            (difference.row, difference.a.column, difference.b.column)
            for difference in self.differences_of(family)
        }
        return [pair for pair in self.planned
                if pair.family == family and (pair.row, pair.a, pair.b) not in run]  # fmt: skip

    def _diverged(self, pair: Pair) -> bool:
        entries = [self.table.entries.get((pair.row, *column)) for column in (pair.a, pair.b)]
        return any(entry is not None and not entry.is_done for entry in entries)

    def best(self, row: str) -> Entry | None:
        """Returns the model of a row with the lowest mean validation loss.

        Not by test loss: the winner's is what is reported, and choosing by it would flatter it.
        """
        return _best(_done(self.table, row))

    def not_worse(self, row: str) -> list[Entry]:
        """Returns the best of a row and every model not significantly worse, in order of test loss.

        Only models with two or more seeds are compared. Returns [] if no comparison with the best
        is over seeds and text.
        """
        compared = [
            difference
            for difference in self.differences_of("best", row)
            if difference.both is not None
        ]
        if not compared:
            return []
        tied = [
            difference.a
            for difference in compared
            if difference.both is not None and difference.both.sign <= 0
        ]
        return sorted([compared[0].b, *tied], key=lambda entry: entry.test_nats)


def _best(entries: Sequence[Entry]) -> Entry | None:
    return min(entries, key=lambda entry: entry.val_nats, default=None)


def analyse(table: Table, num_resamples: int = NUM_RESAMPLES) -> Analysis:
    """Makes all comparisons of a block; the resamples are only shown, nothing is judged by them."""
    planned = planned_pairs(table)
    sizes = {family: family_size(table, planned, family) for family in FAMILIES}
    differences = _differences(_finished_pairs(table, planned), sizes, num_resamples)
    powers = [power for row in table.rows for power in _powers(row, differences, sizes["lstm_gru"])]
    distances = prediction_distances(table, num_places(table))
    return Analysis(table, differences, planned, powers, distances)


class _FinishedPair(NamedTuple):
    """Two finished models of a row that a family compares."""

    family: str
    row: str
    a: Entry
    b: Entry


def _finished_pairs(table: Table, planned: Sequence[Pair]) -> list[_FinishedPair]:
    """Returns the planned pairs that have been run, and each model with the best of its row."""
    done = {(entry.row, *entry.column): entry for entry in table.done()}
    pairs: list[_FinishedPair] = []
    for row in table.rows:
        pairs += [
            _FinishedPair(pair.family, row, done[row, *pair.a], done[row, *pair.b])
            for pair in planned
            if pair.row == row and {(row, *pair.a), (row, *pair.b)} <= done.keys()
        ]
        entries = _done(table, row)
        best = _best(entries)
        pairs += [
            _FinishedPair("best", row, entry, best)
            for entry in entries
            if best is not None and entry is not best
        ]
    return pairs


def _done(table: Table, row: str) -> list[Entry]:
    return [
        entry for column in table.columns
        if (entry := table.entries.get((row, *column))) is not None and entry.is_done
    ]  # fmt: skip


def grid_of(table: Table) -> tuple[list[str], list[str], list[int]]:
    """Returns the rows, cells and depths of the block's grid of LSTM, GRU and RNN.

    Under the paper's protocol it is the paper's grid and whatever was run beyond it; otherwise it
    is what was run.
    """
    seen = [place for place in table.entries if place[1] in paper.CELLS]
    rows = [row for row in table.rows if row in {place[0] for place in seen}]
    cells = list(paper.CELLS)
    depths = {layers for _, _, layers in seen}
    if is_the_papers(table.settings):
        rows = list(dict.fromkeys([*rows, *BUDGETS]))
        depths |= {layers for _, layers in paper.COLUMNS}
    else:
        cells = [cell for cell in cells if cell in {place[1] for place in seen}]
    return rows, cells, sorted(depths)


def _variants(table: Table) -> tuple[list[str], list[str], list[int]]:
    """Returns the rows, cells and depths in which variants were run; the paper has none."""
    seen = [place for place in table.entries if place[1] not in paper.CELLS]
    rows = {row for row, _, _ in seen}
    return (
        [row for row in table.rows if row in rows],
        sorted({cell for _, cell, _ in seen}),
        sorted({layers for _, _, layers in seen}),
    )


def all_columns(table: Table) -> set[Column]:
    """Returns every column that the block's grid has."""
    return {
        column
        for _, cells, depths in (grid_of(table), _variants(table))
        for column in itertools.product(cells, depths)
    }


def family_size(table: Table, planned: Sequence[Pair], family: str) -> int:
    """Returns how many comparisons Holm's procedure counts; for `best`, in one row."""
    if family == "best":
        return len(all_columns(table)) - 1
    return sum(pair.family == family for pair in planned)


def num_places(table: Table) -> int:
    """Returns the grid's rows times depths: where the predictions of three cells are compared."""
    rows, _, depths = grid_of(table)
    return len(rows) * len(depths)


def planned_pairs(table: Table) -> list[Pair]:
    """Returns every pair of the planned families, run or not."""
    rows, cells, depths = grid_of(table)
    pairs = [
        Pair(family, row, a, b)
        for row in rows
        for family in PLANNED
        for a, b in _planned(family, cells, depths)
    ]
    return pairs + [
        Pair("variants", row, (cell, layers), (starting_point(cell), layers))
        for row, cell, layers in itertools.product(*_variants(table))
    ]


def _planned(
    family: str, cells: Sequence[str], depths: Sequence[int]
) -> list[tuple[Column, Column]]:
    """Returns the pairs (a, b) of a family of LSTM, GRU and RNN in a row of the grid."""
    pairs: list[tuple[Column, Column]] = []
    if family == "lstm_gru":
        pairs = [(("lstm", layers), ("gru", layers)) for layers in depths]
    elif family == "rnn":
        pairs = [((cell, layers), ("rnn", layers)) for cell in ("lstm", "gru") for layers in depths]
    elif family == "layers":
        pairs = [
            ((cell, deeper), (cell, shallower))
            for cell in cells
            for shallower, deeper in itertools.combinations(depths, 2)
        ]
    return [(a, b) for a, b in pairs if a[0] in cells and b[0] in cells]


def starting_point(cell: str) -> str:
    """Returns the cell to compare a variant with.

    LSTM, GRU and RNN with options are compared with the same cell without options, all others with
    the LSTM.
    """
    return base_cell(cell) if base_cell(cell) in paper.CELLS else "lstm"


def block_means(entry: Entry) -> Floats | None:
    """Returns the mean nats of each base block over the seeds of an entry, (R, J)."""
    losses = [run.losses.block_means_RJ for run in entry.runs if run.losses is not None]
    return np.mean(losses, axis=0) if losses else None


def _seed_variance(entry: Entry) -> float | None:
    return None if entry.sd_over_seeds is None else entry.sd_over_seeds**2


def _differences(
    pairs: Sequence[_FinishedPair],
    size_of_family: Mapping[str, int],
    num_resamples: int,
) -> list[Difference]:
    """Returns the pairs' differences, in the order of the pairs, judged family by family.

    A planned family spans all rows of the block; comparisons with the best are judged row by row.
    """
    blocks = _block_differences(pairs)
    texts = {
        key: variance
        for key, means in blocks.items()
        if (variance := text_variance(means)) is not None
    }
    resampled = _resampled(blocks, texts, num_resamples)
    families = defaultdict(list)
    for number, (family, row, a, b) in enumerate(pairs):
        estimates = _estimates(a, b, texts.get((a, b)))
        families[family, row if family == "best" else ""].append((number, estimates))
    text_judged: dict[int, Judged] = {}
    both_judged: dict[int, Judged] = {}
    for (family, _), members in families.items():
        size = size_of_family[family]
        text_judged |= _judged({number: known.text for number, known in members}, size)
        both_judged |= _judged({number: known.both for number, known in members}, size)
    seeds = {number: known.seeds for members in families.values() for number, known in members}
    return [
        Difference(
            family=family,
            row=row,
            a=a,
            b=b,
            text_variance=texts.get((a, b)),
            resampled=resampled.get((a, b)),
            seeds=seeds[number],
            text=text_judged.get(number),
            both=both_judged.get(number),
        )
        for number, (family, row, a, b) in enumerate(pairs)
    ]


def _block_differences(pairs: Sequence[_FinishedPair]) -> dict[tuple[Entry, Entry], Floats]:
    """Returns block means of a minus those of b, by (a, b); none without kept losses.

    A pair that is in two families, as of LSTM and GRU and of the best, is here once.
    """
    means = {entry: block_means(entry) for pair in pairs for entry in (pair.a, pair.b)}
    blocks = {}
    for _, _, a, b in pairs:
        mean_a, mean_b = means[a], means[b]
        if mean_a is not None and mean_b is not None:
            blocks[a, b] = mean_a - mean_b
    return blocks


class _Estimates(NamedTuple):
    """The estimates of one difference; None where its runs do not allow one."""

    text: Estimate | None
    seeds: Estimate | None
    both: Estimate | None


def _estimates(a: Entry, b: Entry, variance: TextVariance | None) -> _Estimates:
    nats = a.test_nats - b.test_nats
    over_text = [] if variance is None else [variance.component]
    components = [
        seed_component([run.test_nats_per_char for run in entry.runs]) for entry in (a, b)
    ]
    over_seeds = [component for component in components if component is not None]
    has_seeds = len(over_seeds) == 2
    return _Estimates(
        text=estimate(nats, over_text) if over_text else None,
        seeds=estimate(nats, over_seeds) if has_seeds else None,
        both=estimate(nats, [*over_text, *over_seeds]) if over_text and has_seeds else None,
    )


def _judged(estimates: Mapping[int, Estimate | None], family_size: int) -> dict[int, Judged]:
    """Judges the estimates that there are as one family; returns them by their pair's number."""
    known = {number: found for number, found in estimates.items() if found is not None}
    return dict(zip(known, judge(list(known.values()), family_size), strict=True))


def _resampled(
    blocks: Mapping[tuple[Entry, Entry], Floats],
    texts: Mapping[tuple[Entry, Entry], TextVariance],
    num_resamples: int,
) -> dict[tuple[Entry, Entry], Resampled]:
    """Runs the bootstrap itself, for all differences of one block length at once."""
    found = {}
    for length in sorted({text.block_length for text in texts.values()}):
        keys = [key for key, text in texts.items() if text.block_length == length]
        means_CN = resample([blocks[key] for key in keys], length, num_resamples)
        lows, highs = np.percentile(means_CN, [100 * ALPHA / 2, 100 * (1 - ALPHA / 2)], axis=1)
        for key, sd, low, high in zip(keys, means_CN.std(axis=1), lows, highs, strict=True):
            found[key] = Resampled(float(sd), (float(low), float(high)))
    return found


def _powers(row: str, differences: Sequence[Difference], family_size: int) -> list[Power]:
    """Returns the power of the pairs with several seeds or, if there are none, of all pairs."""
    pairs = [
        difference
        for difference in differences
        if difference.family == "lstm_gru" and difference.row == row
    ]
    powers = []
    for difference in [difference for difference in pairs if difference.both is not None] or pairs:
        if (detectable := difference.detectable(ALPHA / family_size)) is not None:
            num_seeds = min(len(difference.a.seeds), len(difference.b.seeds))
            nats = abs(difference.nats)
            powers.append(Power(row, difference.a.layers, num_seeds, detectable, nats))
    return powers
