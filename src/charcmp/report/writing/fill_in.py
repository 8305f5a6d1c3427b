"""The fill-in models' tables, apart from the language models', in every format.

Nothing is judged here: no family of comparisons was fixed for these models, and the paper has none.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from charcmp.report.tables import Entry, Table
from charcmp.report.writing import escape
from charcmp.report.writing.layout import (
    MISSING,
    Line,
    budgets_note,
    missing_note,
    short_notes,
    size_notes,
    unusual_notes,
)
from charcmp.report.writing.render import (
    entries_csv,
    latex_table,
    markdown_list,
    markdown_table,
)
from charcmp.report.writing.terminal import terminal_tables, wrapped

WHAT_IT_IS = (
    "fill-in perplexity on test text. Each byte is predicted from the text on both sides of it: "
    "not to be compared with the figures of language models, which do not see what follows"
)
# Columns of entries.csv for the comparison with the paper, which has no fill-in models.
NOT_OF_FILL_IN = ("paper_nats_per_char", "difference")


def caption(table: Table) -> str:
    return f"{table.heading}: {WHAT_IT_IS}"


def lines(table: Table) -> list[Line]:
    """Returns each budget's nats, and below them their perplexity, spread and number of seeds."""
    found = []
    for row in table.rows:
        entries = table.entries_in(row)

        def values(
            value_of: Callable[[Entry], float | None], entries: Sequence[Entry | None] = entries
        ) -> list[float | str | None]:
            return [value_of(entry) if entry and entry.is_done else None for entry in entries]

        nats: list[float | str | None] = [
            "diverged" if entry and not entry.is_done else value
            for entry, value in zip(entries, values(lambda entry: entry.test_nats), strict=True)
        ]
        found += [
            Line(row, "test", nats, ".3f", MISSING),
            Line(row, "perplexity", values(lambda entry: math.exp(entry.test_nats)), ".3f"),
            Line(row, "SD, blocks", values(lambda entry: entry.sd_blocks), ".4f"),
            Line(row, "SD, seeds", values(lambda entry: entry.sd_over_seeds), ".4f"),
            Line(row, "seeds", values(lambda entry: len(entry.seeds)), "d"),
        ]
    return [line for line in found if line.label == "test" or any(map(_is_there, line.values))]


def _is_there(value: float | str | None) -> bool:
    return value is not None


def notes(table: Table) -> list[str]:
    """Returns what must be known to read the table correctly."""
    context = table.settings["fill_context"]
    return [
        "test: nats per character; perplexity: their exponential; SDs are of the nats.",
        "Two stacks, one reading forward, one backward, joined in the decoder alone; the backward "
        f"one starts {context:,} characters beyond the chunk's edge, or at the edge itself at the "
        "end of a stream.",
        *size_notes(table),
        *unusual_notes(table),
        missing_note([table]),
    ]


def terminal(tables: Sequence[Table], full: bool = False) -> str:
    """Returns the tables to print, at most as wide as the language models'."""
    parts = []
    for table in tables:
        parts += [wrapped([caption(table)]), *terminal_tables(table.columns, lines(table))]
        brief = [budgets_note(table), *short_notes(table)]
        parts.append(wrapped(notes(table) if full else brief))
    return "\n\n".join(parts)


def files(tables: Sequence[Table]) -> dict[str, str]:
    """Returns files by name; none if there are no such models, so that nothing is said of them."""
    if not tables:
        return {}
    markdown, latex = [], ["% \\usepackage{booktabs}\n"]
    for number, table in enumerate(tables, start=1):
        markdown += [f"### {escape.markdown(caption(table))}"]
        markdown += [markdown_table(table.columns, lines(table)), markdown_list(notes(table))]
        text = " ".join([f"{caption(table)}.", *notes(table)])
        label = f"tab:charcmp-fill-in-{number}"
        latex.append(latex_table(table.columns, lines(table), text, label))
    return {
        "fill_in.csv": entries_csv(tables, without=NOT_OF_FILL_IN),
        "fill_in.md": "\n\n".join(markdown) + "\n",
        "fill_in.tex": "\n".join(latex),
    }
