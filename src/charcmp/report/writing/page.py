"""The report as one HTML page that opens from disk: it fetches nothing from anywhere."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from charcmp.output import counted
from charcmp.report.analysis.baselines import Standing
from charcmp.report.analysis.comparisons import FAMILIES, Analysis
from charcmp.report.analysis.findings import Findings
from charcmp.report.analysis.recommend import SAMPLING_NOTE
from charcmp.report.analysis.speed import rows_of_many
from charcmp.report.analysis.wording import cell_label
from charcmp.report.figures.pictures import Picture
from charcmp.report.figures.style import RUN_GID, has_many_cells
from charcmp.report.load import Run
from charcmp.report.tables import Column, Entry, Table
from charcmp.report.writing import fill_in
from charcmp.report.writing.layout import MEASURES, caption, column_label, general_notes, notes
from charcmp.report.writing.render import comparison_rows
from charcmp.report.writing.sections import (
    QUESTIONS,
    baseline_notes,
    baseline_rows,
    difference_row,
    distance_row,
    ranked_entries,
    ranking_rows,
)

TEMPLATE = Path(__file__).parent / "template"


def page(findings: Findings, pictures: Sequence[Picture]) -> str:
    """Returns the whole page; every text in it is escaped, whatever a run is called."""
    templates = environment(TEMPLATE)
    templates.filters["json"] = json.dumps
    analyses = findings.analyses
    shown = _shown_runs(analyses)
    tables = [*findings.tables, *findings.fill_tables]
    dataset_of = {table.heading: table.dataset for table in tables}
    datasets = list(dict.fromkeys(dataset_of.values()))
    tips, fill_tips = (
        {
            run.run_id: _tip(run)
            for table in some
            for entry in table.entries.values()
            for run in entry.runs
        }
        for some in (findings.tables, findings.fill_tables)
    )
    return templates.get_template("page.html").render(
        css=Markup((TEMPLATE / "page.css").read_text()),
        js=Markup((TEMPLATE / "page.js").read_text()),
        datasets=datasets,
        num_runs=len(tips),
        num_fill_runs=len(fill_tips),
        axes=_axes(tables, datasets),
        has_many_cells=any(map(has_many_cells, tables)),
        blocks=[_block(analysis, findings.baselines_of(analysis)) for analysis in analyses],
        general_notes=general_notes(findings.tables),
        against_paper=comparison_rows(findings.comparisons),
        claims=findings.claims,
        advice=[
            {"heading": recommendation.heading, "dataset": dataset_of[recommendation.heading],
             "budget": recommendation.row, "text": recommendation.text()}
            for recommendation in findings.advice
        ],
        sampling_note=SAMPLING_NOTE,
        pictures=[
            {"dataset": picture.dataset, "row": picture.row, "caption": picture.caption,
             "svg": inline(picture)}
            for picture in pictures
        ],
        questions=QUESTIONS,
        differences=[group for analysis in analyses for group in _differences(analysis)],
        runs=[_run_row(analysis, entry, run) for analysis, entry, run in shown],
        runs_json=_script_json(tips | fill_tips),
        fill_blocks=[_fill_block(table) for table in findings.fill_tables],
    )  # fmt: skip


def environment(folder: Path) -> Environment:
    """Returns the templates of a folder: texts are escaped, and every name used must be given."""
    return Environment(loader=FileSystemLoader(folder), autoescape=True, undefined=StrictUndefined)


def _script_json(value: Any) -> Markup:
    """Returns JSON that cannot end the script element it stands in."""
    return Markup(json.dumps(value, indent=0).replace("<", "\\u003c").replace("&", "\\u0026"))


def _shown_runs(analyses: Sequence[Analysis]) -> list[tuple[Analysis, Entry, Run]]:
    return [
        (analysis, entry, run)
        for analysis in analyses for entry in analysis.table.entries.values() for run in entry.runs
    ]  # fmt: skip


def _axes(
    tables: Sequence[Table], datasets: Sequence[str]
) -> list[tuple[str, list[tuple[str, str]]]]:
    """Returns what the filter offers: (axis, [(value, label)])."""
    budgets: dict[str, int] = {}
    columns: dict[str, None] = {}
    for table in tables:
        budgets |= table.rows
        columns |= dict.fromkeys(cell for cell, _ in table.columns)
    ordered = sorted(budgets, key=lambda name: budgets[name])
    return [
        ("dataset", [(name, name) for name in datasets]),
        ("budget", [(name, name) for name in ordered]),
        ("cell", [(cell, cell_label(cell)) for cell in columns]),
    ]


def _block(analysis: Analysis, placed: Sequence[Standing]) -> dict[str, Any]:
    table = analysis.table
    return _table(table, partial(_entry, analysis)) | {
        "caption": caption(analysis, MEASURES[0], "bold").removeprefix(f"{table.heading}: "),
        "notes": notes(analysis),
        "baselines": baseline_rows(placed),
        "baseline_notes": baseline_notes(placed),
    }


def _fill_block(table: Table) -> dict[str, Any]:
    return _table(table, partial(_fill_entry, table)) | {
        "caption": fill_in.WHAT_IT_IS,
        "notes": fill_in.notes(table),
        "baselines": [],
    }


def _table(table: Table, show: Callable[[str, Column], dict[str, Any]]) -> dict[str, Any]:
    return {
        "heading": table.heading,
        "dataset": table.dataset,
        "columns": [
            {"cell": column[0], "label": " ".join(column_label(column))} for column in table.columns
        ],
        "rows": [
            {
                "budget": row,
                "params": target,
                "entries": [show(row, column) for column in table.columns],
            }
            for row, target in table.rows.items()
        ],
    }


def _entry(analysis: Analysis, row: str, column: Column) -> dict[str, Any]:
    """Returns what one place of a block's table shows."""
    entry = analysis.table.entries.get((row, *column))
    shown = _place(entry, column)
    if entry is None or not entry.is_done:
        return shown
    lines = _seed_lines(entry)
    if entry.paper_nats is not None:
        difference = entry.test_nats - entry.paper_nats
        lines += [f"paper {entry.paper_nats:.3f}", f"({difference:+.3f})"]
    return shown | {"lines": lines, "best": entry in analysis.not_worse(row)}


def _fill_entry(table: Table, row: str, column: Column) -> dict[str, Any]:
    entry = table.entries.get((row, *column))
    shown = _place(entry, column)
    if entry is None or not entry.is_done:
        return shown
    return shown | {"lines": [f"perplexity {math.exp(entry.test_nats):.3f}", *_seed_lines(entry)]}


def _place(entry: Entry | None, column: Column) -> dict[str, Any]:
    """Returns an entry's loss, and the ids of its runs."""
    shown: dict[str, Any] = {
        "cell": column[0], "value": "", "text": "—", "lines": [], "runs": "", "best": False
    }  # fmt: skip
    if entry is None:
        return shown
    shown["runs"] = " ".join(entry.run_ids)
    if not entry.is_done:
        return shown | {"text": "diverged"}
    return shown | {"value": entry.test_nats, "text": f"{entry.test_nats:.3f}"}


def _seed_lines(entry: Entry) -> list[str]:
    lines = [counted(len(entry.seeds), "seed")]
    if entry.sd_over_seeds is not None:
        lines.append(f"SD {entry.sd_over_seeds:.4f}")
    return lines


def _differences(analysis: Analysis) -> list[dict[str, Any]]:
    """Returns the sortable tables of comparisons and of distances."""
    heading, dataset = analysis.table.heading, analysis.table.dataset
    groups: list[dict[str, Any]] = []
    for row in rows_of_many(analysis.table):
        ranked, lines = ranked_entries(analysis.table, row), ranking_rows(analysis, row)
        numbers = [{"test": entry.test_nats, "units": entry.hidden_size} for entry in ranked]
        groups.append({
            "title": f"{heading}: the models at {row} in order of test loss", "dataset": dataset,
            "labels": list(lines[0]),
            "rows": [
                {"budget": row, "cells": [entry.cell],
                 "entries": [(text, values.get(key)) for key, text in texts.items()]}
                for entry, texts, values in zip(ranked, lines, numbers, strict=True)
            ],
        })  # fmt: skip
    for family, title in FAMILIES.items():
        rows = []
        for difference in analysis.differences_of(family):
            texts = difference_row(analysis, difference)
            values: dict[str, float | None] = {
                "nats per character (95 % interval)": difference.nats
            }
            if difference.judged is not None:
                values["Holm's p"] = difference.judged.p_holm
            rows.append({"budget": difference.row,
                         "cells": sorted({difference.a.cell, difference.b.cell}),
                         "entries": [(text, values.get(key)) for key, text in texts.items()],
                         "labels": list(texts)})  # fmt: skip
        if rows:
            groups.append({"title": f"{heading}: {title}", "dataset": dataset, "rows": rows,
                           "labels": rows[0]["labels"]})  # fmt: skip
    if analysis.distances:
        texts_of = [distance_row(distances) for distances in analysis.distances]
        rows = [
            {"budget": distances.row, "cells": ["gru", "lstm", "rnn"],
             "entries": [(text, None) for text in texts.values()]}
            for distances, texts in zip(analysis.distances, texts_of, strict=True)
        ]  # fmt: skip
        groups.append({"title": f"{heading}: how alike they predict (mean absolute difference of "
                       "probabilities)", "dataset": dataset, "rows": rows,
                       "labels": list(texts_of[0])})  # fmt: skip
    return groups


def _run_row(analysis: Analysis, entry: Entry, run: Run) -> dict[str, Any]:
    def number(value: float, form: str) -> tuple[float | str, str]:
        return (value, format(value, form)) if math.isfinite(value) else ("", "")

    return {
        "id": run.run_id,
        "heading": analysis.table.heading,
        "dataset": run.dataset,
        "budget": entry.row,
        "params": entry.target_params,
        "cell": entry.cell,
        "label": cell_label(entry.cell),
        "numbers": [
            number(run.layers, "d"),
            number(run.hidden_size, "d"),
            number(run.num_params, ","),
            number(run.seed, "d"),
            number(run.dropout, "g"),
            number(run.best_epoch or math.nan, ".0f"),
            number(run.train_nats_per_char, ".4f"),
            number(run.val_nats_per_char, ".4f"),
            number(run.test_nats_per_char, ".4f"),
            number(run.seconds_train, ",.0f"),
        ],
    }


def _tip(run: Run) -> dict[str, str]:
    """Returns what hovering over a run shows."""
    others = ", ".join(
        f"{key}={value}" for key, value in sorted(run.identity.items())
        if key not in ("corpus_sha256", "protocol_version", "hidden_size", "cell.name", "layers",
                       "seed", "dropout", "epochs")
    )  # fmt: skip
    return {
        "configuration": (
            f"{run.dataset}: cell={run.variant}, layers={run.layers}, "
            f"hidden_size={run.hidden_size} ({run.num_params:,} parameters), seed={run.seed}, "
            f"dropout={run.dropout:g}, epochs={run.epochs}, {others}"
        ),
        "command": run.environment.command,
    }


def svg_element(svg: bytes) -> str:
    """Returns the svg element of an SVG file, without the XML declaration that no page may hold."""
    text = svg.decode()
    return text[text.index("<svg") :]


def inline(picture: Picture) -> Markup:
    """Returns a figure's SVG as part of the page: ids are its own, runs are marked for hovering."""
    text = svg_element(picture.svg)
    text = re.sub(rf'id="{RUN_GID}([^"]+)"', _marked, text)
    prefix = f"{picture.name}-"
    text = re.sub(r'\bid="', f'id="{prefix}', text)
    text = re.sub(r'href="#', f'href="#{prefix}', text)
    text = re.sub(r"url\(#", f"url(#{prefix}", text)
    label = escape(picture.caption)
    return Markup(text.replace("<svg ", f'<svg role="group" aria-label="{label}" ', 1))


def _marked(found: re.Match[str]) -> str:
    runs = found[1].replace("+", " ")
    return f'data-runs="{runs}" tabindex="0" role="button" aria-label="{runs}"'
