"""The race itself: rungs of ever longer runs with fewer models on each, then seeds for the last.

It reads validation losses only, and does not know whether its runs are trained now or were stored:
scripts/backtest.py replays thousands of races from stored runs.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple, Protocol

from charcmp.errors import UserError
from charcmp.sweeping.race.arms import (
    Arm,
    Model,
    best_neighbours,
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
from charcmp.sweeping.race.plan import MOST_MODELS, RUNG_SHARES, USABLE, Cost, longest_run
from charcmp.uncertainty.intervals import ALPHA

LAST_RUNG = len(RUNG_SHARES) - 1
# Planned looks at the finalists, each of which may spend a part of alpha: the first when all of
# them have FEWEST_SEEDS, then one after each further seed of the leader and its challenger.
MOST_LOOKS = 3


# Why a race ended: no finalist can be better by more than is worth knowing; the time was over; all
# looks were spent without an answer; the longest training was worse than a shorter one, or left no
# finalist without a seed that failed or diverged.
End = Literal["settled", "time", "seeds", "worse", "unstable"]


class NoWinnerError(UserError):
    """A race has ended without a model to name."""


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
    longer_was_worse: bool = False  # than these runs, so they are not the longest of the race

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
        self.entrants: dict[int, set[Model]] = {}  # by rung
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
            arms = self._entrants(rung)
            if not self._longer_rung(rung, arms):
                return self._finish("time")
            if self._is_worse(rung):
                self.on_worse(self.lengths[rung], self.lengths[rung - 1])
                self.runner.drop(self._planned(rung, [*self.outcomes[rung]]))
                return self._finals(rung - 1)
        return self._finals(LAST_RUNG)

    def _entrants(self, rung: int) -> list[Arm]:
        """Returns the arms of a longer rung: of each survivor of the rung before the rate for a
        longer training; for the second rung its best rate and the better of the two beside it."""
        models = self._survivors(rung - 1)
        if rung == 1:
            return [Arm(model, rate) for model in models
                    for rate in best_neighbours(self._losses(0, model))]  # fmt: skip
        return [Arm(model, rate_for_longer(self._losses(rung - 1, model))) for model in models]

    def _is_worse(self, rung: int) -> bool:
        """Returns whether a rung's best loss is worse than that of the rung before, by more than a
        seed's luck, as on short texts, which longer training over-fits."""
        best, before = (
            min(outcome.nats for outcome in self._first_seeds(r).values()) for r in (rung, rung - 1)
        )
        return best > before + WORTH_KNOWING

    def _first_rung(self) -> None:
        if not self._rung(0, first_arms(self.models)):
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
        if rung not in self.lengths:
            length = self.track.length_of(rung, partial(self._planned_length, rung, arms))
            if length is None:
                return False
            self.lengths[rung] = length
        self.entrants.setdefault(rung, set()).update(arm.model for arm in arms)
        found = self.runner.run(self._planned(rung, arms))
        for planned, outcome in found.items():
            self.outcomes.setdefault(rung, {}).setdefault(planned.arm, []).append(outcome)
        return bool(found)

    def _planned_length(self, rung: int, arms: Sequence[Arm]) -> int | None:
        """Returns the updates of a rung; None if the time left does not allow runs as long as those
        of the rung before."""
        runner = self.runner
        costs = [runner.cost(arm.model) for arm in arms]
        models = len({arm.model for arm in arms})
        longest = longest_run(rung, runner.seconds_left(), runner.num_slots, costs, models)
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
            rung: whose runs get further seeds: the last one, unless longer training did worse.
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
        """Returns the result at the longest rung that was run.

        Takes a shorter rung if longer training made the loss worse by more than WORTH_KNOWING, as
        on short texts. First seeds decide that, as only one rung has others.
        """
        usable = {r: found for r in self.outcomes if (found := self._finalists(r))}
        if not usable:
            raise NoWinnerError("every model has a run that diverged or failed; clip=1 may help")
        longest = max(r for r, found in self.outcomes.items() if found)
        best_of = {r: min(runs[0].nats for runs in found.values()) for r, found in usable.items()}
        chosen = min(best_of, key=lambda r: (best_of[r] + WORTH_KNOWING * (r != longest), -r))
        leader, against = challenges(usable[chosen])
        arms = best_arms(self._first_seeds(chosen))
        ran = {arm.model for arm in self.outcomes[chosen]}
        final = longest if self.final_rung is None else self.final_rung
        # Finalists with a further seed that failed or diverged.
        unstable = [
            model
            for model, arm in best_arms(self._first_seeds(final)).items()
            if model not in usable.get(final, {})
            and model not in self.out
            and self.outcomes[final][arm][0].is_usable
        ]
        if chosen != final:
            end = "unstable" if unstable and final not in usable else "worse"
        return Finish(
            rung=chosen,
            updates=self.lengths[chosen],
            leader=leader,
            arms={model: arms[model] for model in usable[chosen]},
            outcomes=usable[chosen],
            unfinished=[model for model in self.models if model in self.entrants[chosen] - ran],
            unstable=unstable,
            challenges=against,
            num_looks=self.num_looks,
            alpha=self.alpha,
            num_models=len(self.models),
            num_runs=sum(len(runs) for found in self.outcomes.values() for runs in found.values()),
            end=end,
            longer_was_worse=chosen < longest and end != "unstable",
        )
