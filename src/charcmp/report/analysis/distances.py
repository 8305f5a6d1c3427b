"""Claim 4 as a number: how far apart the predictions of two cells are, within a row and a depth.

The distance d of two models is the mean absolute difference of the probabilities that they give the
correct character at the sampled positions (losses.py); that of two cells is the mean over pairs of
seeds. Two seeds of one cell also differ, and the more they do, the farther the cell lies from every
other cell. So the claim is judged by energy distances (Székely & Rizzo 2013), halved to stay in
units of d:

    e(a, b) = d(a, b) - d(a, a') / 2 - d(b, b') / 2,

where a' is another seed of a. It is 0 on average for two cells that predict alike but for their
seeds. The claim holds if LSTM and GRU lie closer to each other than to the RNN:
(e(lstm, rnn) + e(gru, rnn)) / 2 > e(lstm, gru).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from charcmp.report.tables import Entry, Table
from charcmp.uncertainty.intervals import Estimate, Judged, estimate, judge
from charcmp.uncertainty.text_variance import Component, Floats

MIN_SEGMENTS = 20  # of the test text, resampled as wholes


@dataclass(frozen=True)
class Distances:
    """The distances of the three cells at one budget and depth, in probability (0 to 1)."""

    row: str
    layers: int
    num_seeds: int  # the fewest of the three cells
    leaves_out_seeds: bool  # of a cell, since they diverged
    lstm_gru: float
    lstm_rnn: float
    gru_rnn: float
    within: tuple[float | None, float | None, float | None]  # two seeds of LSTM, GRU, RNN
    text: Judged  # `excess` of these very models, over text
    both: Judged | None  # None: a cell has one seed, so `excess` is not corrected for seeds

    @property
    def excess(self) -> float:
        """How much farther the RNN is: its mean distance from LSTM and GRU minus theirs.

        In energy distances if all three cells have two seeds, else in plain ones.
        """
        return self.judged.estimate.difference

    @property
    def same_cell(self) -> float | None:
        """The distance of two seeds of one cell, mean over the cells that have them."""
        known = [distance for distance in self.within if distance is not None]
        return fmean(known) if known else None

    @property
    def judged(self) -> Judged:
        return self.both or self.text


def prediction_distances(table: Table, family_size: int) -> list[Distances]:
    """Measures distances wherever a row has all three cells at a depth, with their sampled losses.

    Args:
        table: the block.
        family_size: the rows times depths of its grid.
    """
    places: list[_Place] = []
    for (row, layers), entries in trained_places(table).items():
        by_cell = [probabilities(entry) for entry in entries]
        if all(by_cell):
            first = next(run.losses for run in entries[0].runs if run.losses)
            segments = segment_of(first.positions_S, first.num_chars, first.num_series)
            if len(np.unique(segments)) > 1:
                left_out = any(entry.num_left_out for entry in entries)
                places.append(_Place(row, layers, left_out, _Measured(by_cell, segments)))
    texts = judge([place.measured.text() for place in places], family_size)
    several = [number for number, place in enumerate(places) if place.measured.num_seeds > 1]
    judged = judge([places[number].measured.both() for number in several], family_size)
    both = dict(zip(several, judged, strict=True))
    return [
        Distances(
            row=row,
            layers=layers,
            num_seeds=measured.num_seeds,
            leaves_out_seeds=left_out,
            lstm_gru=float(measured.between[0, 1].mean()),
            lstm_rnn=float(measured.between[0, 2].mean()),
            gru_rnn=float(measured.between[1, 2].mean()),
            within=(measured.within(0), measured.within(1), measured.within(2)),
            text=texts[number],
            both=both.get(number),
        )
        for number, (row, layers, left_out, measured) in enumerate(places)
    ]


def trained_places(table: Table) -> dict[tuple[str, int], list[Entry]]:
    """Returns LSTM, GRU and RNN at each row and depth at which all three have a finished run."""
    found = {}
    for row in table.rows:
        for layers in sorted({layers for _, layers in table.columns}):
            entries = [table.entries.get((row, cell, layers)) for cell in ("lstm", "gru", "rnn")]
            done = [entry for entry in entries if entry is not None and entry.is_done]
            if len(done) == len(entries):
                found[row, layers] = done
    return found


def probabilities(entry: Entry) -> list[Floats]:
    """Returns the probabilities of each seed that keeps its losses, at sampled positions, (S,)."""
    return [run.losses.probabilities_S for run in entry.runs if run.losses is not None]


def segment_of(
    positions_S: NDArray[np.uint32], num_chars: int, num_series: int
) -> NDArray[np.int64]:
    """Returns the stretch of text, within one series, that each position lies in."""
    per_series = -(-MIN_SEGMENTS // num_series)
    segments_S: NDArray[np.int64] = (
        positions_S.astype(np.int64) * (num_series * per_series) // num_chars
    )
    return segments_S


# The weight of each distance in the excess; _WITHIN applies only if all three cells have two seeds.
_BETWEEN = {(0, 1): -1.0, (0, 2): 0.5, (1, 2): 0.5}
_WITHIN = (0.25, 0.25, -0.5)


class _Place(NamedTuple):
    """A budget and depth at which all three cells keep their losses."""

    row: str
    layers: int
    leaves_out_seeds: bool
    measured: _Measured


class _Measured:
    """The distances of the models of LSTM, GRU and RNN (0, 1, 2) by pairs of seeds."""

    def __init__(self, cells: Sequence[Sequence[Floats]], segments_S: NDArray[np.int64]) -> None:
        self.cells = cells
        self.num_seeds = min(map(len, cells))
        self.segments_S = segments_S
        self.between: dict[tuple[int, int], Floats] = {}  # mean over positions, by pair of seeds
        self.excess_S = np.zeros(len(segments_S))  # mean over pairs of seeds, by position
        self.is_corrected = self.num_seeds > 1
        for i, j in itertools.combinations_with_replacement(range(3), 2):
            matrix = np.zeros((len(cells[i]), len(cells[j])))
            total_S = np.zeros(len(segments_S))
            for a, b in np.ndindex(matrix.shape):
                if i != j or a != b:
                    distance_S = np.abs(cells[i][a] - cells[j][b])
                    matrix[a, b] = distance_S.mean()
                    total_S += distance_S
            self.between[i, j] = matrix
            if i != j:
                self.excess_S += _BETWEEN[i, j] * total_S / matrix.size
            elif self.is_corrected:
                self.excess_S += _WITHIN[i] * total_S / (len(matrix) * (len(matrix) - 1))

    def within(self, cell: int, kept: NDArray[np.int64] | None = None) -> float | None:
        """Returns the mean distance of two seeds of a cell, or None for a single seed."""
        matrix = self.between[cell, cell]
        if kept is not None and len(kept) > 1:
            matrix = matrix[np.ix_(kept, kept)]
        n = len(matrix)
        return float(matrix.sum()) / (n * (n - 1)) if n > 1 else None

    def excess(self, kept: Sequence[NDArray[np.int64]]) -> float:
        """Returns the excess with the seeds that are kept of each cell.

        If one seed of two is kept, the distance of the two stands in for that of a pair.
        """
        excess = sum(
            weight * float(self.between[i, j][np.ix_(kept[i], kept[j])].mean())
            for (i, j), weight in _BETWEEN.items()
        )
        if self.is_corrected:
            excess += sum(
                weight * (self.within(i, kept[i]) or 0.0) for i, weight in enumerate(_WITHIN)
            )
        return excess

    def text_component(self) -> Component:
        """Returns the variance when stretches of the test text are resampled as wholes.

        In closed form, as that of a ratio of sums.
        """
        sums = np.bincount(self.segments_S, self.excess_S - self.excess_S.mean())
        num_segments = len(np.unique(self.segments_S))
        size = len(self.excess_S)
        variance = float(sums @ sums) / size**2 * num_segments / (num_segments - 1)
        return Component(variance, num_segments - 1)

    def seed_components(self) -> list[Component]:
        """Returns the variance over the seeds of each cell, by the jackknife."""
        every = [np.arange(len(cell)) for cell in self.cells]
        parts = []
        for number, seeds in enumerate(every):
            without = [
                self.excess([*every[:number], np.delete(seeds, i), *every[number + 1 :]])
                for i in seeds
            ]
            n = len(seeds)
            parts.append(Component((n - 1) * float(np.var(without)), n - 1, is_over_seeds=True))
        return parts

    def text(self) -> Estimate:
        return estimate(self._all(), [self.text_component()])

    def both(self) -> Estimate:
        return estimate(self._all(), [self.text_component(), *self.seed_components()])

    def _all(self) -> float:
        return self.excess([np.arange(len(cell)) for cell in self.cells])
