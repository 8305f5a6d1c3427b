"""Families, bold figures, verdicts, distances, advice: on grids whose answer is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers.runs import (
    NUM_TEST_CHARS,
    losses,
    paired_losses,
    report_texts,
    tables_of,
    write_grid,
    write_run,
)
from scipy import stats

from charcmp.report.analysis.comparisons import FAMILIES, Analysis, analyse
from charcmp.report.analysis.distances import _Measured, segment_of
from charcmp.report.analysis.recommend import recommendations
from charcmp.report.analysis.verdicts import FAILS, HOLDS, UNDECIDED, verdicts
from charcmp.uncertainty.losses import sampled_positions

# Test nats of a grid on which the paper's claims 1, 2a and 2b hold.
AS_CLAIMED = {
    ("lstm", 1): 1.46, ("lstm", 2): 1.42, ("lstm", 3): 1.44,
    ("gru", 1): 1.44, ("gru", 2): 1.40, ("gru", 3): 1.38,
    ("rnn", 1): 1.50, ("rnn", 2): 1.48, ("rnn", 3): 1.49,
}  # fmt: skip


def analysis_of(results_dir: Path) -> Analysis:
    (table,) = tables_of(results_dir)
    return analyse(table)


def columns(analysis: Analysis, family: str) -> set[tuple[Any, Any]]:
    return {(one.a.column, one.b.column) for one in analysis.differences_of(family)}


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
    assert len(analysis.differences_of("best", "50k")) == 12
    assert not analysis.differences_of("best", "130k")  # nothing to compare with in that row


def test_text_and_seeds_are_kept_apart(tmp_path: Path) -> None:
    levels = {"lstm": (1.40, 1.43, 1.41), "gru": (1.38, 1.385, 1.36)}
    series = {}
    for cell, of_cell in levels.items():
        nlls = [paired_losses(nats, seed + len(cell)) for seed, nats in enumerate(of_cell)]
        for seed, nats in enumerate(of_cell):
            write_run(tmp_path, nats, cell=cell, seed=seed, nll=nlls[seed])
        blocks = [nll.astype(float).reshape(100, -1, 100).mean(axis=2) for nll in nlls]
        series[cell] = np.mean(blocks, axis=0)
    (one,) = analysis_of(tmp_path).differences_of("lstm_gru")
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
    assert analysis.not_worse("50k") == []
    report_texts(tmp_path)
    table = (tmp_path / "report" / "table_nats.md").read_text()
    assert "nothing is bold, as there is one seed" in table
    assert "**" not in table
    assert "| seeds" in table
    text = recommendations([analysis])[0].text()
    assert "It has one seed, so how much another seed would change its loss" in text
    assert "not compared, as one of the two has one seed" in text
    assert "significantly" not in text
    assert {verdict.verdict for verdict in verdicts([analysis])} == {UNDECIDED}
    assert "2 more seeds of every model (3 in all)" in verdicts([analysis])[0].decided_by


def test_bold_is_not_worse_than_the_best(tmp_path: Path) -> None:
    # Seeds of SD 0.01: 1.404 is not significantly worse than 1.40, 1.67 is.
    nats = {("lstm", 1): 1.40, ("gru", 1): 1.404, ("rnn", 1): 1.67}
    write_grid(tmp_path, nats, sd=0.01)
    analysis = analysis_of(tmp_path)
    assert [cell.cell for cell in analysis.not_worse("50k")] == ["lstm", "gru"]
    report_texts(tmp_path)
    text = (tmp_path / "report" / "table_nats.md").read_text()
    assert all(f"**{shown}**" in text for shown in ("1.400", "1.404"))
    assert "**1.670**" not in text
    assert "not significantly worse than the model with the lowest mean validation loss" in text


def test_a_bold_model_that_may_be_far_behind_is_named(tmp_path: Path) -> None:
    """Its seeds scatter so much that Holm's test finds nothing; bold alone would favour it."""
    write_grid(tmp_path, {("lstm", 1): 1.400, ("gru", 1): 1.402})
    report_texts(tmp_path)
    table = tmp_path / "report" / "table_nats.md"
    assert "Bold means" not in table.read_text()
    write_grid(tmp_path, {("lstm", 3): 1.480}, sd=0.03)
    report_texts(tmp_path)
    assert "**1.480**" in table.read_text()
    said = "these bold models may be well behind it: LSTM 3 at 50k: +0.0800 ("
    assert said in table.read_text()


def test_a_model_with_one_seed_is_never_bold(tmp_path: Path) -> None:
    write_grid(tmp_path, {("lstm", 1): 1.40, ("gru", 1): 1.404}, sd=0.01)
    write_grid(tmp_path, {("rnn", 1): 1.402}, seeds=1)
    analysis = analysis_of(tmp_path)
    assert [cell.cell for cell in analysis.not_worse("50k")] == ["lstm", "gru"]
    write_grid(tmp_path, {("gru", 2): 1.39}, seeds=1)  # now the best has one seed
    analysis = analysis_of(tmp_path)
    assert (analysis.best("50k").column, analysis.not_worse("50k")) == (("gru", 2), [])


def test_the_winner_is_chosen_on_validation(tmp_path: Path) -> None:
    write_grid(tmp_path, {("lstm", 1): 1.400}, val_nats_per_char=1.42)
    write_grid(tmp_path, {("gru", 1): 1.401}, val_nats_per_char=1.41)
    analysis = analysis_of(tmp_path)
    assert analysis.best("50k").cell == "gru"
    assert [cell.cell for cell in analysis.not_worse("50k")] == ["lstm", "gru"]
    text = recommendations([analysis])[0].text()
    assert text.startswith("At 50k use GRU, 1 layer (")
    assert "Lower mean test loss than its 1.4010: LSTM 1 (1.4000)" in text
    assert "Next by validation loss, LSTM 1: -0.0010 (-" in text


def test_a_model_better_on_test_than_the_winner_stays_bold(tmp_path: Path) -> None:
    write_grid(tmp_path, {("lstm", 1): 1.300}, val_nats_per_char=1.42)
    write_grid(tmp_path, {("gru", 1): 1.401}, val_nats_per_char=1.41)
    assert [cell.cell for cell in analysis_of(tmp_path).not_worse("50k")] == ["lstm", "gru"]


def test_diverged_seeds_are_named_in_the_advice(tmp_path: Path) -> None:
    write_grid(tmp_path, {("lstm", 1): 1.40, ("gru", 1): 1.41}, seeds=2)
    write_run(tmp_path, None, seed=2)
    write_run(tmp_path, None, cell="rnn")
    text = recommendations([analysis_of(tmp_path)])[0].text()
    assert "Diverged: LSTM 1: 1 of 3 seeds diverged; RNN 1: 1 of 1 seeds diverged." in text


def test_advice_says_under_which_training(tmp_path: Path) -> None:
    write_grid(tmp_path, {("lstm", 1): 1.40, ("gru", 1): 1.41})
    write_grid(tmp_path, {("lstm", 1): 1.40, ("gru", 1): 1.41}, dataset="mine", layout="contiguous")
    papers, mine = [analyse(table) for table in tables_of(tmp_path)]
    assert "nats per character under the paper's protocol" in recommendations([papers])[0].text()
    under = "under this training"
    assert f"nats per character {under}" in recommendations([mine])[0].text()
    assert all(one.scope.endswith("under the paper's protocol") for one in verdicts([papers]))
    assert all(
        one.scope.endswith(f"mine, contiguous, 50 epochs, {under}") for one in verdicts([mine])
    )
    report_texts(tmp_path)
    said = (tmp_path / "report" / "table_nats.md").read_text()
    assert "The models are ranked under the paper's protocol" in said
    assert f"The models are ranked {under}" in said


def test_a_single_model_has_nothing_to_compare_with(tmp_path: Path) -> None:
    write_grid(tmp_path, {("lstm", 1): 1.40})
    report_texts(tmp_path)
    text = (tmp_path / "report" / "table_nats.md").read_text()
    assert "test nats per character; nothing to compare with" in text


# Families of the grid.


def sizes(analysis: Analysis) -> dict[str, int]:
    return {family: analysis.family_size(family) for family in FAMILIES}


def test_the_papers_grid_is_the_family_whatever_has_been_run(tmp_path: Path) -> None:
    write_grid(tmp_path, {("lstm", 1): 1.40, ("gru", 1): 1.41})
    whole = {"lstm_gru": 12, "rnn": 24, "layers": 36, "variants": 0, "best": 8}
    assert sizes(analysis_of(tmp_path)) == whole
    write_run(tmp_path, 1.4, layers=4)  # beyond the paper's grid
    beyond = {"lstm_gru": 16, "rnn": 32, "layers": 72, "variants": 0, "best": 11}
    assert sizes(analysis_of(tmp_path)) == beyond


def test_the_grid_of_other_blocks_is_what_was_run(tmp_path: Path) -> None:
    write_grid(tmp_path, {("lstm", 1): 1.40, ("gru", 2): 1.41}, dataset="mine")
    write_run(tmp_path, None, cell="rnn", budget="130k", dataset="mine")  # diverged: still planned
    for cell in ("lstm_peephole", "lstm_softmax_gate"):
        write_run(tmp_path, 1.4, cell=cell, dataset="mine")
    found = sizes(analysis_of(tmp_path))
    assert found == {"lstm_gru": 4, "rnn": 8, "layers": 6, "variants": 2, "best": 7}


def test_seeds_of_one_pair_change_no_multiplicity_of_another(tmp_path: Path) -> None:
    write_grid(tmp_path, {("lstm", 1): 1.40, ("gru", 1): 1.43}, sd=0.004)
    (before,) = analysis_of(tmp_path).differences_of("lstm_gru")
    # The further pairs are so alike that their p-values are larger than that of the first.
    write_grid(tmp_path, {("lstm", 2): 1.40, ("gru", 2): 1.4001}, sd=0.004)
    write_grid(tmp_path, {("lstm", 1): 1.40, ("gru", 1): 1.4001}, sd=0.004, budget="130k")
    after = analysis_of(tmp_path).differences_of("lstm_gru")[0]
    assert after.both.p_holm == before.both.p_holm
    assert before.both.p_holm == pytest.approx(12 * before.both.estimate.p_value)


def test_a_claim_is_not_held_on_a_part_of_the_grid(tmp_path: Path) -> None:
    write_grid(tmp_path, AS_CLAIMED)  # one budget of the paper's four
    first = verdict_on("1", verdicts([analysis_of(tmp_path)]))
    assert first.verdict == UNDECIDED
    assert "Of the grid's 24 comparisons, 6 have been run with several seeds" in first.evidence
    assert "All that have been run with several seeds are for it so far." in first.evidence
    assert "Not run: 18 comparisons (LSTM 1 - RNN 1 at 130k; " in first.evidence
    assert "The 18 comparisons of the grid that have not been run" in first.decided_by


def test_a_claim_holds_by_plain_intervals_of_every_pair(tmp_path: Path) -> None:
    """Holm's procedure would not confirm this claim, although each pair of the grid supports it."""
    nats = {("lstm", 1): 1.4, ("gru", 1): 1.4, ("rnn", 1): 1.42}
    write_grid(tmp_path, nats, sd=0.008, dataset="mine")
    analysis = analysis_of(tmp_path)
    p_values = [one.both.estimate.p_value for one in analysis.differences_of("rnn")]
    assert max(p_values) < 0.05 < 2 * min(p_values)
    assert verdict_on("1", verdicts([analysis])).verdict == HOLDS


# What the text does not allow.


def short_text(tmp_path: Path, num_chars: int, unroll_steps: int, seeds: int = 2) -> None:
    """Writes runs with a single stream."""
    for cell, nats in (("lstm", 1.4), ("gru", 1.45)):
        for seed in range(seeds):
            nll = paired_losses(nats + 0.001 * seed, seed, num_chars)
            write_run(tmp_path, float(nll.mean()), cell=cell, seed=seed, nll=nll, dataset="mine",
                      batch_size=1, unroll_steps=unroll_steps, num_test_chars=num_chars,
                      extra={"batch_size": 1})  # fmt: skip


def test_a_text_of_one_block_gives_no_interval_and_says_so(tmp_path: Path) -> None:
    short_text(tmp_path, 100, 100)
    (one,) = analysis_of(tmp_path).differences_of("lstm_gru")
    assert (one.text_variance, one.text, one.both) == (None, None, None)
    report_texts(tmp_path)
    table = (tmp_path / "report" / "table_nats.md").read_text()
    assert "The test text is a single block of characters, so there is no interval" in table
    statistics = (tmp_path / "report" / "statistics.md").read_text()
    assert "one block of text: no variance" in statistics
    assert "nan" not in (table + statistics).lower().replace("finan", "")
    assert "not compared, as their losses give no interval" in statistics


def test_few_blocks_are_said(tmp_path: Path) -> None:
    short_text(tmp_path, 1000, 100)
    (one,) = analysis_of(tmp_path).differences_of("lstm_gru")
    assert one.both is not None
    report_texts(tmp_path)
    text = (tmp_path / "report" / "table_nats.md").read_text()
    assert "; with fewer than 20, standard errors" in text


def test_more_detectable_than_seen_is_the_finding(tmp_path: Path) -> None:
    write_grid(tmp_path, {("lstm", 1): 1.40, ("gru", 1): 1.404}, sd=0.01)
    (power,) = analysis_of(tmp_path).power
    assert power.num_seeds == 3
    assert 0.05 < power.detectable < 0.07  # Holm's first step of twelve, four degrees of freedom
    assert power.is_beyond
    report_texts(tmp_path)
    text = (tmp_path / "report" / "table_nats.md").read_text()
    assert f"of {power.detectable:.4f} nats (1 layer) would be found four times in five" in text
    assert "; the measured difference is smaller with 1 layer: 0.0040." in text


def test_pairs_of_one_seed_do_not_speak_for_those_of_several(tmp_path: Path) -> None:
    write_grid(tmp_path, {("lstm", 1): 1.40, ("gru", 1): 1.404}, sd=0.01)
    (alone,) = analysis_of(tmp_path).power
    write_grid(tmp_path, {("lstm", 2): 1.40, ("gru", 2): 1.45}, seeds=1)
    (power,) = analysis_of(tmp_path).power
    assert (power.layers, power.num_seeds, power.is_beyond) == (1, 3, True)
    assert power.detectable == alone.detectable  # both count the grid's twelve comparisons


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
    assert len(found) == 5  # with 50 epochs they would be decided: test_claims
    assert {verdict.verdict for verdict in found} == {UNDECIDED}
    assert all("more epochs" in verdict.decided_by for verdict in found)
    said = [*(verdict.evidence for verdict in found), recommendations([analysis])[0].text()]
    assert all("the ranking shows how fast models learn" in text for text in said)


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
        ({("gru", 3): 1.45}, {"2b": UNDECIDED}),  # two layers win in two cells, the RNN is open
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
    write_grid(tmp_path, nats, dataset="mine")
    found = verdicts([analysis_of(tmp_path)])
    assert {claim: verdict_on(claim, found).verdict for claim in verdict_of} == verdict_of
    for claim, verdict in verdict_of.items():
        assert bool(verdict_on(claim, found).decided_by) == (verdict == UNDECIDED)


def test_three_layers_that_lose_everywhere_are_not_mixed(tmp_path: Path) -> None:
    write_grid(tmp_path, AS_CLAIMED | {("gru", 3): 1.45}, dataset="mine")
    assert verdict_on("2b", verdicts([analysis_of(tmp_path)])).verdict == FAILS


@pytest.mark.parametrize(
    ("lstm_on_yours", "verdict"),
    [(1.30, HOLDS), (1.50, FAILS), (1.4402, UNDECIDED), (None, UNDECIDED)],
)
def test_the_corpora(tmp_path: Path, lstm_on_yours: float | None, verdict: str) -> None:
    write_grid(tmp_path, {("lstm", 1): 1.46, ("gru", 1): 1.44}, dataset="mine")
    if lstm_on_yours is not None:
        write_grid(tmp_path, {("lstm", 1): lstm_on_yours, ("gru", 1): 1.44}, dataset="yours")
    found = verdicts([analyse(table) for table in tables_of(tmp_path)])
    assert verdict_on("3", found).verdict == verdict


def test_protocols_are_not_mixed_in_a_verdict(tmp_path: Path) -> None:
    write_grid(tmp_path, {("lstm", 1): 1.46, ("gru", 1): 1.44})
    write_grid(tmp_path, {("lstm", 1): 1.3, ("gru", 1): 1.44}, dataset="lk", epochs=3)
    found = verdicts([analyse(table) for table in tables_of(tmp_path)])
    assert [one.verdict for one in found if one.claim.startswith("3")] == [UNDECIDED] * 2


def predictions(tmp_path: Path, alike: tuple[str, str], seeds: int) -> None:
    """Writes runs of two cells that predict alike but for their seeds, and of one that does not."""
    common = losses(1.5)
    for number, cell in enumerate(("lstm", "gru", "rnn")):
        of_cell = common if cell in alike else losses(1.5, seed=7)
        for seed in range(seeds):
            rng = np.random.default_rng([number, seed])
            own = np.exp(0.1 * rng.standard_normal(NUM_TEST_CHARS)) * (1 + 0.001 * seed)
            nll = (of_cell * own).astype(np.float32)
            write_run(tmp_path, float(nll.mean()), cell=cell, seed=seed, nll=nll, dataset="mine")


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
    runs = {entry.cell: entry.runs for entry in analysis.table.done()}
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


def test_seeds_that_are_far_apart_are_no_distance_of_cells() -> None:
    """All three cells predict alike; in the second part only the RNN's seeds are far apart."""
    rng = np.random.default_rng(0)
    common = rng.uniform(0.3, 0.7, 4000)
    excesses = []
    for _ in range(100):
        cells = [
            [common + spread * rng.standard_normal() + 0.02 * rng.standard_normal(4000)
             for _ in range(3)] for spread in (0.01, 0.01, 0.01)
        ]  # fmt: skip
        measured = _Measured(cells, np.arange(4000) // 200)
        excesses.append(measured.both().difference)
    assert np.mean(excesses) == pytest.approx(0, abs=4 * np.std(excesses) / 10)
    wide = [
        [common + 0.1 * (cell == 2) * rng.standard_normal(4000) for _ in range(3)]
        for cell in range(3)
    ]
    measured = _Measured(wide, np.arange(4000) // 200)
    plain = (measured.between[0, 2].mean() + measured.between[1, 2].mean()) / 2
    d_within = measured.within(2)
    assert measured.both().difference == pytest.approx(plain - d_within / 2, rel=1e-6)
    assert measured.both().difference < 0.4 * plain
    assert measured.text().difference == pytest.approx(measured.both().difference)


def test_distances_of_one_seed_are_not_corrected() -> None:
    rng = np.random.default_rng(0)
    cells = [[rng.uniform(0, 1, 1000) for _ in range(n)] for n in (1, 3, 3)]
    measured = _Measured(cells, np.arange(1000) // 50)
    between = {pair: measured.between[pair].mean() for pair in ((0, 1), (0, 2), (1, 2))}
    plain = (between[0, 2] + between[1, 2]) / 2 - between[0, 1]
    assert (measured.within(0), measured.num_seeds) == (None, 1)
    assert measured.text().difference == pytest.approx(plain)


def test_segments_stay_within_a_row() -> None:
    positions = np.arange(0, 12_000, 7, dtype=np.uint32)
    segments = segment_of(positions, num_chars=12_000, num_series=3)
    assert len(set(segments)) == 21  # at least 20, as many in each series
    rows = positions // 4000
    for segment in set(segments):
        assert len(set(rows[segments == segment])) == 1


def test_which_model_to_use(tmp_path: Path) -> None:
    nats = {("lstm", 1): 1.40, ("gru", 1): 1.4004, ("rnn", 1): 1.47}
    times = {"seconds_train": 60.0, "seconds_per_sampled_char": 0.00012}
    for folder in write_grid(tmp_path, nats, sd=0.004, dataset="mine", **times):
        assert folder.name.startswith("mine")
    (advice,) = recommendations([analysis_of(tmp_path)])
    assert (advice.chosen.cell, [cell.cell for cell in advice.tied]) == ("lstm", ["gru"])
    text = advice.text()
    assert text.startswith("At 50k use LSTM, 1 layer (")
    assert "Next by validation loss, GRU 1: +0.0004 (-" in text
    assert "Not significantly worse: GRU 1." in text
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
    assert list(lines["family_size"].unique()) == [12, 24, 36, 8]
    for kind in ("text", "both"):
        outside = (lines[f"{kind}_low_95"] > 0) | (lines[f"{kind}_high_95"] < 0)
        significant = lines[f"{kind}_significant"].astype(bool)
        assert (significant == (lines[f"{kind}_p_holm"] <= 0.05)).all()
        assert outside[significant].all()
    tiny = lines["text_p_holm"].between(0, 1e-6, inclusive="neither")  # with their digits
    assert tiny.any()
    plain = stats.t.isf(0.025, lines["both_df"]) * lines["both_se"]
    np.testing.assert_allclose(lines["both_high_95"] - lines["difference_nats_per_char"], plain,
                               rtol=0.01, atol=2e-6)  # fmt: skip
    assert (lines["both_df"] <= 4).all()  # three seeds each
    assert (lines["text_se_resampled"] / lines["text_se"]).between(0.95, 1.05).all()
    claims = pd.read_csv(tmp_path / "report" / "claims.csv")
    assert list(claims["claim"].str.split(".").str[0]) == ["1", "2a", "2b", "3", "4"]
    text = (tmp_path / "report" / "statistics.md").read_text()
    assert "### Which question each interval answers" in text
    assert "### wp, 50 epochs: LSTM against GRU" in text
