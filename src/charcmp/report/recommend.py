"""What to take for one's own text, at each budget."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from charcmp.report.cells import Cell
from charcmp.report.comparisons import Analysis, Difference
from charcmp.report.wording import FEW_EPOCHS, FEW_EPOCHS_CAUTION, cell_label, interval_text, name

SAMPLING_NOTE = (
    "Sampling times are of one character after another on one thread of the run's CPU; runs of "
    "before they were recorded have none. One step reads nearly every weight once, so at equal "
    "parameters the arithmetic is equal; deeper models take more steps in a row."
)


@dataclass(frozen=True)
class Recommendation:
    """What to take at one budget of one block."""

    heading: str
    row: str
    take: Cell
    runner_up: Difference | None
    tied: list[Cell]  # the others that are not told from the best
    seconds_train: float  # of one run, mean over seeds
    microseconds_per_char: float  # in training
    microseconds_to_sample: float | None  # a character; None where no run recorded it
    devices: list[str]

    @property
    def quickest(self) -> Cell:
        """Of the cells that are not told apart."""
        return min([self.take, *self.tied], key=seconds_train)

    def text(self) -> str:
        take = self.take
        said = [
            f"At {self.row} take {cell_label(take.cell)}, {take.layers} "
            f"layer{'s' * (take.layers > 1)} ({take.hidden_size} units, {take.num_params:,} "
            f"parameters): {take.test_nats:.3f} test nats per character."
        ]
        if (next_one := self.runner_up) is not None:
            over = "over seeds and text" if next_one.both else "these very models on such text"
            by = interval_text(next_one.nats, next_one.judged)
            said.append(f"Next, {name(next_one.a)}: {by} ({over}).")
        else:
            said.append("Nothing else was trained at this budget.")
        if self.tied:
            said.append(f"Not told from it: {', '.join(map(name, self.tied))}.")
            if self.quickest is not take:
                said.append(
                    f"Of these {name(self.quickest)} trains quickest "
                    f"({seconds_train(self.quickest):,.0f} s against {self.seconds_train:,.0f} s)."
                )
        said.append(
            f"Training took {self.seconds_train:,.0f} s a run, {self.microseconds_per_char:.1f} µs "
            f"a character ({', '.join(self.devices)})."
        )
        if self.microseconds_to_sample is not None:
            said.append(f"Sampling takes {self.microseconds_to_sample:.0f} µs a character.")
        if take.runs[0].epochs < FEW_EPOCHS:
            said.append(FEW_EPOCHS_CAUTION)
        if len(take.seeds) == 1:
            said.append("One seed: another one may order the cells differently.")
        return " ".join(said)


def recommendations(analyses: Sequence[Analysis]) -> list[Recommendation]:
    """One for each row that has a finished cell."""
    found = []
    for analysis in analyses:
        for row in analysis.table.rows:
            if (best := analysis.best(row)) is None:
                continue
            sampling = [
                run.seconds_per_sampled_char for run in best.runs if run.seconds_per_sampled_char
            ]
            speed = sum(run.chars_per_second for run in best.runs) / len(best.runs)
            found.append(
                Recommendation(
                    heading=analysis.table.heading,
                    row=row,
                    take=best,
                    runner_up=min(analysis.of("best", row), key=lambda one: one.nats, default=None),
                    tied=[cell for cell in analysis.not_worse(row) if cell is not best],
                    seconds_train=seconds_train(best),
                    microseconds_per_char=1e6 / speed if speed else float("nan"),
                    microseconds_to_sample=1e6 * statistics.mean(sampling) if sampling else None,
                    devices=sorted({run.device for run in best.runs}),
                )
            )
    return found


def seconds_train(cell: Cell) -> float:
    return sum(run.seconds_train for run in cell.runs) / len(cell.runs)
