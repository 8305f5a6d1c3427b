"""Which model to use for one's own text, at each budget."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from charcmp.output import counted
from charcmp.report.analysis.comparisons import Analysis, Difference
from charcmp.report.analysis.speed import Machine, best_speeds, chars_per_second, machines
from charcmp.report.analysis.wording import (
    FEW_EPOCHS_NOTE,
    cell_label,
    interval_text,
    is_short,
    left_out_text,
    name,
    training,
)
from charcmp.report.tables import Entry

SAMPLING_NOTE = (
    "Sampling times are for one character at a time on one thread of the run's CPU; older runs "
    "did not record them. One step reads nearly every weight once, so at equal "
    "parameters the arithmetic is equal; deeper models take more steps in a row."
)
# A model is offered for its speed only if its plain interval contains 0 and is no wider than this
# (nats per character): few seeds leave even far worse models not significantly worse.
MAX_WIDTH_AS_GOOD = 0.05
MIN_GAIN = 1.1  # times the speed: below it, a difference may be the machine's


class Quicker(NamedTuple):
    """A model that trains quicker than the chosen one, by runs on equal machines."""

    entry: Entry
    machine: Machine
    speed: float  # characters a second, the best recorded
    own_speed: float  # of the chosen model


@dataclass(frozen=True)
class Recommendation:
    """The model to use at one budget of one block: the one with the lowest validation loss."""

    heading: str
    training: str
    is_short: bool  # too short a training to say how good models become
    row: str
    chosen: Entry
    differences: list[Difference]  # of every other finished model of the row from it
    tied: list[Entry]  # the others with seeds that are not significantly worse
    rivals: list[Entry]  # all others of the row, diverged ones too
    seconds_train: float  # of one run, mean over seeds
    microseconds_per_char: float | None  # in training
    microseconds_to_sample: float | None  # a character; None where no run recorded it

    @property
    def runner_up(self) -> Difference | None:
        """The next model by validation loss."""
        return min(self.differences, key=lambda difference: difference.a.val_nats, default=None)

    @property
    def not_compared(self) -> list[Difference]:
        """The others that cannot be compared with it over seeds and text."""
        return [difference for difference in self.differences if difference.both is None]

    @property
    def quicker(self) -> Quicker | None:
        """The quickest to train of the models that are as good, if it is quicker than this one."""
        own_speeds = best_speeds(self.chosen)
        found = [
            quicker
            for difference in self.differences
            if difference.a in self.tied
            and _is_as_good(difference)
            and (quicker := _quicker(difference.a, own_speeds)) is not None
        ]
        return max(found, key=lambda quicker: quicker.speed / quicker.own_speed, default=None)

    def line(self) -> str:
        """Returns which model to use and how sure that is, in one line."""
        chosen = self.chosen
        model = f"{cell_label(chosen.cell)}, {counted(chosen.layers, 'layer')}"
        nats = f"{chosen.test_nats:.3f}"
        if chosen.num_left_out:
            nats += f" ({left_out_text(chosen)})"
        return f"{self.row}: {model}, {nats}; {self._certainty()}"

    def _certainty(self) -> str:
        if self.runner_up is None:
            only = "the only model at this budget"
            return f"{only} that did not diverge" if self.rivals else f"{only} in this block"
        num_others = len(self.differences)
        num_compared = num_others - len(self.not_compared)
        if not num_compared:
            reason = "one seed" if self.runner_up.has_one_seed else "its losses give no interval"
            return f"certainty unknown ({reason})"
        if self.tied:
            parts = []
            better = [
                difference.a
                for difference in self.differences
                if difference.both and difference.both.sign == -1
            ]
            if better:
                named = ", ".join(map(_name_with_seeds, better))
                parts.append(f"chosen by validation, but significantly worse on test than {named}")
            if equal := [entry for entry in self.tied if entry not in better]:
                named = ", ".join(map(_name_with_seeds, equal))
                parts.append(f"no significant difference to {named}")
            tied = "; ".join(parts)
            if not self.not_compared:
                return tied
            return f"{tied}; {num_compared} of {num_others} others compared, {self._the_rest()}"
        others = f"the other {num_others}" if num_others > 1 else name(self.runner_up.a)
        if not self.not_compared:
            return f"significantly better than {others}"
        return f"significantly better than {num_compared} of {others}; {self._the_rest()}"

    def _the_rest(self) -> str:
        """Says why not all models are compared with the chosen one."""
        rest = self.not_compared
        subject = "the rest have" if len(rest) > 1 else "the other has"
        if all(difference.has_one_seed for difference in rest):
            return f"{subject} one seed"
        if any(difference.has_one_seed for difference in rest):
            return f"{subject} one seed or no interval"
        return f"{subject} no interval"

    def text(self) -> str:
        chosen = self.chosen
        sentences = [
            f"At {self.row} use {cell_label(chosen.cell)}, {counted(chosen.layers, 'layer')} "
            f"({chosen.hidden_size} units, {chosen.num_params:,} parameters): "
            f"{chosen.test_nats:.3f} test nats per character {self.training}, and the lowest "
            "validation loss."
        ]
        sentences += self._rivals_text()
        sentences += self._diverged_text()
        sentences.append(self._cost_text())
        if self.microseconds_to_sample is not None:
            sentences.append(f"Sampling takes {self.microseconds_to_sample:.0f} µs a character.")
        if self.is_short:
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
            if self.rivals:
                return ["Every other model at this budget in this block diverged."]
            return ["No other model was trained at this budget in this block."]
        if next_one.both:
            by = f"{interval_text(next_one.nats, next_one.both)} test nats over seeds and text"
        else:
            why = (
                "one of the two has one seed"
                if next_one.has_one_seed
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
            if (quicker := self.quicker) is not None:
                sentences.append(
                    f"Of these {name(quicker.entry)} trains quicker: at best "
                    f"{quicker.speed:,.0f} characters a second against {quicker.own_speed:,.0f} "
                    f"({quicker.machine})."
                )
        num_others, num_left = len(self.differences), len(self.not_compared)
        if 0 < num_left < num_others:
            sentences.append(
                f"Of the other {num_others} models, {num_others - num_left} could be compared with "
                f"it over seeds; {self._the_rest()}."
            )
        return sentences

    def _diverged_text(self) -> list[str]:
        entries = (self.chosen, *self.rivals)
        named = [f"{name(entry)}: {diverged_text(entry)}"
                 for entry in entries if entry.num_diverged]  # fmt: skip
        sentences = [f"Diverged: {'; '.join(named)}."] if named else []
        if any(entry.num_left_out for entry in entries):
            sentences.append(
                "Means and comparisons leave out the seeds that diverged, which flatters a model."
            )
        return sentences

    def _cost_text(self) -> str:
        a_char = self.microseconds_per_char
        each = "" if a_char is None else f", {a_char:.1f} µs a character"
        cost = f"Training took {self.seconds_train:,.0f} s a run{each}"
        found = machines([self.chosen])
        if len(found) > 1:
            return f"{cost}, the mean over different machines ({'; '.join(found)})."
        return f"{cost} ({found[0]})."


def _is_as_good(difference: Difference) -> bool:
    """Returns whether a model that is not significantly worse is known to be about as good."""
    if difference.both is None or difference.leaves_out_seeds:
        return False
    low, high = difference.both.interval
    return difference.both.plain_sign == 0 and high - low <= MAX_WIDTH_AS_GOOD


def _quicker(entry: Entry, own_speeds: Mapping[Machine, float]) -> Quicker | None:
    """Compares speeds on equal machines; of several, the one with the least gain counts."""
    speeds = best_speeds(entry)
    gains = {
        machine: speed / own_speeds[machine]
        for machine, speed in speeds.items() if machine in own_speeds
    }  # fmt: skip
    if not gains:
        return None
    machine = min(gains, key=lambda shared: gains[shared])
    if gains[machine] < MIN_GAIN:
        return None
    return Quicker(entry, machine, speeds[machine], own_speeds[machine])


def _name_with_seeds(entry: Entry) -> str:
    """Returns a model's name, with the seeds that its mean leaves out if there are any."""
    return f"{name(entry)} ({left_out_text(entry)})" if entry.num_left_out else name(entry)


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
            of_row = [table.entries.get((row, *column)) for column in table.columns]
            found.append(
                Recommendation(
                    heading=table.heading,
                    training=training(table),
                    is_short=is_short(table),
                    row=row,
                    chosen=best,
                    differences=analysis.differences_of("best", row),
                    tied=[entry for entry in analysis.not_worse(row) if entry is not best],
                    rivals=[entry for entry in of_row if entry is not None and entry is not best],
                    seconds_train=statistics.fmean(run.seconds_train for run in best.runs),
                    microseconds_per_char=1e6 / speed if speed else None,
                    microseconds_to_sample=1e6 * statistics.mean(sampling) if sampling else None,
                )
            )
    return found
