"""Differences with their intervals."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from statistics import median

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from charcmp.report.analysis.comparisons import FAMILIES, PLANNED, Analysis, Difference
from charcmp.report.analysis.wording import name
from charcmp.report.figures.style import (
    NATS,
    OTHER_COLOURS,
    Drawn,
    has_many_cells,
    legend,
    write_at_edge,
)

FARTHEST = 10  # times the median difference: those beyond it are written at the edge


def forest_figures(analysis: Analysis, say: Callable[[str], None]) -> Iterator[Drawn]:
    """Yields a figure for each planned family of comparisons."""
    for family in PLANNED:
        differences = analysis.differences_of(family)
        if family == "variants" and has_many_cells(analysis.table):
            differences = sorted(differences, key=lambda difference: difference.nats)
        if differences:
            yield _family_figure(family, differences)


def _family_figure(family: str, differences: Sequence[Difference]) -> Drawn:
    """Draws a line for each comparison, with the budgets below one another."""
    rows = list(dict.fromkeys(difference.row for difference in differences))
    num_lines = len(differences) + len(rows)
    longest = max(len(_label(difference)) for difference in differences)
    size = (max(7.2, 4.6 + 0.07 * longest), 1.6 + 0.23 * num_lines)
    figure = Figure(figsize=size, layout="constrained")
    panel = figure.subplots()
    sizes = [abs(difference.nats) for difference in differences]
    edge = max(FARTHEST * median(sizes), 0.05)
    labels: list[tuple[float, str]] = []
    y = 0.0
    for row in rows:
        labels.append((y, row))
        y -= 1
        for difference in (difference for difference in differences if difference.row == row):
            _forest_line(panel, y, difference, edge)
            labels.append((y, _label(difference)))
            y -= 1
    panel.axvline(0, color="black", linewidth=0.8)
    if max(sizes) > edge:
        low, high = panel.get_xlim()
        panel.set_xlim(max(low, -edge), min(high, edge))
    panel.set_yticks([at for at, _ in labels], [label for _, label in labels])
    for label, (_, text) in zip(panel.get_yticklabels(), labels, strict=True):
        label.set_fontweight("bold" if text in rows else "normal")
    panel.set_ylim(y + 0.3, 0.7)
    panel.grid(axis="y", visible=False)
    panel.set_xlabel(f"difference of test losses ({NATS})\nleft of 0: the first is better")
    handles = [
        Line2D([], [], color="black", marker="o", label="significantly different (Holm, 5 %)"),
        Line2D([], [], color="black", marker="o", markerfacecolor="white",
               label="not significantly different"),
        Line2D([], [], color=OTHER_COLOURS[2], linewidth=5, alpha=0.6,
               label="these very models, other text"),
    ]  # fmt: skip
    legend(figure, handles)
    caption = (
        f"{FAMILIES[family]}. Lines: plain 95 % intervals; filled: significantly different after "
        "Holm over the family, so a line may leave out 0 where its point is not filled. Black: "
        "over seeds and text; with one seed, over text alone and so marked. Blue: resampled text."
    )
    if max(sizes) > edge:
        caption += " Arrows: differences far outside the frame."
    return Drawn(f"differences-{family.replace('_', '-')}", caption, figure)


def _label(difference: Difference) -> str:
    """Returns `LSTM 1 - GRU 1`, marked if its interval is not over seeds and text."""
    mark = ""
    if difference.judged is None:
        mark = "  [no interval]"
    elif difference.both is None:
        mark = "  [1 seed]"
    return f"{name(difference.a)} - {name(difference.b)}{mark}"


def _forest_line(panel: Axes, y: float, difference: Difference, edge: float) -> None:
    if abs(difference.nats) > edge:
        write_at_edge(panel, y, f"{difference.nats:+.3f}", is_left=difference.nats < 0)
        return
    if difference.resampled is not None:
        panel.plot(difference.resampled.interval, (y, y), color=OTHER_COLOURS[2], linewidth=5,
                   alpha=0.6, solid_capstyle="butt")  # fmt: skip
    is_significant = difference.judged is not None and difference.judged.significant
    if difference.judged is not None:
        panel.plot(difference.judged.interval, (y, y), color="black", linewidth=1.2)
    panel.plot(difference.nats, y, marker="o", color="black", markersize=5,
               markerfacecolor="black" if is_significant else "white")  # fmt: skip
