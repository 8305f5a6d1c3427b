"""The figures and the page: what they show, the same each time, whatever a run is called."""

from __future__ import annotations

import json
import re
import sys
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from helpers.pages import GRID, NASTY
from helpers.runs import add_records, paired_losses, report_files, tables_of, write_grid, write_run

from charcmp.report.analysis.comparisons import Analysis, analyse
from charcmp.report.analysis.recommend import recommendations
from charcmp.report.figures.forest import forest_figures
from charcmp.report.figures.gap import gap_figures
from charcmp.report.figures.learning import learning_figures
from charcmp.report.figures.loss import loss_figures
from charcmp.report.figures.models import models_figures, perplexity_for
from charcmp.report.figures.ranking import NOT_COMPARED, TIERS, ranking_figures
from charcmp.report.figures.style import MANY_CELLS
from charcmp.report.make import make_report
from charcmp.report.writing.sections import ranking_rows

FIGURES = ("loss", "learning-50k", "differences-lstm-gru", "differences-rnn", "differences-layers",
           "gap", "tsne")  # fmt: skip


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Makes a full report of a small grid of three seeds."""
    results = tmp_path_factory.mktemp("results")
    for folder in write_grid(results, GRID):
        add_records(folder)
    make_report(results)
    return results


def texts_of(svg: bytes) -> list[str]:
    elements = ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")
    return ["".join(element.itertext()).strip() for element in elements]


def test_every_figure_is_there_in_both_forms(reported: Path) -> None:
    files = report_files(reported)
    assert {name for name in files if name.startswith("figures/")} == {
        f"figures/wp-50-epochs-{figure}.{suffix}" for figure in FIGURES for suffix in ("svg", "png")
    }
    for name, contents in files.items():
        assert len(contents) < 300_000
        if name.endswith(".png"):
            assert contents.startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("figure", "shown"),
    [
        ("loss", {"test loss (nats per character)", "1 layer", "2 layers", "45k", "the paper"}),
        ("learning-50k", {"loss (nats per character)", "epoch", "GRU, 2 layers", "best epoch"}),
        (
            "differences-rnn",
            {"LSTM 1 - RNN 1", "GRU 2 - RNN 2", "50k", "not significantly different"},
        ),
        ("gap", {"parameters per training character", "LSTM", "RNN", "GRU"}),
        ("tsne", {"t-SNE 1 (no unit)", "50k"}),
    ],
)
def test_what_the_figures_say(reported: Path, figure: str, shown: set[str]) -> None:
    svg = (reported / "report" / "figures" / f"wp-50-epochs-{figure}.svg").read_bytes()
    assert shown <= set(texts_of(svg))


def test_many_models_in_their_order(tmp_path: Path) -> None:
    """Tiers follow the planned comparisons; a model far off is at the edge; speeds are drawn."""
    levels = {
        "rnn": 1.40,
        "lstm": 1.45,
        "gru": 1.401,
        "lstm_peephole": 1.43,
        "lstm_softmax_gate": 2.9,
    }
    levels |= {f"Mine{number}": 1.46 + 0.001 * number for number in range(5)}
    origin = {"cell.origin": "mine 1", "cell.kind": "step", "cell.states": 1}
    write_run(tmp_path, None, cell="lstm_cascaded_gate")
    for number, (cell, nats) in enumerate(levels.items()):
        own = {"extra": origin, "hidden_size": 70, "num_params": 44_900} if "M" in cell else {}
        for seed in range(1 if cell == "Mine4" else 3):
            level = nats + 0.001 * (seed - 1)
            nll = paired_losses(level, seed + 100 * number)
            speed = 50_000 if cell == "lstm" else 25_000
            write_run(tmp_path, level, cell=cell, seed=seed, nll=nll, chars_per_second=speed, **own)
    (table,) = tables_of(tmp_path)
    analysis = analyse(table, 10)
    (drawn,) = ranking_figures(analysis, print)
    losses, speeds = drawn.figure.axes
    order = [label.get_text() for label in losses.get_yticklabels()]
    assert order[:4] == ["RNN 1", "GRU 1", "LSTM, peepholes 1", "LSTM 1"]
    assert order[-1] == "LSTM, softmax gates 1"
    assert [text.get_text() for text in losses.texts] == ["2.900 \N{RIGHTWARDS ARROW}"]
    dots = {line.get_ydata()[0]: line for line in losses.lines if line.get_marker() == "o"}
    colours = [TIERS[number][0] for number in (0, 0, 1, 2, 3)]
    assert [dots[y].get_color() for y in range(5)] == colours
    with_one_seed = order.index("Mine4 1")
    assert dots[with_one_seed].get_markerfacecolor() == "white"
    lines = {line.get_ydata()[0] for line in losses.lines if line.get_marker() == "None"}
    assert {*range(1, len(order) - 1)} - lines == {with_one_seed}  # the last is beyond the edge
    assert "their SD over seeds is 0.001 in the median, 0.001 at most." in drawn.caption
    detectable = float(re.search(r"is (0\.\d+) nats behind the best", drawn.caption)[1])
    assert detectable == pytest.approx(analysis.detectable_from_best("50k"), abs=0.001)
    assert 0.004 < detectable < 0.02  # three seeds with an SD of 0.001 each, nine comparisons
    assert {round(bar.get_width(), 3) for bar in speeds.patches} == {0.5, 1.0}
    assert "LSTM 1 read 50,000 characters a second." in drawn.caption
    assert "Diverged, and not shown: LSTM, cascaded gates 1." in drawn.caption
    rows = ranking_rows(analysis, "50k")
    assert [row["model"] for row in rows] == order
    from_lstm = {row["model"]: row["from the LSTM (95 % interval)"] for row in rows}
    assert from_lstm["LSTM 1"] == ""
    assert re.match(r"-0\.0\d+ \(-0\.0\d+ to -0\.0\d+\)", from_lstm["RNN 1"])
    assert re.match(r"\+1\.4\d+ \(", from_lstm["LSTM, softmax gates 1"])
    assert {row["characters/s"] for row in rows} == {"25,000", "50,000"}


def test_a_speed_that_is_not_known(tmp_path: Path) -> None:
    """A run whose last start did little has a speed of 0, by which nothing may be divided."""
    for number in range(10):
        extra = {"cell.forget_bias": float(number)}
        write_run(tmp_path, 1.5, extra=extra, chars_per_second=1000 * number)
    (table,) = tables_of(tmp_path)
    analysis = analyse(table, 10)
    (drawn,) = ranking_figures(analysis, print)
    widths = sorted(round(bar.get_width(), 3) for bar in drawn.figure.axes[1].patches)
    assert widths[0] == 0
    assert 1.0 in widths
    assert all("nan" not in found.text() for found in recommendations([analysis]))


def test_models_without_an_interval_are_not_called_worse(tmp_path: Path) -> None:
    for number in range(10):
        for seed in range(2):
            extra = {"cell.forget_bias": float(number)}
            write_run(tmp_path, 1.5 + 0.1 * number, seed=seed, extra=extra)
    (table,) = tables_of(tmp_path)
    (drawn,) = ranking_figures(analyse(table, 10), print)
    (legend,) = drawn.figure.legends
    labels = [text.get_text() for text in legend.get_texts()]
    assert labels == ["not significantly worse than the best", TIERS[NOT_COMPARED][1]]


def test_as_many_cells_as_have_a_colour_find_room_in_every_figure(tmp_path: Path, recwarn) -> None:
    """All their points are on the axes, and a long legend does not squeeze them out."""
    for number in range(MANY_CELLS):
        add_records(write_run(tmp_path, 1.5, extra={"cell.forget_bias": float(number)}))
    (table,) = tables_of(tmp_path)
    for draw in (loss_figures, gap_figures):
        (drawn,) = draw(analyse(table, 10), print)
        drawn.figure.canvas.draw()
        (panel,) = drawn.figure.axes
        low, high = panel.get_xlim()
        points = [x for line in panel.lines if line.get_gid() for x in line.get_xdata()]
        assert len(points) == MANY_CELLS
        assert all(low < x < high for x in points)
        assert panel.get_position().height > 0.1
    assert not [one for one in recwarn if "constrained_layout" in str(one.message)]


def test_more_cells_than_colours_are_shown_in_order_alone(tmp_path: Path) -> None:
    """No figure has a colour for each; learning curves are of the best; differences are sorted."""
    for number in range(MANY_CELLS + 3):
        level = 1.5 + 0.01 * ((7 * number) % (MANY_CELLS + 3))
        nll = paired_losses(level, number)
        folder = write_run(tmp_path, level, extra={"cell.forget_bias": float(number)}, nll=nll)
        add_records(folder)
    write_run(tmp_path, 1.4, nll=paired_losses(1.4, 99))
    (table,) = tables_of(tmp_path)
    analysis = analyse(table, 10)
    for draw in (loss_figures, gap_figures, models_figures):
        assert not [*draw(analysis, print)]
    (learning,) = learning_figures(analysis, print)
    panels = [panel for panel in learning.figure.axes if panel.lines]
    assert len(panels) == MANY_CELLS - 1  # of the twelve, the last one written has no history
    assert f"The {MANY_CELLS} models with the lowest validation loss." in learning.caption
    (variants,) = forest_figures(analysis, print)
    values = [line.get_xdata()[0] for line in variants.figure.axes[0].lines
              if line.get_marker() == "o"]  # fmt: skip
    assert values == sorted(values)
    assert len(values) == MANY_CELLS + 3


def test_a_model_that_does_not_learn_squeezes_no_figure(tmp_path: Path) -> None:
    """As GRU 3 of 1.3M parameters on War and Peace."""
    nats = {("lstm", 1): 1.45, ("lstm", 2): 1.42, ("gru", 1): 1.4, ("gru", 2): 3.163,
            ("rnn", 1): 1.47, ("rnn", 2): 1.43}  # fmt: skip
    for (cell, layers), loss in nats.items():
        nll = np.random.default_rng(layers).normal(loss, 0.1, 3_300)
        write_run(tmp_path, loss, cell=cell, layers=layers, nll=nll.astype(np.float32))
    (table,) = tables_of(tmp_path)
    analysis = analyse(table, 10)
    (loss_drawn,) = loss_figures(analysis, print)
    one_layer, two_layers = loss_drawn.figure.axes
    assert one_layer.get_ylim()[1] < 1.7
    assert not one_layer.texts
    assert [text.get_text() for text in two_layers.texts] == ["3.16 ↑"]
    assert "Arrows" in loss_drawn.caption
    (of_layers,) = [one for one in forest_figures(analysis, print) if "layers" in one.name]
    (panel,) = of_layers.figure.axes
    assert max(map(abs, panel.get_xlim())) < 0.5
    assert [text.get_text() for text in panel.texts] == ["+1.763 →"]


def test_a_report_made_twice_is_the_same(reported: Path) -> None:
    before = report_files(reported)
    make_report(reported)
    assert report_files(reported) == before


def test_more_parameters_than_characters_is_a_warning(tmp_path: Path) -> None:
    add_records(write_run(tmp_path, 1.4), num_chars=40_000)
    make_report(tmp_path, formats=["html"])
    page = (tmp_path / "report" / "report.html").read_text()
    assert "WARNING: more parameters than training characters (shaded): LSTM 1 at 50k." in page


@pytest.mark.parametrize(("models", "perplexity"), [(5, 1), (9, 2), (36, 11), (1000, 30)])
def test_the_perplexity_is_below_the_number_of_models(models: int, perplexity: int) -> None:
    assert perplexity_for(models) == perplexity < models


def test_what_is_left_out_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_run(tmp_path, 1.4)
    (folder / "history.json").write_text("[{]")
    make_report(tmp_path, formats=["svg"])
    out, err = capsys.readouterr()
    assert "history.json: not valid JSON" in err
    assert "shown without its learning curve" in err
    assert "no environment.json gives the training text's length" in out
    assert "no t-SNE: it needs at least 5 runs, there are 0" in out


def test_without_scikit_learn_a_line_says_so(
    reported: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    (table,) = tables_of(reported)
    assert list(models_figures(Analysis(table), print)) == []
    assert (
        "no t-SNE: it needs scikit-learn (pip install 'charcmp[tsne]')" in capsys.readouterr().out
    )


class Page(HTMLParser):
    """Tags, addresses and texts of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.ids: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "xlink:href", "action"):
                self.addresses.append(value or "")
            if name == "id":
                self.ids.append(value or "")


def test_the_page_holds_everything_itself(reported: Path) -> None:
    text = (reported / "report" / "report.html").read_text()
    page = Page(text)
    assert page.tags.count("svg") == len(FIGURES)
    assert all(address.startswith(("#", "data:,")) for address in page.addresses)
    assert "@import" not in text
    assert len(page.ids) == len(set(page.ids))
    runs = json.loads(re.search(r'id="runs-data">(.*?)</script>', text, re.DOTALL)[1])
    assert len(runs) == 18
    assert all(run["command"].startswith("charcmp train cell=") for run in runs.values())
    assert text.count("data-runs=") > 18
    shown = ("Which model to use", "undecided", "the model with the lowest mean", "perplexity 5")
    assert all(part in text for part in shown)


def test_names_are_escaped(tmp_path: Path) -> None:
    for number in (0, 1):
        folder = write_run(tmp_path, 1.4 + number, seed=number)
        result = json.loads((folder / "result.json").read_text())
        result["corpus_note"] = NASTY
        result["identity"] |= {"cell.option": NASTY, "other": NASTY}
        (folder / "result.json").write_text(json.dumps(result))
        add_records(folder)
        (folder / "environment.json").write_text(json.dumps({"command": NASTY}))
    make_report(tmp_path, formats=["svg", "html"])
    text = (tmp_path / "report" / "report.html").read_text()
    assert "<img" not in text
    assert Page(text).tags.count("script") == 2
    assert "img" not in Page(text).tags
    svg = (tmp_path / "report" / "figures").glob("*-loss.svg")
    assert any(NASTY in label for label in texts_of(next(svg).read_bytes()))


def test_figures_need_no_losses(tmp_path: Path) -> None:
    """The results are partial: no losses are kept, and one model diverged."""
    write_run(tmp_path, 1.4)
    write_run(tmp_path, None, cell="gru")
    make_report(tmp_path, formats=["html"])
    page = (tmp_path / "report" / "report.html").read_text()
    assert "diverged" in page
    assert "No finished run yet: LSTM 2 at 50k" in page
