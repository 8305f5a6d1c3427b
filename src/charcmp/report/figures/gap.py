"""The over-fitting gap."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from charcmp.output import first_few
from charcmp.report.analysis.comparisons import Analysis
from charcmp.report.analysis.wording import name
from charcmp.report.figures.style import (
    GREY,
    NATS,
    RUN_GID,
    Drawn,
    beside,
    cells_of,
    crowding,
    has_many_cells,
    legend,
    legend_handles,
    number_layers,
    style_of,
)
from charcmp.report.load import num_train_chars_of


def gap_figures(analysis: Analysis, say: Callable[[str], None]) -> Iterator[Drawn]:
    """Yields a figure: validation minus training loss by parameters per training character."""
    table = analysis.table
    if has_many_cells(table):
        return
    points = []
    for entry in table.done():
        for run in entry.runs:
            if num_chars := num_train_chars_of(run):
                gap = run.val_nats_per_char - run.train_nats_per_char
                points.append((entry, run, run.num_params / num_chars, gap))
    if not points:
        say(f"{table.heading}: no figure of the over-fitting gap, as no environment.json gives "
            "the training text's length")  # fmt: skip
        return
    cells = cells_of(table)
    figure = Figure(figsize=(6.4, 3.9), layout="constrained")
    panel = figure.subplots()
    shrunk = crowding(len(points))
    for entry, run, ratio, gap in points:
        colour, marker = style_of(entry.cell, cells)
        x = ratio * beside(entry.cell, cells, 1.04)
        (dot,) = panel.plot(x, gap, color=colour, marker=marker,
                            markersize=12 * shrunk, alpha=0.85, linestyle="none")  # fmt: skip
        dot.set_gid(RUN_GID + run.run_id)
        number_layers(panel, entry, x, gap, shrunk)
    ratios = [ratio for *_, ratio, _ in points]
    low, high = min(ratios) / 1.5, max(ratios) * 1.5
    warned = [name(entry) + f" at {entry.row}" for entry, _, ratio, _ in points if ratio > 1]
    if high > 0.5:
        high = max(high, 1.5)
        panel.axvspan(1, high, color="#F0E442", alpha=0.25)
        panel.axvline(1, color=GREY, linestyle="--", linewidth=1)
    panel.set_xscale("log")
    panel.set_xlim(low, high)
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    panel.xaxis.set_minor_formatter(
        FuncFormatter(lambda value, _: f"{value:.2g}") if high / low < 20 else NullFormatter()
    )
    panel.tick_params(axis="x", which="minor", labelsize=7)
    panel.axhline(0, color="black", linewidth=0.8)
    panel.set_xlabel("parameters per training character")
    panel.set_ylabel(f"validation - training loss ({NATS})")
    handles = legend_handles(cells, linestyle="none")
    legend(figure, handles)
    caption = (
        "over-fitting gap at the best epoch; the number is the number of layers. The training loss "
        "is the mean over that epoch, while the weights still moved, so a gap can be negative."
    )
    if warned:
        named = first_few(list(dict.fromkeys(warned)), 6)
        caption += f" WARNING: more parameters than training characters (shaded): {named}."
    yield Drawn("gap", caption, figure)
