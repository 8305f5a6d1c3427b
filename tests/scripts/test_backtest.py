"""scripts/backtest.py: what is trained for races, the races, and what they are compared with."""

import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from shutil import rmtree

import numpy as np
import pytest
from helpers.console import CHECKOUT

from charcmp.config.compose import compose_line
from charcmp.errors import UserError
from charcmp.sweeping.race.arms import LADDER, Arm, Model, first_arms
from charcmp.sweeping.race.decide import MARGINS, Outcome
from charcmp.sweeping.race.live import LiveRunner
from charcmp.sweeping.race.plan import MOST_MODELS
from charcmp.sweeping.race.race import PlannedRun, Race
from charcmp.sweeping.race.requests import requests

sys.path.insert(0, str(CHECKOUT / "scripts"))
import backtest
import backtest_report
from backtest_margins import Deficits, fitted_margins, fitted_to_others, shrunk
from backtest_needs import FURTHER_SEEDS, SEEDS, Needs, expected
from backtest_replay import (
    TIMES,
    Draw,
    Halving,
    Replay,
    Run,
    Score,
    Stored,
    common_speeds,
    lost_by,
    play,
    replay_text,
    usual_model,
)

LEVELS = {"lstm": 1.50, "gru": 1.45, "rnn": 1.52}
BEST_RATE = {"lstm": 0.024, "gru": 0.012, "rnn": 0.006}
MODELS = sorted(Model("50k", cell, layers) for cell in LEVELS for layers in (1, 2, 3))
GRU_1, GRU_2, GRU_3 = (Model("50k", "gru", layers) for layers in (1, 2, 3))
LENGTHS = (400, 1200, 3600)
SPEEDS = dict.fromkeys(MODELS, 0.02)
PLENTY = 1e6  # slot seconds


def nats_of(planned: PlannedRun, levels: dict[str, float], noise: float = 0.002) -> float:
    """Each model does best at its cell's rate."""
    (model, rate), updates, seed = planned
    off = abs(math.log2(rate / BEST_RATE[model.cell]))
    level = levels.get(f"{model.cell}{model.layers}", LEVELS[model.cell])
    number = [model.layers, len(model.cell), ord(model.cell[0]), round(1e4 * rate), updates, seed]
    drawn = np.random.default_rng(number).standard_normal()
    return level + 0.03 * off + 40 / updates + noise * drawn


def made_up(number: int = 0, **levels: float) -> Stored:
    """A text of which everything is stored; levels with `gru1=1.40` and the like."""
    text = 0.1 * np.random.default_rng(number).standard_normal((1, 300))
    runs = {}
    for model in MODELS:
        for rate in LADDER:
            for updates in LENGTHS:
                seeds = (*SEEDS, *FURTHER_SEEDS) if updates == LENGTHS[-1] else SEEDS
                for seed in seeds:
                    planned = PlannedRun(Arm(model, rate), updates, seed)
                    nats = nats_of(planned, levels)
                    runs[planned] = Run(Outcome(nats, text + nats), nats, 0.02 * updates)
    return Stored(f"text{number}", runs)


def changed(stored: Stored, change: Callable[[PlannedRun, Run], Run | None]) -> Stored:
    """Other runs, or none, in place of those that are stored."""
    runs = {planned: change(planned, run) for planned, run in stored.runs.items()}
    return Stored(stored.name, {planned: run for planned, run in runs.items() if run is not None})


def trained(noise: float, seed: int, **levels: float) -> Stored:
    """A text of which just that is stored which races need."""
    rng = np.random.default_rng(seed)
    nats: dict[PlannedRun, float] = {}
    while missing := Needs(MODELS, LENGTHS, nats).missing():
        nats |= {one: nats_of(one, levels) + noise * rng.standard_normal() for one in missing}
    text = 0.1 * rng.standard_normal((1, 300))
    runs = {planned: Run(Outcome(loss, text + loss), loss, 0.02 * planned.updates)
            for planned, loss in nats.items()}  # fmt: skip
    return Stored(f"trained{seed}", runs)


def draw(stored: Stored, number: int = 0) -> Draw:
    return Draw(stored, np.random.default_rng(number))


# ---- what is trained


@pytest.mark.parametrize("seed", [0, 1, 25])
def test_no_race_asks_for_what_is_not_trained(seed: int) -> None:
    """Whatever its seeds and its time: losses so noisy that seeds disagree about rates."""
    stored = trained(0.05, seed, gru1=1.44)
    assert stored.num_missing == 0
    rng = np.random.default_rng(seed)
    # About where the first rates have been tried, and there may be time for further ones or not.
    ladder = np.linspace(217, 300, 40)
    for seconds in [*np.geomspace(100, PLENTY, 10), *ladder]:
        play(Draw(stored, rng), SPEEDS, seconds, MARGINS, rng, GRU_1)


def test_far_models_have_one_seed_of_each_rate_near_ones_five_at_the_best() -> None:
    stored = trained(0.0, 0, gru1=1.40, lstm1=1.41, lstm2=1.43, gru3=1.44, gru2=1.47)
    num_seeds = {f"{model.cell}{model.layers}": n for model, n in stored.num_seeds.items()}
    assert num_seeds == {
        **dict.fromkeys(("gru1", "lstm1", "gru2", "gru3", "lstm2"), 5),  # GRU 2: the baseline
        **dict.fromkeys(("lstm3", "rnn1", "rnn2", "rnn3"), 1),
    }
    # One that is near but not close has all five at its best rate alone.
    noisy = trained(0.01, 3, gru1=1.40, lstm1=1.41, gru3=1.435)
    of_gru_3 = {rate: len(noisy.seeds[Arm(GRU_3, rate), 3600]) for rate in LADDER}
    assert of_gru_3 == {**dict.fromkeys(LADDER, 0), 0.006: 2, 0.012: 5, 0.024: 1}
    for model in MODELS:
        assert stored.seeds[Arm(model, BEST_RATE[model.cell]), 400] == [*SEEDS]


def test_a_clear_winner_is_settled() -> None:
    """The second best and the baseline have all seeds, however far behind."""
    stored = trained(0.0, 0, gru1=1.20, lstm1=1.40)
    assert {model for model, n in stored.num_seeds.items() if n == 5} == {
        *(GRU_1, GRU_2, Model("50k", "lstm", 1))
    }
    replay = Replay(draw(stored), SPEEDS, PLENTY)
    assert Race(MODELS, replay, replay).run().settled


def test_the_check_trains_the_best_models_longer() -> None:
    nats: dict[PlannedRun, float] = {}
    lengths = (*LENGTHS, 10_800)
    while missing := Needs(MODELS, lengths, nats).missing():
        last = missing
        nats |= {planned: nats_of(planned, {"gru1": 1.40}, noise=0) for planned in missing}
    assert {(planned.updates, planned.seed) for planned in last} == {(10_800, 0)}
    assert GRU_1 in {planned.arm.model for planned in last}
    runs = {planned: Run(Outcome(loss), loss, 1.0) for planned, loss in nats.items()}
    assert Stored("text", runs).num_missing == 0
    assert backtest_report.trained_longer(Stored("text", runs), GRU_1) == "10,800 updates: the same"
    runs[last[-1]] = Run(Outcome(1.0), 1.0, 1.0)
    assert ", by 0.4" in backtest_report.trained_longer(Stored("text", runs), GRU_1)


def test_what_is_expected_ends_with_what_there_is() -> None:
    to_come = expected(MODELS, LENGTHS, {})
    assert len(to_come) == len({*to_come}) > 150
    stored = trained(0.002, 0)
    nats = {planned: run.outcome.nats for planned, run in stored.runs.items()}
    assert expected(MODELS, LENGTHS, nats) == []
    some = {planned: loss for planned, loss in nats.items() if planned.updates < 3600}
    assert {planned.updates for planned in expected(MODELS, LENGTHS, some)} == {3600}


# ---- a race's seeds


def test_a_model_has_one_order_of_seeds_and_its_last_is_never_seen() -> None:
    """Over all rates and rungs; the first is one that has all rungs."""
    stored = made_up(gru1=1.45)
    firsts = set()
    for number in range(20):
        drawn = draw(stored, number)
        replay = Replay(drawn, SPEEDS, PLENTY)
        order, unseen = drawn.order[GRU_2], drawn.unseen[GRU_2]
        assert sorted(order) == [*SEEDS, *FURTHER_SEEDS]
        firsts.add(order[0])
        for rate in LADDER:
            for updates in LENGTHS:
                asked = [PlannedRun(Arm(GRU_2, rate), updates, seed) for seed in range(6)]
                found = replay.run(asked)
                there = [seed for seed in order[:-1] if updates == 3600 or seed in SEEDS]
                assert [outcome.nats for outcome in found.values()] == [
                    stored.runs[PlannedRun(Arm(GRU_2, rate), updates, seed)].outcome.nats
                    for seed in there
                ]
                assert unseen not in there
    assert firsts == {*SEEDS}


def test_a_first_seed_that_is_not_stored_is_an_error_and_a_further_one_is_told() -> None:
    stored = made_up()
    arm = Arm(GRU_2, 0.012)
    drawn = draw(stored)
    first = PlannedRun(arm, 1200, drawn.order[GRU_2][0])
    lacking = changed(stored, lambda planned, run: None if planned == first else run)
    replay = Replay(draw(lacking), SPEEDS, PLENTY)
    with pytest.raises(LookupError, match=r"GRU 2 at 0.012, 1200 updates, seed \d is asked for"):
        replay.run([PlannedRun(arm, 1200, 0)])
    replay.left = 0
    assert replay.run([PlannedRun(arm, 1200, 0)]) == {}
    replay = Replay(drawn, SPEEDS, PLENTY)
    assert len(replay.run([PlannedRun(arm, 3600, seed) for seed in range(4)])) == 4
    assert not replay.lacked_seed
    assert replay.run([PlannedRun(arm, 3600, 4)]) == {}
    assert replay.lacked_seed


def test_the_truth_does_not_know_the_seed_that_scores() -> None:
    """A lucky run makes neither a rate nor a model the best one where it scores, and else does."""
    stored = made_up(gru1=1.40)
    lucky = PlannedRun(Arm(GRU_3, 0.048), 3600, 2)
    stored = changed(
        stored,
        lambda planned, run: Run(Outcome(0.5), 0.5, run.seconds) if planned == lucky else run,
    )
    draws = [draw(stored, number) for number in range(30)]
    assert {one.unseen[GRU_3] == 2 for one in draws} == {True, False}
    for one in draws:
        hidden = one.unseen[GRU_3] == 2
        assert one.tuned[GRU_3] == Arm(GRU_3, 0.012 if hidden else 0.048)
        assert one.best == (GRU_1 if hidden else GRU_3)
    fewer = changed(stored, lambda planned, run: None if planned == lucky else run)
    assert fewer.tuned(GRU_3) == Arm(GRU_3, 0.012)
    assert Arm(GRU_3, 0.048) not in fewer.eligible[GRU_3, 3600]


def test_an_arm_is_scored_by_the_unseen_seed_at_its_own_rate_and_length() -> None:
    drawn = draw(made_up(gru1=1.40))
    stored = drawn.stored
    arm, best = Arm(GRU_3, 0.048), Arm(GRU_1, 0.012)

    def test_nats(arm: Arm, updates: int) -> float:
        return stored.runs[PlannedRun(arm, updates, drawn.unseen[arm.model])].test_nats

    assert drawn.regret(arm, 3600) == test_nats(arm, 3600) - test_nats(best, 3600)
    # A shorter rung has the first three seeds alone, and a race may see all of them but the last.
    unseen = [seed for seed in SEEDS if seed not in drawn.order[GRU_3][:-1]] or SEEDS
    mean = np.mean([stored.runs[PlannedRun(arm, 400, seed)].test_nats for seed in unseen])
    assert drawn.regret(arm, 400) == pytest.approx(mean - test_nats(best, 3600))
    assert drawn.regret(best, 3600) == 0


# ---- races


def test_a_race_beats_chance_and_the_constant() -> None:
    texts = [made_up(0, gru1=1.40), made_up(1, lstm2=1.40)]
    scores = backtest_report.replay_all(texts, 10, lambda stored: MARGINS)
    assert {(score.text.name, score.times) for score in scores} == {
        (text, times) for text in ("text0", "text1") for times in TIMES
    }
    for score in scores:
        mean = score.means
        assert mean["race"] < 0.005
        assert mean["race"] <= mean["race, at most"] + 0.005
        assert mean["random"] > 0.02
        assert mean["GRU 2"] > 0.04
        assert mean["GRU 2 alone, handed over"] > 0.04
        assert mean["picked or tied"] == 1
        assert mean["failed"] == mean["lost by margin"] == mean["lost by cap"] == 0
        assert mean["race, handed over"] == pytest.approx(mean["race"], abs=0.01)
        assert score.picked == score.best
    assert [score.means["settled"] for score in scores if score.times == 4] == [1, 1]
    said = backtest_report.report(texts, 10)
    assert "| text1  | text1  |" in said
    assert "race minus GRU 2" in said
    assert "400 / 1,200 / 3,600" in said
    assert said.count(": met") == 2 * len(TIMES)  # of the model, and of model and rate


def test_a_race_that_fails_counts_as_the_constant_advice() -> None:
    stored = made_up(gru1=1.40)
    rng = np.random.default_rng(0)
    found = play(Draw(stored, rng), SPEEDS, 0.0, MARGINS, rng, GRU_1)
    values = found.values
    assert values["failed"] == 1
    assert values["race"] == values["race, handed over"] == values["halving"] == values["GRU 2"] > 0
    assert not values["picked or tied"]
    assert found.picked == GRU_2


def test_the_run_that_is_handed_over_is_the_best_that_the_race_saw() -> None:
    drawn = draw(made_up(gru1=1.40))
    replay = Replay(drawn, SPEEDS, PLENTY)
    finish = Race(MODELS, replay, replay).run()
    given = replay.given(finish)
    arm = finish.arms[GRU_1]
    seen = [drawn.stored.runs[PlannedRun(arm, 3600, seed)] for seed in drawn.order[GRU_1][:-1]]
    assert len(finish.outcomes[GRU_1]) > 1
    assert given.outcome.nats == min(one.nats for one in finish.outcomes[GRU_1])
    assert given in seen
    assert replay.best_run(finish).outcome.nats <= given.outcome.nats


def test_the_best_single_run_may_be_another_models() -> None:
    """GRU 2 has one seed that comes out very well, and others that keep it from the lead."""

    def uneven(planned: PlannedRun, run: Run) -> Run:
        if planned.arm != Arm(GRU_2, 0.012) or planned.updates != 3600:
            return run
        nats = 1.30 if planned.seed == 0 else 1.50
        return Run(Outcome(nats), nats, run.seconds)

    best = set()
    for number in range(20):
        replay = Replay(draw(changed(made_up(gru1=1.40), uneven), number), SPEEDS, PLENTY)
        finish = Race(MODELS, replay, replay).run()
        if finish.leader == GRU_1 and GRU_2 in finish.arms:
            seen = min(outcome.nats for outcome in finish.outcomes[GRU_2])
            assert replay.best_run(finish).outcome.nats == min(
                seen, replay.given(finish).outcome.nats
            )
            best.add(seen == 1.30)
    assert True in best


def test_a_run_that_would_end_too_late_is_lost_with_its_time() -> None:
    replay = Replay(draw(made_up()), SPEEDS, slot_seconds=10.0)
    short, long = PlannedRun(Arm(GRU_1, 0.012), 400, 0), PlannedRun(Arm(GRU_1, 0.012), 1200, 0)
    assert [*replay.run([short, long, short])] == [short]
    assert replay.left == 0


def test_halving_has_the_time_of_the_race_and_no_more() -> None:
    drawn = draw(made_up(gru1=1.40))
    for seconds, updates in ((10.0, 400), (300.0, 1200), (PLENTY, 3600)):
        replay = Replay(drawn, SPEEDS, seconds)
        finish = Halving(MODELS, replay, replay).run()
        assert replay.left > -0.02 * updates  # no run begins after the end
        assert finish.updates == updates
    assert finish.leader == GRU_1
    assert finish.arms[GRU_1].rate == 0.012
    assert len(finish.arms) == 3


def test_halving_looks_beyond_the_first_rates() -> None:
    def better_above(planned: PlannedRun, run: Run) -> Run:
        nats = run.outcome.nats - 0.2 * (planned.arm == Arm(GRU_1, LADDER[-1]))
        nats -= 0.1 * (planned.arm == Arm(GRU_1, 0.024))
        return Run(Outcome(nats), nats, run.seconds)

    assert Arm(GRU_1, LADDER[-1]) not in first_arms(MODELS)
    replay = Replay(draw(changed(made_up(), better_above)), SPEEDS, PLENTY)
    finish = Halving(MODELS, replay, replay).run()
    assert finish.arms[GRU_1].rate in LADDER[LADDER.index(0.024) + 1 :]


def test_what_put_the_best_model_out() -> None:
    def race(stored: Stored) -> str | None:
        replay = Replay(draw(stored), SPEEDS, PLENTY)
        one = Race(MODELS, replay, replay, on_out=replay.out)
        one.run()
        return lost_by(one, replay, GRU_1)

    def late(by: float) -> Stored:
        return changed(
            made_up(gru1=1.30, **dict.fromkeys(alike, 1.45)),
            lambda planned, run: Run(Outcome(1.45 + 0.1 + by), 1.45, run.seconds)
            if planned.arm.model == GRU_1 and planned.updates == 400 else run,
        )  # fmt: skip

    alike = [f"{cell}{layers}" for cell in LEVELS for layers in (2, 3)]
    assert len(alike) > MOST_MODELS[1]
    assert race(late(-0.02)) is None
    assert race(late(0.02)) == "cap"
    assert race(late(0.5)) == "margin"


# ---- margins


def late_gru_1(stored: Stored, seeds: tuple[int, ...] = SEEDS) -> Stored:
    """GRU 1 begins 0.1 behind and ends first: only so wide a margin keeps it."""
    return changed(
        stored,
        lambda planned, run: Run(Outcome(run.outcome.nats + 0.1), run.test_nats, run.seconds)
        if planned.updates == 400 and planned.seed in seeds and planned.arm.model == GRU_1 else run,
    )  # fmt: skip


def test_margins_are_what_was_judged_until_texts_say_otherwise() -> None:
    for judged in MARGINS:
        assert shrunk(judged, []) == pytest.approx(judged)
        # The more kinds agree on another one, the less it counts.
        bounds = [shrunk(judged, [0.2] * kinds) for kinds in (0, 20, 200, 2000)]
        assert judged < bounds[3] == pytest.approx(0.2, abs=0.03)
        assert bounds[1] > bounds[2] > bounds[3] > 0.2  # what lies so far off widens it first
    # What differs from kind to kind needs a wider one than what does not.
    assert shrunk(0.02, [0.02, 0.07]) > shrunk(0.02, [0.04, 0.04])  # of one mean logarithm


def test_a_bound_is_passed_by_a_new_kind_in_a_tenth_of_cases() -> None:
    rng = np.random.default_rng(0)
    passed = []
    for _ in range(2000):
        *seen, new = np.exp(rng.normal(math.log(0.04), 0.5, size=5)) - 0.02
        passed.append(new > shrunk(0.03, seen))
    assert 0.05 < np.mean(passed) < 0.15


def test_margins_keep_what_ends_near_the_best_by_any_seed() -> None:
    def first(stored: Stored) -> float:
        return fitted_margins([Deficits(stored, races=60)])[0]

    early = first(made_up(gru1=1.40))
    assert early < first(late_gru_1(made_up(gru1=1.40)))
    assert early < first(late_gru_1(made_up(gru1=1.40), seeds=(2,)))


def test_margins_have_every_rung_of_a_text_that_is_over_fitted_early() -> None:
    def worse(planned: PlannedRun, run: Run) -> Run:
        nats = run.outcome.nats + 0.4 * LENGTHS.index(planned.updates)
        return replace(run, outcome=Outcome(nats, run.outcome.blocks_RJ))

    found = Deficits(changed(made_up(gru1=1.40), worse), races=2)
    assert len(fitted_margins([found])) == len(found.of_rung) == 3


def test_margins_are_not_fitted_to_the_kind_that_they_judge() -> None:
    late = late_gru_1(made_up(gru1=1.40))
    german = Deficits(Stored("fortunes_de-50k", late.runs), races=30)
    polish = Deficits(Stored("fortunes_pl-130k", made_up(1, gru1=1.40).runs), races=30)
    perl = Deficits(Stored("perl_doc-50k", made_up(2, gru1=1.40).runs), races=30)
    assert german.kind == polish.kind == "fortunes"
    assert perl.kind == "perl_doc"
    found = [german, polish, perl]
    assert fitted_to_others(found, "fortunes") == fitted_margins([perl])
    assert fitted_to_others(found, "perl_doc") == fitted_margins([german, polish])
    assert fitted_to_others([german, polish], "fortunes") == pytest.approx([*MARGINS])


# ---- the report


def test_a_kind_of_text_counts_once() -> None:
    scores = [
        Score(Stored(name, made_up().runs), 1, {"race": regret}, {GRU_1: 1.0}, {GRU_1: 1.0})
        for name, regret in (("fortunes_de-50k", 0.0), ("fortunes_pl-50k", 0.2), ("perl-50k", 0.3))
    ]
    values = backtest_report.kind_means(scores, lambda means: means["race"])
    assert values == pytest.approx([0.1, 0.3])
    # 0.2 and, with one degree of freedom, 12.7 standard errors of 0.1.
    assert backtest_report.mean_with_interval(values) == "0.2000 ± 1.2706"
    assert backtest_report.mean_with_interval([0.1]) == "0.1000"
    assert backtest_report.share_with_interval([1.0, 1.0, 1.0]) == "100.0 % (29 to 100)"
    assert backtest_report.share_with_interval([0.0, 0.0]) == "0.0 % (0 to 84)"


def test_the_truth_is_uncertain_where_another_model_is_picked() -> None:
    stored = made_up()

    def se(picked: Model) -> float:
        return backtest_report.truth_se([Score(stored, 1, {}, {picked: 1.0}, {GRU_1: 1.0})])

    assert se(GRU_1) == 0
    # Noise of 0.002 in each of five seeds, of two models.
    assert se(GRU_3) == pytest.approx(0.002 * math.sqrt(2 / 5), rel=0.6)


# ---- all of it


def test_runs_that_fail_are_tried_once_and_not_where_old_ones_are_collected(
    tmp_path: Path, tiny_text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backtest, "STORE", tmp_path / "store")
    line = ["experiment=fast", "dataset=text", f"dataset.path={tiny_text}", "cell=rnn", "layers=1"]
    line += ["budget=1500", "device=cpu", f"results_dir={tmp_path / 'results'}"]
    (request,), slots = requests(compose_line(line))
    collection = backtest.Collection(request)
    failing = Needs(request.models, LENGTHS, {}).missing()[0]
    collection.make_job(failing).folder.create()
    collection.make_job(failing).folder.record_death("killed by SIGKILL (out of memory?)")
    asked: list[PlannedRun] = []

    class AllButOne(LiveRunner):
        def run(self, planned_runs: Sequence[PlannedRun]) -> dict[PlannedRun, Outcome]:
            asked.extend(planned_runs)
            done = {planned: {"val_nats": "1.5"} for planned in planned_runs if planned != failing}
            collection.rows |= done
            return {}

    runner = AllButOne(collection.make_job, slots, time.monotonic() + 1e5, collection.add, 18)
    runner.speeds = dict.fromkeys(request.models, 1e6)
    backtest._run_missing(request.models, LENGTHS, runner, collection, only_old=True)
    assert asked == []
    backtest._run_missing(request.models, LENGTHS, runner, collection)
    assert asked.count(failing) == 1
    assert len(asked) > 1


@pytest.mark.long
def test_a_text_of_its_own_is_trained_stored_and_replayed(
    tmp_path: Path,
    tiny_text: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(backtest, "STORE", tmp_path / "store")
    monkeypatch.setattr(backtest, "LENGTHS", (2, 5, 40))
    monkeypatch.setattr(backtest, "CHECK", 80)
    overrides = ["cell=rnn,gru", "layers=2", "budget=1500", "train_unroll_steps=10", "device=cpu"]
    overrides += ["threads=1", "jobs=2", f"results_dir={tmp_path / 'results'}"]
    backtest.train([str(tiny_text)], overrides, minutes=0)
    assert "tiny, 1500: 0 runs are there; about" in capsys.readouterr().out
    assert not (tmp_path / "store").exists()
    backtest.train([str(tiny_text)], overrides, minutes=0.1)
    with pytest.raises(UserError, match="no complete text"):
        backtest.complete_texts()
    backtest.train([str(tiny_text)], overrides, check=True)
    (stored,), skipped = backtest.complete_texts()
    assert skipped == []
    assert stored.name == "tiny-1500"
    assert [model.cell for model in stored.models] == ["gru", "rnn"]
    assert len(stored.lengths) == 4
    runs = stored.runs_of(Arm(stored.models[0], 0.012), stored.lengths[0])
    assert len(runs) == len(SEEDS)
    assert runs[0].outcome.blocks_RJ is not None
    assert runs[0].outcome.nats == pytest.approx(runs[0].outcome.blocks_RJ.mean(), abs=0.05)
    capsys.readouterr()
    rmtree(tmp_path / "results")  # the store alone is enough to go on
    kept = [file.read_bytes() for file in sorted((tmp_path / "store").iterdir())]
    backtest.train([str(tiny_text)], overrides, check=True)
    out = capsys.readouterr().out
    assert f"tiny, 1500: {len(stored.runs)} runs are there; about 0 are to come" in out
    assert [file.read_bytes() for file in sorted((tmp_path / "store").iterdir())] == kept
    others = [word.replace("unroll_steps=10", "unroll_steps=11") for word in overrides]
    backtest.train([str(tiny_text)], others, minutes=0, check=True)
    assert "tiny, 1500: 0 runs are there" in capsys.readouterr().out
    speeds, usual = common_speeds([stored]), usual_model([stored])
    scores = [replay_text(stored, times, MARGINS, 3, speeds, usual) for times in TIMES]
    assert [score.means["failed"] for score in scores] == [0] * len(TIMES)
    rungs = " / ".join(map(str, stored.lengths[:-1]))
    assert f"| {rungs} |" in backtest_report.by_text(scores, speeds)


def test_the_best_model_by_length_is_at_its_best_rate_of_that_length() -> None:
    def changes(planned: PlannedRun, run: Run) -> Run:
        """At the first length GRU 1 is best, at 0.048; later GRU 2, as everywhere at 0.012."""
        if planned.updates == LENGTHS[0] and planned.arm == Arm(GRU_1, 0.048):
            return replace(run, outcome=Outcome(1.20, None), test_nats=1.25)
        if planned.updates > LENGTHS[0] and planned.arm == Arm(GRU_2, 0.012):
            return replace(run, outcome=Outcome(1.30, None), test_nats=1.35)
        return run

    stored = changed(made_up(), changes)
    assert stored.tuned(GRU_1, updates=LENGTHS[0]) == Arm(GRU_1, 0.048)
    check = PlannedRun(Arm(GRU_1, 0.012), 10_800, 0)  # of one model alone, so far
    stored = Stored(stored.name, stored.runs | {check: Run(Outcome(1.2), 1.2, 1.0)})
    assert backtest_report.trained_longer(stored, GRU_1) == ""
    assert backtest_report.ranking(stored, LENGTHS[0])[0] == (GRU_1, pytest.approx(1.25))
    *_, row = backtest_report.by_length([stored]).splitlines()
    _, text, first, second, third, _ = (cell.strip() for cell in row.split("|"))
    assert text == "text0"
    assert first.startswith("400: GRU 1 1.250, ")
    assert second.startswith("1,200: GRU 2 1.350, ")
    assert third.startswith("3,600: GRU 2 1.350, ")


def test_a_text_whose_second_rung_has_begun_is_read() -> None:
    begun = changed(made_up(), lambda planned, run: run if planned.updates < 3600 and
                    (planned.updates == 400 or planned.arm.model == GRU_1) else None)  # fmt: skip
    assert begun.num_missing is None
    assert begun.num_seeds == {GRU_1: 3}


def test_races_are_replayed_at_the_speeds_of_a_cpu() -> None:
    """The median over texts; a text that a GPU trained has none."""
    own = made_up(1)
    slower = changed(made_up(2), lambda planned, run: replace(run, seconds=3 * run.seconds))
    by_gpu = changed(made_up(3), lambda planned, run: replace(run, seconds=math.nan))
    assert math.isnan(by_gpu.seconds_per_update(GRU_1))
    speeds = common_speeds([own, slower, by_gpu])
    assert speeds == pytest.approx(dict.fromkeys(MODELS, 0.04))


def test_the_usual_model_is_best_in_the_mean_over_kinds() -> None:
    """Two texts of one kind count as one."""
    lstm_1 = Model("50k", "lstm", 1)
    alike = [made_up(number, gru1=1.40, lstm1=1.42) for number in (1, 2)]
    other = made_up(3, lstm1=1.38, gru1=1.41)
    assert usual_model(alike) == GRU_1
    assert usual_model([*alike, other]) == GRU_1
    for stored in alike:
        stored.kind = "alike"
    assert usual_model([*alike, other]) == lstm_1


def test_advice_is_scored_at_the_rate_of_its_race() -> None:
    """Plain halving takes the rate of one seed, at which the others fail, and never sees them."""

    def fails(planned: PlannedRun, run: Run) -> Run:
        if planned.arm != Arm(GRU_1, 0.024):
            return run
        is_last = planned.updates == LENGTHS[-1]
        nats = run.outcome.nats - 0.2 + 0.6 * (is_last and planned.seed > 0)
        return replace(run, outcome=Outcome(nats, None), test_nats=nats)

    stored = changed(made_up(gru1=1.30), fails)
    draws = (draw(stored, number) for number in range(100))
    drawn = next(each for each in draws if each.order[GRU_1][0] == 0)  # which does not fail
    values = play(drawn, SPEEDS, PLENTY, MARGINS, np.random.default_rng(0), GRU_1).values
    assert values["halving"] == pytest.approx(0, abs=0.01)  # the model is right, at its best rate
    assert values["halving, as advised"] > 0.3
