"""recommendation.json: the advice of a race as data, for programs."""

from __future__ import annotations

from msgspec import Struct

from charcmp.runs.baselines import Baseline
from charcmp.sweeping.race.advice import Advice, Finalist
from charcmp.sweeping.race.race import End
from charcmp.sweeping.race.wording import advice_text


class RunnerUp(Struct, frozen=True):
    """The other finalist with the lowest mean validation loss; losses are means over its seeds."""

    cell: str
    layers: int
    val_nats_per_char: float
    test_nats_per_char: float


class Tied(Struct, frozen=True):
    """A finalist that the race cannot distinguish from the winner."""

    cell: str
    layers: int


class BaselineScore(Struct, frozen=True):
    """What an n-gram model or a compressor makes of the same test text."""

    name: str
    nats_per_char: float
    stored_counts: int | None


class Recommendation(Struct, frozen=True, kw_only=True):
    """The contents of recommendation.json; the order of the fields is that of the file's keys."""

    dataset: str
    budget: str
    cell: str
    layers: int
    hidden_size: int
    num_params: int
    optimizer_lr: float
    epochs: float
    seeds: list[int]
    val_nats_per_char: float  # this and the next: means over the seeds
    test_nats_per_char: float
    run_id: str  # of the run handed over
    train_overrides: list[str]  # with which `charcmp train` trains it
    best_single_run: str  # the id of a run of another model if that is much better, else run_id
    runner_up: RunnerUp | None
    tied_with: list[Tied]
    baselines: list[BaselineScore]
    settled: bool
    end: End
    minutes: float
    num_runs: int
    seconds_train: float
    microseconds_per_sampled_char: float | None
    text: str


def recommendation(advice: Advice) -> Recommendation:
    """Returns the record of an advice."""
    chosen, run = advice.chosen, advice.chosen.best_run
    return Recommendation(
        dataset=advice.dataset,
        budget=advice.budget,
        cell=chosen.model.cell,
        layers=run.layers,
        hidden_size=run.hidden_size,
        num_params=run.num_params,
        optimizer_lr=chosen.rate,
        epochs=round(advice.epochs, 3),
        seeds=[result.seed for result in chosen.results],
        val_nats_per_char=chosen.val_nats,
        test_nats_per_char=chosen.test_nats,
        run_id=run.run_id,
        train_overrides=advice.train_overrides,
        best_single_run=(advice.lucky or chosen).best_run.run_id,
        runner_up=_runner_up(advice.runner_up),
        tied_with=[Tied(tied.model.cell, tied.model.layers) for tied in advice.tied],
        baselines=[_score(baseline) for baseline in advice.baselines],
        settled=advice.finish.settled,
        end=advice.finish.end,
        minutes=round(advice.minutes, 2),
        num_runs=advice.num_runs,
        seconds_train=chosen.seconds_train,
        microseconds_per_sampled_char=chosen.microseconds_per_sampled_char,
        text=advice_text(advice),
    )


def _runner_up(rival: Finalist | None) -> RunnerUp | None:
    if rival is None:
        return None
    return RunnerUp(rival.model.cell, rival.model.layers, rival.val_nats, rival.test_nats)


def _score(baseline: Baseline) -> BaselineScore:
    return BaselineScore(baseline.name, baseline.nats_per_char, baseline.size)
