"""Which runs the races of scripts/backtest.py may ask for: what is trained for them."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from charcmp.sweeping.race.arms import (
    SAFE_CHOICE,
    Arm,
    Model,
    best_neighbours,
    first_arms,
    lower_rate,
    next_rate,
)
from charcmp.sweeping.race.race import Entry

SEEDS = (0, 1, 2)  # of which a race has all its rungs
FURTHER_SEEDS = (3, 4)  # of the last rung
# Nats behind the best model at the last rung. What lies further behind has one run of each rate
# there, which serves for every seed: the race's own and the one that scores.
NEAR = 0.05
CLOSE = 0.02  # who is nearer gets the further seeds at every rate that a race may come with
MODELS_CHECKED = 3


class Needs:
    """Which runs a race may ask for, in stages: what each needs follows from those before.

    Seeds 0 to 2: at the first two lengths all that a race with that seed may ask for. At the third
    one every rate that one of these races may go on with, whatever the seed: seed 0 of all models
    and, beside those, the rates around its best one; seeds 1 and 2 of the models near the best,
    seeds 3 and 4 of these at their best rate, and of those close to it (`within`) at all.

    Args:
        models: that race.
        lengths: of the three rungs and, if wanted, of the check.
        nats: validation losses of the runs that there are.
    """

    def __init__(
        self, models: Sequence[Model], lengths: Sequence[int], nats: Mapping[Entry, float]
    ) -> None:
        self.models, self.nats = models, nats
        self.short, self.middle, self.long, *self.check = lengths
        self.losses: dict[tuple[Model, int, int], dict[float, float]] = defaultdict(dict)
        for ((model, rate), updates, seed), loss in nats.items():
            self.losses[model, updates, seed][rate] = loss

    def missing(self) -> list[Entry]:
        """What the first stage that is not complete lacks."""
        stages = (
            *(self._first_rungs, self._second_rungs, self._third_rungs),
            *(self._near_ones, self._close_ones, self._longest_ones),
        )
        for stage in stages:
            if lacking := [entry for entry in stage() if entry not in self.nats]:
                return lacking
        return []

    def _first_rungs(self) -> list[Entry]:
        return [
            entry for seed in SEEDS for model in self.models
            for entry in self._climb(model, self.short, seed, first_rates(model))
        ]  # fmt: skip

    def _second_rungs(self) -> list[Entry]:
        return [
            entry for seed in SEEDS for model in self.models
            for entry in self._climb(
                model, self.middle, seed, set().union(*self._second(model, seed))
            )
        ]  # fmt: skip

    def _third_rungs(self) -> list[Entry]:
        rates = {
            model: {*self._asked(model, 0), *best_neighbours(self.losses[model, self.middle, 0])}
            for model in self.models
        }
        return [
            entry for model in self.models
            for entry in self._climb(model, self.long, 0, rates[model])
        ]  # fmt: skip

    def _near_ones(self) -> list[Entry]:
        return [
            entry for model in self._near() for seed in SEEDS[1:]
            for entry in _entries(
                model, self.long, seed, self._rates(model) | self._asked(model, seed)
            )
        ]  # fmt: skip

    def _close_ones(self) -> list[Entry]:
        """And of those that are near: a race looks at no finalist with fewer than three seeds, so
        none with another rate can be settled."""
        tuned = self._tuned()
        close = within(CLOSE, {model: nats for model, (nats, _) in tuned.items()})
        return [
            entry for model, (_, best) in tuned.items() for seed in FURTHER_SEEDS
            for entry in _entries(
                model, self.long, seed, self._rates(model) if model in close else [best]
            )
        ]  # fmt: skip

    def _longest_ones(self) -> list[Entry]:
        tuned = self._tuned()
        best = sorted(tuned, key=lambda model: tuned[model])[:MODELS_CHECKED]
        return [Entry(Arm(model, tuned[model][1]), updates, 0)
                for updates in self.check for model in best]  # fmt: skip

    def _climb(self, model: Model, updates: int, seed: int, rates: set[float]) -> list[Entry]:
        """At these rates; then, one by one, at those beyond an end that is best."""
        tried = self.losses[model, updates, seed]
        further = next_rate(tried) if rates <= tried.keys() else None
        return _entries(model, updates, seed, rates if further is None else {*rates, further})

    def _second(self, model: Model, seed: int) -> Iterator[set[float]]:
        """What a race may try in its second rung: a model's best rate and a neighbour, by the
        first rates alone or, as far as it has time, by further ones; then lower ones."""
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
        """A rung's rates, and those with lower ones if it came out worse than the one before; as
        far as it has been trained."""
        tried = {*rates}
        yield set(tried)
        while tried <= losses.keys():
            lower = lower_rate({rate: losses[rate] for rate in tried}, shorter)
            if lower is None:
                return
            tried.add(lower)
            yield set(tried)

    def _asked(self, model: Model, seed_at_last: int) -> set[float]:
        """The rates that a race may try in its last rung, whatever its seed.

        Args:
            model: in question.
            seed_at_last: whose losses there say whether a lower rate is tried.
        """
        at_last = self.losses[model, self.long, seed_at_last]
        asked: set[float] = set()
        for seed in SEEDS:
            middle = self.losses[model, self.middle, seed]
            for rates in self._second(model, seed):
                before = {rate: middle[rate] for rate in rates}
                asked = asked.union(*self._lowered([lowest(before)], at_last, before))
        return asked

    def _rates(self, model: Model) -> set[float]:
        """Of the last rung, for all seeds."""
        return {*self._asked(model, 0), lowest(self.losses[model, self.long, 0])}

    def _near(self) -> list[Model]:
        return within(NEAR, {model: min(self.losses[model, self.long, 0].values())
                             for model in self.models})  # fmt: skip

    def _tuned(self) -> dict[Model, tuple[float, float]]:
        """The loss and the rate of each near model at its best rate, by the mean over seeds."""

        def mean(model: Model, rate: float) -> float:
            return sum(self.losses[model, self.long, seed][rate] for seed in SEEDS) / len(SEEDS)

        return {model: min((mean(model, rate), rate) for rate in self._rates(model))
                for model in self._near()}  # fmt: skip


def _entries(model: Model, updates: int, seed: int, rates: Iterable[float]) -> list[Entry]:
    return [Entry(Arm(model, rate), updates, seed) for rate in sorted(rates)]


def first_rates(model: Model) -> set[float]:
    return {arm.rate for arm in first_arms([model])}


def within(nats: float, losses: Mapping[Model, float]) -> list[Model]:
    """The models that are so near the best one; the second best and the safe choice however far
    they are: one of them gets seeds in a race with a clear winner, or it would never be settled."""
    order = sorted(losses, key=lambda model: (losses[model], model))
    goal = losses[order[0]] + nats
    return [model for model in order if losses[model] <= goal or model in order[:2]
            or (model.cell, model.layers) == SAFE_CHOICE]  # fmt: skip


def lowest(losses: Mapping[float, float]) -> float:
    """The rate with the lowest loss, as a race takes it."""
    return min(losses, key=lambda rate: (losses[rate], rate))


def expected(
    models: Sequence[Model], lengths: Sequence[int], nats: Mapping[Entry, float]
) -> list[Entry]:
    """About which runs are to come: as if every model's best rate moved up a little from rung to
    rung and, of those that are not known, five of nine ended near the best one, two close to it."""
    nats = dict(nats)
    best = min(nats.values(), default=0.0)

    def guessed(entry: Entry) -> float:
        (model, rate), updates, _ = entry
        rate_then = sorted(first_rates(model))[1] * 2 ** (0.4 * lengths.index(updates))
        behind = 1.1 * NEAR / 5 * models.index(model)
        return best + behind + 0.01 * abs(math.log2(rate / rate_then))

    to_come: list[Entry] = []
    while missing := Needs(models, lengths, nats).missing():
        to_come += missing
        nats |= {entry: guessed(entry) for entry in missing}
    return to_come
