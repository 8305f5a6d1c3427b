"""The advice that a race gives, as data: the finalists with their runs, and the run to use."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from charcmp.config.schema import Config
from charcmp.runs.baselines import Baseline
from charcmp.runs.result import Result
from charcmp.sweeping.grid import Job
from charcmp.sweeping.race.arms import Model
from charcmp.sweeping.race.decide import WORTH_KNOWING
from charcmp.sweeping.race.race import Finish, PlannedRun


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
    def val_losses(self) -> list[float]:
        """By seed; nats per character."""
        return [_val_nats(result) for result in self.results]

    @property
    def val_nats(self) -> float:
        return statistics.fmean(self.val_losses)

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
        """The other finalist with the lowest mean validation loss, if there is one."""
        others = [
            finalist for model, finalist in self.finalists.items() if model != self.finish.leader
        ]
        return min(others, key=lambda finalist: finalist.val_nats, default=None)

    @property
    def tied(self) -> list[Finalist]:
        return [self.finalists[model] for model in self.finish.tied]

    @property
    def lucky(self) -> Finalist | None:
        """The finalist with a run that beats the run handed over by more than WORTH_KNOWING.

        It is not the model to use, since its other seeds did so much worse, or since it has more
        layers and is at most one standard error ahead.
        """

        def ahead(finalist: Finalist) -> float:
            return min(self.chosen.val_losses) - min(finalist.val_losses)

        best = max(self.finalists.values(), key=ahead)
        return best if ahead(best) > WORTH_KNOWING else None

    @property
    def is_text_long_enough(self) -> bool:
        """Whether the validation text was long enough to judge every challenge by it."""
        return all(challenge.of_run is not None for challenge in self.finish.challenges)

    @property
    def run_arguments(self) -> list[str]:
        """How `charcmp sample` and `charcmp score` are told which run to use."""
        arguments = [f"run={self.chosen.best_run.run_id}"]
        if self.results_dir != Config.results_dir:
            arguments.append(f"results_dir={self.results_dir}")
        if self.chosen.model.is_class:  # nothing that a run recorded is ever imported
            arguments.append(f"target={self.chosen.model.cell}")
        return arguments

    @property
    def percent(self) -> float:
        """The confidence of one interval: all looks at all models share an error of 5 %."""
        return 100 * (1 - self.finish.alpha)


def make_advice(
    finish: Finish,
    make_job: Callable[[PlannedRun], Job],
    seed: int,
    seconds: float,
    updates_per_epoch: int,
    baselines: list[Baseline],
) -> Advice:
    """Makes the advice from the finalists' results; nothing before this reads test losses."""
    finalists = {}
    for model, arm in finish.arms.items():
        jobs = [
            make_job(PlannedRun(arm, finish.updates, seed + number))
            for number in range(len(finish.outcomes[model]))
        ]
        finalists[model] = Finalist(model, arm.rate, _results(jobs))
    best = finalists[finish.leader].best_run
    job = make_job(PlannedRun(finish.arms[finish.leader], finish.updates, best.seed))
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
