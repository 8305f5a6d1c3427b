"""Loss against parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from charcmp.output import counted
from charcmp.report.analysis.comparisons import Analysis
from charcmp.report.figures.style import (
    GREY,
    NATS,
    RUN_GID,
    Drawn,
    beside,
    cells_of,
    edge_of,
    has_many_cells,
    label_thousands,
    legend,
    legend_handles,
    style_of,
)
from charcmp.report.tables import Entry


def loss_figures(analysis: Analysis, say: Callable[[str], None]) -> Iterator[Drawn]:
    """Yields a figure with a panel per depth and a line per cell; the paper's values are hollow."""
    table = analysis.table
    if has_many_cells(table):
        return
    cells = cells_of(table)
    depths = sorted({entry.layers for entry in table.done()})
    figure = Figure(figsize=(1.2 + 2.6 * len(depths), 3.6), layout="constrained")
    panels = figure.subplots(1, len(depths), sharey=True, squeeze=False)[0]
    nats = [entry.test_nats for entry in table.done()]
    edge = edge_of(nats)
    for panel, depth in zip(panels, depths, strict=True):
        at_depth = [entry for entry in table.done() if entry.layers == depth]
        for cell in cells:
            points = sorted(
                (entry for entry in at_depth if entry.cell == cell),
                key=lambda entry: entry.target_params,
            )
            _loss_line(panel, points, beside(cell, cells, 1.05), style_of(cell, cells))
        _mark_above(panel, [entry for entry in at_depth if entry.test_nats > edge], cells)
        panel.set_xscale("log")
        targets = sorted(table.rows.values())
        label_thousands(panel.xaxis, targets)
        panel.set_xlim(targets[0] / 1.35, targets[-1] * 1.35)
        panel.set_title(counted(depth, "layer"), fontsize=9)
        panel.set_xlabel("parameters (budget)")
    panels[0].set_ylabel(f"test loss ({NATS})")
    if max(nats) > edge:
        panels[0].set_ylim(top=edge)
    handles = legend_handles(cells)
    caption = (
        "test loss against parameters, by cell and number of layers. Markers of one budget stand "
        "beside each other. Bars: standard deviation over seeds."
    )
    if max(nats) > edge:
        caption += " Arrows: losses far above the frame."
    if any(entry.paper_nats is not None for entry in table.done()):
        caption += " Hollow: the paper's Table 1."
        handles.append(Line2D([], [], color=GREY, marker="o", markerfacecolor="none",
                              linestyle="none", label="the paper"))  # fmt: skip
    legend(figure, handles)
    yield Drawn("loss", caption, figure)


def _loss_line(panel: Axes, points: Sequence[Entry], shift: float, style: tuple[str, str]) -> None:
    colour, marker = style
    x = [point.target_params * shift for point in points]
    panel.plot(x, [point.test_nats for point in points], color=colour, linewidth=1)
    for where, point in zip(x, points, strict=True):
        panel.errorbar(
            where,
            point.test_nats,
            yerr=point.sd_over_seeds or 0,
            color=colour,
            capsize=3 if point.sd_over_seeds else 0,
            linestyle="none",
        )
        (dot,) = panel.plot(where, point.test_nats, color=colour, marker=marker, markersize=6)
        dot.set_gid(RUN_GID + "+".join(point.run_ids))
        if point.paper_nats is not None:
            panel.plot(where, point.paper_nats, color=colour, marker=marker, markersize=9,
                       markerfacecolor="none", alpha=0.7)  # fmt: skip


def _mark_above(panel: Axes, entries: Sequence[Entry], cells: Sequence[str]) -> None:
    """Writes losses that are above the frame at its upper edge, one below the other."""
    for line, entry in enumerate(entries):
        text = f"{entry.test_nats:.2f} \N{UPWARDS ARROW}"
        panel.text(entry.target_params, 0.98 - 0.07 * line, text, ha="center", va="top", fontsize=8,
                   transform=panel.get_xaxis_transform(),
                   color=style_of(entry.cell, cells)[0])  # fmt: skip
