"""The map of models."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from charcmp.report.analysis.comparisons import Analysis
from charcmp.report.figures.style import (
    GREY,
    RUN_GID,
    Drawn,
    cells_of,
    crowding,
    has_many_cells,
    legend,
    legend_handles,
    number_layers,
    style_of,
)

MIN_RUNS = 5
MAX_PERPLEXITY = 30


def models_figures(analysis: Analysis, say: Callable[[str], None]) -> Iterator[Drawn]:
    """Yields a t-SNE of the runs by the probabilities they give the sampled test characters."""
    table = analysis.table
    if has_many_cells(table):
        return
    found = [(entry, run) for entry in table.done() for run in entry.runs if run.losses is not None]
    if len(found) < MIN_RUNS:
        say(f"{table.heading}: no t-SNE: it needs at least {MIN_RUNS} runs, there are {len(found)}")
        return
    if importlib.util.find_spec("sklearn") is None:
        say("no t-SNE: it needs scikit-learn (pip install 'charcmp[tsne]')")
        return
    perplexity = perplexity_for(len(found))
    places = embed(
        np.stack([run.losses.probabilities_S for _, run in found if run.losses]), perplexity
    )
    cells = cells_of(table)
    figure = Figure(figsize=(6.4, 5.2), layout="constrained")
    panel = figure.subplots()
    most = max(run.num_params for _, run in found)
    shrunk = crowding(len(found))
    for (entry, run), (x, y) in zip(found, places, strict=True):
        colour, marker = style_of(entry.cell, cells)
        size = shrunk * (9 + 11 * (run.num_params / most) ** 0.5)
        (dot,) = panel.plot(x, y, color=colour, marker=marker, markersize=size, linestyle="none",
                            alpha=0.85)  # fmt: skip
        dot.set_gid(RUN_GID + run.run_id)
        number_layers(panel, entry, x, y, shrunk)
    panel.margins(0.12)
    panel.set_xticks([])
    panel.set_yticks([])
    panel.set_xlabel("t-SNE 1 (no unit)")
    panel.set_ylabel("t-SNE 2 (no unit)")
    handles = legend_handles(cells, linestyle="none")
    sizes = sorted(table.rows.items(), key=lambda item: item[1])
    handles += [
        Line2D([], [], color=GREY, marker="o", linestyle="none", alpha=0.6,
               markersize=shrunk * (9 + 11 * min(1.0, target / most) ** 0.5), label=row)
        for row, target in (sizes if len(sizes) <= 4 else [sizes[0], sizes[-1]])
    ]  # fmt: skip
    legend(figure, handles)
    num_chars = len(found[0][1].losses.positions_S) if found[0][1].losses else 0
    caption = (
        f"t-SNE of {len(found)} runs by the probabilities that they give {num_chars:,} fixed "
        f"test characters, perplexity {perplexity:g}. The number is the number of layers, the "
        "size the number of parameters. Only neighbourhood means anything here; the distances "
        "that the claim is judged by stand in the table."
    )
    yield Drawn("tsne", caption, figure)


def perplexity_for(num_runs: int) -> float:
    """Returns a third of the number of runs, at most 30: always below their number."""
    return float(min(MAX_PERPLEXITY, max(1, (num_runs - 1) // 3)))


def embed(probabilities_RS: np.ndarray, perplexity: float) -> np.ndarray:
    """Returns the runs' places in the plane, (R, 2); the same at every call."""
    from sklearn.manifold import TSNE

    places_R2: np.ndarray = TSNE(
        perplexity=perplexity, init="pca", random_state=0, method="exact", learning_rate="auto"
    ).fit_transform(probabilities_RS)
    return places_R2
