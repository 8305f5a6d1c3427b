"""Published weights: the tables beside them are computed from them again."""

from __future__ import annotations

import pandas as pd
import pytest
from helpers.console import CHECKOUT, REAL_DATA, load_script, needs_corpora

from charcmp.inference.score import score_split
from charcmp.inference.trained import TrainedRun, load_trained

WEIGHTS = CHECKOUT / "results" / "weights"
RUNS = sorted(path.name for path in (WEIGHTS / "runs").glob("*"))
pytestmark = [needs_corpora, pytest.mark.parametrize("name", RUNS)]


def published(name: str, monkeypatch: pytest.MonkeyPatch) -> TrainedRun:
    monkeypatch.setenv("CHARCMP_DATA", str(REAL_DATA))
    return load_trained(name, str(WEIGHTS))


def lines_of(table: str, name: str) -> pd.DataFrame:
    lines = pd.read_csv(WEIGHTS / table)
    of_run = lines[lines["run"] == name].reset_index(drop=True)
    if of_run.empty:
        pytest.skip(f"{table} has no line of this run")
    return of_run


@pytest.mark.slow
def test_the_test_loss(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run = published(name, monkeypatch)
    nats = score_split(run, "test").nats_per_char
    assert nats == pytest.approx(run.result.test_nats_per_char, abs=1e-4)


@pytest.mark.slow
def test_mean_gates(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = lines_of("mean_gates.csv", name)
    table = load_script("mean_gates").gates_table([published(name, monkeypatch)])
    pd.testing.assert_frame_equal(table, expected, check_exact=False, rtol=0, atol=1e-4)


@pytest.mark.slow
def test_gradient_reach(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = lines_of("gradient_reach.csv", name)
    table = load_script("gradient_reach").reach_table([published(name, monkeypatch)])
    found = table.drop(columns="label")
    pd.testing.assert_frame_equal(found, expected, check_exact=False, rtol=5e-3, atol=1e-9)
