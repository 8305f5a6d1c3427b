"""The race's decisions, on stored outcomes: who goes on, who gets a seed, what is concluded."""

import math
import zlib
from collections.abc import Callable, Sequence
from functools import cache
from types import ModuleType

import numpy as np
import pytest
from helpers.console import load_script

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
    FEWEST_SEEDS,
    MARGINS,
    Outcome,
    challenges,
    finalists,
    is_settled,
    next_for_a_seed,
    survivors,
    tied,
)
from charcmp.sweeping.race.plan import (
    FIRST_RATES_EACH,
    FURTHER_RATES_EACH,
    MAX_EPOCHS,
    RUNG_SHARES,
    Cost,
    TooLittleTimeError,
    longest_run,
    nearest_length,
)
from charcmp.sweeping.race.race import MOST_LOOKS, Finish, PlannedRun, Race
from charcmp.sweeping.race.requests import length_settings

MODELS = [Model("50k", cell, layers) for cell in ("lstm", "gru", "rnn") for layers in (1, 2, 3)]
GRU_1, GRU_2 = Model("50k", "gru", 1), Model("50k", "gru", 2)
BEST_RATE = {"lstm": 0.024, "gru": 0.012, "rnn": 0.006}


@cache  # so that equal outcomes are equal: arrays are compared by identity
def blocks(nats: float) -> np.ndarray:
    return nats + np.random.default_rng(0).normal(0.0, 1e-6, (1, 100))


class Stored:
    """Outcomes by a formula, and a clock that a run moves on by its length: a single slot."""

    num_slots = 1

    def __init__(self, level: dict[Model, float], seconds: float = 1e5, noise: float = 0.001):
        self.level, self.left, self.noise = level, seconds, noise
        self.lengths: list[int] = []
        self.pace = 1.0  # of the time that a run was expected to take
        self.planned_runs: list[PlannedRun] = []
        self.dropped: set[PlannedRun] = set()
        self.gone: list[Model] = []

    def cost(self, model: Model) -> Cost:
        return Cost(0.0, 0.01)

    def seconds(self, planned: PlannedRun) -> float:
        return 0.01 * planned.updates

    def nearest_length(self, updates: float, most: float) -> int:
        return nearest_length(updates, 1000, most)

    def seconds_left(self) -> float:
        return self.left

    def run(self, planned_runs: Sequence[PlannedRun]) -> dict[PlannedRun, Outcome]:
        found = {}
        for planned in planned_runs:
            if self.left <= 0:
                break
            self.left -= self.pace * 0.01 * planned.updates
            self.planned_runs.append(planned)
            found[planned] = self.outcome(planned)
        return found

    def outcome(self, planned: PlannedRun) -> Outcome:
        """Returns an outcome whose variance over text is known, and small."""
        nats = self.nats(planned)
        return Outcome(nats, blocks(nats) if math.isfinite(nats) else None)

    def nats(self, planned: PlannedRun) -> float:
        (model, rate), updates, seed = planned
        if rate > 4 * BEST_RATE[model.cell]:
            return math.inf
        off = abs(math.log2(rate / BEST_RATE[model.cell]))
        rng = np.random.default_rng([zlib.crc32(repr(model).encode()), seed])
        return self.level[model] + 0.03 * off + 100 / updates + self.noise * rng.standard_normal()

    def drop(self, planned_runs: Sequence[PlannedRun]) -> None:
        self.dropped |= set(planned_runs)

    def length_of(self, rung: int, plan: Callable[[], int | None]) -> int | None:
        if (planned := plan()) is None:
            return None
        self.lengths.append(planned)
        return planned

    def is_over(self, rung: int) -> bool:
        return False

    def seeds_begin(self) -> None:
        pass

    def out(self, models: Sequence[Model], updates: int) -> None:
        self.gone += models


def levels(**changed: float) -> dict[Model, float]:
    return {model: changed.get(f"{model.cell}{model.layers}", 1.5) for model in MODELS}


def race(stored: Stored, models: Sequence[Model] = MODELS) -> Finish:
    return Race(models, stored, stored, on_out=stored.out).run()


def test_the_best_wins_at_its_best_rate_and_the_safe_choice_stays() -> None:
    stored = Stored(levels(lstm1=1.30, gru2=1.48))
    finish = race(stored)
    assert finish.leader == Model("50k", "lstm", 1)
    assert finish.arms[finish.leader].rate == 0.024
    assert GRU_2 in finish.arms
    assert finish.settled
    assert finish.tied == []
    assert Model("50k", "rnn", 3) in stored.gone


def test_what_lost_is_dropped_and_nothing_else() -> None:
    """Every rate of a model that is out, and of those that stay all but the best."""
    stored = Stored(levels(gru1=1.4, gru2=1.405, lstm1=1.403))
    finish = race(stored)
    assert stored.dropped < set(stored.planned_runs)
    kept = set(stored.planned_runs) - stored.dropped
    for model, outcomes in finish.outcomes.items():
        arm = finish.arms[model]
        seeds = {PlannedRun(arm, finish.updates, seed) for seed in range(len(outcomes))}
        assert {planned for planned in kept if planned[:2] == (arm, finish.updates)} == seeds
    one_each = {(planned.arm.model, planned.updates, planned.seed) for planned in kept}
    assert len(one_each) == len(kept)
    first, second, _ = stored.lengths
    gone_on = {planned.arm.model for planned in stored.planned_runs if planned.updates == second}
    assert {planned.arm.model for planned in kept if planned.updates == first} == gone_on


def test_rungs_get_longer_and_fewer() -> None:
    stored = Stored(levels(gru1=1.4, gru2=1.41, lstm1=1.405))
    finish = race(stored)
    lengths = sorted({planned.updates for planned in stored.planned_runs})
    assert len(lengths) == 3
    arms = [{one.arm for one in stored.planned_runs if one.updates == length} for length in lengths]
    assert len(arms[0]) > len(arms[1]) > len(arms[2]) == 3
    assert finish.num_runs == len(stored.planned_runs)


def test_models_that_are_alike_get_seeds_and_are_called_tied() -> None:
    stored = Stored(levels(gru1=1.4, gru2=1.4), noise=0.02)
    finish = race(stored)
    assert {finish.leader, *finish.tied} >= {GRU_1, GRU_2}
    assert len(finish.outcomes[finish.leader]) > 1


def test_the_last_rung_leaves_those_that_are_near() -> None:
    """The safe choice has no privilege there."""
    stored = Stored(levels(lstm1=1.30, lstm2=1.31, gru2=1.48))
    finish = race(stored)
    assert set(finish.arms) == {Model("50k", "lstm", 1), Model("50k", "lstm", 2)}
    assert GRU_2 in stored.gone
    (challenge,) = finish.challenges
    assert challenge.of_models is not None
    assert challenge.of_run is not None


def test_the_nearest_get_their_seeds_first() -> None:
    """Where the time does not allow one for all of them; what has one seed is not settled."""
    stored = Stored(levels(gru1=1.4, lstm1=1.401, gru2=1.402), seconds=2000, noise=1e-5)
    run = stored.run

    def run_until_the_last_rung(planned_runs: Sequence[PlannedRun]) -> dict[PlannedRun, Outcome]:
        found = run(planned_runs)
        if len(stored.lengths) == 3 and planned_runs and planned_runs[0].seed == 0:
            stored.left = 2.5 * stored.seconds(planned_runs[0])
        return found

    stored.run = run_until_the_last_rung  # type: ignore[method-assign]
    finish = race(stored)
    seeds = {model: len(found) for model, found in finish.outcomes.items()}
    assert seeds == {GRU_1: 2, Model("50k", "lstm", 1): 2, GRU_2: 1}
    assert not finish.settled
    assert GRU_2 in finish.tied


@pytest.mark.parametrize(("seed", "why", "end"), [(0, "worse", "settled"), (1, *["unstable"] * 2)])
def test_a_last_rung_that_diverges_leaves_the_one_before(seed: int, why: str, end: str) -> None:
    """All of its runs, or all further seeds of it."""

    class Cliff(Stored):
        def nats(self, planned: PlannedRun) -> float:
            is_last = len(self.lengths) == 3 and planned.updates == self.lengths[-1]
            return math.inf if is_last and planned.seed >= seed else super().nats(planned)

    finish = race(Cliff(levels(gru1=1.4)))
    assert (finish.rung, finish.leader) == (1, GRU_1)
    assert (finish.why_shorter, finish.end) == (why, end)
    assert bool(finish.unstable) == (end == "unstable")


@pytest.mark.parametrize(("worse", "rung", "why"), [(0.002, 2, None), (0.05, 1, "worse")])
def test_a_longer_training_that_is_worse(worse: float, rung: int, why: str | None) -> None:
    """By more than is worth knowing; less may be a seed's luck."""

    class Overfit(Stored):
        def nats(self, planned: PlannedRun) -> float:
            is_last = len(self.lengths) == 3 and planned.updates == self.lengths[-1]
            gained = 100 / planned.updates
            return super().nats(planned) - gained + (worse if is_last else 0.0)

    finish = race(Overfit(levels(gru1=1.4)))
    assert (finish.rung, finish.why_shorter) == (rung, why)
    assert len(finish.outcomes[finish.leader]) >= FEWEST_SEEDS


def test_a_race_ends_at_the_length_beyond_which_training_does_worse() -> None:
    """No longer rung is run, and the finalists get their further seeds at that length; what was out
    after it stays out, however near it was."""

    class OverfitSoon(Stored):
        worse: tuple[int, int] | None = None

        def nats(self, planned: PlannedRun) -> float:
            gained = 100 / planned.updates
            is_longer = planned.updates > self.lengths[0]
            return super().nats(planned) - gained + (0.05 if is_longer else 0.0)

        def note_worse(self, longer: int, shorter: int) -> None:
            self.worse = (longer, shorter)

    stored = OverfitSoon(dict.fromkeys(MODELS, 1.404) | {GRU_1: 1.4})
    finish = Race(MODELS, stored, stored, on_out=stored.out, on_worse=stored.note_worse).run()
    assert (finish.rung, finish.leader, finish.why_shorter) == (0, GRU_1, "worse")
    assert stored.worse == (stored.lengths[1], stored.lengths[0])
    assert len(stored.lengths) == 2
    assert all(len(found) >= FEWEST_SEEDS for found in finish.outcomes.values())
    assert finish.end in ("settled", "seeds")
    assert not {*finish.arms} & {*stored.gone}
    assert len(stored.gone) == len({*stored.gone})  # nothing is eliminated twice
    longer = {one for one in stored.planned_runs if one.updates == stored.lengths[1]}
    assert longer <= stored.dropped
    assert {*finish.arms} | {*stored.gone} == {*MODELS}


class Slots(Stored):
    """Outcomes by a formula, from slots side by side: the longest run of a batch begins first."""

    def __init__(self, level: dict[Model, float], seconds: float, num_slots: int) -> None:
        super().__init__(level, seconds)
        self.num_slots = num_slots

    def seconds(self, planned: PlannedRun) -> float:
        model = planned.arm.model
        return 0.01 * planned.updates * (0.9 + 0.05 * model.layers)

    def took(self, planned: PlannedRun) -> float:
        """Returns more than was expected of a run in the last rung: nothing is exact."""
        return self.seconds(planned) * (1.03 if len(self.lengths) == 3 else 1.0)

    def cost(self, model: Model) -> Cost:
        return Cost(0.0, self.seconds(PlannedRun(Arm(model, 0.003), 1, 0)))

    def run(self, planned_runs: Sequence[PlannedRun]) -> dict[PlannedRun, Outcome]:
        free, found = [0.0] * self.num_slots, {}
        for planned in sorted(planned_runs, key=self.seconds, reverse=True):
            begins = min(free)
            ends = free[free.index(begins)] = begins + self.took(planned)
            if ends <= self.left:
                self.planned_runs.append(planned)
                found[planned] = self.outcome(planned)
        self.left = max(0.0, self.left - max(free))
        return found


@pytest.mark.parametrize("num_slots", [1, 2, 3, 4, 6, 8, 16])
def test_every_finalist_gets_its_seeds_however_many_slots_there_are(num_slots: int) -> None:
    stored = Slots(levels(gru1=1.4, gru2=1.402), 1800 / num_slots, num_slots)
    finish = race(stored)
    assert (finish.rung, finish.unfinished) == (2, [])
    assert min(len(found) for found in finish.outcomes.values()) >= FEWEST_SEEDS


def test_a_seed_that_ends_after_a_later_one_was_cut_off_does_not_hold_up_the_end() -> None:
    """Seeds of a model go on side by side; the first of them may be the one that is cut off."""

    class SecondOnly(Stored):
        def run(self, planned_runs: Sequence[PlannedRun]) -> dict[PlannedRun, Outcome]:
            if any(planned.seed > 0 for planned in planned_runs):
                self.left = 0.0
                self.done = {planned for planned in planned_runs if planned.seed == 2}
                return {planned: self.outcome(planned) for planned in self.done}
            return super().run(planned_runs)

        def seconds(self, planned: PlannedRun) -> float:
            return 0.0 if planned in getattr(self, "done", ()) else super().seconds(planned)

    finish = race(SecondOnly(levels(gru1=1.4, gru2=1.401)))
    assert finish.end == "time"
    assert {len(found) for found in finish.outcomes.values()} == {1}


def test_a_rung_that_is_cut_off_says_who_is_missing() -> None:
    class CutOff(Stored):
        def run(self, planned_runs: Sequence[PlannedRun]) -> dict[PlannedRun, Outcome]:
            if len(self.lengths) == 3 and planned_runs:
                self.left = 1.5 * self.seconds(planned_runs[0])
            return super().run(planned_runs)

    finish = race(CutOff(levels(gru1=1.4, lstm1=1.401, gru2=1.402)))
    assert finish.rung == 2
    assert finish.end == "time"
    assert set(finish.unfinished) == {GRU_1, GRU_2, Model("50k", "lstm", 1)} - set(finish.arms)
    assert finish.unfinished
    assert {finish.states[model] for model in finish.unfinished} == {"cut off"}


@pytest.mark.parametrize("nats", [1.5, math.inf])
def test_a_rung_that_is_cut_off_is_not_judged_by_the_runs_that_finished(nats: float) -> None:
    """They may be those of the worse models."""

    class SlowestOnly(Stored):
        worse: tuple[int, int] | None = None

        def run(self, planned_runs: Sequence[PlannedRun]) -> dict[PlannedRun, Outcome]:
            if len(self.lengths) < 3:
                return super().run(planned_runs)
            self.left = 0.0
            return {one: Outcome(nats) for one in planned_runs if one.arm.model == GRU_2}

        def note_worse(self, longer: int, shorter: int) -> None:
            self.worse = (longer, shorter)

    stored = SlowestOnly(levels(gru1=1.3, gru2=1.5))
    finish = Race(MODELS, stored, stored, on_worse=stored.note_worse).run()
    assert stored.worse is None
    assert (finish.rung, finish.leader) == (1, GRU_1)
    assert (finish.end, finish.why_shorter) == ("time", "cut off")


def test_no_rung_is_planned_when_the_time_is_over() -> None:
    """Its length would be kept, and more minutes could not make it longer."""

    class Ends(Stored):
        def run(self, planned_runs: Sequence[PlannedRun]) -> dict[PlannedRun, Outcome]:
            found = super().run(planned_runs)
            if len(self.lengths) == 2:
                self.left = 0.0
            return found

    stored = Ends(levels(gru1=1.4))
    finish = race(stored)
    assert (finish.rung, finish.end, len(stored.lengths)) == (1, "time", 2)
    assert finish.why_shorter == "cut off"


@pytest.mark.parametrize(("per_epoch", "rung"), [(34, 1), (8, 0)])
def test_a_short_text_has_no_longer_rung_than_the_most_epochs(per_epoch: int, rung: int) -> None:
    """A rung of the same length would take lower rates, as for a longer training."""

    class Short(Stored):
        def nearest_length(self, updates: float, most: float) -> int:
            return nearest_length(updates, per_epoch, most)

        def nats(self, planned: PlannedRun) -> float:
            return super().nats(planned) - 0.015 * (planned.arm.rate == 0.006)

    stored = Short(levels(gru1=1.4))
    finish = race(stored)
    assert (len(stored.lengths), stored.lengths[-1]) == (rung + 1, per_epoch * MAX_EPOCHS)
    assert (finish.rung, finish.end, finish.why_shorter) == (rung, "settled", None)
    assert finish.arms[finish.leader] == Arm(GRU_1, 0.012)


def test_a_rung_that_is_no_longer_than_the_one_before_keeps_the_best_rates() -> None:
    """Lengths are whole epochs, so that two may be the same when time is short."""

    class Coarse(Stored):
        def run(self, planned_runs: Sequence[PlannedRun]) -> dict[PlannedRun, Outcome]:
            found = super().run(planned_runs)
            if len(self.lengths) == 2:
                self.left = 80.0
            return found

        def nats(self, planned: PlannedRun) -> float:
            return super().nats(planned) - 0.015 * (planned.arm.rate == 0.006)

    stored = Coarse(levels(gru1=1.4), seconds=550)
    finish = race(stored)
    assert stored.lengths[1:] == [1000, 1000]
    assert (finish.rung, finish.why_shorter) == (2, None)
    assert finish.arms[GRU_1].rate == 0.012


def test_a_second_rung_that_diverges_leaves_the_first() -> None:
    class Cliff(Stored):
        def nats(self, planned: PlannedRun) -> float:
            is_longer = planned.updates > self.lengths[0]
            return math.inf if is_longer else super().nats(planned)

    finish = race(Cliff(levels(gru1=1.4)))
    assert (finish.rung, finish.leader, finish.why_shorter) == (0, GRU_1, "worse")


def test_a_finalist_of_which_a_seed_diverges_is_named() -> None:
    class OneFails(Stored):
        def nats(self, planned: PlannedRun) -> float:
            fails = planned.arm.model == GRU_1 and planned.seed == 2
            return math.inf if fails else super().nats(planned)

    finish = race(OneFails(levels(gru1=1.4, gru2=1.401, lstm1=1.402)))
    assert finish.unstable == [GRU_1]
    assert finish.leader != GRU_1


@pytest.mark.parametrize(
    ("gru1", "gru2", "rung", "why"),
    [
        ((1.22, 1.21, 1.2), (1.25, 1.24, 1.26), 2, None),  # only GRU 2 gets worse
        ((1.2, 1.208, 1.216), (1.25, 1.25, 1.25), 2, None),  # and GRU 2 has seeds there
        ((1.2, 1.208, 1.216), (1.25, 1.258, 1.266), 0, "worse"),  # by a little each time
    ],
)
def test_a_finalist_of_which_a_seed_diverges_is_not_advised_from_a_shorter_rung(
    gru1: Sequence[float], gru2: Sequence[float], rung: int, why: str | None
) -> None:
    """However far the others are behind its first runs."""

    class OneFails(Stored):
        def nats(self, planned: PlannedRun) -> float:
            if planned.arm.model == GRU_1 and planned.seed == 2:
                return math.inf
            off = abs(math.log2(planned.arm.rate / 0.012))
            rungs = gru1 if planned.arm.model == GRU_1 else gru2
            return rungs[self.lengths.index(planned.updates)] + 0.03 * off

    finish = race(OneFails({}), [GRU_1, GRU_2])
    assert (finish.rung, finish.leader, finish.unstable) == (rung, GRU_2, [GRU_1])
    assert finish.why_shorter == why
    assert finish.states == {GRU_2: "chosen", GRU_1: "unstable"}


def test_there_is_no_look_at_half_a_round() -> None:
    """It would be one look more if the race is continued."""

    class OneLate(Stored):
        def run(self, planned_runs: Sequence[PlannedRun]) -> dict[PlannedRun, Outcome]:
            late = [planned for planned in planned_runs if planned.seed == FEWEST_SEEDS]
            if late:
                self.left = self.seconds(late[0])
            return super().run(planned_runs)

    level = levels(gru1=1.4, gru2=1.4)
    stored = OneLate(level, seconds=1e6, noise=0.02)
    finish = race(stored)
    assert finish.end == "time"
    assert sorted(len(found) for found in finish.outcomes.values()) == [3, 4]
    assert finish.num_looks == 1


def test_seeds_begin_only_when_one_is_run() -> None:
    """A race that is cut off in its last rung may still try other rates of it."""

    class Notes(Stored):
        begun = 0

        def seeds_begin(self) -> None:
            self.begun += 1

    class CutOff(Notes):
        def run(self, planned_runs: Sequence[PlannedRun]) -> dict[PlannedRun, Outcome]:
            found = super().run(planned_runs)
            if len(self.lengths) == 3:
                self.left = 0.0
            return found

    level = levels(gru1=1.4, gru2=1.401)
    whole, cut = Notes(level), CutOff(level)
    race(whole)
    race(cut)
    assert (whole.begun > 0, cut.begun) == (True, 0)


def test_a_rung_that_is_over_gets_no_new_runs() -> None:
    """More minutes would allow further rates of it; then other finalists, and looks anew."""

    class Over(Stored):
        def is_over(self, rung: int) -> bool:
            return True

    level = levels(gru1=1.4)
    more, fewer = Stored(level), Over(level)
    more.nats = fewer.nats = lambda planned: 2.0 - planned.arm.rate  # type: ignore[method-assign]
    race(more)
    race(fewer)
    first = {planned.arm for planned in fewer.planned_runs if planned.updates == fewer.lengths[0]}
    assert first == set(first_arms(MODELS))
    assert first < {
        planned.arm for planned in more.planned_runs if planned.updates == more.lengths[0]
    }


def test_looks_that_are_spent_end_a_race() -> None:
    """A rival of seeds that differ much, on average as good: no time would settle it."""

    class OneVaries(Stored):
        def nats(self, planned: PlannedRun) -> float:
            is_last = len(self.lengths) == 3 and planned.updates == self.lengths[-1]
            varies = is_last and planned.arm.model == GRU_2
            return super().nats(planned) + varies * 0.03 * (-1) ** planned.seed

    finish = race(OneVaries(levels(gru1=1.4, gru2=1.41, lstm1=1.4), seconds=1e6))
    assert finish.end == "seeds"
    seeds = [len(found) for found in finish.outcomes.values()]
    assert min(seeds) >= FEWEST_SEEDS
    assert max(seeds) == FEWEST_SEEDS + MOST_LOOKS - 1


def test_every_run_fits_into_the_time() -> None:
    for seconds in (1000, 3000, 10_000):
        stored = Stored(levels(gru1=1.4), seconds)
        race(stored)
        assert stored.left > -0.01 * seconds


def test_too_little_time_says_how_much() -> None:
    with pytest.raises(TooLittleTimeError) as told:
        race(Stored(levels(), seconds=10))
    race(Stored(levels(), told.value.seconds))
    with pytest.raises(TooLittleTimeError):
        race(Stored(levels(), 0.99 * told.value.seconds))


def test_every_arm_diverged() -> None:
    stored = Stored(dict.fromkeys(MODELS, math.inf))
    with pytest.raises(UserError, match="every run diverged"):
        race(stored)


def test_a_decision_that_is_taken_again_is_the_same() -> None:
    level = levels(gru1=1.4, lstm1=1.403)
    assert race(Stored(level)) == race(Stored(level))


class Again(Stored):
    """A race whose time is over, with the runs that it had; nothing more is trained."""

    def __init__(self, before: Stored) -> None:
        super().__init__(before.level, 0.0, before.noise)
        self.done = set(before.planned_runs)
        self.lengths = before.lengths

    def seconds(self, planned: PlannedRun) -> float:
        return 0.0 if planned in self.done else super().seconds(planned)

    def run(self, planned_runs: Sequence[PlannedRun]) -> dict[PlannedRun, Outcome]:
        return {planned: self.outcome(planned) for planned in planned_runs if planned in self.done}

    def length_of(self, rung: int, plan: Callable[[], int | None]) -> int | None:
        return self.lengths[rung] if rung < len(self.lengths) else plan()


@pytest.mark.parametrize("seconds", range(400, 1600, 50))
def test_a_race_that_is_over_decides_the_same_when_it_is_looked_at_again(seconds: float) -> None:
    """A last round of seeds of which the time allowed one run alone counts again."""
    stored = Stored(levels(gru1=1.4, gru2=1.401, lstm1=1.402), seconds, noise=0.02)
    stored.pace = 2.5  # so that the time ends within a round
    finish = race(stored)
    assert race(Again(stored)) == finish


def test_rates_are_followed_to_the_end_of_the_ladder() -> None:
    assert next_rate({0.006: 1.5, 0.012: 1.4, 0.024: 1.3}) == 0.048
    assert next_rate({0.006: 1.5, 0.012: 1.4, 0.024: 1.3, 0.048: 1.2}) is None
    assert next_rate({0.003: 1.3, 0.006: 1.4, 0.012: math.inf}) == 0.0015
    assert next_rate({0.006: 1.5, 0.012: 1.4, 0.024: 1.45}) is None
    assert best_neighbours({0.006: 1.5, 0.012: 1.4, 0.024: 1.45}) == [0.012, 0.024]
    assert best_rate({0.024: 1.4, 0.012: 1.4, 0.006: 1.5}) == 0.012  # the lower of equals
    assert {arm.rate for arm in first_arms([Model("50k", "rnn", 1)])} == {0.003, 0.006, 0.012}


def test_the_last_rung_takes_the_lower_of_two_rates_that_are_equally_good() -> None:
    """Longer trainings favour lower rates: here, 0.006 over 0.012 by more and more."""
    assert rate_for_longer({0.006: 1.41, 0.012: 1.40, 0.024: 1.5}) == 0.006
    assert rate_for_longer({0.006: 1.43, 0.012: 1.40, 0.024: 1.5}) == 0.012
    assert rate_for_longer({0.012: 1.40, 0.024: 1.39}) == 0.012
    assert rate_for_longer({0.003: 1.39, 0.012: 1.40, 0.024: 1.41}) == 0.003
    assert rate_for_longer({0.0015: 1.4, 0.003: math.inf}) == 0.0015

    class Shifts(Stored):
        def nats(self, planned: PlannedRun) -> float:
            lower = planned.arm == Arm(GRU_1, 0.006)
            rung = self.lengths.index(planned.updates)
            return super().nats(planned) - lower * (0.0, 0.02, 0.06)[rung]

    finish = race(Shifts(levels(gru1=1.4)))
    assert (finish.leader, finish.rung) == (GRU_1, 2)
    assert finish.arms[GRU_1].rate == 0.006


def test_a_rate_that_throws_a_longer_training_off_is_lowered() -> None:
    """The GRU's best rate of the short rungs fails in the last one, as on War and Peace."""

    class LateCliff(Stored):
        def nats(self, planned: PlannedRun) -> float:
            is_last = len(self.lengths) == 3 and planned.updates == self.lengths[-1]
            is_off = is_last and planned.arm.model.cell == "gru" and planned.arm.rate >= 0.012
            return super().nats(planned) - 0.1 * is_last + 0.3 * is_off

    finish = race(LateCliff(levels(gru1=1.4)))
    assert (finish.leader, finish.rung) == (GRU_1, 2)
    assert finish.arms[GRU_1].rate == 0.006
    assert lower_rate({0.012: 1.5, 0.024: 1.6}, {0.012: 1.4}) == 0.006
    assert lower_rate({0.012: 1.5, 0.006: 1.6}, {0.012: 1.4}) is None  # lower was no better
    assert lower_rate({0.012: 1.3}, {0.012: 1.4}) is None
    assert lower_rate({0.0015: math.inf}, {0.0015: 1.4}) is None


def outcome(nats: float, series: np.ndarray | None = None) -> Outcome:
    return Outcome(nats, blocks(nats) if series is None else series)


def test_a_lead_within_the_noise_of_the_text_eliminates_nobody() -> None:
    """Two models whose losses differ by more than the margin, on a text too short to tell."""
    rng = np.random.default_rng(0)
    base = rng.normal(1.5, 0.1, (1, 200))
    behind = MARGINS[1] + 0.03
    for noise, is_kept in ((0.001, False), (1.0, True)):
        outcomes = {
            Arm(GRU_1, 0.012): outcome(1.5, base),
            Arm(Model("50k", "rnn", 1), 0.006): outcome(
                1.5 + behind, base + behind + noise * rng.standard_normal((1, 200))
            ),
        }
        kept = survivors(outcomes, MARGINS[1], most=3)
        assert (Model("50k", "rnn", 1) in kept) == is_kept


def test_a_model_within_the_noise_of_the_text_is_a_finalist_though_a_nearer_one_is_not() -> None:
    rng = np.random.default_rng(0)
    text = rng.normal(1.4, 0.2, (1, 400))
    lstm, rnn = Model("50k", "lstm", 1), Model("50k", "rnn", 1)
    outcomes = {
        Arm(GRU_1, 0.012): outcome(1.400, text),
        Arm(GRU_2, 0.012): outcome(1.401, text + 0.001),
        Arm(lstm, 0.012): outcome(1.418, text + 0.018),
        Arm(rnn, 0.006): outcome(1.422, text + rng.normal(0.022, 0.1, (1, 400))),
    }
    assert finalists(outcomes, MARGINS[2]) == [GRU_1, GRU_2, rnn]
    assert finalists(outcomes, -1.0) == [GRU_1, GRU_2]


def test_a_look_at_the_finalists() -> None:
    rng = np.random.default_rng(1)
    text = rng.normal(1.4, 0.1, (1, 500))
    a, b, c = (
        [outcome(level + d, text + level - 1.4 + d) for d in (0.0, 0.001, -0.001, 0.002, -0.002)]
        for level in (1.400, 1.402, 1.450)
    )
    third = Model("50k", "rnn", 1)
    leader, few = challenges({GRU_1: a[:3], GRU_2: b[:3], third: c[:3]})
    assert not is_settled(few, 0.05)  # three that lie so close together may be three lucky ones
    leader, found = challenges({GRU_1: a, GRU_2: b, third: c})
    assert leader == GRU_1
    assert [one.model for one in found] == [GRU_2, third]
    assert tied(found, 0.05) == [GRU_2]
    assert is_settled(found, 0.05)
    for num_seeds, chosen in (
        ({GRU_1: 1, GRU_2: 1, third: 1}, [GRU_1, GRU_2, third]),
        ({GRU_1: 3, GRU_2: 2, third: 2}, [GRU_2, third]),
        ({GRU_1: 3, GRU_2: 3, third: 3}, [GRU_1, GRU_2]),
        ({GRU_1: 4, GRU_2: 3, third: 4}, [GRU_2]),
    ):
        assert next_for_a_seed(leader, found, num_seeds, 0.05) == chosen
    one_seed = challenges({GRU_1: a[:1], GRU_2: b[:1]})[1]
    assert not is_settled(one_seed, 0.05)
    assert tied(one_seed, 0.05) == [GRU_2]


def test_of_models_that_are_about_as_good_the_shallowest_leads() -> None:
    text = np.random.default_rng(1).normal(1.4, 0.1, (1, 500))

    def seeds(level: float, number: int = 3) -> list[Outcome]:
        return [outcome(level + d, text + level + d) for d in (0.0, 0.001, -0.001)[:number]]

    rnn_1 = Model("50k", "rnn", 1)
    best = {GRU_2: seeds(1.400), Model("50k", "gru", 3): seeds(1.399)}
    leader, found = challenges({**best, GRU_1: seeds(1.405), rnn_1: seeds(1.406)})
    assert leader == GRU_1
    assert [round(challenge.difference, 3) for challenge in found] == [-0.006, -0.005, 0.001]
    # The standard error is 0.010: of the seeds, with the usual variance, as the text is the same.
    assert challenges({**best, GRU_1: seeds(1.415)})[0] == GRU_2
    assert challenges({GRU_2: seeds(1.400), GRU_1: seeds(1.415)})[0] == GRU_2
    # A model whose seeds scatter is within its own standard error, but another is better.
    lstm_1 = Model("50k", "lstm", 1)
    gru_3 = {Model("50k", "gru", 3): seeds(1.300)}
    wide = [outcome(level, text + level - 1.4) for level in (1.289, 1.312, 1.335)]
    assert challenges({**gru_3, lstm_1: wide})[0] == lstm_1
    assert challenges({**gru_3, lstm_1: wide, GRU_1: seeds(1.311)})[0] == GRU_1
    # Of a single seed nothing is known, and fewer layers do not make up for more.
    assert challenges({GRU_2: seeds(1.400, 1), GRU_1: seeds(1.405, 1)})[0] == GRU_2
    assert challenges({GRU_2: seeds(1.405), GRU_1: seeds(1.400)})[0] == GRU_1


def test_the_plan_fills_the_time() -> None:
    costs = [Cost(0.5, 0.01)] * 27
    half, whole = (longest_run(0, time, 1, costs, 9) for time in (1500, 3000))
    assert half < whole < 2.2 * half
    # 27 first runs and 5 further rates, then 10 of five models, then 3 and 4 further seeds.
    seconds_per_update = 0.01 * (32 / 8 + 10 / 3 + 7)
    expected = (0.95 * 250 - 0.5 * (32 + 10 + 7)) / seconds_per_update
    assert longest_run(0, 250, 1, costs, 9) == pytest.approx(expected)


@pytest.mark.parametrize("num_slots", [1, 2, 3, 4, 6, 8, 16, 32])
@pytest.mark.parametrize("rung", [0, 1, 2])
def test_a_plan_fits_into_the_slots(num_slots: int, rung: int) -> None:
    """Runs are laid out batch by batch; no batch begins before the one before has ended."""
    seconds_left, cost, models = 400.0, Cost(0.5, 0.01), (9, 5, 3)
    longest = longest_run(rung, seconds_left, num_slots, [cost], models[rung])
    batches = [
        (math.ceil(runs[later] * models[later]), RUNG_SHARES[later])
        for later in range(rung, 3) for runs in (FIRST_RATES_EACH, FURTHER_RATES_EACH)
    ]  # fmt: skip
    batches.append((4, RUNG_SHARES[-1]))  # two further seeds of two models
    needed = sum(
        math.ceil(runs / num_slots) * (cost.per_run + cost.per_update * share * longest)
        for runs, share in batches
    )
    assert 0.9 * seconds_left < needed < seconds_left


def test_lengths_are_parts_of_an_epoch_or_whole_ones() -> None:
    assert [nearest_length(updates, 1000) for updates in (0.2, 340.4, 999, 1400, 1600, 8200)] == [
        *(1, 340, 999, 1000, 2000, 8000)
    ]
    assert nearest_length(1e9, 1000) == 1000 * MAX_EPOCHS
    assert [nearest_length(1600, 1000, most) for most in (2000, 1999)] == [2000, 1000]
    assert length_settings(340, 1000) == ["epochs=1", "updates_per_epoch=340"]
    assert length_settings(8000, 1000) == ["epochs=8"]


@pytest.fixture(scope="module")
def simulation() -> ModuleType:
    return load_script("simulate_looks")


@pytest.mark.parametrize("gap", [0.011, 0.016])
@pytest.mark.parametrize("shares", [(0.0, 0.0), (0.0, 0.25), (0.25, 0.0), (0.25, 0.25)])
@pytest.mark.parametrize("text_se", [0.0, 0.004])
def test_what_is_said_to_be_settled_is_seldom_wrong(
    simulation: ModuleType, gap: float, shares: tuple[float, float], text_se: float
) -> None:
    """A rival whose mean is better by more than is worth knowing, and a share of seeds that come
    out 0.06 worse, as those of gated models do: looks at the run that is handed over."""
    rng = np.random.default_rng(0)
    finalists = simulation.bad_seeds(gap, *shares)
    wrong = sum(simulation.is_wrong(finalists, text_se, rng) for _ in range(200))
    assert wrong <= 0.05 * 200
