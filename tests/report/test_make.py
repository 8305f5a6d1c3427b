"""The report's files and what it prints; it names what is wrong in a folder of runs."""

from __future__ import annotations

import itertools
import json
import math
import os
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers.console import in_turn
from helpers.runs import NUM_TEST_CHARS, add_records, losses, report_texts, write_run

from charcmp.errors import UserError
from charcmp.report import make
from charcmp.report.load import epochs_read, load_runs, num_train_chars_of, num_updates_of
from charcmp.report.make import make_report
from charcmp.uncertainty.losses import pack

# What is printed and written.


def test_the_printed_table(small_grid: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report_texts(small_grid)
    lines = capsys.readouterr().out.splitlines()
    assert lines[:5] == [
        "Which model to use, by validation loss (test nats per character; certainty)",
        "wp, 50 epochs",
        "  50k: GRU, 1 layer, 1.400; certainty unknown (one seed)",
        "  130k: GRU, 3 layers, 1.300; the only model at this budget in this block",
        "",
    ]
    assert lines[5].startswith("wp, 50 epochs: test nats per character; nothing is bold, as")
    del lines[:8]  # the rest of the caption
    assert lines[0].split() == [c for c in ("LSTM", "RNN") for _ in range(3)]
    assert lines[1].split() == ["budget", *"123" * 2]
    assert lines[3].split() == ["50k", "test", "1.450", "—", "—", "—", "1.445", "—"]
    assert lines[4].split() == ["paper", "1.449", "1.442", "1.540", "1.446", "1.401", "1.396"]
    assert lines[5].split() == ["difference", "+0.001", "+0.044"]
    assert [line.split()[:2] for line in lines[6:8]] == [["SD,", "characters"], ["SD,", "blocks"]]
    assert lines[8].split() == ["seeds", "1", "1"]
    assert lines[10].split() == ["130k", "test", "—", "—", "—", "—", "—", "—"]
    assert ["GRU"] * 3 in [line.split() for line in lines]
    assert [line.split() for line in lines if "k  " in line and " test " in line][2:] == [
        ["50k", "test", "1.400", "—", "—"],
        ["130k", "test", "—", "—", "1.300"],
    ]
    assert max(len(line) for line in lines if "written to" not in line) <= 80
    text = " ".join(" ".join(lines).split())
    assert "No finished run yet: LSTM 2 at 50k" in text
    assert "Which model to use, and what it costs wp, 50 epochs. At 50k use GRU, 1 layer" in text
    assert "One seed per model" in text
    assert "not re-read from the PDF" in text
    assert "as long as each series' dependence asks for" in text


def test_what_is_printed_unless_all_is_asked_for(
    small_grid: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By default: the model to use, the tables with the notes they must have, where the rest is."""
    make_report(small_grid, formats=["md"])
    short = capsys.readouterr().out
    report_texts(small_grid)
    full = capsys.readouterr().out
    assert short.startswith("Which model to use, by validation loss")
    for said in ("50k       test             1.450", "not re-read from the PDF", "50k = 44,823"):
        assert said in short
        assert said in full
    for said in ("The paper's claims", "Against the paper", "One seed per model", "At 50k use"):
        assert said not in short
        assert said in full
    *_, where, more = short.splitlines()
    assert where == f"written to {small_grid}/report: 4 files; begin with statistics.md"
    assert more == "charcmp report --full prints statistics, baselines, claims and notes as well"


CERTAINTIES = {
    "a clear winner": ({"gru": 1.40, "lstm": 1.47, "rnn": 1.50}, 3, "better than the other 2"),
    "a tie": ({"gru": 1.40, "lstm": 1.4004, "rnn": 1.47}, 3, "no significant difference to LSTM 1"),
    "two models": ({"gru": 1.40, "lstm": 1.47}, 3, "significantly better than LSTM 1"),
    "one seed": ({"gru": 1.40, "lstm": 1.47}, 1, "certainty unknown (one seed)"),
    "alone": ({"gru": 1.40}, 3, "the only model at this budget in this block"),
}


@pytest.mark.parametrize(
    ("nats", "num_seeds", "certainty"), CERTAINTIES.values(), ids=list(CERTAINTIES)
)
def test_how_sure_the_choice_is(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    nats: dict[str, float],
    num_seeds: int,
    certainty: str,
) -> None:
    for cell, mean in nats.items():
        for seed in range(num_seeds):
            own = mean + 0.001 * seed
            write_run(tmp_path, own, cell=cell, seed=seed, nll=losses(own, seed=seed))
    make_report(tmp_path, formats=["csv"])
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "50k: GRU" in line]
    assert line.startswith("  50k: GRU, 1 layer, 1.40")
    assert line.endswith(certainty)


def test_the_files(small_grid: Path) -> None:
    report_texts(small_grid)
    report = small_grid / "report"
    rows = [[text.strip() for text in line.strip("|").split("|")]
            for line in (report / "table_perplexity.md").read_text().splitlines()
            if line.startswith("|")]  # fmt: skip
    assert rows[0] == ["budget", "", *(f"{c} {n}" for c in ("LSTM", "RNN", "GRU") for n in "123")]
    assert rows[2] == ["50k", "test", "4.263", "—", "—", "—", "4.240", "—", "4.057", "—", "—"]
    assert rows[4][2] == f"{math.exp(1.45) - math.exp(1.449):+.3f}"
    bits = (report / "table_bits.tex").read_text()
    assert r"\multicolumn{3}{c}{LSTM} & \multicolumn{3}{c}{RNN} & \multicolumn{3}{c}{GRU}" in bits
    assert rf"50k & test & {1.45 / math.log(2):.3f} & --- & --- & --- & 2.084 & ---" in bits
    assert f"{1.4004 / math.log(2):.3f}" in bits
    assert "textbf" not in bits
    assert all(rule in bits for rule in (r"\toprule", r"\midrule", r"\bottomrule"))
    assert r"Fei-Fei 2015, Tables 1 and 2" in bits
    assert r"Johnson \& Fei-Fei" in bits
    wide = pd.read_csv(report / "table_nats.csv")
    assert wide.loc[0, "lstm 1"] == 1.45
    assert pd.isna(wide.loc[0, "lstm 2"])
    entries = pd.read_csv(report / "entries.csv").set_index(["budget", "cell", "layers"])
    assert list(entries["num_seeds"]) == [1, 1, 1, 1]
    lstm = entries.loc["50k", "lstm", 1]
    assert lstm["difference"] == pytest.approx(0.001)
    assert lstm["test_perplexity"] == pytest.approx(math.exp(1.45), abs=1e-6)
    assert lstm["deviation_percent"] == 0
    assert not any(file.name.startswith(".") for file in report.iterdir())


@pytest.mark.long
def test_a_report_needs_no_torch_and_its_tables_no_matplotlib(small_grid: Path) -> None:
    line = ["report", f"results_dir={small_grid}"]
    tables, whole = in_turn([*line, "--format", "csv,md,tex"], line, cwd=small_grid)
    assert not {"torch", "matplotlib", "sklearn"} & tables.loaded
    assert "torch" not in whole.loaded
    assert "matplotlib" in whole.loaded


def test_a_thousand_runs_in_seconds(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(8):
        np.save(tmp_path / f"{number}.npy", losses(1.4, num_chars=330_000, seed=number))
    grid = itertools.product(
        ("wp", "lk"), ("50k", "130k", "400k", "1300k"), ("lstm", "gru", "rnn"), (1, 2, 3), range(14)
    )
    for number, (dataset, budget, cell, layers, seed) in enumerate(grid):
        model = {"dataset": dataset, "budget": budget, "cell": cell, "layers": layers}
        nats = 1.4 + 0.01 * rng.standard_normal()
        folder = write_run(tmp_path, nats, seed=seed, num_test_chars=330_000, **model)
        os.link(tmp_path / f"{number % 8}.npy", folder / "test_nll.npy")
    assert number > 1000
    start = time.process_time()  # of this process only: others may be busy
    report_texts(tmp_path)
    assert time.process_time() - start < 15


def test_many_columns_are_printed_in_parts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nlls = [losses(1.4), losses(1.4)]
    for cell in ("lstm", "rnn", "gru", "gru_reset_after"):
        for layers in (1, 2, 3):
            for seed, nll in enumerate(nlls):
                model = {"cell": cell, "layers": layers, "budget": "130k", "dataset": "lk"}
                write_run(tmp_path, 1.4, seed=seed, nll=nll, **model)
    report_texts(tmp_path)
    out = capsys.readouterr().out
    assert max(len(line) for line in out.splitlines() if "written to" not in line) <= 80
    assert out.count("130k      test") == 2
    assert out.count("*1.400") == 12  # equal models are all the best


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
    result["cell"] = result["identity"]["cell.name"] = "transformer"
    (folder / "result.json").write_text(json.dumps(result))


def other_schema(folder: Path) -> None:
    result = json.loads((folder / "result.json").read_text())
    (folder / "result.json").write_text(json.dumps(result | {"schema_version": 2}))


def text_for_a_number(folder: Path) -> None:
    result = json.loads((folder / "result.json").read_text())
    (folder / "result.json").write_text(json.dumps(result | {"hidden_size": "64"}))


def copy_run(folder: Path) -> None:
    (folder.with_name("copy")).mkdir()
    (folder.with_name("copy") / "result.json").write_bytes((folder / "result.json").read_bytes())


@pytest.mark.parametrize(
    ("damage", "file"),
    [
        (break_json, "result.json: not valid JSON"),
        (put_nan, "result.json: not valid JSON"),
        (drop_key, "result.json: without identity"),
        (unknown_cell, "result.json: unknown cell 'transformer'"),
        (other_schema, "schema version 2, but only 1 can be read"),
        (text_for_a_number, "result.json: hidden_size: Expected int, got str"),
        (copy_run, "the same run as"),
    ],
)
def test_a_bad_result_is_named_and_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: Any, file: str
) -> None:
    write_run(tmp_path, 1.5)
    damage(write_run(tmp_path, 1.2, cell="gru", nll=losses()))
    (tmp_path / "runs" / "still-training").mkdir()
    report_texts(tmp_path)
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
    report_texts(tmp_path)
    out, err = capsys.readouterr()
    assert err.count("\n") == 1
    assert str(file) in err
    assert "1.234" in out
    assert "SD, characters" not in out
    assert "named on stderr: 1" in out


def test_no_runs_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(make, "PUBLISHED", tmp_path / "none")
    with pytest.raises(UserError, match="no finished run; charcmp sweep") as error:
        make_report(tmp_path / "results")
    assert "\n" not in str(error.value)


def test_runs_of_a_gpu_are_marked(tmp_path: Path) -> None:
    write_run(tmp_path, device="cuda", verified=True)
    unverified = write_run(tmp_path, device="cuda", cell="gru")
    write_run(tmp_path, cell="rnn")
    report_texts(tmp_path)
    text = " ".join((tmp_path / "report" / "table_nats.md").read_text().split())
    assert "Verified runs of a GPU (docs/gpu.md): 1." in text
    assert f"Trained on a GPU and not verified: {unverified.name}." in text


def test_a_report_that_cannot_be_written_where_it_is_asked_for(small_grid: Path) -> None:
    (small_grid / "taken").touch()
    with pytest.raises(UserError, match=r"taken/report: cannot be written \(Not a directory\)"):
        make_report(small_grid, out=small_grid / "taken" / "report", formats=["csv"])


def test_no_files_of_an_earlier_report_stay(tmp_path: Path) -> None:
    fill = write_run(tmp_path, extra={"task": "fill", "fill_context": 50})
    write_run(tmp_path)
    make_report(tmp_path, formats=["csv", "md"])
    report = tmp_path / "report"
    mine = [report / name for name in ("mine.csv", "table_mine.csv", "figures/mine.svg")]
    mine[-1].parent.mkdir()
    for file in mine:
        file.touch()
    shutil.rmtree(fill)
    make_report(tmp_path, formats=["csv"])
    assert {file.name for file in report.glob("fill_in.*")} == {"fill_in.md"}  # not asked for
    assert all(file.exists() for file in mine)
    make_report(tmp_path, formats=["md"])
    assert not (report / "fill_in.md").exists()
    assert (report / "entries.csv").exists()


def test_the_characters_that_an_epoch_reads(tmp_path: Path) -> None:
    """An epoch reads all training text that fills updates, or the beginning that was asked for."""
    parts = [{}, {"updates_per_epoch": 7}, {"updates_per_epoch": 7, "train_batch_size": 50},
             {"updates_per_epoch": 999}]  # fmt: skip
    for seed, extra in enumerate(parts):
        add_records(write_run(tmp_path, 1.4, seed=seed, extra=extra))
    runs = sorted(load_runs(tmp_path / "runs").runs, key=lambda run: run.seed)
    assert [num_train_chars_of(run) for run in runs] == [160_000, 70_000, 35_000, 160_000]
    assert [num_updates_of(run) for run in runs] == [50 * 16, 50 * 7, 50 * 7, 50 * 16]
    shares = [1, 7 / 16, 3.5 / 16, 1]
    assert [epochs_read(run) for run in runs] == pytest.approx([50 * share for share in shares])


@pytest.mark.parametrize(
    ("num_chars", "run", "said"),
    [
        (3_258_246, {}, None),  # War and Peace: 13,000 updates
        (800_000, {}, "With only 3,200 updates at one learning rate for all, the ranking shows"),
        (800_000, {"epochs": 3}, "Only 3 epochs. With so few epochs, the ranking shows"),
        # An epoch of 16 of its 64 updates is a quarter.
        (
            800_000,
            {"epochs": 12, "extra": {"updates_per_epoch": 16}},
            "Only 3 epochs of the whole text. With so few epochs, the ranking shows",
        ),
    ],
    ids=str,
)
def test_too_short_a_training_is_said(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    num_chars: int,
    run: dict[str, Any],
    said: str | None,
) -> None:
    add_records(write_run(tmp_path, 1.4, **run), num_chars=num_chars)
    make_report(tmp_path, formats=["csv"])
    out = " ".join(capsys.readouterr().out.split())
    assert ("the ranking shows how fast models learn" in out) == (said is not None)
    assert said is None or said in out


def test_few_updates_at_own_rates_are_no_fault(tmp_path: Path) -> None:
    for cell in ("lstm", "gru"):
        for rate in (0.003, 0.006):
            add_records(write_run(tmp_path, 1.4, cell=cell, extra={"optimizer.lr": rate}))
    report_texts(tmp_path)
    text = (tmp_path / "report" / "table_nats.md").read_text()
    assert "each at its own learning rate" in text
    assert "updates at one learning rate" not in text
