"""What is compared with what: families fixed beforehand, within a row of equal parameters.

A family is one kind of comparison in one row of one block, so that a row added to a grid changes no
verdict of another. Each difference has up to three estimates, which answer different questions:

text    would these very models keep their order on as much other text of this kind?
seeds   would models of other seeds keep it on this same text?
both    would models of other seeds keep it on other text? Needs two seeds of each cell.
"""

from __future__ import annotations

import itertools
import statistics as pystatistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from charcmp.report import paper
from charcmp.report.cells import Cell, Column, Table, base_cell
from charcmp.report.distances import Distances, prediction_distances
from charcmp.report.statistics import (
    ALPHA,
    Estimate,
    Floats,
    Judged,
    TextVariance,
    detectable_with,
    estimate,
    judge,
    resample,
    seed_component,
    text_variance,
)

FAMILIES = {
    "lstm_gru": "LSTM against GRU",
    "rnn": "LSTM and GRU against RNN",
    "layers": "deeper against shallower",
    "variants": "variant cells against their starting point",
    "best": "each cell against the best of its row",
}
PLANNED = ("lstm_gru", "rnn", "layers", "variants")  # `best` is chosen by the data


@dataclass(frozen=True)
class Resampled:
    """What the drawn resamples of the text give, to hold against the closed form."""

    sd: float
    interval: tuple[float, float]  # percentiles, 95 %


@dataclass(frozen=True)
class Difference:
    """Cell a minus cell b of one row, in test nats per character."""

    family: str
    row: str
    a: Cell
    b: Cell
    text_variance: TextVariance | None  # None: a run without its losses
    resampled: Resampled | None
    seeds: Estimate | None
    text: Judged | None
    both: Judged | None  # over seeds and, where the losses are there, text

    @property
    def nats(self) -> float:
        return self.a.test_nats - self.b.test_nats

    @property
    def judged(self) -> Judged | None:
        """The strongest statement that its runs allow."""
        return self.both or self.text

    @property
    def seed_variance(self) -> float | None:
        """Of one run, mean over the two cells; None where one of them has a single seed."""
        parts = [_seed_variance(cell) for cell in (self.a, self.b)]
        known = [part for part in parts if part is not None]
        return pystatistics.fmean(known) if len(known) == 2 else None


@dataclass(frozen=True)
class Power:
    """What seeds could have told of LSTM against GRU of one depth (80 % power, Holm's first step).

    Of one depth, not of a row: seeds move three gated layers up to five times as much as one.
    """

    row: str
    layers: int
    num_seeds: int  # of the cell that has fewer
    detectable: float  # nats; with one seed, what the text alone would hide
    difference: float  # |LSTM - GRU| as it came out

    @property
    def is_beyond(self) -> bool:
        """Whether the difference is smaller than what could have been told."""
        return self.difference < self.detectable


@dataclass(frozen=True)
class Analysis:
    """A block with its statistics."""

    table: Table
    differences: list[Difference] = field(default_factory=list)
    power: list[Power] = field(default_factory=list)
    distances: list[Distances] = field(default_factory=list)

    def of(self, family: str, row: str | None = None) -> list[Difference]:
        return [one for one in self.differences if one.family == family and row in (None, one.row)]

    def best(self, row: str) -> Cell | None:
        """The cell with the lowest mean test loss of a row."""
        return min(_done(self.table, row), key=lambda cell: cell.test_nats, default=None)

    def not_worse(self, row: str) -> list[Cell]:
        """The best of a row and every cell that is not told from it after Holm."""
        tied = [
            one.a for one in self.of("best", row)
            if one.nats == 0 or (one.judged is not None and not one.judged.rejected)
        ]  # fmt: skip
        best = self.best(row)
        return sorted([best, *tied], key=lambda cell: cell.test_nats) if best else []

    def family_size(self, family: str, row: str) -> int:
        return len(self.of(family, row))


def analyse(table: Table) -> Analysis:
    """All comparisons of a block."""
    pairs: list[tuple[str, str, Cell, Cell]] = []
    for row in table.rows:
        cells = {cell.column: cell for cell in _done(table, row)}
        pairs += [(family, row, cells[a], cells[b])
                  for family in PLANNED for a, b in _planned(family, cells)]  # fmt: skip
        best = min(cells.values(), key=lambda cell: cell.test_nats, default=None)
        pairs += [("best", row, cell, best) for cell in cells.values()
                  if best is not None and cell is not best]  # fmt: skip
    differences = _differences(pairs)
    powers = [power for row in table.rows for power in _powers(row, differences)]
    return Analysis(table, differences, powers, prediction_distances(table))


def _done(table: Table, row: str) -> list[Cell]:
    return [
        cell for column in table.columns
        if (cell := table.cells.get((row, *column))) is not None and cell.is_done
    ]  # fmt: skip


def _planned(family: str, columns: Iterable[Column]) -> list[tuple[Column, Column]]:
    """The pairs (a, b) of a family among the columns that a row has."""
    columns = list(columns)
    depths = sorted({layers for _, layers in columns})
    pairs: list[tuple[Column, Column]] = []
    if family == "lstm_gru":
        pairs = [(("lstm", layers), ("gru", layers)) for layers in depths]
    elif family == "rnn":
        pairs = [((cell, layers), ("rnn", layers)) for cell in ("lstm", "gru") for layers in depths]
    elif family == "layers":
        pairs = [
            ((cell, deeper), (cell, shallower))
            for cell in paper.CELLS
            for shallower, deeper in itertools.combinations(depths, 2)
        ]
    elif family == "variants":
        variants = [column for column in columns if column[0] not in paper.CELLS]
        pairs = [((cell, layers), (starting_point(cell), layers)) for cell, layers in variants]
    return [(a, b) for a, b in pairs if a in columns and b in columns]


def starting_point(cell: str) -> str:
    """What a variant is held against: one of the three with options, itself; others, the LSTM."""
    return base_cell(cell) if base_cell(cell) in paper.CELLS else "lstm"


def block_means(cell: Cell) -> Floats | None:
    """Mean nats of each base block over the seeds of a cell, (R, J)."""
    losses = [run.losses.block_means_RJ for run in cell.runs if run.losses is not None]
    return np.mean(losses, axis=0) if losses else None


def _seed_variance(cell: Cell) -> float | None:
    return None if cell.sd_over_seeds is None else cell.sd_over_seeds**2


def _differences(pairs: Sequence[tuple[str, str, Cell, Cell]]) -> list[Difference]:
    """Estimates, judged family by family, in the order of the pairs."""
    means = {id(cell): block_means(cell) for _, _, *both in pairs for cell in both}
    series: dict[tuple[int, int], Floats] = {}
    for _, _, a, b in pairs:
        mean_a, mean_b = means[id(a)], means[id(b)]
        if mean_a is not None and mean_b is not None:
            series[id(a), id(b)] = mean_a - mean_b
    texts = {key: text_variance(one) for key, one in series.items()}
    resampled = _resampled(series, texts)
    made: dict[int, Difference] = {}
    families = defaultdict(list)
    for number, (family, row, _, _) in enumerate(pairs):
        families[family, row].append(number)
    for (family, row), numbers in families.items():
        of_text: dict[int, Estimate] = {}
        of_seeds: dict[int, Estimate] = {}
        of_both: dict[int, Estimate] = {}
        for number in numbers:
            _, _, a, b = pairs[number]
            text = texts.get((id(a), id(b)))
            nats = a.test_nats - b.test_nats
            seeds = [seed_component([run.test_nats_per_char for run in cell.runs])
                     for cell in (a, b)]  # fmt: skip
            known = [part for part in seeds if part is not None]
            from_text = [text.component] if text is not None else []
            if from_text:
                of_text[number] = estimate(nats, from_text)
            if len(known) == 2:
                of_seeds[number] = estimate(nats, known)
                of_both[number] = estimate(nats, [*from_text, *known])
        text_judged = dict(zip(of_text, judge(list(of_text.values())), strict=True))
        both_judged = dict(zip(of_both, judge(list(of_both.values())), strict=True))
        for number in numbers:
            _, _, a, b = pairs[number]
            made[number] = Difference(
                family=family,
                row=row,
                a=a,
                b=b,
                text_variance=texts.get((id(a), id(b))),
                resampled=resampled.get((id(a), id(b))),
                seeds=of_seeds.get(number),
                text=text_judged.get(number),
                both=both_judged.get(number),
            )
    return [made[number] for number in range(len(pairs))]


def _resampled(
    series: dict[tuple[int, int], Floats], texts: dict[tuple[int, int], TextVariance]
) -> dict[tuple[int, int], Resampled]:
    """The bootstrap itself, for all differences of one block length at once."""
    found = {}
    for length in sorted({text.block_length for text in texts.values()}):
        keys = [key for key, text in texts.items() if text.block_length == length]
        means_CN = resample([series[key] for key in keys], length)
        lows, highs = np.percentile(means_CN, [100 * ALPHA / 2, 100 * (1 - ALPHA / 2)], axis=1)
        for key, sd, low, high in zip(keys, means_CN.std(axis=1), lows, highs, strict=True):
            found[key] = Resampled(float(sd), (float(low), float(high)))
    return found


def _powers(row: str, differences: Sequence[Difference]) -> list[Power]:
    """Of the pairs with several seeds where there are any, else of all."""
    pairs = [one for one in differences if one.family == "lstm_gru" and one.row == row]
    powers = []
    for one in [one for one in pairs if one.both is not None] or pairs:
        if one.text_variance is None:
            continue
        num_seeds = min(len(one.a.seeds), len(one.b.seeds))
        text, variance = one.text_variance.component, one.seed_variance or 0.0
        detectable = detectable_with(num_seeds, text, variance, ALPHA / len(pairs))
        powers.append(Power(row, one.a.layers, num_seeds, detectable, abs(one.nats)))
    return powers
