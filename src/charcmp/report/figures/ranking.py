"""Many models of one budget in order of their loss, with how fast they train."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import median

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from charcmp.report.analysis.comparisons import Analysis, Difference
from charcmp.report.analysis.speed import chars_per_second, rows_of_many, trained_on
from charcmp.report.analysis.wording import name
from charcmp.report.figures.style import GREY, NATS, RUN_GID, Drawn, legend
from charcmp.report.tables import Cell, Column

# Tiers, the best first: colour, and what its models have in common.
TIERS = (
    ("#0072B2", "not significantly worse than the best"),
    ("#56B4E9", "better than the LSTM of its depth"),
    ("#999999", "not significantly different from the LSTM"),
    ("#D55E00", "worse than the LSTM of its depth"),
    ("#000000", "worse than the best, not compared with an LSTM"),
)
FARTHEST = 5  # times the median distance from the best: models beyond it stand at the edge
LINE_INCHES = 0.19


def ranking_figures(analysis: Analysis, say: Callable[[str], None]) -> Iterator[Drawn]:
    """One for each row with so many models that a table does not show their order."""
    for row in rows_of_many(analysis.table):
        cells = [cell for cell in analysis.table.done() if cell.row == row]
        yield _ranking(analysis, row, sorted(cells, key=lambda cell: cell.test_nats))


def _ranking(analysis: Analysis, row: str, cells: Sequence[Cell]) -> Drawn:
    """A line for each model: its loss with the interval of its distance from the best, its speed.

    Intervals of the losses themselves would say little: all models meet the same text, and what
    makes it hard for one makes it hard for the others.
    """
    best = analysis.best(row)
    assert best is not None  # there are many
    from_best = {one.a.column: one for one in analysis.of("best", row)}
    tiers = _tiers(analysis, row, cells, from_best)
    figure = Figure(figsize=(5.6, 1.7 + LINE_INCHES * len(cells)), layout="constrained")
    losses, speeds = figure.subplots(1, 2, sharey=True, width_ratios=[5, 2])
    nats = [cell.test_nats for cell in cells]
    edge = nats[0] + max(FARTHEST * (median(nats) - nats[0]), 0.01)
    for y, cell in enumerate(cells):
        _loss_line(losses, y, cell, from_best.get(cell.column), best, TIERS[tiers[y]][0], edge)
    losses.axvline(best.test_nats, color=GREY, linewidth=0.8)
    losses.set_yticks(range(len(cells)), [name(cell) for cell in cells], fontsize=8)
    losses.set_ylim(len(cells) - 0.4, -0.6)  # the best on top
    if max(nats) > edge:
        losses.set_xlim(right=edge)
    losses.set_xlabel(f"test loss\n({NATS})")
    reference = _reference(cells)
    _speed_bars(speeds, cells, reference)
    by_text = any(_is_by_text(cell, from_best.get(cell.column)) for cell in cells)
    legend(figure, _handles(tiers, by_text))
    return Drawn(f"ranking-{row}", _caption(row, cells, best, reference, by_text), figure, row)


def _tiers(
    analysis: Analysis, row: str, cells: Sequence[Cell], from_best: Mapping[Column, Difference]
) -> list[int]:
    """For each model its place in TIERS: by seeds and text where it has seeds, else by text."""
    signs = {("lstm", layers): 0 for _, layers in analysis.table.columns}  # less or more than LSTM
    for family in ("lstm_gru", "rnn", "variants"):
        for one in analysis.of(family, row):
            if one.judged is not None and "lstm" in (one.a.cell, one.b.cell):
                is_first = one.a.cell == "lstm"
                column = one.b.column if is_first else one.a.column
                signs[column] = -one.judged.sign if is_first else one.judged.sign

    def tier(cell: Cell) -> int:
        one = from_best.get(cell.column)
        if one is None or (one.judged is not None and one.judged.sign <= 0):
            return 0
        return signs[cell.column] + 2 if cell.column in signs else len(TIERS) - 1

    return [tier(cell) for cell in cells]


def _loss_line(
    panel: Axes,
    y: float,
    cell: Cell,
    from_best: Difference | None,
    best: Cell,
    colour: str,
    edge: float,
) -> None:
    if cell.test_nats > edge:
        text = f"{cell.test_nats:.3f} \N{RIGHTWARDS ARROW}"
        panel.text(0.99, y, text, transform=panel.get_yaxis_transform(), ha="right", va="center",
                   fontsize=8, color=colour)  # fmt: skip
        return
    if from_best is not None and from_best.judged is not None:
        low, high = from_best.judged.interval
        ends = best.test_nats + low, min(best.test_nats + high, edge)
        panel.plot(ends, (y, y), color=colour, linewidth=1.5)
    face = "white" if _is_by_text(cell, from_best) else colour
    (dot,) = panel.plot(cell.test_nats, y, color=colour, marker="o", markersize=5,
                        markerfacecolor=face)  # fmt: skip
    dot.set_gid(RUN_GID + "+".join(cell.run_ids))


def _is_by_text(cell: Cell, from_best: Difference | None) -> bool:
    """Whether it, or the best that it is compared with, has a single seed."""
    return len(cell.seeds) == 1 if from_best is None else from_best.both is None


def _handles(tiers: Sequence[int], by_text: bool) -> list[Line2D]:
    """The tiers that there are, and where it is needed how single seeds are marked."""
    handles = [
        Line2D([], [], color=colour, marker="o", label=meaning)
        for number, (colour, meaning) in enumerate(TIERS) if number in tiers
    ]  # fmt: skip
    if by_text:
        label = "hollow: one seed, interval and colour by text alone"
        handles.append(
            Line2D([], [], color="black", marker="o", markerfacecolor="white", label=label)
        )
    return handles


def _reference(cells: Sequence[Cell]) -> Cell | None:
    """The shallowest plain LSTM."""
    lstms = [cell for cell in cells if cell.cell == "lstm"]
    return min(lstms, key=lambda cell: cell.layers, default=None)


def _speed_bars(panel: Axes, cells: Sequence[Cell], reference: Cell | None) -> None:
    unit = chars_per_second(reference) if reference is not None else 1000.0
    panel.barh(
        range(len(cells)), [chars_per_second(cell) / unit for cell in cells],
        height=0.6, color="#999999",
    )  # fmt: skip
    panel.tick_params(axis="y", length=0, labelleft=False)
    panel.grid(axis="y", visible=False)
    panel.set_xlabel(
        "thousand characters\na second of training" if reference is None
        else f"training speed\n({name(reference)} = 1)"
    )  # fmt: skip


def _caption(
    row: str, cells: Sequence[Cell], best: Cell, reference: Cell | None, by_text: bool
) -> str:
    said = [
        f"the models at {row} in order of test loss. The lines are plain 95 % intervals of the "
        f"difference from {name(best)}, the model with the lowest mean validation loss, which is "
        "why a model may lie to its left; they are over seeds and text. The colours tell what is "
        "significant after Holm (5 %)."
    ]
    if by_text:
        said.append(
            "A model with a single seed is compared on the test text alone: how much another seed "
            "would move it is not known."
        )
    if reference is not None:
        said.append(
            f"{name(reference)} read {chars_per_second(reference):,.0f} characters a second."
        )
    said.append(trained_on(cells))
    return " ".join(said)
