"""What a race says at its end."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from helpers.runs import write_run

from charcmp.runs.baselines import Baseline
from charcmp.runs.folder import RunFolder
from charcmp.runs.result import Result
from charcmp.sweeping.race.advice import Advice, Finalist
from charcmp.sweeping.race.arms import Arm, Model
from charcmp.sweeping.race.board import Board
from charcmp.sweeping.race.decide import Outcome, challenges
from charcmp.sweeping.race.page import race_figure
from charcmp.sweeping.race.race import End, Finish, PlannedRun, WhyShorter
from charcmp.sweeping.race.record import recommendation
from charcmp.sweeping.race.wording import advice_text

GRU_1, GRU_2, RNN_1 = (Model("50k", *what) for what in (("gru", 1), ("gru", 2), ("rnn", 1)))


def advice(
    folder: Path,
    losses: Mapping[Model, Sequence[float]],
    end: End = "time",
    num_models: int = 9,
    unfinished: Sequence[Model] = (),
    unstable: Sequence[Model] = (),
    num_blocks: int = 500,  # of the validation text
    rung: int = 2,
    why_shorter: WhyShorter | None = None,
) -> Advice:
    """Of a race whose finalists' seeds ended with these validation losses, and test losses 0.1
    above."""

    def result(model: Model, seed: int, nats: float) -> Result:
        changed = {"cell": model.cell, "layers": model.layers, "seed": seed}
        path = write_run(folder, nats + 0.1, val_nats_per_char=nats, **changed)
        found = RunFolder(path).read_result()
        assert found is not None
        return found

    results = {model: [result(model, seed, nats) for seed, nats in enumerate(of_model)]
               for model, of_model in losses.items()}  # fmt: skip
    text = np.random.default_rng(0).normal(0.0, 0.1, (1, num_blocks))
    outcomes = {model: [Outcome(nats, text + nats) for nats in of_model]
                for model, of_model in losses.items()}  # fmt: skip
    leader, against = challenges(outcomes)
    arms = {model: Arm(model, 0.012) for model in losses}
    finish = Finish(
        rung=rung, why_shorter=why_shorter, updates=1000, leader=leader, arms=arms,
        outcomes=outcomes, challenges=against,
        unfinished=list(unfinished), unstable=list(unstable), num_looks=1, alpha=0.1 / 3,
        num_models=num_models, num_runs=40, end=end,
    )  # fmt: skip
    finalists = {model: Finalist(model, 0.012, of_model) for model, of_model in results.items()}
    return Advice("my", "50k", 10.0, finish, finalists, 30.0, 40, str(folder), [], [])


def test_it_names_what_to_take_and_how_far_the_next_is_behind(tmp_path: Path) -> None:
    found = advice(tmp_path, {GRU_1: [1.30, 1.31, 1.32], GRU_2: [1.33, 1.34, 1.35]})
    text = advice_text(found)
    assert text.startswith("For my at 50k, use GRU, 1 layer (77 units")
    assert "1.410 test nats per character, the mean of 3 seeds." in text
    assert "Next by validation loss: GRU 2, 0.0300 behind (96.67 % interval over seeds" in text
    assert found.chosen.best_run.seed == 0
    near = advice_text(advice(tmp_path / "near", {GRU_1: [1.31, 1.32], GRU_2: [1.305, 1.315]}))
    assert near.startswith("For my at 50k, use GRU, 1 layer")
    assert (
        "The lowest mean validation loss has GRU 2, 0.0050 ahead, which is at most one standard "
        "error, so the race takes the model with fewer layers (96.67 % interval" in near
    )
    record = msgspec.to_builtins(recommendation(found))
    assert record["run_id"] == record["best_single_run"] == found.chosen.best_run.run_id


def test_the_keys_of_the_record_and_their_order(tmp_path: Path) -> None:
    """Programs read them; keys may be added, but none may move or go."""
    found = advice(tmp_path, {GRU_1: [1.30, 1.31, 1.32], GRU_2: [1.305, 1.315, 1.325]})
    found = replace(found, baselines=[Baseline(name="5-gram", nats_per_char=1.7, size=400)])
    record = msgspec.to_builtins(recommendation(found))
    assert [*record] == [
        *("dataset", "budget", "cell", "layers", "hidden_size", "num_params", "optimizer_lr"),
        *("epochs", "seeds", "val_nats_per_char", "test_nats_per_char", "run_id"),
        *("train_overrides", "best_single_run", "runner_up", "tied_with", "baselines", "settled"),
        *("end", "minutes", "num_runs", "seconds_train", "microseconds_per_sampled_char", "text"),
    ]
    assert record["runner_up"] == {
        "cell": "gru",
        "layers": 2,
        "val_nats_per_char": pytest.approx(1.315),
        "test_nats_per_char": pytest.approx(1.415),
    }
    assert record["tied_with"] == [{"cell": "gru", "layers": 2}]
    assert record["baselines"] == [{"name": "5-gram", "nats_per_char": 1.7, "stored_counts": 400}]
    alone = msgspec.to_builtins(recommendation(advice(tmp_path / "alone", {GRU_1: [1.3]})))
    assert alone["runner_up"] is None


def test_tied_means_that_the_interval_covers_0(tmp_path: Path) -> None:
    near = advice(tmp_path / "near", {GRU_1: [1.30, 1.31, 1.32], GRU_2: [1.305, 1.315, 1.325]})
    assert "It is tied with GRU 2" in advice_text(near)
    assert " -0.0" in advice_text(near)
    far = advice(tmp_path / "far", {GRU_1: [1.30, 1.31, 1.32], GRU_2: [1.50, 1.51, 1.52]})
    assert "tied" not in advice_text(far)


def test_one_seed_is_no_comparison(tmp_path: Path) -> None:
    text = advice_text(advice(tmp_path, {GRU_1: [1.30], GRU_2: [1.31]}))
    assert "With one seed of either, that says little" in text
    assert "tied" not in text
    two = advice_text(advice(tmp_path / "two", {GRU_1: [1.30, 1.30], GRU_2: [1.31, 1.31]}))
    assert "before every finalist had the 3 seeds" in two


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    found = advice(tmp_path / "cut", {GRU_1: [1.3]}, unfinished=[GRU_2])
    assert "Time ran out before GRU 2 had been trained for as long" in advice_text(found)
    assert "No other model" not in advice_text(found)
    found = advice(tmp_path / "seed", {GRU_1: [1.3] * 3, RNN_1: [1.5] * 3}, unstable=[GRU_2])
    assert "Left out, since a further seed failed or diverged: GRU 2." in advice_text(found)


@pytest.mark.parametrize(("num_models", "is_said"), [(2, False), (9, True)])
def test_it_says_what_it_leaves_open(tmp_path: Path, num_models: int, is_said: bool) -> None:
    found = advice(tmp_path, {GRU_1: [1.3] * 5, RNN_1: [1.5] * 5}, "settled", num_models)
    assert "no other finalist, trained once more" in advice_text(found)
    assert ("Models eliminated earlier" in advice_text(found)) == is_said


def test_a_text_too_short_to_judge_by_is_named_whatever_the_seeds_do(tmp_path: Path) -> None:
    losses = {GRU_1: [1.300, 1.301, 1.302, 1.303, 1.304], RNN_1: [1.5] * 5}
    for end in ("seeds", "time"):
        text = advice_text(advice(tmp_path / end, losses, end, num_blocks=1))
        assert "The validation text is too short to tell" in text
        assert "either the models are that close" not in text
        assert "more minutes=" not in text
    assert "either the models are that close" in advice_text(
        advice(tmp_path / "long", losses, "seeds")
    )


@pytest.mark.parametrize(("spread", "is_said"), [(0.028, False), (0.042, True)])
def test_seeds_that_scatter_more_than_was_simulated_are_named(
    tmp_path: Path, spread: float, is_said: bool
) -> None:
    """The promise was simulated up to a standard deviation of 0.03; GRU 3 has shown 0.042."""
    losses = {GRU_1: [1.30, 1.30, 1.30], GRU_2: [1.5 - spread, 1.5, 1.5 + spread]}
    text = advice_text(advice(tmp_path, losses, "settled"))
    said = "The 95 % may be too many: the seeds of GRU 2 (standard deviation 0.042 nats) scatter"
    assert (said in text) == is_said
    two = {GRU_1: [1.30, 1.30], GRU_2: [1.4, 1.6]}
    assert "may be too many" not in advice_text(advice(tmp_path / "two", two, "settled"))


def test_a_lucky_run_of_another_model_is_named(tmp_path: Path) -> None:
    """GRU 1 near the edge of its rates: the best run of all, and one that failed to learn."""
    found = advice(tmp_path, {GRU_2: [1.274, 1.275, 1.277], GRU_1: [1.517, 1.248, 1.258]})
    assert found.chosen.model == GRU_2
    lucky = found.lucky
    assert lucky is not None
    assert lucky.best_run.seed == 1
    assert (
        "The best single run of all is one of GRU 1, 0.0260 ahead on validation text "
        f"(run={lucky.best_run.run_id}); the seeds of that model end between 1.248 and 1.517"
    ) in advice_text(found)
    assert recommendation(found).best_single_run == lucky.best_run.run_id
    within = advice(tmp_path / "within", {GRU_2: [1.27, 1.27, 1.27], GRU_1: [1.4, 1.4, 1.265]})
    assert within.lucky is None


def test_the_bars_of_the_picture_stand_where_its_points_are(tmp_path: Path) -> None:
    """The leader's last point is its mean, from which the bars of the others are measured."""
    losses = {GRU_1: [1.30, 1.33, 1.33], GRU_2: [1.33, 1.34, 1.35]}
    found = advice(tmp_path, losses)
    board = Board([GRU_1, GRU_2], updates_per_epoch=100, until=0.0)
    for model, of_model in losses.items():
        for seed, nats in enumerate(of_model):
            board.ran(PlannedRun(Arm(model, 0.012), 1000, seed), Outcome(nats))
    (panel,) = race_figure(found, board).axes
    *points, bar = ([*map(float, line.get_ydata())] for line in panel.lines)
    assert [last for (last,) in points] == pytest.approx([1.32, 1.34])
    assert sum(bar) / 2 == pytest.approx(1.34)


def test_it_says_that_longer_training_did_worse_and_is_as_sure_as_its_seeds(tmp_path: Path) -> None:
    losses = {GRU_1: [1.30, 1.31, 1.32], RNN_1: [1.53, 1.54, 1.55]}
    text = advice_text(advice(tmp_path, losses, "settled", rung=0, why_shorter="worse"))
    assert "Longer training did worse on this text, so the race ended at this length." in text
    assert "With 95 % confidence no other finalist" in text
    assert "Time ran out" not in text


def test_it_says_that_time_ran_out_only_if_more_of_it_would_do(tmp_path: Path) -> None:
    losses = {GRU_1: [1.30, 1.31, 1.32], RNN_1: [1.53, 1.54, 1.55]}
    shortest = {GRU_1: [1.30], RNN_1: [1.53]}
    cut = advice_text(advice(tmp_path / "cut", shortest, "time", rung=1, why_shorter="cut off"))
    assert "Time ran out before the longest runs finished" in cut
    assert "rerun with more minutes= to continue" in cut
    assert "did worse" not in cut
    whole = advice_text(advice(tmp_path / "whole", losses, "settled", rung=1))
    assert "With 95 % confidence no other finalist" in whole
    assert "Time ran out" not in whole
