"""What `charcmp report` prints: which model to use, then the tables; with --full everything.

Lines are at most 80 characters wide, unless the columns of a single cell need more.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from itertools import groupby

from tabulate import SEPARATING_LINE, tabulate

from charcmp.report.analysis.against_paper import Comparison
from charcmp.report.analysis.baselines import Standing
from charcmp.report.analysis.findings import Findings
from charcmp.report.analysis.recommend import SAMPLING_NOTE, Recommendation
from charcmp.report.tables import Column
from charcmp.report.writing.layout import (
    MEASURES,
    Line,
    budgets_note,
    caption,
    column_label,
    general_notes,
    notes,
    sd_notes,
    short_notes,
    table_lines,
)
from charcmp.report.writing.render import comparison_rows
from charcmp.report.writing.sections import baseline_notes, baseline_rows

WIDTH = 80


def terminal(findings: Findings, full: bool = False) -> str:
    """Returns which model to use, and the tables in nats.

    Args:
        full: whether to add notes, baselines, the paper's claims, and what the models to use cost.
    """
    measure = MEASURES[0]
    parts = [which_model_to_use(findings.advice)]
    for analysis in findings.analyses:
        parts.append(wrapped([caption(analysis, measure, "*")]))
        parts += terminal_tables(analysis.table.columns, table_lines(analysis, measure))
        brief = [budgets_note(analysis.table), *short_notes(analysis.table)]
        parts.append(wrapped(notes(analysis) if full else brief))
        if full and (placed := findings.baselines_of(analysis)):
            parts += [_baseline_table(placed), wrapped(list(baseline_notes(placed)))]
    if full:
        parts.append(wrapped(sd_notes(findings.tables, measure)))
    parts.append(wrapped(general_notes(findings.tables)))
    if full:
        parts += _judgements(findings)
    return "\n\n".join(filter(None, parts))


def which_model_to_use(advice: Sequence[Recommendation]) -> str:
    """Returns a line for each budget, with its certainty."""
    lines = ["Which model to use, by validation loss (test nats per character; certainty)"]
    for heading, of_block in groupby(advice, lambda recommendation: recommendation.heading):
        lines.append(heading)
        lines += [
            textwrap.fill(recommendation.line(), WIDTH, initial_indent="  ",
                          subsequent_indent="    ", break_on_hyphens=False)
            for recommendation in of_block
        ]  # fmt: skip
    return "\n".join(lines) if advice else ""


def _judgements(findings: Findings) -> list[str]:
    """Returns the comparison with the paper, its claims, and all about which model to use."""
    parts = []
    if findings.comparisons:
        parts.append("Against the paper, in nats per character")
        parts.append(_comparison_table(findings.comparisons))
    if findings.claims:
        parts.append("The paper's claims")
        parts += [
            wrapped([f"{verdict.claim} ({verdict.scope}): {verdict.verdict}. {verdict.evidence}"])
            for verdict in findings.claims
        ]
    parts.append("Which model to use, and what it costs")
    parts += [
        wrapped([f"{recommendation.heading}. {recommendation.text()}"])
        for recommendation in findings.advice
    ]
    return [*parts, wrapped([SAMPLING_NOTE])]


def terminal_tables(columns: Sequence[Column], lines: Sequence[Line]) -> list[str]:
    """Returns one table, or several if the columns do not fit side by side."""
    tables: list[str] = []
    indices: list[int] = []
    for _, group in groupby(range(len(columns)), lambda i: columns[i][0]):
        of_cell = list(group)
        wider = _terminal_table(columns, lines, indices + of_cell)
        if indices and max(map(len, wider.splitlines())) > WIDTH:
            tables.append(_terminal_table(columns, lines, indices))
            indices = []
        indices += of_cell
    return [*tables, _terminal_table(columns, lines, indices)]


def _terminal_table(columns: Sequence[Column], lines: Sequence[Line], indices: list[int]) -> str:
    labels = [[*cell.split(), layers] for cell, layers in map(column_label, columns)]
    height = max(len(labels[i]) for i in indices)
    header = ["\n" * (height - 1) + "budget", ""]
    header += ["\n".join([""] * (height - len(labels[i])) + labels[i]) for i in indices]
    rows: list[list[str] | str] = []
    for line in lines:
        texts = [f"*{text}" if bold else text for text, bold in
                 zip(line.texts(), line.is_bold(), strict=True)]  # fmt: skip
        if line.label == "test" and rows:
            rows.append(SEPARATING_LINE)
        first = line.budget if line.label == "test" else ""
        rows.append([first, line.label, *(texts[i] for i in indices)])
    align = ["left", "left", *(["right"] * len(indices))]
    return tabulate(rows, header, tablefmt="simple", disable_numparse=True, colalign=align)


def wrapped(said: Sequence[str]) -> str:
    return "\n".join(
        textwrap.fill(note, WIDTH, subsequent_indent="  ", break_on_hyphens=False) for note in said
    )


def _baseline_table(placed: Sequence[Standing]) -> str:
    align = ["left", "right", "right", "right", "left"]
    return tabulate(
        baseline_rows(placed), "keys", "simple",
        disable_numparse=True, colalign=align,
        maxcolwidths=[22, None, None, None, 24], maxheadercolwidths=[22, 7, 9, 6, 24],
    )  # fmt: skip


def _comparison_table(comparisons: Sequence[Comparison]) -> str:
    rows = comparison_rows(comparisons)
    for row in rows:
        del row["mean difference"]  # with it, the table would be too wide
    align = ["left", "right", "right", "right", "right"]
    return tabulate(
        rows, "keys", tablefmt="simple", disable_numparse=True, colalign=align,
        maxcolwidths=[26, None, None, None, None], maxheadercolwidths=[28, 10, 12, 12, 12],
    )  # fmt: skip
