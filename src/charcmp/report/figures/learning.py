"""Learning curves."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from charcmp.output import counted
from charcmp.report.analysis.comparisons import Analysis
from charcmp.report.analysis.wording import cell_label
from charcmp.report.figures.style import (
    GREY,
    MANY_CELLS,
    NATS,
    Drawn,
    cells_of,
    has_many_cells,
    legend,
    style_of,
)
from charcmp.report.tables import Table
from charcmp.runs.result import Epoch

MAX_ACROSS = 4  # panels


def learning_figures(analysis: Analysis, say: Callable[[str], None]) -> Iterator[Drawn]:
    """Yields a figure for each row that has learning curves."""
    for row in analysis.table.rows:
        if (drawn := _row_figure(analysis.table, row)) is not None:
            yield drawn


def _row_figure(table: Table, row: str) -> Drawn | None:
    """Draws a panel for each cell and depth of a row, with a line per seed, best epoch marked."""
    histories: dict[tuple[str, int], list[list[Epoch]]] = {}
    entries = sorted(table.done_in(row), key=lambda entry: entry.val_nats)
    shown = entries[:MANY_CELLS] if has_many_cells(table) else entries
    for entry in shown:
        for run in entry.runs:
            if run.history:
                histories.setdefault(entry.column, []).append(run.history)
    if not histories:
        return None
    cells = [cell for cell in cells_of(table) if cell in {name for name, _ in histories}]
    depths = sorted({layers for _, layers in histories})
    # As many cells side by side as can be read; the rest go below them.
    across = min(len(cells), MAX_ACROSS)
    down = len(depths) * -(-len(cells) // across)
    figure = Figure(figsize=(1.0 + 2.3 * across, 1.1 + 1.75 * down), layout="constrained")
    panels = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False)
    for (i, j), panel in np.ndenumerate(panels):
        group, i_depth = divmod(i, len(depths))
        if (number := group * across + j) >= len(cells):
            panel.set_axis_off()
            continue
        depth, cell = depths[i_depth], cells[number]
        title = f"{cell_label(cell)}, {counted(depth, 'layer')}"
        panel.set_title(textwrap.fill(title, 34), fontsize=8)
        if (cell, depth) not in histories:
            panel.text(0.5, 0.5, "no finished run", transform=panel.transAxes, ha="center",
                       color=GREY)  # fmt: skip
        for history in histories.get((cell, depth), []):
            _learning_curve(panel, history, style_of(cell, cells)[0])
        panel.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 5, 10]))
        if i_depth == len(depths) - 1:
            panel.set_xlabel("epoch")
            panel.tick_params(labelbottom=True)
    panels[0, 0].set_ylim(*_loss_range([*itertools.chain(*histories.values())]))
    figure.supylabel(f"loss ({NATS})", fontsize=9)
    handles = [
        Line2D([], [], color=GREY, linestyle="--", label="train (mean over the epoch)"),
        Line2D([], [], color=GREY, label="validation"),
        Line2D([], [], color=GREY, marker="o", linestyle="none", label="best epoch"),
    ]
    legend(figure, handles)
    caption = (
        f"learning curves at {row}, a line for each seed. The first epochs may lie above the frame."
    )
    if len(shown) < len(entries):
        caption += f" The {len(shown)} models with the lowest validation loss."
    return Drawn(f"learning-{row}", caption, figure, row)


def _learning_curve(panel: Axes, history: Sequence[Epoch], colour: str) -> None:
    epochs = [entry.epoch for entry in history]
    val = [entry.val_nats_per_char for entry in history]
    train = [entry.train_nats_per_char for entry in history]
    panel.plot(epochs, train, color=colour, linewidth=1, linestyle="--")
    panel.plot(epochs, val, color=colour, linewidth=1)
    best = int(np.argmin(val))
    panel.plot(epochs[best], val[best], color=colour, marker="o", markersize=5, clip_on=False)


def _loss_range(histories: Sequence[Sequence[Epoch]]) -> tuple[float, float]:
    """Returns the range from the lowest loss to the highest one at the third epoch.

    A history of five epochs or fewer counts from its first epoch.
    """
    lowest, highest = [], []
    for history in histories:
        losses = [(entry.train_nats_per_char, entry.val_nats_per_char) for entry in history]
        lowest.append(min(map(min, losses)))
        highest.append(max(losses[min(2, len(losses) - 1)] if len(losses) > 5 else losses[0]))
    margin = 0.05 * (max(highest) - min(lowest))
    return min(lowest) - margin, max(highest) + margin
