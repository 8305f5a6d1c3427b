"""Families, bold figures, verdicts, distances, advice: on grids whose answer is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from report_runs import (
    NUM_TEST_CHARS,
    losses,
    paired_losses,
    report_texts,
    tables_of,
    write_grid,
    write_run,
)

from charcmp.report.comparisons import Analysis, analyse
from charcmp.report.distances import segment_of
from charcmp.report.losses import sampled_positions
from charcmp.report.recommend import recommendations
from charcmp.report.verdicts import FAILS, HOLDS, UNDECIDED, verdicts

# Test nats of a grid on which all of the paper's claims hold ...
AS_CLAIMED = {
    ("lstm", 1): 1.46, ("lstm", 2): 1.42, ("lstm", 3): 1.44,
    ("gru", 1): 1.44, ("gru", 2): 1.40, ("gru", 3): 1.38,
    ("rnn", 1): 1.50, ("rnn", 2): 1.48, ("rnn", 3): 1.49,
}  # fmt: skip


def analysis_of(results_dir: Path) -> Analysis:
    (table,) = tables_of(results_dir)
    return analyse(table)


def columns(analysis: Analysis, family: str) -> set[tuple[Any, Any]]:
    return {(one.a.column, one.b.column) for one in analysis.of(family)}


def test_families_are_fixed_beforehand(tmp_path: Path) -> None:
    for cell, layers in [*AS_CLAIMED, ("gru_reset_after", 1)]:
        write_run(tmp_path, 1.4, cell=cell, layers=layers)
    write_run(tmp_path, 1.4, extra={"cell.forget_bias": 1.0})
    write_run(tmp_path, 1.4, extra={"cell.forget_bias": 1.0}, cell="lstm", layers=2, budget="130k")
    for cell in ("gru", "gru_reset_after"):
        write_run(tmp_path, 1.4, extra={"cell.open": 2}, cell=cell)
    analysis = analysis_of(tmp_path)
    assert columns(analysis, "lstm_gru") == {(("lstm", n), ("gru", n)) for n in (1, 2, 3)}
    assert columns(analysis, "rnn") == {
        ((cell, n), ("rnn", n)) for cell in ("lstm", "gru") for n in (1, 2, 3)
    }
    assert columns(analysis, "layers") == {
        ((cell, a), (cell, b))
        for cell in ("lstm", "gru", "rnn")
        for a, b in ((2, 1), (3, 1), (3, 2))
    }
    assert columns(analysis, "variants") == {
        (("gru_reset_after", 1), ("lstm", 1)),
        (("gru_reset_after(open=2)", 1), ("lstm", 1)),
        (("lstm(forget_bias=1.0)", 1), ("lstm", 1)),
        (("gru(open=2)", 1), ("gru", 1)),
    }
    assert len(analysis.of("best", "50k")) == 12
    assert not analysis.of("best", "130k")  # nothing to compare with in that row


def test_text_and_seeds_are_kept_apart(tmp_path: Path) -> None:
    levels = {"lstm": (1.40, 1.43, 1.41), "gru": (1.38, 1.385, 1.36)}
    series = {}
    for cell, of_cell in levels.items():
        nlls = [paired_losses(nats, seed + len(cell)) for seed, nats in enumerate(of_cell)]
        for seed, nats in enumerate(of_cell):
            write_run(tmp_path, nats, cell=cell, seed=seed, nll=nlls[seed])
        blocks = [nll.astype(float).reshape(100, -1, 100).mean(axis=2) for nll in nlls]
        series[cell] = np.mean(blocks, axis=0)
    (one,) = analysis_of(tmp_path).of("lstm_gru")
    assert one.nats == pytest.approx(1.41333 - 1.375, abs=1e-4)
    seeds = sum(np.var(of_cell, ddof=1) / 3 for of_cell in levels.values())
    assert one.seeds.se == pytest.approx(np.sqrt(seeds))
    difference = series["lstm"] - series["gru"]
    assert one.text_variance.se_of_length[1] == pytest.approx(
        difference.std(ddof=1) / np.sqrt(difference.size), rel=1e-3
    )
    assert one.both.estimate.se == pytest.approx(np.hypot(one.seeds.se, one.text_variance.se))
    assert one.resampled.sd == pytest.approx(one.text_variance.se, rel=0.05)


def test_a_single_seed_is_judged_by_text_and_said_so(tmp_path: Path) -> None:
    write_grid(tmp_path, AS_CLAIMED, seeds=1)
    analysis = analysis_of(tmp_path)
    assert all(one.both is None and one.text is not None for one in analysis.differences)
    report_texts(tmp_path)
    table = (tmp_path / "report" / "table_nats.md").read_text()
    assert "over text alone, as there is one seed" in table
    assert "| seeds" in table
    assert {verdict.verdict for verdict in verdicts([analysis])} == {UNDECIDED}
    assert "2 more seeds of every cell (3 in all)" in verdicts([analysis])[0].decided_by


def test_bold_is_not_worse_than_the_best(tmp_path: Path) -> None:
    # Seeds of SD 0.01: 1.404 is not told from 1.40, 1.47 is.
    nats = {("lstm", 1): 1.40, ("gru", 1): 1.404, ("rnn", 1): 1.47}
    write_grid(tmp_path, nats, sd=0.01)
    analysis = analysis_of(tmp_path)
    assert [cell.cell for cell in analysis.not_worse("50k")] == ["lstm", "gru"]
    report_texts(tmp_path)
    text = (tmp_path / "report" / "table_nats.md").read_text()
    assert all(f"**{shown}**" in text for shown in ("1.400", "1.404"))
    assert "**1.470**" not in text
    assert "not worse than the best of its row (Holm, 5 %, over seeds and text)" in text


def test_more_detectable_than_seen_is_the_finding(tmp_path: Path) -> None:
    write_grid(tmp_path, {("lstm", 1): 1.40, ("gru", 1): 1.404}, sd=0.01)
    (power,) = analysis_of(tmp_path).power
    assert power.num_seeds == 3
    assert 0.02 < power.detectable < 0.05
    assert power.is_beyond
    report_texts(tmp_path)
    text = (tmp_path / "report" / "table_nats.md").read_text()
    assert f"below {power.detectable:.4f} nats (1 layer) would usually be missed" in text
    assert "; smaller it came out with 1 layer: 0.0040." in text


def test_pairs_of_one_seed_do_not_speak_for_those_of_several(tmp_path: Path) -> None:
    write_grid(tmp_path, {("lstm", 1): 1.40, ("gru", 1): 1.404}, sd=0.01)
    (alone,) = analysis_of(tmp_path).power
    write_grid(tmp_path, {("lstm", 2): 1.40, ("gru", 2): 1.45}, seeds=1)
    (power,) = analysis_of(tmp_path).power
    assert (power.layers, power.num_seeds, power.is_beyond) == (1, 3, True)
    assert power.detectable > alone.detectable  # two comparisons instead of one


def test_a_depth_whose_seeds_spread_does_not_speak_for_another(tmp_path: Path) -> None:
    write_grid(tmp_path, {("lstm", 1): 1.40, ("gru", 1): 1.43}, sd=0.002)
    write_grid(tmp_path, {("lstm", 3): 1.50, ("gru", 3): 1.53}, sd=0.02)
    one, three = analysis_of(tmp_path).power
    assert (one.layers, three.layers) == (1, 3)
    assert 5 * one.detectable < three.detectable
    assert (one.is_beyond, three.is_beyond) == (False, True)


def test_a_wild_cell_beside_them_does_not_speak_for_lstm_and_gru(tmp_path: Path) -> None:
    write_grid(tmp_path, {("lstm", 1): 1.40, ("gru", 1): 1.404}, sd=0.01)
    (alone,) = analysis_of(tmp_path).power
    write_grid(tmp_path, {("lstm_peephole", 1): 1.70}, sd=0.1)
    assert analysis_of(tmp_path).power == [alone]


def test_short_trainings_decide_no_claim(tmp_path: Path) -> None:
    write_grid(tmp_path, AS_CLAIMED, epochs=2)
    analysis = analysis_of(tmp_path)
    found = verdicts([analysis])
    assert len(found) == 5  # decided, were they of 50 epochs: test_claims
    assert {verdict.verdict for verdict in found} == {UNDECIDED}
    assert all("more epochs" in verdict.decided_by for verdict in found)
    said = [*(verdict.evidence for verdict in found), recommendations([analysis])[0].text()]
    assert all("rank how fast the models learn" in text for text in said)


def verdict_on(claim: str, found: list[Any]) -> Any:
    return next(one for one in found if one.claim.startswith(claim))


@pytest.mark.parametrize(
    ("changed", "verdict_of"),
    [
        ({}, {"1": HOLDS, "2a": HOLDS, "2b": HOLDS}),
        ({("rnn", 3): 1.30}, {"1": FAILS, "2b": HOLDS}),
        ({("rnn", 1): 1.4601}, {"1": UNDECIDED}),
        ({("gru", 2): 1.46}, {"2a": FAILS}),
        ({("gru", 2): 1.4395}, {"2a": UNDECIDED}),
        ({("gru", 3): 1.45}, {"2b": UNDECIDED}),  # two wins in two cells, the RNN ...
        ({("gru", 3): 1.45, ("rnn", 3): 1.4799}, {"2b": UNDECIDED}),
    ],
    ids=str,
)
def test_claims(
    tmp_path: Path, changed: dict[tuple[str, int], float], verdict_of: dict[str, str]
) -> None:
    nats = AS_CLAIMED | changed
    if changed == {("gru", 3): 1.45}:
        nats |= {("rnn", 3): 1.4802}
    write_grid(tmp_path, nats)
    found = verdicts([analysis_of(tmp_path)])
    assert {claim: verdict_on(claim, found).verdict for claim in verdict_of} == verdict_of
    for claim, verdict in verdict_of.items():
        assert bool(verdict_on(claim, found).decided_by) == (verdict == UNDECIDED)


def test_three_layers_that_lose_everywhere_are_not_mixed(tmp_path: Path) -> None:
    write_grid(tmp_path, AS_CLAIMED | {("gru", 3): 1.45})
    assert verdict_on("2b", verdicts([analysis_of(tmp_path)])).verdict == FAILS


@pytest.mark.parametrize(
    ("lstm_on_lk", "verdict"),
    [(1.30, HOLDS), (1.50, FAILS), (1.4402, UNDECIDED), (None, UNDECIDED)],
)
def test_the_corpora(tmp_path: Path, lstm_on_lk: float | None, verdict: str) -> None:
    write_grid(tmp_path, {("lstm", 1): 1.46, ("gru", 1): 1.44})
    if lstm_on_lk is not None:
        write_grid(tmp_path, {("lstm", 1): lstm_on_lk, ("gru", 1): 1.44}, dataset="lk")
    found = verdicts([analyse(table) for table in tables_of(tmp_path)])
    assert verdict_on("3", found).verdict == verdict


def test_protocols_are_not_mixed_in_a_verdict(tmp_path: Path) -> None:
    write_grid(tmp_path, {("lstm", 1): 1.46, ("gru", 1): 1.44})
    write_grid(tmp_path, {("lstm", 1): 1.3, ("gru", 1): 1.44}, dataset="lk", epochs=3)
    found = verdicts([analyse(table) for table in tables_of(tmp_path)])
    assert [one.verdict for one in found if one.claim.startswith("3")] == [UNDECIDED] * 2


def predictions(tmp_path: Path, alike: tuple[str, str], seeds: int) -> None:
    """Two cells that predict alike, up to their seeds, and a third that does not."""
    common = losses(1.5)
    for number, cell in enumerate(("lstm", "gru", "rnn")):
        of_cell = common if cell in alike else losses(1.5, seed=7)
        for seed in range(seeds):
            rng = np.random.default_rng([number, seed])
            own = np.exp(0.1 * rng.standard_normal(NUM_TEST_CHARS)) * (1 + 0.001 * seed)
            nll = (of_cell * own).astype(np.float32)
            write_run(tmp_path, float(nll.mean()), cell=cell, seed=seed, nll=nll)


@pytest.mark.parametrize(
    ("alike", "seeds", "verdict"),
    [(("lstm", "gru"), 3, HOLDS), (("lstm", "gru"), 1, UNDECIDED), (("lstm", "rnn"), 3, FAILS)],
)
def test_who_predicts_alike(
    tmp_path: Path, alike: tuple[str, str], seeds: int, verdict: str
) -> None:
    predictions(tmp_path, alike, seeds)
    analysis = analysis_of(tmp_path)
    (found,) = analysis.distances
    positions = sampled_positions(NUM_TEST_CHARS)
    runs = {cell.cell: cell.runs for cell in analysis.table.done()}
    p, q = (
        np.exp(-np.load(runs[cell][0].folder / "test_nll.npy")[positions].astype(float))
        for cell in ("lstm", "gru")
    )
    if seeds == 1:
        assert found.lstm_gru == pytest.approx(np.abs(p - q).mean(), rel=1e-3)
        assert (found.same_cell, found.both) == (None, None)
    else:
        assert found.same_cell < 0.5 * max(found.lstm_rnn, found.lstm_gru)
    assert verdict_on("4", verdicts([analysis])).verdict == verdict


def test_segments_stay_within_a_row() -> None:
    positions = np.arange(0, 12_000, 7, dtype=np.uint32)
    segments = segment_of(positions, num_chars=12_000, num_rows=3)
    assert len(set(segments)) == 21  # at least 20, as many in each row
    rows = positions // 4000
    for segment in set(segments):
        assert len(set(rows[segments == segment])) == 1


def test_what_to_take(tmp_path: Path) -> None:
    nats = {("lstm", 1): 1.40, ("gru", 1): 1.4004, ("rnn", 1): 1.47}
    times = {"seconds_train": 60.0, "seconds_per_sampled_char": 0.00012}
    for folder in write_grid(tmp_path, nats, sd=0.004, dataset="mine", **times):
        assert folder.name.startswith("mine")
    (advice,) = recommendations([analysis_of(tmp_path)])
    assert (advice.take.cell, [cell.cell for cell in advice.tied]) == ("lstm", ["gru"])
    text = advice.text()
    assert text.startswith("At 50k take LSTM, 1 layer (")
    assert "Next, GRU 1: +0.0004 (-" in text
    assert "Not told from it: GRU 1." in text
    assert "Training took 60 s a run" in text
    assert "Sampling takes 120 µs a character." in text


def test_the_numbers_in_the_files(tmp_path: Path) -> None:
    write_grid(tmp_path, AS_CLAIMED)
    report_texts(tmp_path)
    lines = pd.read_csv(tmp_path / "report" / "differences.csv")
    assert list(lines["family"].value_counts()[["lstm_gru", "rnn", "layers", "best"]]) == [
        3,
        6,
        9,
        8,
    ]
    for kind in ("text", "both"):
        outside = (lines[f"{kind}_low_holm"] > 0) | (lines[f"{kind}_high_holm"] < 0)
        assert (outside == lines[f"{kind}_told_from_0"]).all()
    assert (lines["text_se_resampled"] / lines["text_se"]).between(0.95, 1.05).all()
    claims = pd.read_csv(tmp_path / "report" / "claims.csv")
    assert list(claims["claim"].str.split(".").str[0]) == ["1", "2a", "2b", "3", "4"]
    text = (tmp_path / "report" / "statistics.md").read_text()
    assert "### Which question each interval answers" in text
    assert "### wp, 50 epochs: LSTM against GRU" in text
