"""Replays races and their rivals over stored runs, and scores them, for `backtest.py replay`."""

from __future__ import annotations

import csv
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from backtest_needs import Needs
from numpy.typing import NDArray

from charcmp.errors import UserError
from charcmp.sweeping.race.arms import Arm, Model, label
from charcmp.sweeping.race.decide import (
    WORTH_KNOWING,
    Outcome,
    best_arms,
    mean_nats,
    near_models,
)
from charcmp.sweeping.race.plan import Cost, num_planned_runs
from charcmp.sweeping.race.race import LAST_RUNG, Finish, PlannedRun, Race

SLOTS = 2  # of the machine that a race is planned for
TIMES = (1, 2, 4)  # the time that a race has, as a multiple of the plan's for the stored lengths
WORST = 1.0  # nats behind the best run, which is what a run that diverged counts as
# Kinds of text. Texts not named here are a kind of their own. Margins are never fitted to the kind
# that they are tested on.
KINDS = {f"fortunes_{language}": "fortunes" for language in ("bg", "de", "es", "it", "pl", "ru")}
KINDS |= dict.fromkeys(("pydocs", "pysrc"), "python")
NUMBERS = ("rate", "val_nats", "test_nats", "chars_per_second", "seconds")
COLUMNS = (
    "budget",
    "cell",
    "layers",
    "updates",
    "seed",
    *NUMBERS,
    "run_id",
    "git_commit",
    "device",
)


@dataclass(frozen=True)
class Run:
    """A stored run; its losses are in nats per character, infinite if it diverged."""

    outcome: Outcome
    test_nats: float
    seconds: float  # on a CPU, evaluations included; nan if it failed or ran on a GPU


class Stored:
    """All runs of a text at one budget."""

    def __init__(self, name: str, runs: Mapping[PlannedRun, Run]) -> None:
        self.name, self.runs = name, runs
        text = name.rpartition("-")[0] or name  # without the budget
        self.kind = KINDS.get(text, text)
        self.lengths = sorted({planned.updates for planned in runs})
        self.last = self.lengths[: LAST_RUNG + 1][-1]
        self.models = sorted({planned.arm.model for planned in runs})
        self.worst = min(run.test_nats for run in runs.values()) + WORST
        self.seeds: dict[tuple[Arm, int], list[int]] = defaultdict(list)  # by arm and updates
        self.seeds_of: dict[tuple[Model, int], set[int]] = defaultdict(set)
        for arm, updates, seed in sorted(runs):
            self.seeds[arm, updates].append(seed)
            self.seeds_of[arm.model, updates].add(seed)
        counts: dict[tuple[Model, int], dict[Arm, int]] = defaultdict(dict)
        for (arm, updates), seeds in self.seeds.items():
            counts[arm.model, updates][arm] = len(seeds)
        # The arms of a model that may be its best at a length, by model and updates. A rate with
        # fewer seeds than another is not among them, as it may have been lucky.
        self.eligible = {key: [arm for arm, n in of_arms.items() if n == max(of_arms.values())]
                         for key, of_arms in counts.items()}  # fmt: skip
        # Of the models that have got to the last rung: of an incomplete text, not all have.
        self.num_seeds = {
            model: max(of_arms.values()) for (model, updates), of_arms in counts.items()
            if updates == self.last
        }  # fmt: skip

    @property
    def num_missing(self) -> int | None:
        """How many runs are missing that races may ask for; None if whole lengths are missing."""
        if len(self.lengths) <= LAST_RUNG:
            return None
        nats = {planned: run.outcome.nats for planned, run in self.runs.items()}
        return len(Needs(self.models, self.lengths[: LAST_RUNG + 1], nats).missing())

    def is_single(self, model: Model) -> bool:
        """Returns whether each of its rates has one run at the last rung, which serves for every
        seed."""
        return self.num_seeds[model] == 1

    def runs_of(self, arm: Arm, updates: int, unseen: int | None = None) -> list[Run]:
        """Returns the runs of an arm, without the unseen seed's if there are others."""
        seeds = self.seeds[arm, updates]
        kept = [seed for seed in seeds if seed != unseen] or seeds
        return [self.runs[PlannedRun(arm, updates, seed)] for seed in kept]

    def test_nats(self, runs: Iterable[Run]) -> float:
        """Returns the runs' mean test loss, in which none counts as worse than `worst`."""
        return float(np.mean([min(run.test_nats, self.worst) for run in runs]))

    def tuned(self, model: Model, unseen: int | None = None, updates: int | None = None) -> Arm:
        """Returns the model's arm with the best rate, by validation losses.

        Args:
            model: the model in question.
            unseen: a seed whose losses do not count.
            updates: the length of the trainings; None: that of the last rung.
        """
        length = self.last if updates is None else updates

        def val_nats(arm: Arm) -> float:
            return mean_nats([run.outcome for run in self.runs_of(arm, length, unseen)])

        return min(self.eligible[model, length], key=lambda arm: (val_nats(arm), arm))

    def tuned_runs(self, model: Model, updates: int | None = None) -> list[Run]:
        """Returns the model's runs at its best rate; see `tuned`."""
        length = self.last if updates is None else updates
        return self.runs_of(self.tuned(model, updates=length), length)

    def best(self, tuned: Mapping[Model, Arm], unseen: Mapping[Model, int]) -> Model:
        """Returns the model with the lowest mean test loss, each without its unseen seed."""
        return min(tuned, key=lambda model: self.test_nats(
            self.runs_of(tuned[model], self.last, unseen.get(model))))  # fmt: skip

    def seconds_per_update(self, model: Model) -> float:
        """Returns the lower quartile over the runs on a CPU, as many ran beside other work; nan if
        there are none."""
        seconds = [
            run.seconds / planned.updates for planned, run in self.runs.items()
            if planned.arm.model == model and not math.isnan(run.seconds)
        ]  # fmt: skip
        return float(np.quantile(seconds, 0.25)) if seconds else math.nan

    def regret(self, model: Model) -> float:
        """Returns how far a model at its best rate is behind the best one, by all seeds."""
        nats = {each: self.test_nats(self.tuned_runs(each)) for each in self.models}
        return nats[model] - min(nats.values())

    def planned_seconds(self, speeds: Mapping[Model, float]) -> float:
        """Returns the seconds of one slot that a plan sets aside for rungs of stored lengths."""
        runs = num_planned_runs(0, len(self.models), SLOTS)
        rungs = self.lengths[: LAST_RUNG + 1]
        updates = sum(n * length for n, length in zip(runs, rungs, strict=True))
        return updates * float(np.mean([speeds[model] for model in self.models]))


class Blocks(NamedTuple):
    """Mean losses of a run in blocks of the text, series by series."""

    val_RJ: NDArray[np.float32]
    test_RJ: NDArray[np.float32]


def stored_rows(csv_file: Path) -> Iterator[tuple[PlannedRun, dict[str, str], Blocks | None]]:
    """Yields each run as it was planned, its row and its blocks; None for blocks if it diverged or
    failed."""
    with np.load(csv_file.with_suffix(".npz"), allow_pickle=False) as packed:
        ids, of_val, of_test = (packed[key] for key in ("run_ids", "val_blocks", "test_blocks"))
    blocks = {
        run_id: Blocks(*both) for run_id, *both in zip(ids.tolist(), of_val, of_test, strict=True)
    }
    with csv_file.open() as file:
        for row in csv.DictReader(file):
            row.setdefault("device", "")  # which older files lack: trained on a CPU
            model = Model(row["budget"], row["cell"], int(row["layers"]))
            arm = Arm(model, float(row["rate"]))
            planned = PlannedRun(arm, int(row["updates"]), int(row["seed"]))
            yield planned, row, blocks.get(row["run_id"])


def read_stored(csv_file: Path) -> Stored:
    runs: dict[PlannedRun, Run] = {}
    for planned, row, blocks in stored_rows(csv_file):
        outcome = Outcome(float(row["val_nats"]), blocks and blocks.val_RJ.astype(float))
        seconds = float(row["seconds"]) if row["device"] in ("", "cpu") else math.nan
        runs[planned] = Run(outcome, float(row["test_nats"]), seconds)
    return Stored(csv_file.stem, runs)


def common_speeds(texts: Sequence[Stored]) -> dict[Model, float]:
    """Returns the seconds per update of each model on a CPU: the median over the texts.

    All races are replayed at these, since some texts were trained on a GPU, and others on machines
    that did other work besides.
    """
    models = {model for stored in texts for model in stored.models}
    return {
        model: float(np.nanmedian([stored.seconds_per_update(model) for stored in texts
                                   if model in stored.models]))
        for model in models
    }  # fmt: skip


def usual_model(texts: Sequence[Stored]) -> Model:
    """Returns the model with the lowest mean regret over kinds of text: the advice of somebody who
    has seen these texts, and takes the same model for all others."""
    kinds = {stored.kind for stored in texts}

    def mean_regret(model: Model) -> float:
        of_kinds = [np.mean([stored.regret(model) for stored in texts if stored.kind == kind])
                    for kind in kinds]  # fmt: skip
        return float(np.mean(of_kinds))

    return min(texts[0].models, key=lambda model: (mean_regret(model), model))


class Draw:
    """The order in which a race sees each model's seeds. The last one it does not see: that one
    scores the race."""

    def __init__(self, stored: Stored, rng: np.random.Generator) -> None:
        self.stored = stored
        self.order = {model: self._order(model, rng) for model in stored.models}
        self.unseen = {model: order[-1] for model, order in self.order.items()}
        self.tuned = {model: stored.tuned(model, unseen) for model, unseen in self.unseen.items()}
        self.best = stored.best(self.tuned, self.unseen)

    def _order(self, model: Model, rng: np.random.Generator) -> list[int]:
        """Draws an order of a model's seeds that begins with one that has all rungs."""
        of_first = self.stored.seeds_of[model, self.stored.lengths[0]]
        of_last = self.stored.seeds_of[model, self.stored.last]
        first, *others = rng.permutation(sorted(of_first)).tolist()
        return [first, *rng.permutation([*others, *sorted(of_last - of_first)]).tolist()]

    def unseen_of(self, arm: Arm, updates: int) -> list[int]:
        """Returns the stored seeds of an arm that the race did not see."""
        seen = self.order[arm.model][:-1]
        if updates == self.stored.last and self.stored.is_single(arm.model):
            return []
        return [seed for seed in self.stored.seeds[arm, updates] if seed not in seen]

    def test_nats(self, arm: Arm, updates: int) -> float:
        """Returns the arm's test loss by unseen seeds; without any, as for models far behind, by
        all seeds."""
        seeds = self.unseen_of(arm, updates) or self.stored.seeds[arm, updates]
        return self.stored.test_nats(
            self.stored.runs[PlannedRun(arm, updates, seed)] for seed in seeds
        )

    def regret(self, arm: Arm, updates: int) -> float:
        """Returns how far an arm is behind the best model at its best rate and the last rung."""
        return self.test_nats(arm, updates) - self.of_best

    @property
    def of_best(self) -> float:
        """The test loss of the best model, by its unseen seed if it has one."""
        return self.test_nats(self.tuned[self.best], self.stored.last)


class Replay:
    """A race's runner and track over stored runs, in a single slot.

    Args:
        draw: of the race.
        speeds: seconds per update.
        slot_seconds: the time that the race has.
    """

    num_slots = 1

    def __init__(self, draw: Draw, speeds: Mapping[Model, float], slot_seconds: float) -> None:
        self.draw, self.stored = draw, draw.stored
        self.speeds, self.left = speeds, slot_seconds
        self.lacked_seed = False  # whether a further seed was asked for that is not stored
        self.out_after: dict[Model, int] = {}  # the rung after which each model was eliminated

    def cost(self, model: Model) -> Cost:
        return Cost(0.0, self.speeds[model])

    def seconds(self, planned: PlannedRun) -> float:
        return self.speeds[planned.arm.model] * planned.updates

    def nearest_length(self, updates: float, most: float) -> int:
        return round(updates)  # not used: rungs have the stored lengths

    def seconds_left(self) -> float:
        return max(0.0, self.left)

    def run(self, planned_runs: Sequence[PlannedRun]) -> dict[PlannedRun, Outcome]:
        """Looks up runs: see race.Runner.

        Raises:
            LookupError: if a run with the first seed is not stored, which Needs should have named.
        """
        found = {}
        for planned in planned_runs:
            if self.left <= 0:
                break
            seeds = self._seeds(planned.arm, planned.updates)
            if planned.seed == 0 and not seeds:
                raise LookupError(
                    f"{self.stored.name}: {label(planned.arm.model)} at {planned.arm.rate:g}, "
                    f"{planned.updates} updates, seed {self.draw.order[planned.arm.model][0]} "
                    "is asked for but not stored"
                )
            if self.seconds(planned) > self.left:  # the run is cut off, and its time is lost
                self.left = 0.0
                break
            if planned.seed < len(seeds):
                self.left -= self.seconds(planned)
                run = self.stored.runs[
                    PlannedRun(planned.arm, planned.updates, seeds[planned.seed])
                ]
                found[planned] = run.outcome
            else:
                self.lacked_seed = True
        return found

    def given(self, finish: Finish) -> Run:
        """Returns the run that is handed over: the leader's best by validation loss."""
        return min(self._seen(finish, finish.leader), key=lambda run: run.outcome.nats)

    def best_run(self, finish: Finish) -> Run:
        """Returns the run with the lowest validation loss among those of all finalists."""
        runs = [run for model in finish.arms for run in self._seen(finish, model)]
        return min(runs, key=lambda run: run.outcome.nats)

    def _seen(self, finish: Finish, model: Model) -> list[Run]:
        arm = finish.arms[model]
        seen = self._seeds(arm, finish.updates)[: len(finish.outcomes[model])]
        return [self.stored.runs[PlannedRun(arm, finish.updates, seed)] for seed in seen]

    def _seeds(self, arm: Arm, updates: int) -> list[int]:
        """Returns the race's seeds of an arm, in the race's order; none if the first is missing."""
        stored = self.stored.seeds.get((arm, updates), [])
        if updates == self.stored.last and self.stored.is_single(arm.model):
            return stored
        first, *others = self.draw.order[arm.model][:-1]
        return [first, *(seed for seed in others if seed in stored)] if first in stored else []

    def drop(self, planned_runs: Sequence[PlannedRun]) -> None:
        """Does nothing: there is nothing to remove."""

    def length_of(self, rung: int, plan: Callable[[], int | None]) -> int:
        return self.stored.lengths[rung]

    def is_over(self, rung: int) -> bool:
        return False  # no race is begun before

    def seeds_begin(self) -> None:
        """Does nothing: there is nothing to remember."""

    def out(self, models: Sequence[Model], updates: int) -> None:
        self.out_after |= dict.fromkeys(models, self.stored.lengths.index(updates))


class Halving(Race):
    """A race by plain halving: the better half of the models goes on after each rung, and there
    are no further seeds. It searches for rates as a race does."""

    def _survivors(self, rung: int) -> list[Model]:
        best = [*best_arms(self._first_seeds(rung))]
        return self._keep(rung, best[: -(-len(best) // 2)])

    def _finals(self, rung: int) -> Finish:
        return self._finish("time")


def lost_by(race: Race, replay: Replay, model: Model) -> str | None:
    """Returns what eliminated a model, the margin or the cap on the models of a rung; None if it
    was not eliminated."""
    rung = replay.out_after.get(model)
    if rung is None:
        return None
    outcomes = {arm: runs[0] for arm, runs in race.outcomes[rung].items()}
    return "cap" if model in near_models(outcomes, race.margins[rung]) else "margin"


RACERS = ("race", "halving", "GRU 2 alone", "usual alone")


class Played(NamedTuple):
    """The scores of a race and of its rivals."""

    values: dict[str, float]  # nats per character; for events, 1 if it happened, else 0
    picked: Model
    best: Model


def play(
    draw: Draw,
    speeds: Mapping[Model, float],
    slot_seconds: float,
    margins: Sequence[float],
    rng: np.random.Generator,
    usual: Model,
) -> Played:
    """Plays a race, and its rivals in the same time; `usual`: see usual_model."""
    stored = draw.stored
    constant = next(model for model in stored.models if model.is_safe_choice)
    lowest = min(stored.test_nats(stored.tuned_runs(model)) for model in stored.models)
    values: dict[str, float] = {}
    makes: tuple[Callable[[Replay], Race], ...] = (
        lambda replay: Race(stored.models, replay, replay, margins=margins, on_out=replay.out),
        lambda replay: Halving(stored.models, replay, replay),
        # GRU 2 without a race: it still has to search for its rate.
        lambda replay: Race([constant], replay, replay),
        lambda replay: Race([usual], replay, replay),
    )
    picked = constant
    for name, make in zip(RACERS, makes, strict=True):
        replay = Replay(draw, speeds, slot_seconds)
        race = make(replay)
        try:
            finish: Finish | None = race.run()
        except UserError:  # without advice, one would take GRU 2
            finish = None
        leader = finish.leader if finish else constant
        arm = draw.tuned[leader]
        values[name] = draw.regret(arm, stored.last)
        values[f"{name}, as advised"] = (
            draw.regret(finish.arms[leader], finish.updates) if finish else values[name]
        )
        given = replay.given(finish).test_nats if finish else draw.test_nats(arm, stored.last)
        values[f"{name}, handed over"] = min(given, stored.worst) - draw.of_best
        if name == "race":
            picked = leader
            best_run = replay.best_run(finish).test_nats if finish else given
            values["best single run"] = min(best_run, stored.worst) - draw.of_best
            values["race, at most"] = draw.test_nats(arm, stored.last) - lowest
            values |= said_of_itself(draw, replay, finish)
            tied = finish.tied if finish else []
            values["picked"] = draw.best == leader
            values["picked or tied"] = draw.best in (leader, *tied)
            by = lost_by(race, replay, draw.best)
            values |= {"lost by margin": by == "margin", "lost by cap": by == "cap"}
    for name, model in (
        ("GRU 2", constant),
        ("random", stored.models[rng.integers(len(stored.models))]),
    ):
        values[name] = draw.regret(draw.tuned[model], stored.last)
    return Played(values, picked, draw.best)


def said_of_itself(draw: Draw, replay: Replay, finish: Finish | None) -> dict[str, float]:
    """Returns what a race said about itself, and whether it was wrong when it said it was sure."""
    if finish is None:
        names = ("settled", "looked", "lacked a seed", "wrong", "wrong, unseen", "wrong, model")
        return {"failed": 1.0, "tied": 1.0, **dict.fromkeys(names, 0.0)}
    given = replay.given(finish).test_nats
    means, unseen = [math.inf], [math.inf]
    for model, arm in finish.arms.items():
        if model != finish.leader:
            means.append(draw.stored.test_nats(draw.stored.runs_of(arm, finish.updates)))
            unseen.append(draw.test_nats(arm, finish.updates))
    return {
        "failed": 0,
        "settled": finish.settled,
        "looked": finish.num_looks > 0,
        "tied": 1 + len(finish.tied),
        "lacked a seed": replay.lacked_seed,
        "wrong": finish.settled and given - min(means) > WORTH_KNOWING,
        "wrong, unseen": finish.settled and given - min(unseen) > WORTH_KNOWING,
        "wrong, model": finish.settled and given - draw.of_best > WORTH_KNOWING,
    }


class Score(NamedTuple):
    """The scores of all races on a text."""

    text: Stored
    times: int  # see TIMES
    means: dict[str, float]  # of Played.values, over the races
    picked: dict[Model, float]  # the share of races that picked the model
    best: dict[Model, float]  # the share of races in which it was the best


def replay_text(
    stored: Stored,
    times: int,
    margins: Sequence[float],
    races: int,
    speeds: Mapping[Model, float],
    usual: Model,
) -> Score:
    rng = np.random.default_rng(times)
    seconds = times * stored.planned_seconds(speeds)
    played = [play(Draw(stored, rng), speeds, seconds, margins, rng, usual) for _ in range(races)]
    means = {key: float(np.mean([race.values[key] for race in played])) for key in played[0].values}
    return Score(
        stored, times, means, _shares([race.picked for race in played]),
        _shares([race.best for race in played]),
    )  # fmt: skip


def _shares(models: Sequence[Model]) -> dict[Model, float]:
    return {model: count / len(models) for model, count in Counter(models).items()}
