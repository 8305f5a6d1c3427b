"""The advice that a race gives: a paragraph, a record, and the run to use."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from charcmp.config.schema import Config
from charcmp.output import duration
from charcmp.report.analysis.wording import FEW_EPOCHS, FEW_EPOCHS_NOTE
from charcmp.runs.baselines import Baseline
from charcmp.runs.result import Result
from charcmp.sweeping.grid import Job
from charcmp.sweeping.race.arms import Model, cell_label, label
from charcmp.sweeping.race.decide import FEWEST_SEEDS, WIDEST_SEED_SD, WORTH_KNOWING, seed_sds
from charcmp.sweeping.race.plan import length_text
from charcmp.sweeping.race.race import LAST_RUNG, Entry, Finish

PERCENT = 95


def _val_nats(result: Result) -> float:
    nats = result.val_nats_per_char
    assert nats is not None  # a model that diverged is no finalist
    return nats


@dataclass(frozen=True)
class Finalist:
    """A model at the race's last length, with its runs."""

    model: Model
    rate: float
    results: list[Result]  # by seed

    @property
    def val_nats(self) -> float:
        return statistics.fmean(map(_val_nats, self.results))

    @property
    def test_nats(self) -> float:
        return statistics.fmean(
            result.test_nats_per_char for result in self.results if result.test_nats_per_char
        )

    @property
    def best_run(self) -> Result:
        """The seed with the lowest validation loss: the one to use."""
        return min(self.results, key=_val_nats)

    @property
    def seconds_train(self) -> float:
        return statistics.fmean(result.seconds_train for result in self.results)

    @property
    def microseconds_per_sampled_char(self) -> float | None:
        times = [result.seconds_per_sampled_char for result in self.results]
        known = [seconds for seconds in times if seconds is not None]
        return 1e6 * statistics.fmean(known) if known else None


@dataclass(frozen=True)
class Advice:
    """Advice on which model to use at one budget, and how sure that is."""

    dataset: str
    budget: str
    epochs: float  # of the finalists' trainings
    finish: Finish
    finalists: dict[Model, Finalist]
    minutes: float
    num_runs: int
    results_dir: str
    baselines: list[Baseline]  # of the same test text
    train_overrides: list[str]  # with which `charcmp train` trains the run to use

    @property
    def chosen(self) -> Finalist:
        return self.finalists[self.finish.leader]

    @property
    def runner_up(self) -> Finalist | None:
        """The next finalist by validation loss, if there is one."""
        others = [one for model, one in self.finalists.items() if model != self.finish.leader]
        return min(others, key=lambda one: one.val_nats, default=None)

    @property
    def tied(self) -> list[Finalist]:
        return [self.finalists[model] for model in self.finish.tied]

    @property
    def lucky(self) -> Finalist | None:
        """The finalist with a run that beats the run handed over by more than WORTH_KNOWING.

        Its other seeds did so much worse that it is not the model to use.
        """

        def ahead(finalist: Finalist) -> float:
            return _val_nats(self.chosen.best_run) - _val_nats(finalist.best_run)

        best = max(self.finalists.values(), key=ahead)
        return best if ahead(best) > WORTH_KNOWING else None

    @property
    def is_text_long_enough(self) -> bool:
        """Whether the validation text was long enough to judge every challenge by it."""
        return all(one.of_run is not None for one in self.finish.challenges)

    @property
    def run_arguments(self) -> list[str]:
        """How `charcmp sample` and `charcmp score` are told which run to use."""
        arguments = [f"run={self.chosen.best_run.run_id}"]
        if self.results_dir != Config.results_dir:
            arguments.append(f"results_dir={self.results_dir}")
        if self.chosen.model.is_class:  # nothing that a run recorded is ever imported
            arguments.append(f"target={self.chosen.model.cell}")
        return arguments

    def text(self) -> str:
        """Returns the advice as a paragraph."""
        chosen, run = self.chosen, self.chosen.best_run
        seeds = len(chosen.results)
        size = f"{int(self.budget):,} parameters" if self.budget.isdecimal() else self.budget
        sentences = [
            f"For {self.dataset} at {size}, use {cell_label(chosen.model.cell)}, {run.layers} "
            f"layer{'s' * (run.layers > 1)} ({run.hidden_size} units, {run.num_params:,} "
            f"parameters), learning rate {chosen.rate:g}, {length_text(self.epochs)}: "
            f"{chosen.test_nats:.3f} "
            f"test nats per character"
            + (f", the mean of {seeds} seeds." if seeds > 1 else ", from one seed.")
        ]
        sentences += [*self._rivals(), *self._best_single_run(), *self._certainty()]
        sentences += [*self._left_out(), *self._baselines()]
        if self.epochs < FEW_EPOCHS:
            sentences.append(FEW_EPOCHS_NOTE)
        cost = f"Training took {duration(chosen.seconds_train)} a run"
        if (micros := chosen.microseconds_per_sampled_char) is not None:
            cost += f"; sampling takes {micros:.0f} µs a character"
        sentences.append(f"{cost} ({run.device_name or run.device}).")
        return " ".join(sentences)

    def _rivals(self) -> list[str]:
        rival = self.runner_up
        if rival is None:
            return [] if self.finish.unfinished else ["No other model is left to compare it with."]
        (against,) = [one for one in self.finish.challenges if one.model == rival.model]
        distance = f"{abs(against.difference):.4f} "
        distance += "behind" if against.difference >= 0 else "ahead of it, but by one seed"
        said = f"Next by validation loss: {label(rival.model)}, {distance}"
        if against.of_models is not None:
            low, high = against.interval(self.finish.alpha)
            said += (
                f" ({self.percent:.4g} % interval over seeds and text {low:+.4f} to {high:+.4f})"
            )
        said += f"; its test loss is {rival.test_nats:.3f}"
        if rival.test_nats < self.chosen.test_nats:
            said += ", which is lower, but only validation losses decide"
        said += "."
        if against.of_models is None:
            few = min(len(self.chosen.results), len(rival.results)) < 2
            why = "With one seed of either" if few else "On so short a validation text"
            return [f"{said} {why}, that says little about which is better."]
        if not self.tied:
            return [said]
        quickest = min([self.chosen, *self.tied], key=lambda finalist: finalist.seconds_train)
        named = ", ".join(label(finalist.model) for finalist in self.tied)
        tie = f"It is tied with {named}: these runs cannot tell them apart."
        if quickest is not self.chosen:
            tie += f" {label(quickest.model)} trains quickest ({duration(quickest.seconds_train)})."
        return [said, tie]

    def _best_single_run(self) -> list[str]:
        """Names the single run that is better than the one handed over, if there is one."""
        if (lucky := self.lucky) is None:
            return []
        losses = sorted(map(_val_nats, lucky.results))
        said = (
            f"The best single run of all is one of {label(lucky.model)}, "
            f"{_val_nats(self.chosen.best_run) - losses[0]:.4f} ahead on validation text "
            f"(run={lucky.best_run.run_id})"
        )
        if len(losses) > 1:
            said += (
                f"; the seeds of that model end between {losses[0]:.3f} and {losses[-1]:.3f}, so "
                "another training of it may not do as well"
            )
        return [f"{said}."]

    @property
    def percent(self) -> float:
        """The confidence of one interval: all looks at all models share an error of 5 %."""
        return 100 * (1 - self.finish.alpha)

    def _left_out(self) -> list[str]:
        """Says that nothing is promised of the models that were eliminated."""
        finish = self.finish
        said = []
        if finish.unstable and finish.end != "unstable":
            named = ", ".join(map(label, finish.unstable))
            said.append(f"Left out, since one of its further seeds failed or diverged: {named}.")
        if finish.num_models == len({*self.finalists, *finish.unstable, *finish.unfinished}):
            return said
        return [
            *said,
            "Models eliminated earlier had shorter training or fewer seeds, so this says nothing "
            "about them.",
        ]

    def _baselines(self) -> list[str]:
        """Names the n-grams and compressors that do better than the model."""
        ahead = [one for one in self.baselines if one.nats_per_char < self.chosen.test_nats]
        if not ahead:
            return []
        named = ", ".join(
            f"{one.name} ({one.nats_per_char:.3f}"
            + (f", {one.size:,} stored counts)" if one.size else ")")
            for one in ahead
        )
        return [f"Ahead of it on the same test text, without a network: {named}."]

    def _certainty(self) -> list[str]:
        finish = self.finish
        if finish.unfinished:
            named = ", ".join(map(label, finish.unfinished))
            return [
                f"Time ran out before {named} had been trained for as long, so the answer may be "
                "another one; rerun with more minutes= to continue."
            ]
        if finish.end == "unstable":
            return [
                "In the longest training one seed of every finalist failed or diverged, so this is "
                "the result of a shorter run with one seed; clip=1 may help."
            ]
        if finish.end == "worse":
            return [
                "Longer training did worse on this text, so this is the result of a shorter run "
                "with one seed; another seed may change it."
            ]
        if finish.rung < LAST_RUNG:
            return [
                "Time ran out before the longest runs finished, and short runs favour models that "
                "learn fast; rerun with more minutes= to continue."
            ]
        if len(self.chosen.results) < 2:
            return [
                "With one seed the spread over seeds is unknown; rerun with more minutes= for more "
                "seeds."
            ]
        if finish.end == "time" and min(map(len, finish.outcomes.values())) < FEWEST_SEEDS:
            return [
                f"Time ran out before every finalist had the {FEWEST_SEEDS} seeds that a reliable "
                "answer needs; rerun with more minutes= to continue."
            ]
        if not self.is_text_long_enough:
            return [
                "The validation text is too short to tell how much the losses vary over text, so "
                f"another finalist may be better by more than {WORTH_KNOWING:g} nats, however many "
                "seeds it gets; a longer text is needed to rule that out."
            ]
        if finish.end == "time":
            return [
                "Time ran out before it could be ruled out that another finalist is better by more "
                f"than {WORTH_KNOWING:g} nats; rerun with more minutes= to continue."
            ]
        if finish.end == "seeds":
            return [
                f"After {len(self.chosen.results)} seeds, another finalist may still be better by "
                f"more than {WORTH_KNOWING:g} nats: either the models are that close, or their "
                "seeds vary that much."
            ]
        if not finish.challenges:
            return []
        promise = (
            f"With {PERCENT} % confidence no other finalist, trained once more at the learning "
            f"rate that it raced at, comes out better than this run by more than "
            f"{WORTH_KNOWING:g} nats on average, at this length of training and on text like the "
            "validation text."
        )
        return [promise, *self._seeds_that_scatter()]

    def _seeds_that_scatter(self) -> list[str]:
        """Names the finalists whose seeds differ by more than the promise allows for."""
        wide = {model: sd for model, sd in seed_sds(self.finish.outcomes).items()
                if sd > WIDEST_SEED_SD}  # fmt: skip
        if not wide:
            return []
        named = ", ".join(
            f"{label(model)} (standard deviation {sd:.3f} nats)" for model, sd in wide.items()
        )
        return [
            f"The {PERCENT} % may be too many: the seeds of {named} scatter by more than the "
            f"{WIDEST_SEED_SD:g} nats up to which they hold."
        ]

    def record(self) -> dict[str, Any]:
        """Returns the contents of recommendation.json."""
        chosen, run, rival = self.chosen, self.chosen.best_run, self.runner_up
        return {
            "dataset": self.dataset,
            "budget": self.budget,
            "cell": chosen.model.cell,
            "layers": run.layers,
            "hidden_size": run.hidden_size,
            "num_params": run.num_params,
            "optimizer_lr": chosen.rate,
            "epochs": round(self.epochs, 3),
            "seeds": [result.seed for result in chosen.results],
            "val_nats_per_char": chosen.val_nats,
            "test_nats_per_char": chosen.test_nats,
            "run_id": run.run_id,
            "train_overrides": self.train_overrides,
            "best_single_run": (self.lucky or chosen).best_run.run_id,
            "runner_up": rival
            and {
                "cell": rival.model.cell,
                "layers": rival.model.layers,
                "val_nats_per_char": rival.val_nats,
                "test_nats_per_char": rival.test_nats,
            },
            "tied_with": [
                {"cell": one.model.cell, "layers": one.model.layers} for one in self.tied
            ],
            "baselines": [
                {"name": one.name, "nats_per_char": one.nats_per_char, "stored_counts": one.size}
                for one in self.baselines
            ],
            "settled": self.finish.settled,
            "end": self.finish.end,
            "minutes": round(self.minutes, 2),
            "num_runs": self.num_runs,
            "seconds_train": chosen.seconds_train,
            "microseconds_per_sampled_char": chosen.microseconds_per_sampled_char,
            "text": self.text(),
        }


def make_advice(
    finish: Finish,
    make_job: Callable[[Entry], Job],
    seed: int,
    seconds: float,
    updates_per_epoch: int,
    baselines: list[Baseline],
) -> Advice:
    """Makes the advice from the finalists' results; nothing before this reads test losses."""
    finalists = {}
    for model, arm in finish.arms.items():
        jobs = [
            make_job(Entry(arm, finish.updates, seed + number))
            for number in range(len(finish.outcomes[model]))
        ]
        finalists[model] = Finalist(model, arm.rate, _results(jobs))
    best = finalists[finish.leader].best_run
    job = make_job(Entry(finish.arms[finish.leader], finish.updates, best.seed))
    spec = job.spec
    return Advice(
        dataset=spec.corpus.name,
        budget=spec.budget,
        epochs=finish.updates / updates_per_epoch,
        finish=finish,
        finalists=finalists,
        minutes=seconds / 60,
        num_runs=finish.num_runs,
        results_dir=spec.config.results_dir,
        baselines=baselines,
        train_overrides=job.overrides,
    )


def _results(jobs: Sequence[Job]) -> list[Result]:
    found = [job.folder.read_result() for job in jobs]
    return [result for result in found if result is not None]
