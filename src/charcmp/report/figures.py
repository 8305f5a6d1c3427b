"""The figures: SVG and PNG, the same bytes for the same runs and library versions.

Colours are Okabe and Ito's, told apart by the colour-blind; cells also differ by marker.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import re
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from charcmp.report.cells import CELL_ORDER, Cell, Table, base_cell
from charcmp.report.comparisons import FAMILIES, PLANNED, Analysis, Difference
from charcmp.report.load import Run, num_train_chars_of, read_history
from charcmp.report.verdicts import cell_label, name
from charcmp.runs import CorruptFileError

COLOURS = {"lstm": "#0072B2", "rnn": "#009E73", "gru": "#D55E00"}
OTHER_COLOURS = ("#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
MARKERS = {"lstm": "o", "rnn": "^", "gru": "s"}
OTHER_MARKERS = ("D", "v", "P", "X", "p")
GREY = "#666666"
PNG_DPI = 130
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
MAX_SLUG = 50  # characters of a file's name
MIN_MODELS = 5  # for a map of models
MAX_PERPLEXITY = 30
MAX_ACROSS = 4  # panels of learning curves
FEW_POINTS = 40
RUN_GID = "run:"  # with run ids, joined by +: marks their points for the page
NATS = "nats per character"


@dataclass(frozen=True)
class Picture:
    """A figure, drawn."""

    name: str  # of its files, without suffix
    caption: str
    heading: str  # of the block it is of
    dataset: str
    row: str | None  # the budget it is of; None for all of the block
    svg: bytes
    png: bytes


@dataclass(frozen=True)
class _Drawn:
    name: str
    caption: str
    figure: Figure
    row: str | None = None


def pictures(analyses: Sequence[Analysis], say: Callable[[str], None]) -> list[Picture]:
    """All figures that the runs can give; `say` hears of what is left out, and why."""
    found = []
    with mpl.rc_context(STYLE):
        for analysis in analyses:
            table = analysis.table
            for drawn in _drawn(analysis, say):
                found.append(
                    Picture(
                        name=f"{_slug(table.heading)}-{drawn.name}",
                        caption=f"{table.heading}: {drawn.caption}",
                        heading=table.heading,
                        dataset=table.dataset,
                        row=drawn.row,
                        svg=_saved(drawn.figure, "svg"),
                        png=_saved(drawn.figure, "png"),
                    )
                )
    return found


def _slug(heading: str) -> str:
    """A block's heading as the beginning of a file's name."""
    slug = re.sub(r"[^a-z0-9]+", "-", heading.lower()).strip("-")
    if len(slug) <= MAX_SLUG:
        return slug
    return f"{slug[:MAX_SLUG]}-{hashlib.sha256(heading.encode()).hexdigest()[:6]}"


def _saved(figure: Figure, kind: str) -> bytes:
    buffer = io.BytesIO()
    metadata = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
    figure.savefig(buffer, format=kind, dpi=PNG_DPI, metadata=metadata)
    return buffer.getvalue()


def _drawn(analysis: Analysis, say: Callable[[str], None]) -> Iterator[_Drawn]:
    table = analysis.table
    if not table.done():
        return
    yield loss_figure(table)
    for row in table.rows:
        if (curves := learning_figure(table, row, say)) is not None:
            yield curves
    for family in PLANNED:
        if differences := analysis.of(family):
            yield forest_figure(family, differences)
    if (gaps := gap_figure(table, say)) is not None:
        yield gaps
    if (map_ := models_figure(table, say)) is not None:
        yield map_


def style_of(cell: str, cells: Sequence[str]) -> tuple[str, str]:
    """(colour, marker); variants take the further ones in the order of `cells`."""
    if cell in COLOURS:
        return COLOURS[cell], MARKERS[cell]
    number = [other for other in cells if other not in COLOURS].index(cell)
    return OTHER_COLOURS[number % len(OTHER_COLOURS)], OTHER_MARKERS[number % len(OTHER_MARKERS)]


def _cells_of(table: Table) -> list[str]:
    """Every cell, with its options, that has a finished run."""
    cells = {cell.cell for cell in table.done()}
    return sorted(cells, key=lambda cell: (CELL_ORDER.index(base_cell(cell)), cell))


def _legend_handles(cells: Sequence[str]) -> list[Line2D]:
    handles = []
    for cell in cells:
        colour, marker = style_of(cell, cells)
        handles.append(Line2D([], [], color=colour, marker=marker, label=cell_label(cell)))
    return handles


def _legend(figure: Figure, handles: Sequence[Line2D]) -> None:
    """Below the panels, in as many columns as the figure is wide."""
    longest = max(len(str(handle.get_label())) for handle in handles)
    columns = int(72 * figure.get_figwidth() / (4.6 * longest + 38))
    figure.legend(
        handles=handles, loc="outside lower center", ncols=max(1, min(columns, len(handles)))
    )


def crowding(num_points: int) -> float:
    """By how much markers shrink where there are many."""
    return float(max(0.7, min(1.0, (FEW_POINTS / num_points) ** 0.5)))


def _thousands(axis: Any, values: Sequence[float]) -> None:
    """Labels a log axis of counts at the values that occur: 44,823 is 45k."""
    ticks: list[float] = []
    for value in sorted(values):
        if not ticks or value > 1.25 * ticks[-1]:
            ticks.append(value)
    axis.set_ticks(ticks)
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value / 1000:,.0f}k"))
    axis.set_minor_formatter(NullFormatter())
    axis.set_ticks([], minor=True)


# Loss against parameters.


def loss_figure(table: Table) -> _Drawn:
    """A panel for each depth, a line for each cell, the paper's values hollow."""
    cells = _cells_of(table)
    depths = sorted({cell.layers for cell in table.done()})
    figure = Figure(figsize=(1.2 + 2.6 * len(depths), 3.6), layout="constrained")
    panels = figure.subplots(1, len(depths), sharey=True, squeeze=False)[0]
    for panel, depth in zip(panels, depths, strict=True):
        of_depth = [cell for cell in table.done() if cell.layers == depth]
        for number, cell in enumerate(cells):
            points = sorted(
                (point for point in of_depth if point.cell == cell), key=lambda p: p.target_params
            )
            _loss_line(panel, points, number - (len(cells) - 1) / 2, style_of(cell, cells))
        panel.set_xscale("log")
        targets = sorted(table.rows.values())
        _thousands(panel.xaxis, targets)
        panel.set_xlim(targets[0] / 1.35, targets[-1] * 1.35)
        panel.set_title(f"{depth} layer{'s' * (depth > 1)}", fontsize=9)
        panel.set_xlabel("parameters (budget)")
    panels[0].set_ylabel(f"test loss ({NATS})")
    handles = _legend_handles(cells)
    caption = (
        "test loss against parameters, by cell and number of layers. Markers of one budget stand "
        "beside each other. Bars: standard deviation over seeds."
    )
    if any(cell.paper_nats is not None for cell in table.done()):
        caption += " Hollow: the paper's Table 1."
        handles.append(Line2D([], [], color=GREY, marker="o", markerfacecolor="none",
                              linestyle="none", label="the paper"))  # fmt: skip
    _legend(figure, handles)
    return _Drawn("loss", caption, figure)


def _loss_line(panel: Axes, points: Sequence[Cell], offset: float, style: tuple[str, str]) -> None:
    colour, marker = style
    x = [point.target_params * 1.05**offset for point in points]
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


# Learning curves.


def learning_figure(table: Table, row: str, say: Callable[[str], None]) -> _Drawn | None:
    """A panel for each cell and depth of a row; every seed a line, its best epoch marked."""
    histories: dict[tuple[str, int], list[tuple[Run, list[dict[str, float]]]]] = {}
    for cell in table.done():
        if cell.row != row:
            continue
        for run in cell.runs:
            try:
                history = read_history(run)
            except CorruptFileError as error:
                say(f"{error}; left out of the learning curves")
                continue
            if history:
                histories.setdefault(cell.column, []).append((run, history))
    if not histories:
        return None
    cells = [cell for cell in _cells_of(table) if any(c == cell for c, _ in histories)]
    depths = sorted({layers for _, layers in histories})
    # Cells side by side, as many as can be read; the rest in a further block of rows.
    across = min(len(cells), MAX_ACROSS)
    down = len(depths) * -(-len(cells) // across)
    figure = Figure(figsize=(1.0 + 2.3 * across, 1.1 + 1.75 * down), layout="constrained")
    panels = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False)
    for (i, j), panel in np.ndenumerate(panels):
        block, i_depth = divmod(i, len(depths))
        if (number := block * across + j) >= len(cells):
            panel.set_axis_off()
            continue
        depth, of = depths[i_depth], cells[number]
        title = f"{cell_label(of)}, {depth} layer{'s' * (depth > 1)}"
        panel.set_title(textwrap.fill(title, 34), fontsize=8)
        if (of, depth) not in histories:
            panel.text(0.5, 0.5, "no finished run", transform=panel.transAxes, ha="center",
                       color=GREY)  # fmt: skip
        for _, history in histories.get((of, depth), []):
            _learning_curve(panel, history, style_of(of, cells)[0])
        panel.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 5, 10]))
        if i_depth == len(depths) - 1:
            panel.set_xlabel("epoch")
            panel.tick_params(labelbottom=True)
    panels[0, 0].set_ylim(*_loss_range([h for some in histories.values() for _, h in some]))
    figure.supylabel(f"loss ({NATS})", fontsize=9)
    handles = [
        Line2D([], [], color=GREY, linestyle="--", label="train (mean over the epoch)"),
        Line2D([], [], color=GREY, label="validation"),
        Line2D([], [], color=GREY, marker="o", linestyle="none", label="best epoch"),
    ]
    _legend(figure, handles)
    caption = (
        f"learning curves at {row}, a line for each seed. The first epochs may lie above the frame."
    )
    return _Drawn(f"learning-{row}", caption, figure, row)


def _learning_curve(panel: Axes, history: Sequence[dict[str, float]], colour: str) -> None:
    epochs = [entry["epoch"] for entry in history]
    val = [entry["val_nats_per_char"] for entry in history]
    train = [entry["train_nats_per_char"] for entry in history]
    panel.plot(epochs, train, color=colour, linewidth=1, linestyle="--")
    panel.plot(epochs, val, color=colour, linewidth=1)
    best = int(np.argmin(val))
    panel.plot(epochs[best], val[best], color=colour, marker="o", markersize=5, clip_on=False)


def _loss_range(histories: Sequence[Sequence[dict[str, float]]]) -> tuple[float, float]:
    """From the lowest loss to what the slowest has come down to by the third epoch."""
    lowest, highest = [], []
    for history in histories:
        losses = [(entry["train_nats_per_char"], entry["val_nats_per_char"]) for entry in history]
        lowest.append(min(map(min, losses)))
        highest.append(max(losses[min(2, len(losses) - 1)] if len(losses) > 5 else losses[0]))
    margin = 0.05 * (max(highest) - min(lowest))
    return min(lowest) - margin, max(highest) + margin


# Differences.


def forest_figure(family: str, differences: Sequence[Difference]) -> _Drawn:
    """A line for each comparison, budgets below one another."""
    rows = list(dict.fromkeys(one.row for one in differences))
    num_lines = len(differences) + len(rows)
    longest = max(len(f"{name(one.a)} - {name(one.b)}") for one in differences)
    size = (max(7.2, 4.6 + 0.07 * longest), 1.6 + 0.23 * num_lines)
    figure = Figure(figsize=size, layout="constrained")
    panel = figure.subplots()
    labels: list[tuple[float, str]] = []
    y = 0.0
    for row in rows:
        labels.append((y, row))
        y -= 1
        for one in (one for one in differences if one.row == row):
            _forest_line(panel, y, one)
            single = "" if one.both else "  [1 seed]"
            labels.append((y, f"{name(one.a)} - {name(one.b)}{single}"))
            y -= 1
    panel.axvline(0, color="black", linewidth=0.8)
    panel.set_yticks([at for at, _ in labels], [label for _, label in labels])
    for label, (_, text) in zip(panel.get_yticklabels(), labels, strict=True):
        label.set_fontweight("bold" if text in rows else "normal")
    panel.set_ylim(y + 0.3, 0.7)
    panel.grid(axis="y", visible=False)
    panel.set_xlabel(f"difference of test losses ({NATS})\nleft of 0: the first is better")
    handles = [
        Line2D([], [], color="black", marker="o", label="told from 0"),
        Line2D([], [], color="black", marker="o", markerfacecolor="white", label="not told from 0"),
        Line2D([], [], color=OTHER_COLOURS[2], linewidth=5, alpha=0.6,
               label="these very models, other text"),
    ]  # fmt: skip
    _legend(figure, handles)
    caption = (
        f"{FAMILIES[family]}, 95 % intervals. Black: over seeds and text, Holm-adjusted within the "
        "budget; with one seed, over text alone and so marked. Blue: resampled text, unadjusted."
    )
    return _Drawn(f"differences-{family.replace('_', '-')}", caption, figure)


def _forest_line(panel: Axes, y: float, one: Difference) -> None:
    if one.resampled is not None:
        panel.plot(one.resampled.interval, (y, y), color=OTHER_COLOURS[2], linewidth=5, alpha=0.6,
                   solid_capstyle="butt")  # fmt: skip
    told = one.judged is not None and one.judged.rejected
    if one.judged is not None:
        panel.plot(one.judged.interval, (y, y), color="black", linewidth=1.2)
    panel.plot(one.nats, y, marker="o", color="black", markersize=5,
               markerfacecolor="black" if told else "white")  # fmt: skip


# Over-fitting.


def gap_figure(table: Table, say: Callable[[str], None]) -> _Drawn | None:
    """Validation minus training loss against parameters per training character."""
    points = []
    for cell in table.done():
        for run in cell.runs:
            if num_chars := num_train_chars_of(run):
                gap = run.val_nats_per_char - run.train_nats_per_char
                points.append((cell, run, run.num_params / num_chars, gap))
    if not points:
        say(f"{table.heading}: no environment.json tells the training text's length; no figure of "
            "the over-fitting gap")  # fmt: skip
        return None
    cells = _cells_of(table)
    figure = Figure(figsize=(6.4, 3.9), layout="constrained")
    panel = figure.subplots()
    shrunk = crowding(len(points))
    for cell, run, ratio, gap in points:
        colour, marker = style_of(cell.cell, cells)
        number = cells.index(cell.cell) - (len(cells) - 1) / 2
        (dot,) = panel.plot(ratio * 1.04**number, gap, color=colour, marker=marker,
                            markersize=12 * shrunk, alpha=0.85, linestyle="none")  # fmt: skip
        dot.set_gid(RUN_GID + run.run_id)
        _number(panel, cell, ratio * 1.04**number, gap, shrunk)
    ratios = [ratio for *_, ratio, _ in points]
    low, high = min(ratios) / 1.5, max(ratios) * 1.5
    warned = [name(cell) + f" at {cell.row}" for cell, _, ratio, _ in points if ratio > 1]
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
    handles = _legend_handles(cells)
    for handle in handles:
        handle.set_linestyle("none")
    _legend(figure, handles)
    caption = (
        "over-fitting gap at the best epoch; the number is the number of layers. The training loss "
        "is the mean over that epoch, while the weights still moved, so a gap can be negative."
    )
    if warned:
        more = f" and {len(set(warned)) - 6} more" if len(set(warned)) > 6 else ""
        caption += (
            " WARNING: more parameters than training characters (shaded): "
            + ", ".join(list(dict.fromkeys(warned))[:6]) + more + "."
        )  # fmt: skip
    return _Drawn("gap", caption, figure)


def _number(panel: Axes, cell: Cell, x: float, y: float, shrunk: float) -> None:
    """The number of layers, in the middle of the cell's marker."""
    lower = -1.5 * shrunk if cell.cell == "rnn" else 0  # a triangle's middle is below its box's
    panel.annotate(str(cell.layers), (x, y), (0, lower), textcoords="offset points",
                   ha="center", va="center_baseline", fontsize=7 * shrunk, color="white",
                   fontweight="bold")  # fmt: skip


# The map of models.


def models_figure(table: Table, say: Callable[[str], None]) -> _Drawn | None:
    """t-SNE of the models by the probabilities they give the sampled test characters."""
    found = [(cell, run) for cell in table.done() for run in cell.runs if run.losses is not None]
    if len(found) < MIN_MODELS:
        say(f"{table.heading}: no t-SNE of {len(found)} models; it takes {MIN_MODELS}")
        return None
    if importlib.util.find_spec("sklearn") is None:
        say("no t-SNE: pip install 'charcmp[tsne]' brings scikit-learn")
        return None
    perplexity = perplexity_for(len(found))
    places = embed(
        np.stack([run.losses.probabilities_S for _, run in found if run.losses]), perplexity
    )
    cells = _cells_of(table)
    figure = Figure(figsize=(6.4, 5.2), layout="constrained")
    panel = figure.subplots()
    most = max(run.num_params for _, run in found)
    shrunk = crowding(len(found))
    for (cell, run), (x, y) in zip(found, places, strict=True):
        colour, marker = style_of(cell.cell, cells)
        size = shrunk * (9 + 11 * (run.num_params / most) ** 0.5)
        (dot,) = panel.plot(x, y, color=colour, marker=marker, markersize=size, linestyle="none",
                            alpha=0.85)  # fmt: skip
        dot.set_gid(RUN_GID + run.run_id)
        _number(panel, cell, x, y, shrunk)
    panel.margins(0.12)
    panel.set_xticks([])
    panel.set_yticks([])
    panel.set_xlabel("t-SNE 1 (no unit)")
    panel.set_ylabel("t-SNE 2 (no unit)")
    handles = _legend_handles(cells)
    for handle in handles:
        handle.set_linestyle("none")
    sizes = sorted(table.rows.items(), key=lambda item: item[1])
    handles += [
        Line2D([], [], color=GREY, marker="o", linestyle="none", alpha=0.6,
               markersize=shrunk * (9 + 11 * min(1.0, target / most) ** 0.5), label=row)
        for row, target in (sizes if len(sizes) <= 4 else [sizes[0], sizes[-1]])
    ]  # fmt: skip
    _legend(figure, handles)
    num_chars = len(found[0][1].losses.positions_S) if found[0][1].losses else 0
    caption = (
        f"t-SNE of {len(found)} models by the probabilities that they give {num_chars:,} fixed "
        f"test characters, perplexity {perplexity:g}. The number is the number of layers, the "
        "size the number of parameters. Only neighbourhood means anything here; the distances "
        "that the claim is judged by stand in the table."
    )
    return _Drawn("tsne", caption, figure)


def perplexity_for(num_models: int) -> float:
    """A third of the models, at most 30: always below their number."""
    return float(min(MAX_PERPLEXITY, max(1, (num_models - 1) // 3)))


def embed(probabilities_MS: np.ndarray, perplexity: float) -> np.ndarray:
    """Places in the plane, (M, 2); the same at every call."""
    from sklearn.manifold import TSNE

    places_M2: np.ndarray = TSNE(
        perplexity=perplexity, init="pca", random_state=0, method="exact", learning_rate="auto"
    ).fit_transform(probabilities_MS)
    return places_M2
