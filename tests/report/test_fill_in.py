"""The report keeps fill-in models apart from language models, in every format."""

from __future__ import annotations

import csv
import math
import shutil
from pathlib import Path

import pytest
from helpers.runs import (
    DRAWN_ONCE,
    TEXTS,
    add_records,
    losses,
    report_files,
    report_texts,
    tables_of,
    write_grid,
    write_run,
)

from charcmp.errors import UserError
from charcmp.report.filters import Filters
from charcmp.report.make import make_report
from charcmp.report.writing.fill_in import WHAT_IT_IS

FILL = {"task": "fill", "fill_context": 100}
FILL_FILES = {f"fill_in.{suffix}" for suffix in TEXTS}
LM = {("lstm", 1): 1.46, ("gru", 1): 1.44, ("rnn", 1): 1.50}


def write_fill(results: Path, nats: float | None = 0.9, **changed) -> Path:
    """Writes a fill-in run, better than any language model could be."""
    folder = write_run(results, nats, extra=changed.pop("extra", FILL), **changed)
    add_records(folder) if nats is not None else None
    return folder


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Writes language models, and fill-in models of the same cells, one of them diverged."""
    results = tmp_path_factory.mktemp("results")
    for folder in write_grid(results, LM, seeds=2):
        add_records(folder)
    for seed in (0, 1):
        write_fill(results, 0.9 + 0.02 * seed, seed=seed, nll=losses(0.9 + 0.02 * seed))
    write_fill(results, 0.8, cell="gru")
    write_fill(results, None, cell="rnn")
    make_report(results, formats=DRAWN_ONCE)
    return results


def test_nothing_of_a_language_models_report_moves(results: Path, tmp_path: Path) -> None:
    """Tables, statistics, verdicts and figures stay, byte by byte; the page gains a section."""
    for run in (results / "runs").iterdir():
        if "-fill-" not in run.name:
            shutil.copytree(run, tmp_path / "runs" / run.name)
    make_report(tmp_path, formats=DRAWN_ONCE)
    plain, both = report_files(tmp_path), report_files(results)
    assert both.keys() - plain.keys() == FILL_FILES
    assert not plain.keys() - both.keys()
    assert [name for name in plain if plain[name] != both[name]] == ["report.html"]
    page = both["report.html"].decode()
    before, _, fill = page.partition('<section id="fill-in">')
    assert "-fill-" not in before
    assert before.split("<main>")[1].rstrip() == (
        plain["report.html"].decode().split("<main>")[1].partition("</main>")[0].rstrip()
    )
    section, _, rest = fill.partition("</section>")
    assert WHAT_IT_IS in section
    assert '<span class="value">0.910</span><small>perplexity 2.484</small>' in section
    assert "diverged" in section
    for run in (results / "runs").glob("*-fill-*"):
        assert run.name in section  # hovering shows the run
        assert f'"{run.name}": {{' in rest


def test_the_table(results: Path) -> None:
    files = {name: text.decode() for name, text in report_files(results).items()
             if name in FILL_FILES}  # fmt: skip
    heading, *_ = files["fill_in.md"].splitlines()
    assert heading == f"### wp, fill-in, 50 epochs, fill_context=100: {WHAT_IT_IS}"
    lines = [[entry.strip() for entry in line.strip("|").split("|")]
             for line in files["fill_in.md"].splitlines() if line.startswith("|")]  # fmt: skip
    assert lines[0] == ["budget", "", "LSTM 1", "RNN 1", "GRU 1"]  # not the paper's nine
    by_label = {line[1]: line[2:] for line in lines[2:]}
    assert by_label["test"] == ["0.910", "diverged", "0.800"]
    assert by_label["perplexity"] == [f"{math.exp(0.91):.3f}", "", f"{math.exp(0.8):.3f}"]
    assert by_label["SD, seeds"] == [f"{0.02 / 2**0.5:.4f}", "", ""]
    assert by_label["seeds"] == ["2", "", "1"]
    assert "paper" not in files["fill_in.md"]
    assert "n-gram" not in files["fill_in.md"]
    assert "100 characters beyond the chunk's edge" in files["fill_in.md"]
    assert "0.910 & diverged & 0.800" in files["fill_in.tex"]
    assert WHAT_IT_IS in files["fill_in.tex"]
    lstm, _, gru = csv.DictReader(files["fill_in.csv"].splitlines())
    assert (lstm["cell"], lstm["num_seeds"], lstm["budget"]) == ("lstm", "2", "50k")
    assert float(gru["test_nats_per_char"]) == pytest.approx(0.8)
    assert float(gru["test_perplexity"]) == pytest.approx(math.exp(0.8), abs=1e-5)
    assert "difference" not in gru
    assert "paper_nats_per_char" not in gru


def test_the_terminal_shows_both(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report_texts(results)
    printed = capsys.readouterr().out
    language, _, fill = printed.partition("wp, fill-in, 50 epochs")
    assert "Which model to use" in language
    assert "0.910" not in language
    assert "0.910" in fill
    assert max(map(len, printed.splitlines()[:-1])) <= 80


@pytest.mark.parametrize("task", ["lm", "fill"])
def test_a_report_of_one_task(results: Path, tmp_path: Path, task: str) -> None:
    make_report(results, Filters({"task": {task}}), out=tmp_path / "report", formats=TEXTS)
    names = {file.name for file in (tmp_path / "report").iterdir()}
    if task == "fill":
        assert names == FILL_FILES
    else:
        assert "table_nats.md" in names
        assert not names & FILL_FILES
    with pytest.raises(UserError, match="matches task=both"):
        make_report(results, Filters({"task": {"both"}}), out=tmp_path, formats=TEXTS)


def test_a_folder_of_fill_in_models_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_fill(tmp_path)
    make_report(tmp_path, formats=DRAWN_ONCE)
    files = report_files(tmp_path)
    assert files.keys() == FILL_FILES | {"report.html"}
    page = files["report.html"].decode()
    assert '<section id="fill-in">' in page
    assert page.count("<section") == 1
    assert "Fill-in runs: 1, in a section of their own." in page
    assert "runs of" not in page.partition("</header>")[0]
    assert "Which model to use" not in capsys.readouterr().out


def test_other_contexts_stand_in_other_blocks(tmp_path: Path) -> None:
    write_fill(tmp_path)
    write_fill(tmp_path, 0.95, extra=FILL | {"fill_context": 10})
    write_run(tmp_path, 1.5)
    report_texts(tmp_path)
    shown = report_files(tmp_path)["fill_in.md"].decode()
    assert shown.count("### ") == 2
    assert "fill_context=10:" in shown
    (lm_table,) = tables_of(tmp_path)
    assert [entry.test_nats for entry in lm_table.entries.values()] == [1.5]
