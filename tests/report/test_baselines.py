"""Baselines in the report: those of a block's test text, and which models each is ahead of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from helpers.runs import NUM_TEST_CHARS, TEXTS, report_texts, write_run

from charcmp.report.make import make_report
from charcmp.runs.baselines import (
    VERSION,
    Baseline,
    Baselines,
    TestText,
    baselines_dir,
    baselines_file,
    write_baselines,
)

NGRAM = Baseline(name="n-gram, 8 characters of context", nats_per_char=1.30, size=3_365_762)
PRUNED = Baseline(name="n-gram, pruned", nats_per_char=1.42, size=44_823, budget=44_823)
ZLIB = Baseline(name="zlib", nats_per_char=2.12, note="refers back 32,768 characters at most")


def write(results_dir: Path, *found: Baseline, name: str = "wp", **changed: Any) -> Path:
    text: dict[str, Any] = {
        "corpus_sha256": f"{'wp':0<64}",
        "layout": "columns",
        "split": [80.0, 10.0, 10.0],
        "num_chars": NUM_TEST_CHARS,
        "batch_size": 100,
        "unroll_steps": 100,
    }
    test_text = TestText.from_settings(**text | changed)
    file = baselines_file(results_dir, name, test_text)
    baselines_dir(results_dir).mkdir(exist_ok=True)
    budgets = [one.budget for one in found if one.budget]
    write_baselines(
        file,
        Baselines(
            version=VERSION,
            dataset="wp",
            test_text=test_text,
            budgets=budgets,
            baselines=list(found),
        ),
    )
    return file


def shown(results_dir: Path) -> dict[str, str]:
    """Returns what each baseline is ahead of, from baselines.csv."""
    frame = pd.read_csv(results_dir / "report" / "baselines.csv", keep_default_na=False)
    return dict(zip(frame["baseline"], frame["ahead_of"], strict=True))


def test_beside_the_models(small_grid: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """50k: LSTM 1.450, GRU 1.4004, RNN 2 1.4446; 130k: GRU 3 1.300."""
    write(small_grid, NGRAM, PRUNED, ZLIB)
    write(small_grid, Baseline(name="another split", nats_per_char=1.0), split=[90.0, 5.0, 5.0])
    write(small_grid, Baseline(name="another batch", nats_per_char=1.0), batch_size=50)
    make_report(small_grid, formats=[*TEXTS, "html"], full=True)
    assert shown(small_grid) == {
        NGRAM.name: "50k: gru 1; 50k: rnn 2; 50k: lstm 1",
        PRUNED.name: "50k: rnn 2; 50k: lstm 1",
        "zlib": "",
    }
    statistics = (small_grid / "report" / "statistics.md").read_text()
    page = (small_grid / "report" / "report.html").read_text()
    printed = capsys.readouterr().out
    assert "50k: all 3 models; 130k:" in printed  # which goes on in the next line of its column
    for text in (statistics, page):
        assert "50k: all 3 models; 130k: none" in text
    for text in (statistics, page, printed):
        assert "3,365,762" in text
        assert "RNN 2, LSTM 1" in text
        assert "zlib: refers back 32,768 characters at most." in text
        assert "another split" not in text
        assert "another batch" not in text


def test_a_text_that_was_renamed_has_its_baselines_once(small_grid: Path) -> None:
    write(small_grid, NGRAM, ZLIB)
    write(small_grid, NGRAM, ZLIB, name="war-and-peace")
    report_texts(small_grid)
    assert pd.read_csv(small_grid / "report" / "baselines.csv")["baseline"].is_unique


def test_nothing_is_said_where_there_are_none(small_grid: Path) -> None:
    report_texts(small_grid)
    before = {file.name: file.read_bytes() for file in (small_grid / "report").iterdir()}
    assert "baselines.csv" not in before
    assert b"compressed training text" not in before["statistics.md"]
    write(small_grid, NGRAM, num_chars=NUM_TEST_CHARS + 1)
    report_texts(small_grid)
    assert before == {file.name: file.read_bytes() for file in (small_grid / "report").iterdir()}


def test_a_pruned_model_of_a_budget_that_has_no_row(tmp_path: Path) -> None:
    write_run(tmp_path, 1.3, budget="130k")
    write(tmp_path, NGRAM, PRUNED)
    report_texts(tmp_path)
    assert list(shown(tmp_path)) == [NGRAM.name]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"nats_per_char": 1.3,', '"nats_per_char": -1,'),
        ('"version": 1', '"version": 99'),
        ("n-gram, 8", "\\u001b[31m"),
        ("{", "["),
    ],
)
def test_a_corrupt_file_is_named_and_left_out(
    small_grid: Path, capsys: pytest.CaptureFixture[str], old: str, new: str
) -> None:
    file = write(small_grid, NGRAM)
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new, 1))
    report_texts(small_grid)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"charcmp: {file}: ")
    assert line.endswith("; left out")
    assert line.isprintable()
    assert not (small_grid / "report" / "baselines.csv").exists()
