"""The report: from run folders as a training leaves them to tables whose numbers are known."""

from __future__ import annotations

import csv
import importlib.util
import json
import math
import os
import subprocess
import sys
import time
import zlib
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import Charcmp
from numpy.typing import NDArray

from charcmp.budget import num_params, solve_hidden_size, target_params
from charcmp.errors import UserError
from charcmp.report import Filters, make, make_report
from charcmp.report.cells import Cell, Table, make_tables
from charcmp.report.load import load_runs
from charcmp.report.losses import pack, read_losses, summarize
from charcmp.report.paper import compare, spearman, table1

NUM_SYMBOLS = {"wp": 87, "lk": 101}
NUM_TEST_CHARS = 20_000
NOT_IN_AN_IDENTITY = {"dataset.name", "budget", "corpus_note"}


def losses(nats: float = 1.5, num_chars: int = NUM_TEST_CHARS, seed: int = 0) -> NDArray[Any]:
    """Losses of characters, harder and easier by stretches as in a text, with a given mean."""
    rng = np.random.default_rng(seed)
    stretches = np.repeat(rng.gamma(4.0, 0.25, num_chars // 50), 50)
    nll = stretches * rng.gamma(1.0, 1.0, num_chars)
    return (nll * nats / nll.mean()).astype(np.float32)


def write_run(
    results_dir: Path,
    test_nats: float | None = 1.5,
    *,
    budget: str = "50k",
    nll: NDArray[Any] | None = None,
    extra: dict[str, Any] | None = None,  # what the identity has besides
    **changed: Any,
) -> Path:
    """Writes the folder of a finished run; `test_nats` None: one that diverged."""
    cell, layers = changed.get("cell", "lstm"), changed.get("layers", 1)
    dataset = changed.get("dataset", "wp")
    num_symbols = NUM_SYMBOLS.get(dataset, 80)
    target = target_params(budget, num_symbols)
    hidden_size = changed.get("hidden_size") or solve_hidden_size(cell, layers, target, num_symbols)
    result: dict[str, Any] = {
        "schema_version": 1,
        "protocol_version": 1,
        "status": "done" if test_nats is not None else "diverged",
        "dataset": dataset,
        "corpus_sha256": f"{dataset:0<64}",
        "corpus_note": None,
        "num_symbols": num_symbols,
        "layout": "columns",
        "split": [90.0, 5.0, 5.0] if dataset == "lk" else [80.0, 10.0, 10.0],
        "cell": cell,
        "layers": layers,
        "budget": budget,
        "hidden_size": hidden_size,
        "num_params": num_params(cell, layers, hidden_size, num_symbols),
        "target_params": target,
        "seed": 0,
        "dropout": 0.0,
        "precision": "float32",
        "epochs": 50,
        "unroll_steps": 100,
        "batch_size": 100,
        "best_epoch": 1,
        "train_nats_per_char": test_nats and test_nats - 0.1,
        "val_nats_per_char": test_nats and test_nats + 0.01,
        "test_nats_per_char": test_nats,
        "test_perplexity": test_nats and math.exp(test_nats),
        "test_bits_per_char": test_nats and test_nats / math.log(2),
        "num_test_chars": NUM_TEST_CHARS,
        "seconds_train": 1.0,
        "chars_per_second": 1,
        "device": "cpu",
        "git_commit": "c0ffee",
        "git_dirty": False,
        **changed,
    }
    result["identity"] = {
        "protocol_version": result["protocol_version"],
        "corpus_sha256": result["corpus_sha256"],
        "cell.name": cell,
        "layers": layers,
        "hidden_size": hidden_size,
        "seed": result["seed"],
        "dataset.layout": result["layout"],
        "dataset.split": result["split"],
        **(extra or {}),
    }
    told_apart = {key: result[key] for key in ("epochs", "dropout", "num_test_chars", "batch_size")}
    number = zlib.crc32(json.dumps([result["identity"], told_apart], sort_keys=True).encode())
    result["run_id"] = f"{dataset}-{cell}-{layers}x{hidden_size}-s{result['seed']}-{number:x}"
    folder = results_dir / "runs" / result["run_id"]
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps(result))
    if nll is not None:
        np.save(folder / "test_nll.npy", nll)
    return folder


def tables_of(results_dir: Path, **axes: str) -> list[Table]:
    filters = Filters({axis.replace("__", "."): set(v.split(",")) for axis, v in axes.items()})
    return make_tables(load_runs(results_dir / "runs").runs, filters)


def only_cell(results_dir: Path) -> Cell:
    (table,) = tables_of(results_dir)
    (cell,) = table.cells.values()
    return cell


def report_files(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in (folder / "report").iterdir()}


@pytest.fixture
def small_grid(tmp_path: Path) -> Path:
    """Three cells of the paper's 50k row, with known losses, and one of the next row."""
    write_run(tmp_path, 1.450, nll=losses(1.450))
    write_run(tmp_path, 1.4004, cell="gru", nll=losses(1.4004, seed=1))
    write_run(tmp_path, 1.4446, cell="rnn", layers=2)
    write_run(tmp_path, 1.300, budget="130k", cell="gru", layers=3)
    return tmp_path


# What is printed and written.


def test_the_printed_table(small_grid: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_report(small_grid)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "wp, 50 epochs: test nats per character"
    assert lines[2].split() == [c for c in ("LSTM", "RNN", "GRU") for _ in range(3)]
    assert lines[3].split() == ["budget", *"123" * 3]
    assert lines[5].split() == [
        "50k",
        "test",
        "1.450",
        "—",
        "—",
        "—",
        "1.445",
        "—",
        "*1.400",
        "—",
        "—",
    ]
    assert lines[6].split() == (
        ["paper", "1.449", "1.442", "1.540", "1.446", "1.401", "1.396", "1.398", "1.373", "1.472"]
    )
    assert lines[7].split() == ["difference", "+0.001", "+0.044", "+0.002"]
    assert [line.split()[:2] for line in lines[8:10]] == [["SD,", "characters"], ["SD,", "blocks"]]
    assert lines[11].split() == ["130k", "test", "—", "—", "—", "—", "—", "—", "—", "—", "*1.300"]
    assert max(len(line) for line in lines if "written to" not in line) <= 110
    text = " ".join(" ".join(lines).split())
    assert "One seed per cell" in text
    assert "not re-read from the PDF" in text
    assert "std/sqrt(n)" in text


def test_the_files(small_grid: Path) -> None:
    make_report(small_grid)
    report = small_grid / "report"
    rows = [[text.strip() for text in line.strip("|").split("|")]
            for line in (report / "table_perplexity.md").read_text().splitlines()
            if line.startswith("|")]  # fmt: skip
    assert rows[0] == ["budget", "", *(f"{c} {n}" for c in ("LSTM", "RNN", "GRU") for n in "123")]
    assert rows[2] == ["50k", "test", "4.263", "—", "—", "—", "4.240", "—", "**4.057**", "—", "—"]
    assert rows[4][2] == f"{math.exp(1.45) - math.exp(1.449):+.3f}"
    bits = (report / "table_bits.tex").read_text()
    assert r"\multicolumn{3}{c}{LSTM} & \multicolumn{3}{c}{RNN} & \multicolumn{3}{c}{GRU}" in bits
    assert rf"50k & test & {1.45 / math.log(2):.3f} & --- & --- & --- & 2.084 & ---" in bits
    assert rf"\textbf{{{1.4004 / math.log(2):.3f}}}" in bits
    assert all(rule in bits for rule in (r"\toprule", r"\midrule", r"\bottomrule"))
    assert r"Fei-Fei 2015, Table 1" in bits
    assert r"Johnson \& Fei-Fei" in bits
    wide = pd.read_csv(report / "table_nats.csv")
    assert wide.loc[0, "lstm 1"] == 1.45
    assert pd.isna(wide.loc[0, "lstm 2"])
    cells = pd.read_csv(report / "cells.csv").set_index(["budget", "cell", "layers"])
    assert list(cells["num_seeds"]) == [1, 1, 1, 1]
    lstm = cells.loc["50k", "lstm", 1]
    assert lstm["difference"] == pytest.approx(0.001)
    assert lstm["test_perplexity"] == pytest.approx(math.exp(1.45), abs=1e-6)
    assert lstm["deviation_percent"] == 0
    assert not any(file.name.startswith(".") for file in report.iterdir())


def test_a_report_needs_no_torch(small_grid: Path) -> None:
    code = (
        "import sys; from charcmp.report import make_report; "
        f"make_report({str(small_grid)!r}); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_a_thousand_runs_in_seconds(tmp_path: Path) -> None:
    nll = tmp_path / "nll.npy"
    np.save(nll, losses(num_chars=330_000))
    for seed in range(1000):
        folder = write_run(tmp_path, 1.4 + seed / 1e4, seed=seed, num_test_chars=330_000)
        os.link(nll, folder / "test_nll.npy")
    start = time.perf_counter()
    make_report(tmp_path)
    assert time.perf_counter() - start < 15


def test_many_columns_are_printed_in_parts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for cell in ("lstm", "rnn", "gru", "gru_reset_after"):
        for layers in (1, 2, 3):
            write_run(tmp_path, 1.4, cell=cell, layers=layers, budget="130k", dataset="lk")
    make_report(tmp_path)
    out = capsys.readouterr().out
    assert max(len(line) for line in out.splitlines() if "written to" not in line) <= 110
    assert out.count("130k      test") == 2
    assert out.count("*1.400") == 12  # of equals, all are the best


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
    make_report(tmp_path)
    text = (tmp_path / "report" / "table_nats.md").read_text()
    assert "Means over 3 seeds" in text
    assert "| SD, seeds" in text


# What stands together.


@pytest.mark.parametrize(
    "other",
    [
        {"epochs": 3, "extra": {"epochs": 3}},
        {"layout": "contiguous"},
        {"split": [90.0, 5.0, 5.0]},
        {"corpus_sha256": "f" * 64},
        {"protocol_version": 2},
        {"num_test_chars": 10_000},
        {"batch_size": 50, "extra": {"batch_size": 50}},
        {"unroll_steps": 50, "extra": {"unroll_steps": 50}},
        {"precision": "tf32", "extra": {"precision": "tf32"}},
        {"extra": {"optimizer.lr": 0.001}},
        {"extra": {"cell.forget_bias": 1.0}},
        {"extra": {"clip": None}},
        {"dataset": "lk"},
    ],
    ids=str,
)
def test_protocols_are_never_mixed(tmp_path: Path, other: dict[str, Any]) -> None:
    write_run(tmp_path, 1.4)
    write_run(tmp_path, 1.2, **other)
    tables = tables_of(tmp_path)
    assert sorted(cell.test_nats for table in tables for cell in table.done()) == [1.2, 1.4]
    assert len({table.heading for table in tables}) == 2


def test_headings_say_what_is_different(tmp_path: Path) -> None:
    write_run(tmp_path, 1.4)
    write_run(tmp_path, 1.4, epochs=3)
    write_run(tmp_path, 1.4, extra={"optimizer.lr": 0.001})
    write_run(tmp_path, 1.4, dataset="pydocs", layout="contiguous", epochs=1)
    write_run(tmp_path, 1.4, corpus_sha256="abcdef12" * 8, epochs=3)
    assert {table.heading for table in tables_of(tmp_path)} == {
        "wp, 50 epochs",
        "wp, 50 epochs, optimizer.lr=0.001",
        "wp, 3 epochs, text wp000000",
        "wp, 3 epochs, text abcdef12",
        "pydocs, contiguous, 1 epoch",
    }


@pytest.mark.parametrize(
    ("run", "rows"),
    [
        ({"hidden_size": 64, "budget": "44823"}, ["50k"]),
        ({"hidden_size": 77, "cell": "gru", "budget": "45132"}, ["50k", "45132"]),
        ({"budget": "60000"}, ["60000"]),
        ({"hidden_size": 70, "budget": "50k"}, ["50697"]),  # named so by an older solver, say
        ({"cell": "gru", "layers": 3, "budget": "1300k"}, ["1300k"]),
    ],
    ids=str,
)
def test_a_run_counts_where_the_solver_puts_it(
    tmp_path: Path, run: dict[str, Any], rows: list[str]
) -> None:
    write_run(tmp_path, **run)
    (table,) = tables_of(tmp_path)
    assert list(table.rows) == rows or list(table.rows) == rows[::-1]
    assert len(table.cells) == len(rows)


def test_other_cells_of_a_numeric_budget_share_its_row(tmp_path: Path) -> None:
    write_run(tmp_path, budget="60000")
    write_run(tmp_path, cell="gru", layers=2, budget="60000")
    (table,) = tables_of(tmp_path)
    assert set(table.cells) == {("60000", "lstm", 1), ("60000", "gru", 2)}


def test_dropout_is_chosen_by_validation(tmp_path: Path) -> None:
    # On validation 0.2 wins over the mean of its seeds; on test 0 would.
    for dropout, seed, val, test in [
        (0.0, 0, 1.40, 1.30),
        (0.0, 1, 1.50, 1.30),
        (0.2, 0, 1.44, 1.41),
        (0.2, 1, 1.44, 1.43),
        (0.5, 0, 1.60, 1.20),
    ]:
        write_run(tmp_path, test, dropout=dropout, seed=seed, val_nats_per_char=val)
    write_run(tmp_path, 1.6, cell="gru")
    (table,) = tables_of(tmp_path)
    cell = table.cells["50k", "lstm", 1]
    assert (cell.dropout, cell.dropout_candidates) == (0.2, [0.0, 0.2, 0.5])
    assert cell.test_nats == pytest.approx(1.42)
    make_report(tmp_path)
    text = (tmp_path / "report" / "table_nats.md").read_text()
    assert "Dropout chosen by validation loss: LSTM 1 at 50k: 0.2 of 0, 0.2, 0.5." in text


def test_diverged_shows_only_where_nothing_is_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path, None, cell="rnn")
    write_run(tmp_path, None, seed=1)
    write_run(tmp_path, 1.5)
    make_report(tmp_path)
    out = capsys.readouterr().out
    assert next(line for line in out.splitlines() if line.startswith("50k")).split()[2:] == (
        ["*1.500", "—", "—", "diverged", "—", "—", "—", "—", "—"]
    )
    assert "Diverged runs: LSTM 1 at 50k: 1; RNN 1 at 50k: 1." in out
    cells = pd.read_csv(tmp_path / "report" / "cells.csv")
    assert list(cells["status"]) == ["done", "diverged"]


@pytest.mark.parametrize(
    ("run", "said"),
    [
        ({"epochs": 3}, "not how well they end"),
        ({"epochs": 3}, "not at the paper's settings"),
        (
            {"dataset": "lk", "corpus_note": "stand-in: Linux 4.1"},
            "Text: stand-in: Linux 4.1. The stand-in has another file order",
        ),
        ({"dataset": "lk"}, "0.889 nats (n = 20"),
    ],
    ids=str,
)
def test_notes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], run: dict[str, Any], said: str
) -> None:
    write_run(tmp_path, **run)
    make_report(tmp_path)
    assert said in " ".join(capsys.readouterr().out.split())


# Against the paper.


def test_the_papers_cells() -> None:
    figures = table1()
    assert len(figures) == 66
    assert figures["wp", "50k", "lstm", 1] == 1.449
    assert figures["lk", "1300k", "gru", 3] == 0.829
    assert ("wp", "1300k", "rnn", 1) not in figures


@pytest.mark.parametrize(
    "run", [{"layout": "contiguous"}, {"dataset": "mine"}, {"budget": "60000"}], ids=str
)
def test_the_paper_is_shown_only_where_it_has_the_cell(tmp_path: Path, run: dict[str, Any]) -> None:
    write_run(tmp_path, **run)
    assert only_cell(tmp_path).paper_nats is None
    make_report(tmp_path)
    assert "paper" not in (tmp_path / "report" / "table_nats.csv").read_text()
    assert len((tmp_path / "report" / "against_paper.csv").read_text().splitlines()) == 1


@pytest.mark.parametrize(
    ("a", "b", "correlation"),
    [
        ([1, 2, 3, 4, 5], [2, 1, 4, 3, 5], 0.8),  # 1 - 6·4 / (5·24)
        ([1, 2, 3, 4], [4, 3, 2, 1], -1.0),
        ([1, 2, 2, 4], [1, 2, 3, 4], 0.948683),  # ties at 2.5: 4.5 / sqrt(4.5·5)
        ([1, 2], [1, 2], None),
        ([1, 1, 1], [1, 2, 3], None),
    ],
)
def test_spearman(a: list[float], b: list[float], correlation: float | None) -> None:
    found = spearman(pd.Series(a, dtype=float), pd.Series(b, dtype=float))
    assert found == (correlation if correlation is None else pytest.approx(correlation, abs=1e-6))


def test_summary_against_the_paper(tmp_path: Path) -> None:
    write_run(tmp_path, 1.449 + 0.01)
    write_run(tmp_path, 1.398 - 0.03, cell="gru")
    write_run(tmp_path, 1.446, cell="rnn")
    write_run(tmp_path, 0.9, budget="1300k", cell="rnn")  # the paper has none
    write_run(tmp_path, 1.355 + 0.08, dataset="lk")
    write_run(tmp_path, 3.0, epochs=3)
    lines = {line.of: line for line in compare(tables_of(tmp_path))}
    wp, both = lines["wp, 50 epochs"], lines["both corpora, 50 epochs"]
    assert (wp.num_cells, wp.num_cells_paper, wp.spearman) == (3, 33, 1.0)
    assert wp.mean_absolute_difference == pytest.approx(0.04 / 3)
    assert wp.mean_difference == pytest.approx(-0.02 / 3)
    assert (both.num_cells, both.num_cells_paper) == (4, 66)
    assert both.mean_absolute_difference == pytest.approx(0.12 / 4)
    assert lines["both corpora, 3 epochs"].num_cells == 1


# Filters.


@pytest.mark.parametrize(
    ("axes", "kept"),
    [
        ({}, 7),
        ({"dataset": "wp"}, 4),
        ({"dataset": "text"}, 2),
        ({"dataset": "text,pydocs"}, 3),
        ({"dataset": "text", "dataset__name": "mine"}, 1),
        ({"dataset": "text", "dataset__path": "some/where/your text.txt"}, 1),
        ({"dataset": "wp,text", "dataset__name": "mine"}, 5),
        ({"dataset": "wp", "dataset__path": "a/file.txt"}, 4),  # the paper's corpus, wherever
        ({"dataset": "wp", "cell": "lstm,gru"}, 3),
        ({"layers": "2"}, 1),
        ({"budget": "130k"}, 1),
        ({"budget": "60_000"}, 1),
        ({"seed": "1"}, 1),
        ({"dropout": "0.10"}, 1),
        ({"dataset": "wp", "budget": "50k", "layers": "1", "seed": "0"}, 1),
        ({"dataset": "nothing"}, 0),
    ],
    ids=str,
)
def test_filters(tmp_path: Path, axes: dict[str, str], kept: int) -> None:
    write_run(tmp_path)
    write_run(tmp_path, cell="gru", seed=1)
    write_run(tmp_path, cell="rnn", layers=2)
    write_run(tmp_path, budget="130k", dropout=0.1)
    write_run(tmp_path, dataset="pydocs")
    write_run(tmp_path, dataset="mine", budget="60000")
    write_run(tmp_path, dataset="your-text")
    assert sum(len(table.cells) for table in tables_of(tmp_path, **axes)) == kept


def test_a_filter_that_is_no_number() -> None:
    with pytest.raises(UserError, match="layers=two: not a number"):
        Filters({"layers": {"two"}})


def test_the_command(charcmp: Charcmp, small_grid: Path) -> None:
    write_run(small_grid, 1.9, dataset="my-text", layout="contiguous")
    where = f"results_dir={small_grid}"
    done = charcmp("report", where, "dataset=wp", "cell=lstm,gru", "layers=1", "budget=50k")
    assert done.returncode == 0, done.stderr
    cells = list(csv.DictReader((small_grid / "report" / "cells.csv").open()))
    assert [(cell["cell"], cell["layers"]) for cell in cells] == [("lstm", "1"), ("gru", "1")]
    assert "1.300" not in done.stdout
    done = charcmp("report", where, "dataset=text", "dataset.path=no/such/my text.txt", "clip=1")
    assert done.stdout.startswith("my-text, contiguous, 50 epochs")
    assert "clip=1 does not narrow a report" in done.stderr
    done = charcmp("report", where, "layers=7")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "none of the 5 finished runs is one of layers=7" in done.stderr


# What can be wrong.


def break_json(folder: Path) -> None:
    text = (folder / "result.json").read_text()
    (folder / "result.json").write_text(text[:100])


def put_nan(folder: Path) -> None:
    result = json.loads((folder / "result.json").read_text())
    (folder / "result.json").write_text(json.dumps(result | {"test_nats_per_char": math.nan}))


def drop_key(folder: Path) -> None:
    result = json.loads((folder / "result.json").read_text())
    del result["identity"]
    (folder / "result.json").write_text(json.dumps(result))


def unknown_cell(folder: Path) -> None:
    result = json.loads((folder / "result.json").read_text())
    (folder / "result.json").write_text(json.dumps(result | {"cell": "transformer"}))


def copy_run(folder: Path) -> None:
    (folder.with_name("copy")).mkdir()
    (folder.with_name("copy") / "result.json").write_bytes((folder / "result.json").read_bytes())


@pytest.mark.parametrize(
    ("damage", "file"),
    [
        (break_json, "result.json: not valid JSON"),
        (put_nan, "result.json: test_nats_per_char is nan"),
        (drop_key, "result.json: without identity"),
        (unknown_cell, "result.json: cell 'transformer'"),
        (copy_run, "the same run as"),
    ],
)
def test_a_bad_result_is_named_and_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: Any, file: str
) -> None:
    write_run(tmp_path, 1.5)
    damage(write_run(tmp_path, 1.2, cell="gru", nll=losses()))
    (tmp_path / "runs" / "still-training").mkdir()
    make_report(tmp_path)
    out, err = capsys.readouterr()
    assert err.count("\n") == 1
    assert file in err
    assert "runs without a result yet: 1" in out
    assert "named on stderr: 1" in out
    assert ("1.200" in out) == (damage is copy_run)


@pytest.mark.parametrize("name", ["test_nll.npy", "test_blocks.npz"])
@pytest.mark.parametrize("kind", ["truncated", "short", "empty", "not finite"])
def test_bad_losses_cost_only_the_sds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, kind: str
) -> None:
    file = write_run(tmp_path, 1.234, nll=losses()) / name
    nll = losses(num_chars=NUM_TEST_CHARS - (10_000 if kind == "short" else 0))
    if kind == "not finite":
        nll[7] = np.nan
    if name == "test_nll.npy":
        np.save(file, nll)
    else:
        file.with_name("test_nll.npy").unlink()
        file.write_bytes(pack(nll, 100, 100))
    if kind in ("truncated", "empty"):
        file.write_bytes(file.read_bytes()[: 5000 if kind == "truncated" else 0])
    make_report(tmp_path)
    out, err = capsys.readouterr()
    assert err.count("\n") == 1
    assert str(file) in err
    assert "*1.234" in out
    assert "SD, characters" not in out
    assert "named on stderr: 1" in out


def test_no_runs_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(make, "PUBLISHED", tmp_path / "none")
    with pytest.raises(UserError, match="no finished run; charcmp sweep") as error:
        make_report(tmp_path / "results")
    assert "\n" not in str(error.value)


# Published runs.


@pytest.fixture(scope="module")
def publish() -> ModuleType:
    script = Path(__file__).parents[1] / "scripts" / "publish.py"
    spec = importlib.util.spec_from_file_location("publish", script)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


COMMAND = (
    "charcmp train cell=lstm results_dir=/home/someone/r 'data_dir=/home/some one/d' "
    "dataset=wp dataset.path=/home/someone/wp.txt epochs=50"
)


def complete(folder: Path) -> None:
    """The other files that a training leaves in a run's folder."""
    (folder / "config.yaml").write_text(
        "# the-id\ndataset:\n  name: wp\n  path: /home/someone/wp.txt\nlayers: 1\n"
        "threads: 3\njobs: 2\nresults_dir: /home/someone/r\ndata_dir: /home/someone/d\n"
    )
    (folder / "environment.json").write_text(
        json.dumps({"torch": "2", "command": COMMAND, "earlier_starts": [{"command": COMMAND}]})
    )
    (folder / "history.json").write_text("[]\n")
    (folder / "checkpoint.pt").write_bytes(b"large")


def all_files(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


def test_publish_round_trip(publish: ModuleType, tmp_path: Path) -> None:
    results, to = tmp_path / "results", tmp_path / "paper"
    for cell in ("lstm", "gru"):
        for seed in (0, 1):
            nll = losses(1.5, seed=seed, num_chars=330_000)
            complete(write_run(results, 1.5, cell=cell, seed=seed, nll=nll, num_test_chars=330_000))
    write_run(results, None, cell="rnn", layers=3)  # diverged: not published
    (results / "runs" / "unfinished").mkdir()
    make_report(results, Filters({"cell": {"lstm", "gru"}}))
    assert publish.publish(results, to) == 0
    first = all_files(to)
    wanted = report_files(results)
    assert report_files(to).keys() == wanted.keys()
    assert report_files(to)["cells.csv"] == wanted["cells.csv"]
    assert b"0.00" in wanted["cells.csv"]  # with SDs
    runs = sorted((to / "runs").iterdir())
    assert len(runs) == 4
    for run in runs:
        assert {file.name for file in run.iterdir()} == {
            *("result.json", "config.yaml", "environment.json", "history.json", "test_blocks.npz")
        }
        assert sum(file.stat().st_size for file in run.iterdir()) < 100_000
        assert not any(b"someone" in file.read_bytes() for file in run.iterdir())
        assert (run / "config.yaml").read_text() == "# the-id\ndataset:\n  name: wp\nlayers: 1\n"
        environment = json.loads((run / "environment.json").read_text())
        left = "charcmp train cell=lstm dataset=wp epochs=50"
        assert environment["command"] == environment["earlier_starts"][0]["command"] == left
    assert publish.publish(results, to) == 0
    assert all_files(to) == first
    # What is published stays, whatever the next results folder holds.
    complete(write_run(tmp_path / "more", 1.3, layers=2, nll=losses(1.3)))
    assert publish.publish(tmp_path / "more", to) == 0
    assert {name for name in first if name.startswith("runs")} < set(all_files(to))


@pytest.mark.parametrize(
    "changed",
    [{"git_dirty": True}, {"git_dirty": None}, {"git_commit": None, "git_dirty": None}],
    ids=str,
)
def test_publish_refuses_what_no_commit_made(
    publish: ModuleType, tmp_path: Path, changed: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    complete(write_run(tmp_path, 1.5, nll=losses()))
    dirty = write_run(tmp_path, 1.4, cell="gru", nll=losses(), **changed)
    complete(dirty)
    to = tmp_path / "paper"
    assert publish.publish(tmp_path, to) == 1
    assert f"refused: {dirty.name}" in capsys.readouterr().out
    assert not (to / "runs" / dirty.name).exists()
    assert publish.publish(tmp_path, to, allow_dirty=True) == 0
    assert (to / "runs" / dirty.name / "result.json").exists()


def test_the_published_runs_stand_in_and_are_never_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    published = tmp_path / "results" / "paper"
    monkeypatch.setattr(make, "PUBLISHED", published)
    write_run(published, 1.333)
    before = all_files(published)
    make_report(tmp_path / "results")
    assert "these are the published ones" in capsys.readouterr().out
    assert (tmp_path / "results" / "report" / "cells.csv").is_file()
    for inside in (published, published / "runs"):
        with pytest.raises(UserError, match="published"):
            make_report(inside)
    assert all_files(published) == before
