"""Losses of single characters: their standard errors, their packed form."""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
import pytest
from helpers.runs import NUM_TEST_CHARS, losses, only_entry, report_texts, write_run

from charcmp.report.load import load_runs
from charcmp.runs.folder import CorruptFileError
from charcmp.uncertainty.losses import pack, read_losses, summarize
from charcmp.uncertainty.text_variance import block_variance

# Standard deviations.


def test_bootstrap_sds_are_the_limit_of_resampling() -> None:
    nll = losses(num_chars=10_000)
    summary = summarize(nll, num_series=100, unroll_steps=100)
    rng = np.random.default_rng(1)
    chars = [nll[rng.integers(0, nll.size, nll.size)].mean() for _ in range(2000)]
    block_means = nll.reshape(-1, 100).mean(axis=1)
    blocks = [block_means[rng.integers(0, 100, 100)].mean() for _ in range(2000)]
    # The SD of 2000 draws is itself known to 1.6 %; five times that is allowed.
    assert summary.sd_chars == pytest.approx(np.std(chars), rel=0.08)
    sd_blocks = math.sqrt(block_variance(summary.block_means_RJ, 1))
    assert sd_blocks == pytest.approx(np.std(blocks), rel=0.08)
    assert summary.sd_chars == pytest.approx(nll.astype(float).std() / 100, rel=1e-4)
    assert sd_blocks == pytest.approx(block_means.std(ddof=1) / 10, rel=1e-4)
    assert sd_blocks > 1.2 * summary.sd_chars  # blocks see the stretches


@pytest.mark.parametrize(
    ("batch_size", "series_length", "unroll_steps", "block_length"),
    [(4, 300, 50, 100), (4, 250, 50, 50), (3, 140, 20, 20), (2, 100, 100, 100)],
)
def test_blocks_stay_within_a_series(
    batch_size: int, series_length: int, unroll_steps: int, block_length: int
) -> None:
    nll = np.repeat(np.arange(1.0, batch_size + 1), series_length).astype(np.float32)
    summary = summarize(nll, batch_size, unroll_steps)
    assert summary.block_length == block_length
    assert set(summary.block_sums_K / block_length) == set(range(1, batch_size + 1))
    assert summary.num_chars == batch_size * series_length


@pytest.mark.parametrize("num_chars", [1, 99, 100, 150, 15_001])
def test_one_series_of_any_length(tmp_path: Path, num_chars: int) -> None:
    """The last block of a contiguous text takes what the others leave; nothing is dropped."""
    nll = losses(num_chars=20_000)[:num_chars]
    summary = summarize(nll, 1, 60)
    assert summary.num_chars == num_chars
    means_J = summary.block_means_RJ[0]
    assert len(means_J) == max(1, num_chars // 100)
    rest = nll[100 * (len(means_J) - 1) :]
    assert means_J[-1] == pytest.approx(rest.mean(), rel=1e-5)
    (tmp_path / "test_blocks.npz").write_bytes(pack(nll, 1, 60))
    packed = read_losses(tmp_path, num_chars, 1, 60)
    assert packed is not None
    assert packed.block_means_RJ.tolist() == summary.block_means_RJ.tolist()


def test_the_published_sums_give_the_same(tmp_path: Path) -> None:
    nll = losses()
    (tmp_path / "test_blocks.npz").write_bytes(pack(nll, 100, 100))
    packed = read_losses(tmp_path, NUM_TEST_CHARS, 100, 100)
    full = summarize(nll, 100, 100)
    assert packed is not None
    assert packed.sd_chars == full.sd_chars
    assert packed.block_means_RJ.tolist() == full.block_means_RJ.tolist()
    with np.load(tmp_path / "test_blocks.npz") as arrays:
        positions, values = arrays["positions"], arrays["nll_at_positions"]
        assert len(set(positions)) == 10_000
        np.testing.assert_allclose(values, nll[positions], rtol=1e-3, atol=1e-6)
    assert pack(nll, 100, 100) == (tmp_path / "test_blocks.npz").read_bytes()


def test_seeds(tmp_path: Path) -> None:
    for seed, nats in enumerate((1.40, 1.44, 1.45)):
        write_run(tmp_path, nats, seed=seed, nll=losses(nats, seed=seed))
    entry = only_entry(tmp_path)
    singles = [
        summarize(losses(nats, seed=s), 100, 100) for s, nats in enumerate((1.4, 1.44, 1.45))
    ]
    assert entry.test_nats == pytest.approx(1.43)
    assert entry.seeds == [0, 1, 2]
    assert entry.sd_over_seeds == pytest.approx(np.std([1.40, 1.44, 1.45], ddof=1))
    assert entry.sd_chars == pytest.approx(np.mean([s.sd_chars for s in singles]))
    report_texts(tmp_path)
    text = (tmp_path / "report" / "table_nats.md").read_text()
    assert "Means over 3 seeds" in text
    assert "Two seeds of each of two cells" not in text
    assert "| SD, seeds" in text
    for seed, nats in enumerate((1.50, 1.51)):
        write_run(tmp_path, nats, cell="gru", seed=seed, nll=losses(nats, seed=seed))
    report_texts(tmp_path)
    text = (tmp_path / "report" / "table_nats.md").read_text()
    assert "Means over 2 to 3 seeds, as marked. Two seeds of each of two cells leave two" in text


def test_the_sd_shown_is_that_of_the_rule_for_blocks(tmp_path: Path) -> None:
    """The series of this text differ: only whole series show how far the mean moves."""
    rng = np.random.default_rng(0)
    levels = np.repeat(rng.normal(1.5, 0.1, 100), NUM_TEST_CHARS // 100)
    nll = (levels + rng.gamma(1.0, 0.2, NUM_TEST_CHARS)).astype(np.float32)
    write_run(tmp_path, float(nll.mean()), nll=nll)
    entry = only_entry(tmp_path)
    rows = nll.astype(float).reshape(100, -1).mean(axis=1)
    assert entry.sd_blocks == pytest.approx(rows.std(ddof=1) / 10, rel=1e-4)
    assert entry.block_lengths == [200]  # not 100
    report_texts(tmp_path)
    lines = (tmp_path / "report" / "table_nats.md").read_text().splitlines()
    (shown,) = [line for line in lines if "SD, blocks" in line]
    assert f"{entry.sd_blocks:.4f}" in shown
    header, values = (tmp_path / "report" / "entries.csv").read_text().splitlines()
    assert "200" in values.split(",")
    assert "block_length" in header.split(",")


def test_positions_that_are_not_todays_are_refused(tmp_path: Path) -> None:
    """Probabilities at other positions must never be compared."""
    with np.load(io.BytesIO(pack(losses(), 100, 100))) as packed:
        arrays = dict(packed)
    arrays["positions"] = arrays["positions"][::-1]
    np.savez(tmp_path / "test_blocks.npz", **arrays)
    with pytest.raises(CorruptFileError, match="at positions other than those"):
        read_losses(tmp_path, NUM_TEST_CHARS, 100, 100)


def test_sums_of_longer_blocks_are_refused(tmp_path: Path) -> None:
    """They cannot be compared block by block with those of the other runs."""
    nll = losses()
    run = write_run(tmp_path, float(nll.mean()))
    with np.load(io.BytesIO(pack(nll, 100, 100))) as packed:
        arrays = {key: packed[key] for key in packed.files}
    sums = arrays["block_sums"].reshape(-1, 2).sum(axis=1)
    np.savez(run / "test_blocks.npz", **arrays | {"block_sums": sums, "block_length": 200})
    loaded = load_runs(tmp_path / "runs")
    assert loaded.runs[0].losses is None
    assert "sums of 200 characters, not of 100; the run is shown without" in loaded.complaints[0]


def test_losses_of_another_mean_than_the_result_says(tmp_path: Path) -> None:
    """The result says 0.5 nats, the losses beside it average 2."""
    write_run(tmp_path, 1.4, cell="gru", nll=losses(1.4))
    wrong = write_run(tmp_path, 0.5, nll=losses(2.0))
    loaded = load_runs(tmp_path / "runs")
    (complaint,) = loaded.complaints
    assert complaint.startswith(f"{wrong}: result.json says 0.5000 nats per test character, but")
    assert "average 2.0000" in complaint
    assert {run.cell: run.losses is None for run in loaded.runs} == {"gru": False, "lstm": True}


@pytest.mark.parametrize(("layout", "num_series"), [("contiguous", 1), ("columns", 4)])
def test_a_contiguous_text_is_one_series(tmp_path: Path, layout: str, num_series: int) -> None:
    nll = losses(num_chars=2000)
    write_run(tmp_path, layout=layout, batch_size=4, num_test_chars=2000, nll=nll)
    (run,) = load_runs(tmp_path / "runs").runs
    assert run.losses is not None
    means_RJ = run.losses.block_means_RJ
    assert means_RJ.shape == (num_series, 20 // num_series)
    np.testing.assert_allclose(means_RJ.ravel(), nll.reshape(20, 100).mean(1), rtol=1e-5)
