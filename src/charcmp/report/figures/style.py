"""What every figure shares: colours, markers, legends.

The colours are Okabe and Ito's, which the colour-blind can tell apart; cells also differ by marker.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullFormatter

from charcmp.report.analysis.comparisons import Analysis
from charcmp.report.analysis.wording import cell_label
from charcmp.report.tables import Entry, Table, cell_order

COLOURS = {"lstm": "#0072B2", "rnn": "#009E73", "gru": "#D55E00"}
OTHER_COLOURS = ("#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
MARKERS = {"lstm": "o", "rnn": "^", "gru": "s"}
OTHER_MARKERS = ("D", "v", "P", "X", "p")
GREY = "#666666"
STYLE: dict[Any, Any] = {
    "svg.hashsalt": "charcmp",
    "svg.fonttype": "none",  # text stays text: small files that can be searched
    "text.parse_math": False,  # a $ in a name is a $
    "font.size": 9,
    "axes.grid": True,
    "grid.color": "#e0e0e0",
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}
MANY_CELLS = 12  # more than colours and markers can tell apart
FEW_POINTS = 40
WIDEST = 1.3
FEW_LINES = 6  # of a legend: figures have room for this many
LEGEND_LINE = 0.18  # inches
FARTHEST = 5  # times the median distance from the best: losses beyond it stand at the edge
RUN_GID = "run:"  # followed by run ids joined by +: marks their points for the page
NATS = "nats per character"


@dataclass(frozen=True)
class Drawn:
    name: str
    caption: str
    figure: Figure
    row: str | None = None


# A kind of figure: yields those that a block's runs allow. The second argument is a function that
# is told what is left out, and why.
Draw = Callable[[Analysis, Callable[[str], None]], Iterator[Drawn]]


def style_of(cell: str, cells: Sequence[str]) -> tuple[str, str]:
    """Returns (colour, marker); variants take the remaining ones in the order of `cells`."""
    if cell in COLOURS:
        return COLOURS[cell], MARKERS[cell]
    number = [other for other in cells if other not in COLOURS].index(cell)
    return OTHER_COLOURS[number % len(OTHER_COLOURS)], OTHER_MARKERS[number % len(OTHER_MARKERS)]


def cells_of(table: Table) -> list[str]:
    """Returns every cell, with its options, that has a finished run."""
    cells = {entry.cell for entry in table.done()}
    return sorted(cells, key=cell_order)


def has_many_cells(table: Table) -> bool:
    """Returns whether a figure with a colour for each cell would tell nothing; figures/ranking.py
    shows such a table."""
    return len(cells_of(table)) > MANY_CELLS


def legend_handles(cells: Sequence[str], linestyle: Literal["-", "none"] = "-") -> list[Line2D]:
    handles = []
    for cell in cells:
        colour, marker = style_of(cell, cells)
        handles.append(
            Line2D([], [], color=colour, marker=marker, linestyle=linestyle, label=cell_label(cell))
        )
    return handles


def legend(figure: Figure, handles: Sequence[Line2D]) -> None:
    """Draws the legend below the panels, in as many columns as fit; a long one adds height."""
    longest = max(len(str(handle.get_label())) for handle in handles)
    fitting = int(72 * figure.get_figwidth() / (4.6 * longest + 38))
    columns = max(1, min(fitting, len(handles)))
    lines = -(-len(handles) // columns)
    figure.set_figheight(figure.get_figheight() + LEGEND_LINE * max(0, lines - FEW_LINES))
    figure.legend(handles=handles, loc="outside lower center", ncols=columns)


def beside(cell: str, cells: Sequence[str], step: float) -> float:
    """Returns the factor that moves a cell's marker beside those of other cells of its size.

    Markers are a factor of `step` apart, or as close as it takes to stay within WIDEST.
    """
    step = min(step, WIDEST ** (2 / max(1, len(cells) - 1)))
    return float(step ** (cells.index(cell) - (len(cells) - 1) / 2))


def crowding(num_points: int) -> float:
    """Returns the factor by which markers shrink if there are many."""
    return float(max(0.7, min(1.0, (FEW_POINTS / num_points) ** 0.5)))


def edge_of(nats: Sequence[float]) -> float:
    """Returns the highest loss that a figure shows in its place: one model that does not learn
    would squeeze all others together."""
    best = min(nats)
    return best + max(FARTHEST * (median(nats) - best), 0.01)


def write_at_edge(
    panel: Axes, y: float, text: str, is_left: bool = False, colour: str = "black"
) -> None:
    """Writes a value that lies outside the frame at its right or left edge, with an arrow."""
    text = f"\N{LEFTWARDS ARROW} {text}" if is_left else f"{text} \N{RIGHTWARDS ARROW}"
    panel.text(0.01 if is_left else 0.99, y, text, transform=panel.get_yaxis_transform(),
               ha="left" if is_left else "right", va="center", fontsize=8,
               color=colour)  # fmt: skip


def label_thousands(axis: Any, values: Sequence[float]) -> None:
    """Labels a log axis of counts at the values that occur: 44,823 is 45k."""
    ticks: list[float] = []
    for value in sorted(values):
        if not ticks or value > 1.25 * ticks[-1]:
            ticks.append(value)
    axis.set_ticks(ticks)
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value / 1000:,.0f}k"))
    axis.set_minor_formatter(NullFormatter())
    axis.set_ticks([], minor=True)


def number_layers(panel: Axes, entry: Entry, x: float, y: float, shrunk: float) -> None:
    """Writes the number of layers in the middle of the entry's marker."""
    lower = -1.5 * shrunk if entry.cell == "rnn" else 0  # a triangle's middle is below its box's
    panel.annotate(str(entry.layers), (x, y), (0, lower), textcoords="offset points",
                   ha="center", va="center_baseline", fontsize=7 * shrunk, color="white",
                   fontweight="bold")  # fmt: skip
