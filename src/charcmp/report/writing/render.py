"""Tables as text in files: Markdown, LaTeX (booktabs) and CSV."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import pandas as pd

from charcmp.report.analysis.against_paper import Comparison
from charcmp.report.analysis.baselines import Standing
from charcmp.report.analysis.comparisons import Analysis
from charcmp.report.analysis.findings import Findings
from charcmp.report.analysis.verdicts import Verdict
from charcmp.report.tables import Column, Entry, Table
from charcmp.report.writing import escape
from charcmp.report.writing.layout import (
    MEASURES,
    Line,
    Measure,
    caption,
    column_label,
    general_notes,
    notes,
    sd_notes,
    table_lines,
)
from charcmp.report.writing.sections import (
    Section,
    difference_records,
)


def comparison_rows(comparisons: Sequence[Comparison]) -> list[dict[str, str]]:
    """Returns the summary against the paper, as text."""
    return [
        {
            "": line.heading,
            "models": f"{line.num_models} of {line.num_models_paper}",
            "mean difference": f"{line.mean_difference:+.3f}",
            "mean |difference|": f"{line.mean_absolute_difference:.3f}",
            "median |difference|": f"{line.median_absolute_difference:.3f}",
            "Spearman's rank correlation": "" if line.spearman is None else f"{line.spearman:.2f}",
        }
        for line in comparisons
    ]


def markdown(findings: Findings, measure: Measure) -> str:
    """Returns one file: a heading and a table for each block, with notes as lists."""
    parts = []
    for analysis in findings.analyses:
        heading = analysis.table.heading  # begins with the name of a user's file
        rest = caption(analysis, measure, "**bold**").removeprefix(heading)
        parts.append(f"### {escape.markdown_name(heading)}{escape.markdown(rest)}")
        parts.append(markdown_table(analysis.table.columns, table_lines(analysis, measure)))
        parts.append(markdown_list(notes(analysis)))
    parts.append("### Reading it")
    tables = findings.tables
    all_notes = [*sd_notes(tables, measure), *general_notes(tables)]
    parts.append(markdown_list(all_notes))
    if findings.comparisons:
        frame = pd.DataFrame(comparison_rows(findings.comparisons)).map(escape.markdown)
        parts.append("### Against the paper, in nats per character")
        parts.append(
            frame.to_markdown(
                index=False,
                disable_numparse=True,
                colalign=("left", *["right"] * (frame.shape[1] - 1)),
            ).replace("|difference|", r"\|difference\|")
        )
    return "\n\n".join(parts) + "\n"


def markdown_list(said: Sequence[str]) -> str:
    return "\n".join(f"- {escape.markdown(note)}" for note in said)


def markdown_table(columns: Sequence[Column], lines: Sequence[Line]) -> str:
    rows = []
    for line in lines:
        texts = [f"**{text}**" if bold else text for text, bold in
                 zip(line.texts(), line.is_bold(), strict=True)]  # fmt: skip
        rows.append([line.budget if line.label == "test" else "", line.label, *texts])
    labels = [escape.markdown(" ".join(column_label(column))) for column in columns]
    header = ["budget", "", *labels]
    align = ("left", "left", *(["right"] * len(columns)))
    frame = pd.DataFrame(rows, columns=header)
    return frame.to_markdown(index=False, disable_numparse=True, colalign=align)


def latex(analyses: Sequence[Analysis], measure: Measure) -> str:
    """Returns a table environment for each block, with its notes in the caption; needs booktabs."""
    parts = ["% \\usepackage{booktabs}\n"]
    for number, analysis in enumerate(analyses, start=1):
        table = analysis.table
        all_notes = [*notes(analysis), *sd_notes([table], measure), *general_notes([table])]
        text = " ".join([f"{caption(analysis, measure, 'bold')}.", *all_notes])
        label = f"tab:charcmp-{measure.name}-{number}"
        parts.append(latex_table(table.columns, table_lines(analysis, measure), text, label))
    return "\n".join(parts)


def latex_table(columns: Sequence[Column], lines: Sequence[Line], text: str, label: str) -> str:
    """Returns one table environment; `text` is its caption."""
    labels = [("", "budget"), ("", ""), *map(column_label, columns)]
    frame = pd.DataFrame(
        [[line.budget if line.label == "test" else "", line.label, *line.texts()]
         for line in lines],
        columns=pd.MultiIndex.from_tuples(labels),
    )  # fmt: skip
    css = [["", "", *("textbf:--rwrap;" if bold else "" for bold in line.is_bold())]
           for line in lines]  # fmt: skip
    styler = frame.style.hide(axis="index").format(escape.latex)
    styler = styler.format_index(escape.latex, axis="columns")
    styled = styler.apply(lambda _: pd.DataFrame(css).to_numpy(), axis=None)
    return styled.to_latex(
        hrules=True,
        column_format="ll" + "r" * len(columns),
        multicol_align="c",
        caption=escape.latex(text),
        label=label,
        position="htbp",
        position_float="centering",
    )


def wide_csv(analyses: Sequence[Analysis], measure: Measure) -> str:
    """Returns the lines of all blocks, with a column for each cell and depth that occurs."""
    rows = []
    for analysis in analyses:
        table = analysis.table
        columns = [" ".join(map(str, column)) for column in table.columns]
        for line in table_lines(analysis, measure):
            start: dict[str, Any] = {"block": table.heading, "budget": line.budget}
            values = dict(zip(columns, map(_csv_value, line.values), strict=True))
            rows.append(start | {"line": line.label} | values)
    return _csv(pd.DataFrame(rows))


def _csv_value(value: float | str | None) -> str | None:
    return f"{value:.6f}" if isinstance(value, float) else value and str(value)


def entries_csv(tables: Sequence[Table], without: Sequence[str] = ()) -> str:
    """Returns one line per entry, in nats, with all that is known of it; drops `without`."""
    return _csv(pd.DataFrame([
        _entry_record(table, table.entries[row, *column])
        for table in tables for row in table.rows for column in table.columns
        if (row, *column) in table.entries
    ]).drop(columns=list(without)))  # fmt: skip


def _entry_record(table: Table, entry: Entry) -> dict[str, Any]:
    nats, bits = entry.test_nats, MEASURES[2].of_nats(entry.test_nats)
    difference = None if entry.paper_nats is None else nats - entry.paper_nats
    return {
        "block": table.heading,
        "dataset": table.dataset,
        "layout": table.layout,
        "epochs": table.epochs,
        "budget": entry.row,
        "target_params": entry.target_params,
        "cell": entry.cell,
        "layers": entry.layers,
        "hidden_size": entry.hidden_size,
        "num_params": entry.num_params,
        "deviation_percent": entry.deviation_percent,
        "status": entry.status,
        "num_seeds": len(entry.seeds) if entry.is_done else 0,
        "seeds": " ".join(map(str, entry.seeds)),
        "num_diverged": entry.num_diverged,
        "learning_rate": "" if math.isnan(entry.rate) else f"{entry.rate:g}",
        "learning_rate_candidates": " ".join(
            f"{rate:g}" for rate in entry.rate_candidates if not math.isnan(rate)
        ),
        "learning_rates_given_up": " ".join(f"{rate:g}" for rate in entry.rates_given_up),
        "dropout": f"{entry.dropout:g}",
        "dropout_candidates": " ".join(f"{value:g}" for value in entry.dropout_candidates),
        "train_nats_per_char": entry.train_nats,
        "val_nats_per_char": entry.val_nats,
        "test_nats_per_char": nats,
        "test_perplexity": MEASURES[1].of_nats(nats),
        "test_bits_per_char": bits,
        "sd_over_seeds": entry.sd_over_seeds,
        "sd_chars": entry.sd_chars,
        "sd_blocks": entry.sd_blocks,
        "block_length": " ".join(map(str, entry.block_lengths)),
        "paper_nats_per_char": entry.paper_nats,
        "difference": difference,
        "corpus_sha256": table.settings["corpus_sha256"],
        "settings": json.dumps(table.settings, sort_keys=True),
        "seconds_train": statistics.fmean(run.seconds_train for run in entry.runs),
        "chars_per_second": max((run.chars_per_second for run in entry.runs), default=0) or None,
        "run_ids": " ".join(entry.run_ids),
    }


def differences_csv(analyses: Sequence[Analysis]) -> str:
    """Returns one line per comparison, with all that is known of it."""
    frame = pd.DataFrame(difference_records(analyses))
    for name in frame.columns.intersection(["text_p_holm", "both_p_holm"]):
        frame[name] = frame[name].map("{:.6g}".format, na_action="ignore")  # often below 1e-6
    return _csv(frame)


def baselines_csv(placed: Sequence[Standing]) -> str:
    """Returns one line per baseline and block, with all that is known of it."""
    return _csv(pd.DataFrame([
        {
            "block": standing.heading,
            "dataset": standing.dataset,
            "baseline": standing.baseline.name,
            "stored_counts": "" if standing.baseline.size is None else str(standing.baseline.size),
            "budget": "" if standing.baseline.budget is None else str(standing.baseline.budget),
            "test_nats_per_char": standing.baseline.nats_per_char,
            "test_bits_per_char": MEASURES[2].of_nats(standing.baseline.nats_per_char),
            "ahead_of": "; ".join(
                f"{row}: {entry.cell} {entry.layers}"
                for row, entries in standing.ahead_of.items() for entry in entries
            ),
            "note": standing.baseline.note,
        }
        for standing in placed
    ]))  # fmt: skip


def claims_csv(verdicts: Sequence[Verdict]) -> str:
    """Returns one line per claim and block; only the header if the runs say nothing of any."""
    columns = list(Verdict.__dataclass_fields__)
    return _csv(pd.DataFrame([asdict(verdict) for verdict in verdicts], columns=columns))


def statistics_markdown(sections: Sequence[Section]) -> str:
    """Returns the statistics to read, as one file."""
    parts = []
    for section in sections:
        parts.append(f"### {escape.markdown(section.title)}")
        if section.rows:
            frame = pd.DataFrame(section.rows).map(escape.markdown)
            parts.append(frame.to_markdown(index=False, disable_numparse=True))
        if section.notes:
            parts.append(markdown_list(section.notes))
    return "\n\n".join(parts) + "\n"


def comparison_csv(comparisons: Sequence[Comparison]) -> str:
    """Returns the summary against the paper; only the header if there is nothing to compare."""
    columns = list(Comparison.__dataclass_fields__)
    frame = pd.DataFrame([asdict(line) for line in comparisons], columns=columns)
    return _csv(frame.rename(columns={"heading": "block"}))


def _csv(frame: pd.DataFrame) -> str:
    return frame.map(escape.csv).to_csv(index=False, float_format="%.6f", lineterminator="\n")
