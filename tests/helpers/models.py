"""Models by the name of their cell."""

from __future__ import annotations

from typing import Any

from charcmp.models.budget import Shape
from charcmp.models.cells.registry import cell_config


def shape(
    cell: str, layers: int, hidden_size: int, num_symbols: int, task: str = "lm", **options: Any
) -> Shape:
    return Shape(cell_config(cell, **options), layers, hidden_size, num_symbols, task)
