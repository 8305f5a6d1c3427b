"""The race itself: rungs of ever longer runs with fewer models on each, then seeds for the last.

It reads validation losses only, and does not know whether its runs are trained now or were stored:
scripts/backtest.py replays thousands of races from stored runs.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple, Protocol

from charcmp.errors import UserError
from charcmp.sweeping.race.arms import (
    Arm,
    Model,
    best_neighbours,
    best_rate,
    first_arms,
    lower_rate,
    next_rate,
    rate_for_longer,
)
from charcmp.sweeping.race.decide import (
    MARGINS,
    WORTH_KNOWING,
    Challenge,
    Outcome,
    best_arms,
    challenges,
    finalists,
    look,
    losses_by_rate,
    survivors,
    tied,
)
from charcmp.sweeping.race.plan import (
    FIRST_RATES_EACH,
    MAX_UPDATES,
    MOST_MODELS,
    RUNG_SHARES,
    USABLE,
    Cost,
    longest_run,
)
from charcmp.uncertainty.intervals import ALPHA

LAST_RUNG = len(RUNG_SHARES) - 1
# Planned looks at the finalists, each of which may spend a part of alpha: the first when all of
# them have FEWEST_SEEDS, then one after each further seed of the leader and its challenger.
MOST_LOOKS = 3


# Why the result is not one of the longest runs': these did worse; every finalist had a further seed
# that failed or diverged; the time was over before all of them had finished.
WhyShorter = Literal["worse", "unstable", "cut off"]
# Why a race ended: no finalist can be better by more than is worth knowing; the time was over; all
# looks were spent without an answer; worse, unstable: why the result has another length than the
# further seeds.
End = Literal["settled", "time", "seeds", "worse", "unstable"]


class NoWinnerError(UserError):
    """A race has ended without a model to name."""

    seconds_spent = 0.0  # by the race in all, once that is known


class PlannedRun(NamedTuple):
    """A run of the race: an arm, trained for a number of updates, with a seed."""

    arm: Arm
    updates: int
    seed: int


class Runner(Protocol):
    """Something that trains the runs, or has them stored."""

    num_slots: int  # how many runs go on at once

    def cost(self, model: Model) -> Cost:
        """Returns what runs of a model take in one slot."""

    def seconds(self, planned: PlannedRun) -> float:
        """Returns the seconds that a run takes in one slot; 0 if it is finished already."""

    def nearest_length(self, updates: float, most: float) -> int:
        """Returns the closest length that a run can have, if possible not above `most`; in
        updates."""

    def seconds_left(self) -> float:
        """Returns the seconds until the race ends."""

    def run(self, planned_runs: Sequence[PlannedRun]) -> dict[PlannedRun, Outcome]:
        """Returns the outcomes of the runs; those that the time did not allow are missing."""

    def drop(self, planned_runs: Sequence[PlannedRun]) -> None:
        """Removes what is only needed to train these runs further: they are done and have lost."""


class Track(Protocol):
    """Remembers what a resumed race must not decide again."""

    def length_of(self, rung: int, plan: Callable[[], int | None]) -> int | None:
        """Returns a rung's updates: those that it was begun with, else what is planned now; None,
        and keeps nothing, if the plan has none."""

    def is_over(self, rung: int) -> bool:
        """Returns whether the next rung, or the seeds after the last one, have been begun before:
        then this rung gets no new runs."""

    def seeds_begin(self) -> None:
        """Notes that the last rung is over, and the finalists get further seeds."""


@dataclass(frozen=True)
class Finish:
    """How a race ended: the winner at the longest training that the finalists share."""

    rung: int
    updates: int
    leader: Model
    arms: dict[Model, Arm]  # of the finalists, the leader included
    outcomes: dict[Model, list[Outcome]]  # by seed
    unfinished: list[Model]  # that were to run in this rung, but the time was over first
    unstable: list[Model]  # left out, since one of their further seeds failed or diverged
    challenges: list[Challenge]
    num_looks: int  # that were spent
    alpha: float  # of the two-sided interval of each challenge at a look
    num_models: int  # of the whole race
    num_runs: int
    end: End
    why_shorter: WhyShorter | None = None  # None: its runs, with further seeds, are the longest

    @property
    def settled(self) -> bool:
        return self.end == "settled"

    @property
    def tied(self) -> list[Model]:
        """The finalists that cannot be distinguished from the leader."""
        return tied(self.challenges, self.alpha)

    @property
    def states(self) -> dict[Model, str]:
        """What the race found of the models that it did not eliminate, in a word for each."""
        return (
            dict.fromkeys(self.arms, "behind")
            | dict.fromkeys(self.tied, "tied")
            | dict.fromkeys(self.unfinished, "cut off")
            | dict.fromkeys(self.unstable, "unstable")
            | {self.leader: "chosen"}
        )


class Race:
    """A race of models of one budget.

    Args:
        models: of one budget.
        runner: trains the runs.
        track: remembers the plan, and which rungs are over.
        seed: of the first run of each arm; further seeds count up from it.
        margins: how far behind a model may be after each rung and stay in; nats per character.
        on_out: called with the models that have been eliminated and after how many updates.
        on_worse: called with the updates of a rung that did worse than the one before, and the
            updates of that one, at which the race ends.
    """

    def __init__(
        self,
        models: Sequence[Model],
        runner: Runner,
        track: Track,
        seed: int = 0,
        margins: Sequence[float] = MARGINS,
        on_out: Callable[[Sequence[Model], int], None] = lambda models, updates: None,
        on_worse: Callable[[int, int], None] = lambda longer, shorter: None,
    ) -> None:
        self.models = list(models)
        self.runner, self.track = runner, track
        self.seed, self.margins = seed, margins
        self.on_out, self.on_worse = on_out, on_worse
        self.outcomes: dict[int, dict[Arm, list[Outcome]]] = {}  # by rung; lists are by seed
        self.lengths: dict[int, int] = {}  # by rung, in updates
        self.entrants: dict[int, set[Arm]] = {}  # by rung
        self.out: set[Model] = set()
        self.num_challengers = 1  # of the last rung's leader, before further seeds are run
        self.final_rung: int | None = None  # whose runs get further seeds, once that is known
        self.num_looks = 0  # that have been spent

    def run(self) -> Finish:
        """Runs the whole race, or as much of it as the time allows.

        Raises:
            UserError: if there is too little time for a first rung, or every run diverged.
        """
        self._first_rung()
        for rung in range(1, LAST_RUNG + 1):
            if self._is_longest(rung - 1):
                return self._finals(rung - 1)
            models = self._survivors(rung - 1)
            if not self._plan(rung, models):
                return self._finish("time")
            if not self._longer_rung(rung, self._entrants(rung, models)):
                return self._finish("time")
            if self._is_worse(rung):
                if not self._is_complete(rung):  # what is missing may be better
                    return self._finish("time")
                self.on_worse(self.lengths[rung], self.lengths[rung - 1])
                self.runner.drop(self._planned(rung, [*self.outcomes[rung]]))
                return self._finals(rung - 1)
        return self._finals(LAST_RUNG)

    def _entrants(self, rung: int, models: Sequence[Model]) -> list[Arm]:
        """Returns the arms of the survivors of the rung before: of each the rate for a longer
        training; for the second rung its best rate and the better of the two beside it."""
        losses = {model: self._losses(rung - 1, model) for model in models}
        if rung == 1:
            return [Arm(model, rate) for model in models for rate in best_neighbours(losses[model])]
        # Whole epochs may leave two rungs with the same length.
        is_longer = self.lengths[rung] > self.lengths[rung - 1]
        rate_of = rate_for_longer if is_longer else best_rate
        return [Arm(model, rate_of(losses[model])) for model in models]

    def _is_longest(self, rung: int) -> bool:
        """Returns whether runs cannot be longer than this rung's, as on a short text."""
        return self.lengths[rung] >= self.runner.nearest_length(MAX_UPDATES, MAX_UPDATES)

    def _is_complete(self, rung: int) -> bool:
        """Returns whether the time cut off no run of a rung."""
        return self.outcomes[rung].keys() >= self.entrants[rung]

    def _is_worse(self, rung: int) -> bool:
        """Returns whether a rung's best loss is worse than that of the rung before, by more than a
        seed's luck, as on short texts, which longer training over-fits."""
        best, before = (
            min(outcome.nats for outcome in self._first_seeds(r).values()) for r in (rung, rung - 1)
        )
        return best > before + WORTH_KNOWING

    def _first_rung(self) -> None:
        if not (self._plan(0, self.models) and self._rung(0, first_arms(self.models))):
            raise NoWinnerError("time ran out before a single run finished")
        self._further_rates(0, lambda model: next_rate(self._losses(0, model)))
        if not any(runs[0].is_usable for runs in self.outcomes[0].values()):
            raise NoWinnerError(
                "every run diverged, at every learning rate that was tried: the text may be too "
                "short, or clip=1 may help"
            )

    def _longer_rung(self, rung: int, arms: Sequence[Arm]) -> bool:
        """Runs a rung, then lower rates of the models that did worse than in the rung before."""
        if not self._rung(rung, arms):
            return False
        self._further_rates(
            rung, lambda model: lower_rate(self._losses(rung, model), self._losses(rung - 1, model))
        )
        return True

    def _further_rates(self, rung: int, further: Callable[[Model], float | None]) -> None:
        """Tries one more rate of each model that asks for one, again and again, until none asks or
        the time does not allow it for all that do."""
        while True:
            rates = {model: further(model) for model in self.models if self._losses(rung, model)}
            arms = [Arm(model, rate) for model, rate in rates.items() if rate is not None]
            possible = self._possible(rung, arms)
            if not self._rung(rung, possible):
                break

    def _rung(self, rung: int, arms: Sequence[Arm]) -> bool:
        """Runs arms with the first seed; returns whether any finished in time."""
        self.entrants.setdefault(rung, set()).update(arms)
        found = self.runner.run(self._planned(rung, arms))
        for planned, outcome in found.items():
            self.outcomes.setdefault(rung, {}).setdefault(planned.arm, []).append(outcome)
        return bool(found)

    def _plan(self, rung: int, models: Sequence[Model]) -> bool:
        """Plans the length of a rung; returns False if the time does not allow the rung."""
        length = self.track.length_of(rung, partial(self._planned_length, rung, models))
        if length is not None:
            self.lengths[rung] = length
        return length is not None

    def _planned_length(self, rung: int, models: Sequence[Model]) -> int | None:
        """Returns the updates of a rung; None if the time left does not allow runs as long as those
        of the rung before."""
        runner = self.runner
        costs = [runner.cost(model) for model in models] * FIRST_RATES_EACH[rung]
        longest = longest_run(rung, runner.seconds_left(), runner.num_slots, costs, len(models))
        planned = max(0.0, RUNG_SHARES[rung] * longest)
        # No later rung makes up for a last one that takes longer.
        most = planned if rung == LAST_RUNG else planned / USABLE
        length = runner.nearest_length(planned, most)
        return None if rung > 0 and length < self.lengths[rung - 1] else length

    def _first_seeds(self, rung: int) -> dict[Arm, Outcome]:
        return {arm: found[0] for arm, found in self.outcomes.get(rung, {}).items()}

    def _losses(self, rung: int, model: Model) -> dict[float, float]:
        """Returns a model's losses by rate."""
        return losses_by_rate(self._first_seeds(rung)).get(model, {})

    def _survivors(self, rung: int) -> list[Model]:
        found = self._first_seeds(rung)
        return self._keep(rung, survivors(found, self.margins[rung], MOST_MODELS[rung + 1]))

    def _keep(self, rung: int, kept: list[Model]) -> list[Model]:
        """Eliminates the rung's other models; drops all but the best rate of those that stay."""
        found = self._first_seeds(rung)
        best = best_arms(found)
        lost = [model for model in best if model not in kept and model not in self.out]
        if lost:
            self.out |= set(lost)
            self.on_out(lost, self.lengths[rung])
        won = {best[model] for model in kept}
        self.runner.drop(self._planned(rung, [arm for arm in found if arm not in won]))
        return kept

    def _finals(self, rung: int) -> Finish:
        """Runs further seeds of the finalists until all have enough for a first look.

        Each look settles the race or gives the leader and its strongest challenger one more seed.

        Args:
            rung: whose runs get further seeds: the last one, unless longer training did worse or
                is not possible.
        """
        self.final_rung = rung
        found = {arm: outcome for arm, outcome in self._first_seeds(rung).items()
                 if arm.model not in self.out}  # fmt: skip
        best = best_arms(found)
        chosen = finalists(found, self.margins[LAST_RUNG])
        arms = {model: best[model] for model in self._keep(rung, chosen)}
        # It stays the same if a further seed of a challenger diverges.
        self.num_challengers = max(1, len(chosen) - 1)
        while left := self._finalists(rung):
            seen = look(left, self.alpha)
            self.num_looks += seen.is_spent
            if seen.is_settled:
                return self._finish("settled")
            if self.num_looks == MOST_LOOKS:
                return self._finish("seeds")
            if not self._seeds(rung, [arms[model] for model in seen.next_models], seen.num_more):
                break
        return self._finish("time")

    def _seeds(self, rung: int, arms: Sequence[Arm], num_more: int) -> bool:
        """Runs the next seeds of a rung's arms, each arm's next one first, as far as there is time.

        Returns whether all of them finished: there is no look at half a round, which would be
        another look if the race were continued.
        """
        planned_runs, asked = [], []
        until = self.runner.seconds_left()
        left = self.runner.num_slots * until
        outcomes = self.outcomes[rung]
        for further, arm in itertools.product(range(num_more), arms):
            seed = self.seed + len(outcomes[arm]) + further
            planned = PlannedRun(arm, self.lengths[rung], seed)
            asked.append(planned)
            seconds = self.runner.seconds(planned)
            if seconds == 0 or seconds <= min(left, until):
                planned_runs.append(planned)
            left -= seconds
        if any(map(self.runner.seconds, planned_runs)):
            self.track.seeds_begin()
        found = self.runner.run(planned_runs)
        # An arm's seeds stay in order if the time cuts off one of them.
        for planned in planned_runs:
            if planned in found and planned.seed == self.seed + len(outcomes[planned.arm]):
                outcomes[planned.arm].append(found[planned])
        return all(planned in found for planned in asked)

    def _planned(self, rung: int, arms: Sequence[Arm]) -> list[PlannedRun]:
        """Returns the arms' runs with the first seed."""
        return [PlannedRun(arm, self.lengths[rung], self.seed) for arm in arms]

    def _possible(self, rung: int, arms: Sequence[Arm]) -> list[Arm]:
        """Returns all arms if there is time for all of their runs; else, or if the rung is over,
        only those that are finished already, so that a race that is started again counts the runs
        that it had, and decides by no others."""
        planned_runs = self._planned(rung, arms)
        seconds = {planned: self.runner.seconds(planned) for planned in planned_runs}
        until = self.runner.seconds_left()
        fits = sum(seconds.values()) <= self.runner.num_slots * until
        if fits and max(seconds.values(), default=0) <= until and not self.track.is_over(rung):
            return list(arms)
        return [planned.arm for planned in planned_runs if not seconds[planned]]

    def _finalists(self, rung: int) -> dict[Model, list[Outcome]]:
        """Returns the outcomes at its best arm of each model that is not out, except for models
        with a run that diverged."""
        best = best_arms(self._first_seeds(rung))
        return {
            model: self.outcomes[rung][arm]
            for model, arm in best.items()
            if model not in self.out
            and all(outcome.is_usable for outcome in self.outcomes[rung][arm])
        }

    @property
    def alpha(self) -> float:
        """The alpha of the two-sided interval that a look reads: twice what a look may spend on one
        challenger, because only one of the interval's sides can lead to a wrong decision."""
        return 2 * ALPHA / (MOST_LOOKS * self.num_challengers)

    def _finish(self, end: End) -> Finish:
        """Returns the result.

        Raises:
            NoWinnerError: if no model is left in any rung.
        """
        usable = self._usable()
        if not usable:
            raise NoWinnerError("every model has a run that diverged or failed; clip=1 may help")
        rung = self._rung_to_use(usable)
        why_shorter = self._why_shorter(rung)
        if rung != self._rung_of_seeds and why_shorter != "cut off":
            assert why_shorter is not None
            end = why_shorter
        leader, against = challenges(usable[rung])
        arms = best_arms(self._first_seeds(rung))
        unfinished = {arm.model for arm in self.entrants[rung]} - arms.keys()
        return Finish(
            rung=rung,
            updates=self.lengths[rung],
            leader=leader,
            arms={model: arms[model] for model in usable[rung]},
            outcomes=usable[rung],
            unfinished=[model for model in self.models if model in unfinished],
            unstable=self._unstable,
            challenges=against,
            num_looks=self.num_looks,
            alpha=self.alpha,
            num_models=len(self.models),
            num_runs=sum(len(runs) for found in self.outcomes.values() for runs in found.values()),
            end=end,
            why_shorter=why_shorter,
        )

    @property
    def _rung_of_seeds(self) -> int:
        """The rung whose runs get further seeds; before that is known the longest that was run."""
        return max(self.outcomes) if self.final_rung is None else self.final_rung

    @property
    def _unstable(self) -> list[Model]:
        """The finalists of which a further seed failed or diverged."""
        rung = self._rung_of_seeds
        stable = self._finalists(rung)
        return [
            model
            for model, arm in best_arms(self._first_seeds(rung)).items()
            if model not in stable
            and model not in self.out
            and self.outcomes[rung][arm][0].is_usable
        ]

    def _usable(self) -> dict[int, dict[Model, list[Outcome]]]:
        """Returns the finalists of each rung that has any. Those that are unstable count in no
        other rung either, unless all of them are."""
        found = {rung: self._finalists(rung) for rung in self.outcomes}
        left_out = self._unstable if found[self._rung_of_seeds] else []
        found = {
            rung: {model: runs for model, runs in of_rung.items() if model not in left_out}
            for rung, of_rung in found.items()
        }
        return {rung: of_rung for rung, of_rung in found.items() if of_rung}

    def _rung_to_use(self, usable: Collection[int]) -> int:
        """Returns the usable rung for the result: that of the further seeds, or one that did better
        by more than WORTH_KNOWING, as shorter training does on short texts.

        First seeds decide that, as only one rung has others. It has to be so with the unstable
        models, which say most about the length, and without them, since they are not advised.
        """
        lead = {rung: WORTH_KNOWING * (rung == self._rung_of_seeds) for rung in usable}

        def best_without(models: Collection[Model]) -> int:
            best = {
                rung: min((outcome.nats for arm, outcome in self._first_seeds(rung).items()
                           if arm.model not in models), default=math.inf)
                for rung in usable
            }  # fmt: skip
            return min(best, key=lambda rung: (best[rung] - lead[rung], -rung))

        chosen = best_without(self.out)
        of_stable = best_without({*self.out, *self._unstable})
        return self._rung_of_seeds if self._rung_of_seeds in (chosen, of_stable) else chosen

    def _why_shorter(self, rung: int) -> WhyShorter | None:
        """Returns why the result is not of the longest possible runs, or not of those with further
        seeds; None if it is."""
        longest = max(self.outcomes)
        if self._unstable and not self._finalists(self._rung_of_seeds):
            return "unstable"
        if rung < longest:
            return "worse" if self._is_complete(longest) else "cut off"
        return None if rung == LAST_RUNG or self._is_longest(rung) else "cut off"
