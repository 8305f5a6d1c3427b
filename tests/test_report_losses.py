"""Losses of single characters: their standard errors, their packed form."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from report_runs import (
    NUM_TEST_CHARS,
    losses,
    only_cell,
    report_texts,
    write_run,
)

from charcmp.report.losses import pack, read_losses, summarize
from charcmp.runs import CorruptFileError

# Standard deviations.


def test_bootstrap_sds_are_the_limit_of_resampling() -> None:
    nll = losses(num_chars=10_000)
    summary = summarize(nll, batch_size=100, unroll_steps=100)
    rng = np.random.default_rng(1)
    chars = [nll[rng.integers(0, nll.size, nll.size)].mean() for _ in range(2000)]
    block_means = nll.reshape(-1, 100).mean(axis=1)
    blocks = [block_means[rng.integers(0, 100, 100)].mean() for _ in range(2000)]
    # The SD of 2000 draws is itself known to 1.6 %; five times that is allowed.
    assert summary.sd_chars == pytest.approx(np.std(chars), rel=0.08)
    assert summary.sd_blocks == pytest.approx(np.std(blocks), rel=0.08)
    assert summary.sd_chars == pytest.approx(nll.astype(float).std() / 100, rel=1e-4)
    assert summary.sd_blocks == pytest.approx(block_means.std() / 10, rel=1e-4)
    assert summary.sd_blocks > 1.2 * summary.sd_chars  # the stretches are seen


@pytest.mark.parametrize(
    ("batch_size", "row_length", "unroll_steps", "block_length"),
    [(4, 300, 50, 100), (4, 250, 50, 50), (3, 140, 20, 20), (2, 100, 100, 100)],
)
def test_blocks_stay_within_a_row(
    batch_size: int, row_length: int, unroll_steps: int, block_length: int
) -> None:
    rows = np.repeat(np.arange(1.0, batch_size + 1), row_length).astype(np.float32)
    summary = summarize(rows, batch_size, unroll_steps)
    assert summary.block_length == block_length
    assert set(summary.block_sums_K / block_length) == set(range(1, batch_size + 1))
    assert summary.num_chars == batch_size * row_length


def test_the_published_sums_give_the_same(tmp_path: Path) -> None:
    nll = losses()
    (tmp_path / "test_blocks.npz").write_bytes(pack(nll, 100, 100))
    packed = read_losses(tmp_path, NUM_TEST_CHARS, 100, 100)
    full = summarize(nll, 100, 100)
    assert packed is not None
    assert (packed.sd_chars, packed.sd_blocks) == (full.sd_chars, full.sd_blocks)
    with np.load(tmp_path / "test_blocks.npz") as arrays:
        positions, values = arrays["positions"], arrays["nll_at_positions"]
        assert len(set(positions)) == 10_000
        np.testing.assert_allclose(values, nll[positions], rtol=1e-3, atol=1e-6)
    assert pack(nll, 100, 100) == (tmp_path / "test_blocks.npz").read_bytes()


def test_seeds(tmp_path: Path) -> None:
    for seed, nats in enumerate((1.40, 1.44, 1.45)):
        write_run(tmp_path, nats, seed=seed, nll=losses(nats, seed=seed))
    cell = only_cell(tmp_path)
    singles = [
        summarize(losses(nats, seed=s), 100, 100) for s, nats in enumerate((1.4, 1.44, 1.45))
    ]
    assert cell.test_nats == pytest.approx(1.43)
    assert cell.seeds == [0, 1, 2]
    assert cell.sd_over_seeds == pytest.approx(np.std([1.40, 1.44, 1.45], ddof=1))
    assert cell.sd_chars == pytest.approx(np.mean([s.sd_chars for s in singles]))
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
    """Rows of a text that differ: only whole rows show how far the mean moves."""
    rng = np.random.default_rng(0)
    levels = np.repeat(rng.normal(1.5, 0.1, 100), NUM_TEST_CHARS // 100)
    nll = (levels + rng.gamma(1.0, 0.2, NUM_TEST_CHARS)).astype(np.float32)
    write_run(tmp_path, float(nll.mean()), nll=nll)
    cell = only_cell(tmp_path)
    rows = nll.astype(float).reshape(100, -1).mean(axis=1)
    assert cell.sd_blocks == pytest.approx(rows.std(ddof=1) / 10, rel=1e-4)
    assert cell.block_lengths == [200]  # not 100
    report_texts(tmp_path)
    lines = (tmp_path / "report" / "table_nats.md").read_text().splitlines()
    (shown,) = [line for line in lines if "SD, blocks" in line]
    assert f"{cell.sd_blocks:.4f}" in shown
    header, values = (tmp_path / "report" / "cells.csv").read_text().splitlines()
    assert "200" in values.split(",")
    assert "block_length" in header.split(",")


def test_positions_that_are_not_todays_are_refused(tmp_path: Path) -> None:
    """Probabilities at other positions must never be compared."""
    with np.load(io.BytesIO(pack(losses(), 100, 100))) as packed:
        arrays = dict(packed)
    arrays["positions"] = arrays["positions"][::-1]
    np.savez(tmp_path / "test_blocks.npz", **arrays)
    with pytest.raises(CorruptFileError, match="at other positions"):
        read_losses(tmp_path, NUM_TEST_CHARS, 100, 100)
