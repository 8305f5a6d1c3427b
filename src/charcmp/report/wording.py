"""How cells and differences are named, in every table, figure and sentence."""

from __future__ import annotations

from charcmp.cells import cell_info
from charcmp.report.cells import Cell, base_cell
from charcmp.report.statistics import Judged

FEW_EPOCHS = 10
FEW_EPOCHS_CAUTION = "So few epochs rank how fast the models learn, not how well they end."


def name(cell: Cell) -> str:
    """`LSTM 2`, `LSTM (forget_bias=1.0) 2`"""
    return f"{cell_label(cell.cell)} {cell.layers}"


def cell_label(cell: str) -> str:
    base = base_cell(cell)
    return f"{cell_info(base).label} {cell.removeprefix(base)}".strip()


def interval_text(nats: float, judged: Judged | None, digits: int = 4) -> str:
    """`+0.0533 (+0.0496 to +0.0571)`, and what the interval leaves out."""
    if judged is None:
        return f"{nats:+.{digits}f} (no interval: one seed, losses not kept)"
    low, high = judged.interval
    return f"{nats:+.{digits}f} ({low:+.{digits}f} to {high:+.{digits}f})"
