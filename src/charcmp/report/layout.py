"""What the lines of a printed table are and what is said beneath, whatever the file format."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from charcmp.cells import cell_info
from charcmp.report import paper
from charcmp.report.cells import Cell, Table, is_the_papers

MISSING = "—"
FEW_EPOCHS = 10


@dataclass(frozen=True)
class Measure:
    """A unit to show losses in."""

    name: str
    title: str
    of_nats: Callable[[float], float]
    slope: Callable[[float], float]  # its derivative, by which a small SD in nats is multiplied


MEASURES = (
    Measure("nats", "test nats per character", lambda nats: nats, lambda nats: 1.0),
    Measure("perplexity", "test perplexity per character", math.exp, math.exp),
    Measure(
        "bits",
        "test bits per character",
        lambda nats: nats / math.log(2),
        lambda nats: 1 / math.log(2),
    ),
)


@dataclass(frozen=True)
class Line:
    """One line of a table: a budget's losses, or something about them."""

    budget: str
    label: str
    values: list[float | str | None]
    format: str
    missing: str = ""
    best: float | None = None  # what is shown in bold

    def texts(self) -> list[str]:
        return [
            value if isinstance(value, str)
            else self.missing if value is None
            else format(value, self.format)
            for value in self.values
        ]  # fmt: skip

    def bold(self) -> list[bool]:
        """Which values are the best; ties as printed."""
        best = None if self.best is None else format(self.best, self.format)
        return [text == best for text in self.texts()]


def table_lines(table: Table, measure: Measure) -> list[Line]:
    """Under each budget's losses what belongs to them; lines that would be empty are left out."""
    lines = []
    for row in table.rows:
        for line in _row_lines(table, row, measure):
            if line.label == "test" or any(value is not None for value in line.values):
                lines.append(line)
    return lines


def _row_lines(table: Table, row: str, measure: Measure) -> list[Line]:
    cells = [table.cells.get((row, *column)) for column in table.columns]
    papers = [table.paper_nats(row, *column) for column in table.columns]

    def values(of_cell: Callable[[Cell], float | None]) -> list[float | str | None]:
        return [of_cell(cell) if cell and cell.is_done else None for cell in cells]

    def ours(cell: Cell) -> float:
        return measure.of_nats(cell.test_nats)

    def difference(cell: Cell) -> float | None:
        return None if cell.paper_nats is None else ours(cell) - measure.of_nats(cell.paper_nats)

    def sd(name: str) -> list[float | str | None]:
        def of_cell(cell: Cell) -> float | None:
            in_nats: float | None = getattr(cell, name)
            return None if in_nats is None else in_nats * measure.slope(cell.test_nats)

        return values(of_cell)

    several = any(cell and len(cell.seeds) > 1 for cell in cells)
    losses = [ours(cell) for cell in cells if cell and cell.is_done]
    shown: list[float | str | None] = [
        None if cell is None else ours(cell) if cell.is_done else "diverged" for cell in cells
    ]
    return [
        Line(row, "test", shown, ".3f", MISSING, min(losses, default=None)),
        Line(row, "paper", [p and measure.of_nats(p) for p in papers], ".3f"),
        Line(row, "difference", values(difference), "+.3f"),
        Line(row, "SD, characters", sd("sd_chars"), ".4f"),
        Line(row, "SD, blocks", sd("sd_blocks"), ".4f"),
        Line(row, "SD, seeds", sd("sd_over_seeds"), ".4f"),
        Line(row, "seeds", values(lambda cell: len(cell.seeds) if several else None), "d"),
    ]


def column_label(column: tuple[str, int]) -> tuple[str, str]:
    """("LSTM", "2")"""
    cell, layers = column
    return cell_info(cell).label, str(layers)


def caption(table: Table, measure: Measure) -> str:
    return f"{table.heading}: {measure.title}"


def notes(table: Table) -> list[str]:
    """What must be known to read this block rightly."""
    said = [_budgets_note(table), _seeds_note(table)]
    if table.corpus_note:
        said.append(f"Text: {table.corpus_note}.")
        if table.dataset == "lk" and "stand-in" in table.corpus_note:
            said.append("The stand-in has another file order than the paper's text.")
    if table.epochs < FEW_EPOCHS:
        said.append(
            f"Only {table.epochs} epoch{'s' * (table.epochs > 1)}: so few epochs rank how fast the "
            "models learn, not how well they end."
        )
    if table.dataset in paper.SPLITS and not is_the_papers(table.settings):
        said.append("These runs are not at the paper's settings; its figures are no target here.")
    said += _dropout_notes(table)
    if diverged := [cell for cell in table.cells.values() if cell.num_diverged]:
        said.append("Diverged runs: " + "; ".join(
            f"{_name(cell)}: {cell.num_diverged}" for cell in diverged) + ".")  # fmt: skip
    if table.layout == "columns" and (ngram := paper.best_ngram(table.dataset)):
        said.append(
            f"The paper's best n-gram model has {ngram[1]:.3f} nats (n = {ngram[0]}, its Table 2)."
        )
    return said


def _name(cell: Cell) -> str:
    return f"{cell_info(cell.cell).label} {cell.layers} at {cell.row}"


def _budgets_note(table: Table) -> str:
    targets = ", ".join(
        f"{name} = {target:,}" if not name.isdecimal() else f"{target:,}"
        for name, target in table.rows.items()
    )
    off = max((abs(cell.deviation_percent) for cell in table.cells.values()), default=0.0)
    return f"Parameters: {targets}; met to {off:.1f} %. Columns: number of layers."


def _seeds_note(table: Table) -> str:
    counts = sorted({len(cell.seeds) for cell in table.done()})
    if counts in ([], [1]):
        return "One seed per cell: how much a seed moves a loss is not known from these runs."
    if len(counts) == 1:
        return f"Means over {counts[0]} seeds."
    return f"Means over {counts[0]} to {counts[-1]} seeds, as the line `seeds` says."


def _dropout_notes(table: Table) -> list[str]:
    chosen = [cell for cell in table.done() if len(cell.dropout_candidates) > 1]
    if chosen:
        return [
            "Dropout chosen by validation loss: "
            + "; ".join(
                f"{_name(cell)}: {cell.dropout:g} of "
                + ", ".join(f"{value:g}" for value in cell.dropout_candidates)
                for cell in chosen
            )
            + "."
        ]
    used = {cell.dropout for cell in table.done()}
    if used in (set(), {0.0}):
        return []
    return ["Dropout: " + "; ".join(f"{_name(c)}: {c.dropout:g}" for c in table.done()) + "."]


def general_notes(tables: Sequence[Table], measure: Measure, bold: str) -> list[str]:
    """What holds for every block of the report."""
    said = [f"{bold}: best of its row. {MISSING}: no finished run."]
    cells = [cell for table in tables for cell in table.done()]
    lengths = sorted({cell.block_length for cell in cells if cell.block_length is not None})
    if lengths:
        of = " or ".join(map(str, lengths))
        said.append(
            "SD: bootstrap standard deviation of the test loss of one trained model, resampling "
            f"single characters (the paper's way) or blocks of {of} characters that never cross a "
            "row of the split; in closed form, std/sqrt(n), the limit of infinitely many resamples."
            " It says how exactly this text measures one model, not how far another seed moves it."
        )
        if measure.name == "perplexity":
            said.append("SDs of perplexities are perplexity times the SD in nats.")
    if any(cell.paper_nats is not None for cell in cells) or any(
        table.paper_nats(row, *column) for table in tables for row in table.rows
        for column in table.columns
    ):  # fmt: skip
        said.append(paper.REMARK)
    return said
