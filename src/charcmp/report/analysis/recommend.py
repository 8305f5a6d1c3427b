"""Which model to use for one's own text, at each budget."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from charcmp.output import counted
from charcmp.report.analysis.comparisons import Analysis, Difference
from charcmp.report.analysis.speed import chars_per_second
from charcmp.report.analysis.wording import (
    FEW_EPOCHS,
    FEW_EPOCHS_NOTE,
    cell_label,
    interval_text,
    name,
    training,
)
from charcmp.report.tables import Entry

SAMPLING_NOTE = (
    "Sampling times are for one character at a time on one thread of the run's CPU; older runs "
    "did not record them. One step reads nearly every weight once, so at equal "
    "parameters the arithmetic is equal; deeper models take more steps in a row."
)


@dataclass(frozen=True)
class Recommendation:
    """The model to use at one budget of one block: the one with the lowest validation loss."""

    heading: str
    training: str
    row: str
    chosen: Entry
    runner_up: Difference | None  # by validation loss
    tied: list[Entry]  # the others with seeds that are not significantly worse
    rivals: list[Entry]  # all others of the row, diverged ones too
    num_compared: int  # of the rivals, over seeds and text
    seconds_train: float  # of one run, mean over seeds
    microseconds_per_char: float | None  # in training
    microseconds_to_sample: float | None  # a character; None where no run recorded it
    devices: list[str]

    @property
    def quickest(self) -> Entry:
        """The model that trains quickest of those that do not differ significantly."""
        return min([self.chosen, *self.tied], key=seconds_train)

    def line(self) -> str:
        """Returns which model to use and how sure that is, in one line."""
        layers = f"{self.chosen.layers} layer{'s' * (self.chosen.layers > 1)}"
        model = f"{cell_label(self.chosen.cell)}, {layers}"
        return f"{self.row}: {model}, {self.chosen.test_nats:.3f}; {self._certainty()}"

    def _certainty(self) -> str:
        if self.runner_up is None:
            return "nothing else was trained at this budget"
        if not self.num_compared:
            reason = "one seed" if _has_one_seed(self.runner_up) else "its losses give no interval"
            return f"certainty unknown ({reason})"
        num_others = sum(entry.is_done for entry in self.rivals)
        others = f"the other {num_others}" if num_others > 1 else name(self.runner_up.a)
        if self.num_compared < num_others:
            others = f"{self.num_compared} of {others} (no seeds to compare the rest)"
        if self.tied:
            return f"no significant difference to {', '.join(map(name, self.tied))}"
        return f"significantly better than {others}"

    def text(self) -> str:
        chosen = self.chosen
        sentences = [
            f"At {self.row} use {cell_label(chosen.cell)}, {chosen.layers} "
            f"layer{'s' * (chosen.layers > 1)} ({chosen.hidden_size} units, {chosen.num_params:,} "
            f"parameters): {chosen.test_nats:.3f} test nats per character {self.training}, and the "
            "lowest validation loss."
        ]
        sentences += self._rivals_text()
        sentences += self._diverged_text()
        a_char = self.microseconds_per_char
        each = "" if a_char is None else f", {a_char:.1f} µs a character"
        sentences.append(
            f"Training took {self.seconds_train:,.0f} s a run{each} ({', '.join(self.devices)})."
        )
        if self.microseconds_to_sample is not None:
            sentences.append(f"Sampling takes {self.microseconds_to_sample:.0f} µs a character.")
        if chosen.runs[0].epochs < FEW_EPOCHS:
            sentences.append(FEW_EPOCHS_NOTE)
        if len(chosen.seeds) == 1:
            sentences.append(
                "It has one seed, so how much another seed would change its loss or the order of "
                "the models is not known."
            )
        return " ".join(sentences)

    def _rivals_text(self) -> list[str]:
        """Names the next model, those with a lower test loss, and those not significantly worse."""
        if (next_one := self.runner_up) is None:
            return ["Nothing else was trained at this budget."]
        if next_one.both:
            by = f"{interval_text(next_one.nats, next_one.both)} test nats over seeds and text"
        else:
            why = (
                "one of the two has one seed"
                if _has_one_seed(next_one)
                else "their losses give no interval"
            )
            by = f"{next_one.nats:+.4f} test nats; not compared, as {why}"
        sentences = [f"Next by validation loss, {name(next_one.a)}: {by}."]
        if lower := [entry for entry in self.rivals
                     if entry.is_done and entry.test_nats < self.chosen.test_nats]:  # fmt: skip
            named = ", ".join(f"{name(entry)} ({entry.test_nats:.4f})" for entry in lower)
            sentences.append(
                f"Lower mean test loss than its {self.chosen.test_nats:.4f}: {named}; the choice "
                "is by validation."
            )
        if self.tied:
            sentences.append(f"Not significantly worse: {', '.join(map(name, self.tied))}.")
            if self.quickest is not self.chosen:
                sentences.append(
                    f"Of these {name(self.quickest)} trains quickest "
                    f"({seconds_train(self.quickest):,.0f} s against {self.seconds_train:,.0f} s)."
                )
        return sentences

    def _diverged_text(self) -> list[str]:
        named = [f"{name(entry)}: {diverged_text(entry)}"
                 for entry in (self.chosen, *self.rivals) if entry.num_diverged]  # fmt: skip
        return [f"Diverged: {'; '.join(named)}."] if named else []


def _has_one_seed(difference: Difference) -> bool:
    return 1 in map(len, (difference.a.seeds, difference.b.seeds))


def diverged_text(entry: Entry) -> str:
    """Returns, for example, `1 of 3 seeds diverged`."""
    if len(entry.dropout_candidates) > 1 or len(entry.rate_candidates) > 1:
        runs = counted(entry.num_diverged, "run")
        return f"{runs} diverged, over all dropouts and learning rates tried"
    total = entry.num_diverged + (len(entry.seeds) if entry.is_done else 0)
    return f"{entry.num_diverged} of {total} seeds diverged"


def recommendations(analyses: Sequence[Analysis]) -> list[Recommendation]:
    """Returns a recommendation for each row that has a finished model."""
    found = []
    for analysis in analyses:
        table = analysis.table
        for row in table.rows:
            if (best := analysis.best(row)) is None:
                continue
            sampling = [
                run.seconds_per_sampled_char for run in best.runs if run.seconds_per_sampled_char
            ]
            speed = chars_per_second(best)
            compared = analysis.differences_of("best", row)
            of_row = [table.entries.get((row, *column)) for column in table.columns]
            found.append(
                Recommendation(
                    heading=table.heading,
                    training=training(table),
                    row=row,
                    chosen=best,
                    runner_up=min(compared, key=lambda one: one.a.val_nats, default=None),
                    tied=[entry for entry in analysis.not_worse(row) if entry is not best],
                    num_compared=sum(one.both is not None for one in compared),
                    rivals=[entry for entry in of_row if entry is not None and entry is not best],
                    seconds_train=seconds_train(best),
                    microseconds_per_char=1e6 / speed if speed else None,
                    microseconds_to_sample=1e6 * statistics.mean(sampling) if sampling else None,
                    devices=sorted({run.device for run in best.runs}),
                )
            )
    return found


def seconds_train(entry: Entry) -> float:
    return sum(run.seconds_train for run in entry.runs) / len(entry.runs)
