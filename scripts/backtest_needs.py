"""The runs that the races of scripts/backtest.py may ask for, and that it therefore trains."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

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
from charcmp.sweeping.race.race import PlannedRun

SEEDS = (0, 1, 2)  # each of them has runs in all rungs
FURTHER_SEEDS = (3, 4)  # only in the last rung
# Nats behind the best model at the last rung. Models further behind have one run of each rate
# there, which serves for every seed: those that a race sees and the one that scores it.
NEAR = 0.05
CLOSE = 0.02  # models nearer than this have the further seeds at every rate that may get there
MODELS_CHECKED = 3


class Needs:
    """The runs that a race may ask for, in stages, each of which follows from those before.

    At the first two lengths these are, for each of seeds 0 to 2, all runs that a race with that
    first seed may ask for. At the third length a model's rates are all those that one of these
    races may come with, whatever its seed. They are trained with

    - seed 0 for all models, together with the rates around seed 0's best one of the second length,
    - seeds 1 and 2 for the models near the best one,
    - seeds 3 and 4 for these at their best rate, and for models close to the best one at all rates
      (both by `within`).

    Args:
        models: all models that race.
        lengths: of the three rungs and, if wanted, of the check.
        nats: validation losses of the runs that are finished.
    """

    def __init__(
        self, models: Sequence[Model], lengths: Sequence[int], nats: Mapping[PlannedRun, float]
    ) -> None:
        self.models, self.nats = models, nats
        self.short, self.middle, self.long, *self.check = lengths
        self.losses: dict[tuple[Model, int, int], dict[float, float]] = defaultdict(dict)
        for ((model, rate), updates, seed), loss in nats.items():
            self.losses[model, updates, seed][rate] = loss

    def missing(self) -> list[PlannedRun]:
        """Returns what the first incomplete stage lacks."""
        stages = (
            *(self._first_rungs, self._second_rungs, self._third_rungs),
            *(self._near_ones, self._close_ones, self._longest_ones),
        )
        for stage in stages:
            if lacking := [planned for planned in stage() if planned not in self.nats]:
                return lacking
        return []

    def _first_rungs(self) -> list[PlannedRun]:
        return [
            planned for seed in SEEDS for model in self.models
            for planned in self._climb(model, self.short, seed, first_rates(model))
        ]  # fmt: skip

    def _second_rungs(self) -> list[PlannedRun]:
        return [
            planned for seed in SEEDS for model in self.models
            for planned in self._climb(
                model, self.middle, seed, set().union(*self._second(model, seed))
            )
        ]  # fmt: skip

    def _third_rungs(self) -> list[PlannedRun]:
        rates = {
            model: {*self._asked(model, 0), *best_neighbours(self.losses[model, self.middle, 0])}
            for model in self.models
        }
        return [
            planned for model in self.models
            for planned in self._climb(model, self.long, 0, rates[model])
        ]  # fmt: skip

    def _near_ones(self) -> list[PlannedRun]:
        return [
            planned for model in self._near() for seed in SEEDS[1:]
            for planned in _planned(
                model, self.long, seed, self._rates(model) | self._asked(model, seed)
            )
        ]  # fmt: skip

    def _close_ones(self) -> list[PlannedRun]:
        """Returns the further seeds of models near the best one: at their best rate, or at all
        rates if they are close.

        Of three seeds a race sees two, and it looks only at finalists with at least three. So it
        cannot be settled if a finalist's rate has no further seeds.
        """
        tuned = self._tuned()
        close = within(CLOSE, {model: nats for model, (nats, _) in tuned.items()})
        return [
            planned for model, (_, best) in tuned.items() for seed in FURTHER_SEEDS
            for planned in _planned(
                model, self.long, seed, self._rates(model) if model in close else [best]
            )
        ]  # fmt: skip

    def _longest_ones(self) -> list[PlannedRun]:
        tuned = self._tuned()
        best = sorted(tuned, key=lambda model: tuned[model])[:MODELS_CHECKED]
        return [PlannedRun(Arm(model, tuned[model][1]), updates, 0)
                for updates in self.check for model in best]  # fmt: skip

    def _climb(self, model: Model, updates: int, seed: int, rates: set[float]) -> list[PlannedRun]:
        """Returns runs at these rates and, once those are finished, at the next rate beyond the end
        of the rates that is best."""
        tried = self.losses[model, updates, seed]
        further = next_rate(tried) if rates <= tried.keys() else None
        return _planned(model, updates, seed, rates if further is None else {*rates, further})

    def _second(self, model: Model, seed: int) -> Iterator[set[float]]:
        """Yields the sets of rates that a race may try in its second rung.

        Each has a model's best rate and a neighbour, judged by the first rates alone or, if the
        race has time for them, by further ones too, and then lower rates.
        """
        losses = self.losses[model, self.short, seed]
        tried = {rate: losses[rate] for rate in first_rates(model)}
        while True:
            pair = best_neighbours(tried)
            yield from self._lowered(pair, self.losses[model, self.middle, seed], tried)
            if (further := next_rate(tried)) is None:
                return
            tried[further] = losses[further]

    def _lowered(
        self, rates: Iterable[float], losses: Mapping[float, float], shorter: dict[float, float]
    ) -> Iterator[set[float]]:
        """Yields a rung's rates, then those with lower rates added if it did worse than the rung
        before, as far as these have been trained."""
        tried = {*rates}
        yield set(tried)
        while tried <= losses.keys():
            lower = lower_rate({rate: losses[rate] for rate in tried}, shorter)
            if lower is None:
                return
            tried.add(lower)
            yield set(tried)

    def _asked(self, model: Model, seed_at_last: int) -> set[float]:
        """Returns the rates that a race may try in its last rung, whatever its seed.

        These are also those of a race that goes on at the best rate of the second rung, rather than
        at the rate for a longer training: without them, no stored run could show that choice wrong.

        Args:
            model: the model in question.
            seed_at_last: the seed whose losses there decide whether a lower rate is tried.
        """
        at_last = self.losses[model, self.long, seed_at_last]
        asked: set[float] = set()
        for seed in SEEDS:
            middle = self.losses[model, self.middle, seed]
            for rates in self._second(model, seed):
                before = {rate: middle[rate] for rate in rates}
                for rate in {best_rate(before), rate_for_longer(before)}:
                    asked = asked.union(*self._lowered([rate], at_last, before))
        return asked

    def _rates(self, model: Model) -> set[float]:
        """Returns the last rung's rates, which all seeds share."""
        return {*self._asked(model, 0), best_rate(self.losses[model, self.long, 0])}

    def _near(self) -> list[Model]:
        return within(NEAR, {model: min(self.losses[model, self.long, 0].values())
                             for model in self.models})  # fmt: skip

    def _tuned(self) -> dict[Model, tuple[float, float]]:
        """Returns the mean loss over seeds and the rate of each near model at its best rate."""

        def mean(model: Model, rate: float) -> float:
            return sum(self.losses[model, self.long, seed][rate] for seed in SEEDS) / len(SEEDS)

        return {model: min((mean(model, rate), rate) for rate in self._rates(model))
                for model in self._near()}  # fmt: skip


def _planned(model: Model, updates: int, seed: int, rates: Iterable[float]) -> list[PlannedRun]:
    return [PlannedRun(Arm(model, rate), updates, seed) for rate in sorted(rates)]


def first_rates(model: Model) -> set[float]:
    return {arm.rate for arm in first_arms([model])}


def within(nats: float, losses: Mapping[Model, float]) -> list[Model]:
    """Returns the models within so many nats of the best one, the second best and the safe choice.

    In a race with a clear winner one of the latter two gets seeds, without which the race would
    never be settled.
    """
    order = sorted(losses, key=lambda model: (losses[model], model))
    goal = losses[order[0]] + nats
    return [model for model in order if losses[model] <= goal or model in order[:2]
            or model.is_safe_choice]  # fmt: skip


def expected(
    models: Sequence[Model], lengths: Sequence[int], nats: Mapping[PlannedRun, float]
) -> list[PlannedRun]:
    """Returns about which runs are still to come.

    It is assumed that every model's best rate moves up a little from rung to rung and that, of the
    models that have not run yet, five of nine end near the best one and two close to it.
    """
    nats = dict(nats)
    best = min(nats.values(), default=0.0)

    def guessed(planned: PlannedRun) -> float:
        (model, rate), updates, _ = planned
        rate_then = sorted(first_rates(model))[1] * 2 ** (0.4 * lengths.index(updates))
        behind = 1.1 * NEAR / 5 * models.index(model)
        return best + behind + 0.01 * abs(math.log2(rate / rate_then))

    to_come: list[PlannedRun] = []
    while missing := Needs(models, lengths, nats).missing():
        to_come += missing
        nats |= {planned: guessed(planned) for planned in missing}
    return to_come
