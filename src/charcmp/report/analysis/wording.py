"""How cells, models and differences are named, in every table, figure and sentence."""

from __future__ import annotations

from charcmp.models.cells import registry
from charcmp.report.tables import Entry, Table, base_cell, is_the_papers
from charcmp.uncertainty.intervals import Judged

FEW_EPOCHS = 10
FEW_EPOCHS_NOTE = (
    "With so few epochs, the ranking shows how fast models learn, not how good they become."
)


def name(entry: Entry) -> str:
    """Returns a model's name: `LSTM 2`, `LSTM (forget_bias=1.0) 2`."""
    return f"{cell_label(entry.cell)} {entry.layers}"


def left_out_text(entry: Entry) -> str:
    """Returns, for example, `1 of 3 seeds diverged`: the seeds that a model's mean leaves out."""
    total = entry.num_left_out + len(entry.seeds)
    return f"{entry.num_left_out} of {total} seeds diverged"


def cell_label(cell: str) -> str:
    """Returns the label of a cell with its options: `LSTM (forget_bias=1.0)`."""
    base = base_cell(cell)
    return f"{registry.cell_label(base)} {cell.removeprefix(base)}".strip()


def training(table: Table) -> str:
    """Says under which training the models are ranked, beside a heading with its settings: another
    one may order them differently."""
    return "under the paper's protocol" if is_the_papers(table.settings) else "under this training"


def is_short(table: Table) -> bool:
    """Returns whether the trainings of a block are too short to say how good models become."""
    return table.epochs_read < FEW_EPOCHS


def interval_text(nats: float, judged: Judged | None, turned: bool = False) -> str:
    """Returns a difference with its plain 95 % interval: `+0.0533 (+0.0496 to +0.0571)`.

    `turned` for the second model minus the first.
    """
    sign = -1 if turned else 1
    nats *= sign
    if judged is None:
        return f"{nats:+.4f} (no interval)"
    low, high = sorted(sign * end for end in judged.interval)
    return f"{nats:+.4f} ({low:+.4f} to {high:+.4f})"
