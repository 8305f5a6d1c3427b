"""scripts/census.py: which runs it trains, that it stops and goes on, and the report of them."""

from __future__ import annotations

import math
import re
from pathlib import Path
from types import ModuleType

import pytest
from helpers import broken_cells
from helpers.console import load_script
from helpers.runs import tables_of

from charcmp.config.compose import compose_line
from charcmp.report.load import load_runs
from charcmp.report.tables import base_cell
from charcmp.sweeping.race.arms import Arm, Model
from charcmp.sweeping.race.decide import Outcome

MGU, GRU, COSINE = (Model("50k", f"zoo.{name}", 1)
                    for name in ("MGU", "GRU", "Cosine"))  # fmt: skip
LSTM = Model("50k", "lstm", 1)


@pytest.fixture(scope="module")
def census() -> ModuleType:
    return load_script("census")


def test_rates_that_are_kept(census: ModuleType) -> None:
    losses = {
        MGU: {0.003: 2.0, 0.006: 1.9, 0.012: 1.8, 0.024: 1.85},
        GRU: {0.003: 1.5, 0.006: 1.9, 0.012: 1.6, 0.024: math.inf},  # nothing below its best
        LSTM: {0.003: 1.6, 0.006: 1.5, 0.012: 1.6},
        COSINE: dict.fromkeys((0.003, 0.006), math.inf),
    }
    outcomes = {
        Arm(model, rate): Outcome(nats)
        for model, of_model in losses.items() for rate, nats in of_model.items()
    }  # fmt: skip
    kept = census.kept_rates(outcomes)
    assert kept == [Arm(MGU, 0.003), Arm(MGU, 0.006), Arm(GRU, 0.003), Arm(LSTM, 0.003)]


@pytest.mark.parametrize(
    ("full", "beyond"),
    [
        ({0.006: 1.5, 0.012: 1.4}, [0.024]),
        ({0.006: 1.4, 0.012: 1.5}, [0.003]),
        ({0.003: 1.45, 0.006: 1.4, 0.012: 1.5}, []),
        ({0.024: 1.4, 0.012: 1.5}, []),  # 0.048 diverged in the first step
        ({0.003: 1.4, 0.006: 1.5}, []),  # the first step had nothing below
        ({0.003: 1.4}, [0.006]),
    ],
)
def test_the_best_rate_has_one_on_either_side(
    census: ModuleType, full: dict[float, float], beyond: list[float]
) -> None:
    short = {Arm(MGU, rate): Outcome(2.0) for rate in (0.003, 0.006, 0.012, 0.024)}
    short[Arm(MGU, 0.048)] = Outcome(math.inf)
    found = {Arm(MGU, rate): Outcome(nats) for rate, nats in full.items()}
    assert census.rates_beyond(found, short) == [Arm(MGU, rate) for rate in beyond]


def test_who_gets_further_seeds(census: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first ones, the paper's and twins however far behind, and all that are near; at their
    best rate."""
    monkeypatch.setattr(census, "FIRST", 1)
    near, far = (Arm(MGU, 0.012), 1.45), (Arm(COSINE, 0.012), 1.46)
    losses = dict([far, near, (Arm(GRU, 0.006), 1.40), (Arm(GRU, 0.012), 1.405)])
    outcomes = {arm: Outcome(nats) for arm, nats in losses.items()}
    assert census.near_the_best(outcomes) == [Arm(GRU, 0.006), Arm(MGU, 0.012)]
    always = [Arm(LSTM, 0.012), Arm(Model("50k", "torch.nn.LSTM", 1), 0.012)]
    with_them = outcomes | dict.fromkeys(always, Outcome(1.8))
    assert census.near_the_best(with_them) == [Arm(GRU, 0.006), Arm(MGU, 0.012), *always]
    monkeypatch.setattr(census, "FIRST", 3)
    assert census.near_the_best(outcomes)[-1] == Arm(COSINE, 0.012)


def test_cells_are_named_as_in_a_race(census: ModuleType, tiny_text: Path, tmp_path: Path) -> None:
    """A built-in cell is no class, which would need checks; options tell two of a cell apart."""
    common = ["experiment=census", "dataset=text", f"dataset.path={tiny_text}", "budget=1500",
              f"results_dir={tmp_path}", "device=cpu"]  # fmt: skip
    for given, cells, are_classes in (
        (["cell=gru,lstm"], ["gru", "lstm"], False),
        (["cell=module", "cell.target=torch.nn.GRU"], ["torch.nn.GRU"], True),
        (
            ["cell=module", "cell.target=torch.nn.GRU", "cell.init=own,charcmp"],
            ["torch.nn.GRU cell.init=own", "torch.nn.GRU cell.init=charcmp"],
            True,
        ),
    ):
        models = [*census.Census(compose_line([*common, *given]), 5, math.inf).words]
        assert [model.cell for model in models] == cells
        assert {model.is_class for model in models} == {are_classes}


@pytest.mark.long
def test_a_census_stops_goes_on_and_is_reported(
    census: ModuleType,
    tmp_path: Path,
    tiny_text: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(census, "FURTHER_SEEDS", (1,))
    monkeypatch.setattr(census, "REFERENCE_SEEDS", (2,))
    monkeypatch.setattr(census, "REFERENCE", "torch.nn.RNN")
    overrides = [
        *("experiment=census", "cell=module", "cell.target=torch.nn.GRU,torch.nn.RNN"),
        *("dataset=text", f"dataset.path={tiny_text}", "budget=1500", f"results_dir={tmp_path}"),
        *("optimizer.lr=0.006,0.012,0.024", "epochs=2", "train_unroll_steps=10"),
        *("device=cpu", "threads=1", "jobs=2"),
    ]
    census.census(overrides, updates=5, minutes=0)
    out = capsys.readouterr().out
    assert "time ran out with 6 runs of this step left; the same command continues" in out
    census.census(overrides, updates=5)
    out = capsys.readouterr().out
    assert "1: 2 cells at 3 rates, 6 short trainings" in out
    num_full = sum(int(found) for found in re.findall(r"2: (\d+) training", out))
    assert "3: seeds 0 to 1 of torch.nn." in out
    assert "and to 2 of the LSTM" in out
    assert "torch.nn.GRU 1, rate 0.012, 5 updates, seed 0: validation" in out
    runs = load_runs(tmp_path / "runs").runs
    assert len(runs) == 6 + num_full + 2 + 1
    (own,) = [table for table in tables_of(tmp_path) if table.epochs == 2 if len(table.done()) == 2]
    seeds = {base_cell(entry.cell): entry.seeds for entry in own.done()}
    assert seeds == {"GRU": [0, 1], "RNN": [0, 1, 2]}
    assert all(entry.rates_tried == [0.006, 0.012, 0.024] for entry in own.done())
    times = {run.run_id: (run.folder / "result.json").stat().st_mtime_ns for run in runs}
    census.census(overrides, updates=5)
    for run in runs:
        assert (run.folder / "result.json").stat().st_mtime_ns == times[run.run_id]


def test_what_a_census_refuses(
    census: ModuleType, tmp_path: Path, tiny_text: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = [
        "experiment=fast",
        "dataset=text",
        f"dataset.path={tiny_text}",
        "cell=rnn",
        "layers=1",
    ]
    for given, complaint in {
        ("budget=1500,2000",): "one text, one budget and one first seed",
        ("budget=1500", "seed=0,1"): "one text, one budget and one first seed",
        ("budget=1500", "dropout=0,0.2"): "dropout=0 and dropout=0.2: a census varies the cell",
        ("budget=1500", "optimizer.lr=0.005"): "a census takes rates of",
        ("budget=1500", "optimizer.lr=0.003,0.012"): "without gaps",
        ("budget=1500", "epochs=20,30"): "one value of epochs",
        ("budget=1500", "updates_per_epoch=20"): "no updates_per_epoch",
        ("budget=1500", "epochs=1"): "a training to the end has",
    }.items():
        with pytest.raises(SystemExit):
            census.census([*common, *given], updates=1000)
        assert complaint in capsys.readouterr().err


def test_a_class_that_fails_its_checks_is_refused_before_any_run(
    census: ModuleType, tmp_path: Path, tiny_text: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cells = [f"{broken_cells.__file__}:{name}" for name in ("LooksAhead", "DropsState")]
    overrides = [
        *("experiment=census", "cell=module", f"cell.target={','.join(cells)},torch.nn.RNN"),
        *("dataset=text", f"dataset.path={tiny_text}", "budget=1500", "train_unroll_steps=10"),
        *(f"results_dir={tmp_path}", "device=cpu"),
    ]
    with pytest.raises(SystemExit):
        census.census(overrides, updates=5)
    err = capsys.readouterr().err
    assert "LooksAhead: it looks ahead" in err
    assert "DropsState: its state is not carried on" in err
    assert not [*tmp_path.glob("runs/*/result.json")]
