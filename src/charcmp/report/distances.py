"""Claim 4 as a number: how far apart the predictions of two cells are, within a row and a depth.

The distance of two models is the mean absolute difference of the probabilities that they give the
correct character at the sampled positions (losses.py); of two cells, the mean over pairs of seeds.
The claim holds where LSTM and GRU lie closer to each other than to the RNN.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from charcmp.report.cells import Cell, Table
from charcmp.report.statistics import Component, Estimate, Floats, Judged, estimate, judge

MIN_SEGMENTS = 20  # of the test text, resampled as wholes


@dataclass(frozen=True)
class Distances:
    """Of the three cells at one budget and depth, in probability (0 to 1)."""

    row: str
    layers: int
    num_seeds: int  # the fewest of the three cells
    lstm_gru: float
    lstm_rnn: float
    gru_rnn: float
    same_cell: float | None  # two seeds of one cell, mean over the cells that have them
    text: Judged  # of `excess`, these very models
    both: Judged | None

    @property
    def excess(self) -> float:
        """How much farther the RNN is: its mean distance from the two, minus theirs."""
        return (self.lstm_rnn + self.gru_rnn) / 2 - self.lstm_gru

    @property
    def judged(self) -> Judged:
        return self.both or self.text


def prediction_distances(table: Table) -> list[Distances]:
    """Wherever a row has all three cells at a depth, with their sampled losses."""
    found = []
    for row in table.rows:
        measured = []
        for layers in sorted({layers for _, layers in table.columns}):
            cells = [table.cells.get((row, cell, layers)) for cell in ("lstm", "gru", "rnn")]
            of_cells = [probabilities(cell) for cell in cells if cell is not None and cell.is_done]
            if len(of_cells) == 3 and all(len(of_cell) for of_cell in of_cells):
                first = next(run.losses for run in cells[0].runs if run.losses)  # type: ignore
                segments = segment_of(first.positions_S, first.num_chars, first.num_rows)
                measured.append((layers, _Measured(of_cells, segments)))
        texts = judge([one.text() for _, one in measured])
        several = {layers: one.both() for layers, one in measured if one.num_seeds > 1}
        both = dict(zip(several, judge(list(several.values())), strict=True))
        for (layers, one), text in zip(measured, texts, strict=True):
            found.append(
                Distances(
                    row=row,
                    layers=layers,
                    num_seeds=one.num_seeds,
                    lstm_gru=float(one.between[0, 1].mean()),
                    lstm_rnn=float(one.between[0, 2].mean()),
                    gru_rnn=float(one.between[1, 2].mean()),
                    same_cell=one.same_cell(),
                    text=text,
                    both=both.get(layers),
                )
            )
    return found


def probabilities(cell: Cell) -> list[Floats]:
    """Of each seed that keeps its losses, (S,)."""
    return [run.losses.probabilities_S for run in cell.runs if run.losses is not None]


def segment_of(positions_S: NDArray[np.uint32], num_chars: int, num_rows: int) -> NDArray[np.int64]:
    """The stretch of text, within one row of the split, that each position lies in."""
    per_row = -(-MIN_SEGMENTS // num_rows)
    segments_S: NDArray[np.int64] = positions_S.astype(np.int64) * (num_rows * per_row) // num_chars
    return segments_S


class _Measured:
    """Distances of the models of LSTM, GRU and RNN (0, 1, 2) by pairs of seeds."""

    def __init__(self, cells: Sequence[Sequence[Floats]], segments_S: NDArray[np.int64]) -> None:
        self.cells = cells
        self.num_seeds = min(map(len, cells))
        self.segments_S = segments_S
        self.between: dict[tuple[int, int], Floats] = {}  # mean over positions, by pair of seeds
        self.mean_S: dict[tuple[int, int], Floats] = {}  # mean over pairs of seeds, by position
        for i, j in itertools.combinations(range(3), 2):
            matrix = np.empty((len(cells[i]), len(cells[j])))
            total_S = np.zeros(len(segments_S))
            for a, b in np.ndindex(matrix.shape):
                distance_S = np.abs(cells[i][a] - cells[j][b])
                matrix[a, b] = distance_S.mean()
                total_S += distance_S
            self.between[i, j], self.mean_S[i, j] = matrix, total_S / matrix.size

    def excess(self, kept: Sequence[NDArray[np.int64]]) -> float:
        """With the seeds that are kept of each cell."""
        mean = {
            (i, j): float(matrix[np.ix_(kept[i], kept[j])].mean())
            for (i, j), matrix in self.between.items()
        }
        return (mean[0, 2] + mean[1, 2]) / 2 - mean[0, 1]

    def text_component(self) -> Component:
        """Stretches of the test text resampled as wholes, in closed form (a ratio of sums)."""
        mean_S = self.mean_S
        excess_S = (mean_S[0, 2] + mean_S[1, 2]) / 2 - mean_S[0, 1]
        sums = np.bincount(self.segments_S, excess_S - excess_S.mean())
        num_segments = len(np.unique(self.segments_S))
        variance = float(sums @ sums) / len(excess_S) ** 2 * num_segments / (num_segments - 1)
        return Component(variance, num_segments - 1)

    def seed_components(self) -> list[Component]:
        """Jackknife over the seeds of each cell."""
        every = [np.arange(len(cell)) for cell in self.cells]
        parts = []
        for number, seeds in enumerate(every):
            without = [
                self.excess([*every[:number], np.delete(seeds, i), *every[number + 1 :]])
                for i in seeds
            ]
            n = len(seeds)
            parts.append(Component((n - 1) * float(np.var(without)), n - 1))
        return parts

    def text(self) -> Estimate:
        return estimate(self._all(), [self.text_component()])

    def both(self) -> Estimate:
        return estimate(self._all(), [self.text_component(), *self.seed_components()])

    def _all(self) -> float:
        return self.excess([np.arange(len(cell)) for cell in self.cells])

    def same_cell(self) -> float | None:
        pairs = [
            float(np.abs(p - q).mean())
            for cell in self.cells
            for p, q in itertools.combinations(cell, 2)
        ]
        return float(np.mean(pairs)) if pairs else None
