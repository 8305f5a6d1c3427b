"""scripts/backtest.py: races over stored runs, and what they are compared with."""

import math
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from helpers.console import load_script

from charcmp.sweeping.race.arms import LADDER, Arm, Model
from charcmp.sweeping.race.decide import Outcome

LEVELS = {"lstm": 1.50, "gru": 1.45, "rnn": 1.52}
BEST_RATE = {"lstm": 0.024, "gru": 0.012, "rnn": 0.006}


@pytest.fixture(scope="module")
def backtest() -> ModuleType:
    return load_script("backtest")


def made_up(backtest: ModuleType, seed: int = 0, **levels: float):
    """A text on which each model does best at its cell's rate; with `gru1=1.40` and the like."""
    rng = np.random.default_rng(seed)
    text = 0.1 * rng.standard_normal((1, 300))
    runs = {}
    for cell, layers in [(cell, layers) for cell in LEVELS for layers in (1, 2, 3)]:
        for rate in LADDER:
            for updates in (400, 1200, 3600):
                off = abs(math.log2(rate / BEST_RATE[cell]))
                nats = levels.get(f"{cell}{layers}", LEVELS[cell]) + 0.03 * off + 40 / updates
                key = backtest.Key(Arm(Model("50k", cell, layers), rate), updates)
                runs[key] = [
                    backtest.Run(Outcome(nats + d, text + nats + d), nats + d, 0.02 * updates)
                    for d in 0.002 * rng.standard_normal(3)
                ]
    return backtest.Stored(f"text{seed}", runs)


def test_a_race_beats_chance_and_the_constant(backtest: ModuleType) -> None:
    texts = [made_up(backtest, 0, gru1=1.40), made_up(backtest, 1, lstm2=1.40)]
    scores = backtest.replay_all(texts, races=20, slots=2)
    assert {(score.text, score.minutes) for score in scores} == {
        (text, minutes) for text in ("text0", "text1") for minutes in backtest.MINUTES
    }
    for score in scores:
        if score.minutes < 30:
            continue
        mean = {adviser: np.mean(regrets) for adviser, regrets in score.regrets.items()}
        assert mean["race"] < 0.005
        assert mean["random"] > 0.02
        assert mean["GRU 2"] > 0.04
        assert np.mean(score.held_best) == 1
    said = backtest.report(texts, scores, 20, 2)
    assert "| text1  |" in said
    assert "best model picked or tied" in said


def test_too_little_time_is_said(backtest: ModuleType) -> None:
    stored = made_up(backtest)
    slow = {
        key: [backtest.Run(run.outcome, run.test_nats, 100 * run.seconds) for run in runs]
        for key, runs in stored.runs.items()
    }
    score = backtest.replay_text(
        backtest.Stored("slow", slow), 3, backtest.MARGINS, races=2, slots=1
    )
    assert score.too_short
    assert "too short" in backtest.by_text([backtest.Stored("slow", slow)], [score])


def test_regret_is_told_by_seeds_that_no_race_saw(backtest: ModuleType) -> None:
    """The last seed in a race's order: a race never gets it, and its loss alone counts."""
    stored = made_up(backtest, gru1=1.40)
    replay = backtest.Replay(stored, np.random.default_rng(0), math.inf)
    key = next(iter(stored.runs))
    entries = [backtest.Entry(key.arm, key.updates, seed) for seed in range(3)]
    assert [*replay.run(entries)] == entries[:2]
    gru_3 = Model("50k", "gru", 3)
    unseen = [
        stored.runs[key][replay.order[key][-1]].test_nats
        for key in (stored.tuned[gru_3], stored.tuned[Model("50k", "gru", 1)])
    ]
    assert replay.regret(gru_3) == unseen[0] - unseen[1]
    assert replay.regret(stored.best) == 0


def test_margins_keep_what_ends_near_the_best(backtest: ModuleType) -> None:
    """A model that begins 0.1 behind and ends first: only so wide a margin keeps it."""
    stored = made_up(backtest, gru1=1.40)
    late = {
        key: [
            backtest.Run(Outcome(run.outcome.nats + 0.1), run.test_nats, run.seconds)
            if key.updates == 400 and (key.arm.model.cell, key.arm.model.layers) == ("gru", 1)
            else run
            for run in runs
        ]
        for key, runs in stored.runs.items()
    }
    assert backtest.fitted_margins([stored])[0] == backtest.MARGINS[-1]
    assert 0.04 < backtest.fitted_margins([backtest.Stored("late", late)])[0] < 0.07


@pytest.mark.long
def test_a_text_of_its_own_is_trained_stored_and_replayed(
    backtest: ModuleType, tmp_path: Path, tiny_text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backtest, "STORE", tmp_path / "store")
    monkeypatch.setattr(backtest, "LENGTHS", (5, 40))
    overrides = ["cell=rnn,gru", "layers=2", "budget=1500", "train_unroll_steps=10", "device=cpu"]
    overrides += ["threads=1", "jobs=2", f"results_dir={tmp_path / 'results'}"]
    backtest.train([str(tiny_text)], [0, 1], overrides)
    stored = backtest.read_stored(tmp_path / "store" / "tiny-1500.csv")
    assert [model.cell for model in stored.models] == ["gru", "rnn"]
    assert stored.lengths[0] == 5
    runs = next(iter(stored.runs.values()))
    assert len(runs) == 2
    assert runs[0].outcome.blocks_RJ is not None
    assert runs[0].outcome.nats == pytest.approx(runs[0].outcome.blocks_RJ.mean(), abs=0.05)
    (score,) = [backtest.replay_text(stored, 10, backtest.MARGINS, races=3, slots=2)]
    assert len(score.regrets["race"]) == 3
