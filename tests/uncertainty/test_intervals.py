"""The statistics against known answers: arch, statsmodels, scipy, closed forms, simulation."""

from __future__ import annotations

import math
import tracemalloc
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from arch.bootstrap import optimal_block_length
from helpers.console import load_script
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower

from charcmp.report.analysis.comparisons import analyse
from charcmp.report.filters import Filters
from charcmp.report.tables import make_tables
from charcmp.uncertainty.intervals import (
    Estimate,
    detectable_difference,
    detectable_with,
    estimate,
    judge,
    resample,
    seed_component,
    seeds_needed,
)
from charcmp.uncertainty.text_variance import (
    Component,
    Floats,
    automatic_block_length,
    block_means,
    block_variance,
    text_variance,
)

CELLS = ("lstm", "gru")


def autoregressive(rho: float, shape: tuple[int, int], seed: int = 0) -> Floats:
    """Returns independent series, as rows, of a process of variance 1 / (1 - rho^2)."""
    shocks = np.random.default_rng(seed).standard_normal((shape[1] + 50, shape[0]))
    state, values = np.zeros(shape[0]), []
    for shock in shocks:
        state = rho * state + shock
        values.append(state)
    return np.stack(values[50:], axis=1)


# Blocks.


@pytest.mark.parametrize("rho", [0.0, 0.2, 0.5, 0.8, 0.95])
@pytest.mark.parametrize("length", [1000, 5000])
def test_the_block_length_of_one_series_is_archs(rho: float, length: int) -> None:
    means = autoregressive(rho, (1, length))
    wanted = float(optimal_block_length(means[0])["circular"].iloc[0])
    assert automatic_block_length(means) == pytest.approx(max(1.0, wanted), rel=0.02)


def test_blocks_wrap_round_in_their_series() -> None:
    means = np.array([[1.0, 2.0, 3.0], [10.0, 20.0, 30.0]])
    np.testing.assert_allclose(block_means(means, 2), [[1.5, 2.5, 2.0], [15, 25, 20]])
    np.testing.assert_allclose(block_means(means, 3), [[2, 2, 2], [20, 20, 20]])


def test_closed_forms() -> None:
    means = np.random.default_rng(0).standard_normal((20, 33))
    assert block_variance(means, 1) == pytest.approx(means.var(ddof=1) / means.size)
    of_series = means.mean(axis=1)
    assert block_variance(means, 33) == pytest.approx(of_series.var(ddof=1) / len(of_series))


def test_resampling_a_long_text_takes_little_memory() -> None:
    """Eight long blocks are drawn: no need to count how often each of 20,000 was."""
    blocks = [np.random.default_rng(seed).standard_normal((1, 20_000)) for seed in (0, 1)]
    tracemalloc.start()
    try:
        resample(blocks, 2500, 500)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 100 * blocks[0].nbytes


@pytest.mark.parametrize("length", [1, 3, 8, 33])
def test_resampling_is_the_closed_form(length: int) -> None:
    blocks = [autoregressive(0.6, (50, 33), seed) for seed in (0, 1)]
    drawn = resample(blocks, length)
    num_blocks = round(50 * 33 / length)
    for one, means in zip(blocks, drawn, strict=True):
        assert means.mean() == pytest.approx(one.mean(), abs=0.002)
        limit = block_variance(one, length) * (num_blocks - 1) / num_blocks
        assert means.std() == pytest.approx(math.sqrt(limit), rel=0.03)  # 10,000 draws: to 0.7 %
    assert (resample(blocks, length, 200) == resample(blocks, length, 200)).all()


@pytest.mark.parametrize("rho", [0.0, 0.3, 0.7])
def test_standard_errors_of_a_dependent_series(rho: float) -> None:
    """Over many texts, the mean of the estimated variances is about the variance of the mean."""
    texts = [autoregressive(rho, (100, 33), seed) for seed in range(300)]
    truth = np.var([text.mean() for text in texts])  # itself known to 8 %
    assert np.mean([text_variance(text).variance for text in texts]) == pytest.approx(
        truth, rel=0.25
    )


def test_the_check_sees_what_short_blocks_do_not() -> None:
    """Blocks are independent, but levels differ by series: only whole series show the spread."""
    rng = np.random.default_rng(0)
    means = rng.standard_normal((100, 33)) + 0.25 * rng.standard_normal((100, 1))
    text = text_variance(means)
    assert text.block_length == 33
    assert text.se_of_length[33] > 1.3 * text.se_of_length[1]
    plain = text_variance(rng.standard_normal((100, 33)))
    assert (plain.block_length, plain.num_blocks) == (1, 3300)
    few = text_variance(means[:5])  # too few series to take them as blocks
    assert few.block_length == max(few.rule_length, 5 * 33 // 8)


@pytest.mark.parametrize("length", [2, 3, 5, 10, 49, 200, 3000, 20_000])
@pytest.mark.parametrize("rho", [0.0, 0.99, 1.0])
def test_one_series_leaves_two_blocks_however_dependent(length: int, rho: float) -> None:
    text = text_variance(autoregressive(rho, (1, length)))
    assert text.num_blocks >= 2
    assert text.se > 0
    assert all(np.isfinite(se) for se in text.se_of_length.values())
    low, high = estimate(0.0, [text.component]).interval()
    assert np.isfinite(high - low)


def test_a_single_block_has_no_variance() -> None:
    assert text_variance(np.array([[1.4]])) is None


def test_one_series_is_cut_into_eight_blocks() -> None:
    """Even if the rule says that short blocks will do: it does not see the levels of chapters."""
    text = text_variance(autoregressive(0.99, (1, 20_000)))
    assert 128 < text.rule_length < 1000
    assert (text.block_length, text.num_blocks) == (2500, 8)
    assert text.num_required == 20_000 / text.rule_length  # of these there are enough
    assert list(text.se_of_length) == [1, text.rule_length, 2500, 5000]


def test_one_series_has_fewer_blocks_if_the_rule_wants_longer_ones() -> None:
    text = text_variance(autoregressive(0.97, (1, 100)))
    assert text.block_length == text.rule_length > 100 // 8
    assert text.num_required == text.num_blocks < 8


def test_a_constant_difference_has_no_variance() -> None:
    assert text_variance(np.full((20, 10), 0.3)).variance == pytest.approx(0, abs=1e-30)


# Seeds, and both.


def test_seeds_alone_are_welchs_test() -> None:
    a, b = [1.40, 1.43, 1.41], [1.38, 1.385, 1.39, 1.36]
    parts = [seed_component(a), seed_component(b)]
    one = estimate(np.mean(a) - np.mean(b), [part for part in parts if part])
    welch = stats.ttest_ind(a, b, equal_var=False)
    assert one.p_value == pytest.approx(welch.pvalue)
    assert one.df == pytest.approx(welch.df)
    low, high = welch.confidence_interval(0.95)
    assert one.interval() == pytest.approx((low, high))
    assert seed_component([1.4]) is None


def test_variances_add() -> None:
    one = estimate(0.1, [Component(3.0, 10.0), Component(1.0, 2.0)])
    assert (one.se, one.df) == (2.0, pytest.approx(16 / (0.9 + 0.5)))
    assert estimate(0.1, [Component(3.0, 10.0), Component(0.0, 2.0)]).df == pytest.approx(10)
    text, seeds = Component(1e-6, 99), [Component(1e-9, 2, True), Component(1e-9, 2, True)]
    assert estimate(0.1, [text, *seeds]).df == 4  # Satterthwaite says 99
    assert estimate(0.1, [text]).df == pytest.approx(99)
    exact = estimate(0.1, [Component(0.0, 10.0)])
    assert (exact.p_value, exact.interval()) == (0.0, (0.1, 0.1))


def test_holm_is_statsmodels_and_intervals_are_plain() -> None:
    rng = np.random.default_rng(0)
    num_rejected = 0
    for size in (1, 2, 6, 9):
        for _ in range(2):  # few rounds: multipletests collects garbage, slowly
            family = [
                Estimate(d, 1.0, df)
                for d, df in zip(
                    3 * rng.standard_normal(size), rng.uniform(2, 50, size), strict=True
                )
            ]
            judged = judge(family)
            rejected, p_holm, *_ = multipletests([one.p_value for one in family], method="holm")
            assert [one.significant for one in judged] == list(rejected)
            assert [one.p_holm for one in judged] == pytest.approx(list(p_holm))
            for one in judged:
                assert one.interval == one.estimate.interval(0.05)
                low, high = one.interval
                assert (one.plain_sign != 0) == (not low <= 0 <= high)
                assert one.sign == (np.sign(one.estimate.difference) if one.significant else 0)
            num_rejected += sum(rejected)
    assert num_rejected > 5
    assert judge([]) == []


def test_comparisons_without_an_estimate_count_in_holms_procedure() -> None:
    family = [Estimate(d, 1.0, 50.0) for d in (3.5, 0.5, 2.8)]
    p_values = [one.p_value for one in family]
    for number_absent in (0, 3, 9):
        full = [*p_values, *[1.0] * number_absent]
        rejected, p_holm, *_ = multipletests(full, method="holm")
        judged = judge(family, len(full))
        assert [one.significant for one in judged] == list(rejected[:3])
        assert [one.p_holm for one in judged] == pytest.approx(list(p_holm[:3]))


# Power.


@pytest.mark.parametrize("num_seeds", [5, 20])  # with 3, TTestPower has no answer
def test_power_is_statsmodels(num_seeds: int) -> None:
    found = detectable_difference(1 / math.sqrt(num_seeds), num_seeds - 1, 0.02)
    assert TTestPower().power(found, num_seeds, 0.02) == pytest.approx(0.8, rel=1e-3)


def test_power_with_three_seeds_by_simulation() -> None:
    found = detectable_difference(1 / math.sqrt(3), 2, 0.02)
    samples = np.random.default_rng(0).normal(found, 1, (200_000, 3))
    t = samples.mean(axis=1) / (samples.std(axis=1, ddof=1) / math.sqrt(3))
    assert np.mean(t > stats.t.isf(0.01, 2)) == pytest.approx(0.8, abs=0.005)


def test_seeds_needed_are_the_fewest() -> None:
    text = Component(1e-6, 99)
    needed = seeds_needed(0.006, text, 9e-6, 0.05 / 3)
    assert needed is not None
    assert detectable_with(needed, text, 9e-6, 0.05 / 3) <= 0.006
    assert detectable_with(needed - 1, text, 9e-6, 0.05 / 3) > 0.006
    assert seeds_needed(0.0027, text, 9e-6) is None  # the text alone hides it
    assert detectable_with(2, text, 9e-6) > detectable_with(3, text, 9e-6)


# Coverage; scripts/simulate_coverage.py has the large simulation.


@pytest.fixture(scope="module")
def simulation() -> ModuleType:
    return load_script("simulate_coverage")


@pytest.mark.parametrize("dependence", ["AR(1), 0.3", "whole rows"])
def test_intervals_cover(simulation: ModuleType, dependence: str) -> None:
    rng = np.random.default_rng(1)
    seed_sd = 1.2 * simulation.TEXT_SE
    hits = []
    for _ in range(300):
        text, both, true_of_these, _ = simulation.simulate(
            rng, 3, (seed_sd, seed_sd), simulation.DEPENDENCE[dependence]
        )
        hits.append((simulation.covers(text, true_of_these), simulation.covers(both, 0.01)))
    of_text, of_both = np.mean(hits, axis=0)
    assert 0.91 < of_text < 0.99
    assert of_both > 0.94  # the seeds' few degrees of freedom are on the safe side


def test_three_seeds_of_unequal_spread_cover(simulation: ModuleType) -> None:
    """Seeds move one cell five times as much as the other, as they do a gated model and an RNN."""
    rng = np.random.default_rng(1)
    seed_sds = (5 * 1.2 * simulation.TEXT_SE, 1.2 * simulation.TEXT_SE)
    dependence = simulation.DEPENDENCE["none"]
    hits = [
        simulation.covers(simulation.simulate(rng, 3, seed_sds, dependence)[1], simulation.TRUTH)
        for _ in range(300)
    ]
    assert 0.91 < np.mean(hits) < 0.98


# One's own text: a single series.


def test_made_up_texts_have_the_dependence_that_they_should(simulation: ModuleType) -> None:
    def autocorrelation(series: Any, lag: int) -> float:
        texts = simulation.one_series(np.random.default_rng(0), series, 300, 400)
        assert texts.mean() == pytest.approx(0, abs=0.05)
        assert texts.var() == pytest.approx(1, abs=0.05)
        return float(np.mean(texts[:, lag:] * texts[:, :-lag]))

    dependent = simulation.Series(share_of_ar=0.5, autocorrelation=0.8)
    assert autocorrelation(dependent, 1) == pytest.approx(0.5 * 0.8, abs=0.02)
    assert autocorrelation(dependent, 5) == pytest.approx(0.5 * 0.8**5, abs=0.02)
    pieces = simulation.Series(share_of_levels=0.5, piece_length=10)  # all of 10 blocks
    assert autocorrelation(pieces, 4) == pytest.approx(0.5 * 0.6, abs=0.02)
    assert autocorrelation(pieces, 10) == pytest.approx(0, abs=0.02)
    unlike = simulation.Series(share_of_levels=0.5, piece_length=10, piece_spread=0.8)
    assert autocorrelation(unlike, 10) > 0.1


@pytest.mark.parametrize("kind", ["independent", "AR(1), 0.7"])
def test_intervals_of_one_series_cover(simulation: ModuleType, kind: str) -> None:
    found = simulation.simulate_one_series(
        np.random.default_rng(0), simulation.ONE_SERIES[kind], 1000, 300
    )
    assert 0.92 < found.covered_by_text < 0.99
    assert min(found.covered_by_both) > 0.94
    assert 0.85 < found.text_width < 1.25


def test_intervals_of_one_series_cover_although_chapters_differ(simulation: ModuleType) -> None:
    """With blocks of the automatic length, which sees no chapters, 71 % were covered."""
    found = simulation.simulate_one_series(
        np.random.default_rng(0), simulation.ONE_SERIES["prose"], 3000, 300
    )
    assert found.covered_by_text > 0.9
    assert found.noted == 0


# Error rates of the whole report; scripts/simulate_coverage.py --report has the large simulation.


@pytest.mark.parametrize("num_seeds", [2, 3])
def test_false_findings_of_the_whole_report_are_rare(
    simulation: ModuleType, num_seeds: int
) -> None:
    """The nominal rate is 5 %; Satterthwaite's uncapped degrees of freedom gave 26 % (RNN)."""
    rng = np.random.default_rng(num_seeds)
    seed_sds = simulation.MODEL_SEED_SDS["as published"]
    found = [
        simulation.false_findings(simulation.made_up_runs(rng, num_seeds, seed_sds))
        for _ in range(60)
    ]
    counts = {key: sum(one[key] for one in found) for key in simulation.REPORT_COLUMNS}
    assert max(counts.values()) <= 6, counts


def test_seeds_of_one_cell_under_two_names(simulation: ModuleType) -> None:
    """An A/A test: any difference is chance, so 5 % of plain intervals may leave out 0."""
    rng = np.random.default_rng(0)
    plain, significant, over_text, num = 0, 0, 0, 150
    for _ in range(num):
        runs = simulation.made_up_runs(rng, 8, {("gru", 1): 0.005})
        renamed = [
            simulation.made_up_run(
                "lstm" if run.seed % 2 else "gru", 1, run.seed,
                run.losses.block_means_RJ[:, 0], run.val_nats_per_char,
            )
            for run in runs
        ]  # fmt: skip
        (table,) = make_tables(renamed, Filters())
        analysis = analyse(table, num_resamples=10)
        (one,) = analysis.differences_of("lstm_gru")
        plain += one.both.plain_sign != 0
        significant += one.both.significant or len(analysis.not_worse("50k")) < 2
        over_text += one.text.significant
        single, other = (next(run for run in renamed if run.cell == name) for name in CELLS)
        (table,) = make_tables([single, other], Filters())
        assert analyse(table, num_resamples=10).not_worse("50k") == []  # one seed: no claim
    assert 0.01 * num <= plain <= 0.09 * num
    assert significant <= 0.09 * num
    assert over_text > 0.5 * num  # what text alone would have claimed of one and the same cell
