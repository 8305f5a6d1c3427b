"""Many models of one budget in order of their loss, with how fast they train."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from charcmp.report.analysis.comparisons import Analysis, Difference
from charcmp.report.analysis.speed import Speeds, comparable_speeds, rows_of_many, speed_note
from charcmp.report.analysis.wording import name
from charcmp.report.figures.style import GREY, NATS, RUN_GID, Drawn, edge_of, legend, write_at_edge
from charcmp.report.tables import Column, Entry
from charcmp.uncertainty.intervals import judge

# Tiers, the best first: colour, and what its models have in common.
TIERS = (
    ("#0072B2", "not significantly worse than the best"),
    ("#56B4E9", "better than the LSTM of its depth"),
    ("#999999", "not significantly different from the LSTM"),
    ("#D55E00", "worse than the LSTM of its depth"),
    ("#000000", "worse than the best, not compared with an LSTM"),
    # Over text alone an interval would be the narrowest of all, and a tier would judge one seed.
    ("#777777", "hollow: not compared, as it or the best has one seed or no losses"),
)
WITHOUT_LSTM, NOT_COMPARED = 4, 5  # of TIERS
LINE_INCHES = 0.19


def ranking_figures(analysis: Analysis, say: Callable[[str], None]) -> Iterator[Drawn]:
    """Yields a figure for each row with so many models that a table does not show their order."""
    for row in rows_of_many(analysis.table):
        entries = [entry for entry in analysis.table.done() if entry.row == row]
        yield _ranking(analysis, row, sorted(entries, key=lambda entry: entry.test_nats))


def _ranking(analysis: Analysis, row: str, entries: Sequence[Entry]) -> Drawn:
    """Draws a line per model: its loss with the interval of its distance from the best, its speed.

    Intervals of the losses themselves would say little: all models are tested on the same text, and
    what is hard for one is hard for the others.
    """
    best = analysis.best(row)
    assert best is not None  # the row has many models
    from_best = {
        difference.a.column: difference for difference in analysis.differences_of("best", row)
    }
    tiers = _tiers(analysis, row, entries, from_best)
    figure = Figure(figsize=(5.6, 1.7 + LINE_INCHES * len(entries)), layout="constrained")
    losses, speeds = figure.subplots(1, 2, sharey=True, width_ratios=[5, 2])
    nats = [entry.test_nats for entry in entries]
    edge = edge_of(nats)
    for y, entry in enumerate(entries):
        _loss_line(losses, y, entry, from_best.get(entry.column), best, tiers[y], edge)
    losses.axvline(best.test_nats, color=GREY, linewidth=0.8)
    losses.set_yticks(range(len(entries)), [name(entry) for entry in entries], fontsize=8)
    losses.set_ylim(len(entries) - 0.4, -0.6)  # the best on top
    if max(nats) > edge:
        losses.set_xlim(right=edge)
    losses.set_xlabel(f"test loss\n({NATS})")
    known = comparable_speeds(entries)
    reference = _reference(entries, known)
    _speed_bars(speeds, entries, known, reference)
    legend(figure, _handles(tiers))
    caption = _caption(analysis, row, entries, known, reference)
    diverged = [entry for entry in analysis.table.entries.values()
                if entry.row == row and not entry.is_done]  # fmt: skip
    if diverged:
        caption += f" Diverged, and not shown: {', '.join(map(name, diverged))}."
    return Drawn(f"ranking-{row}", caption, figure, row)


def _tiers(
    analysis: Analysis, row: str, entries: Sequence[Entry], from_best: Mapping[Column, Difference]
) -> list[int]:
    """Returns each model's index in TIERS, by seeds and text."""
    signs = {("lstm", layers): 0 for _, layers in analysis.table.columns}  # of model minus LSTM
    signs |= _signs_from_lstm(analysis, row)

    def tier(entry: Entry) -> int:
        difference = from_best.get(entry.column)
        if difference is None:  # the best itself
            return 0 if len(entry.seeds) > 1 else NOT_COMPARED
        if difference.both is None:
            return NOT_COMPARED
        if difference.both.sign <= 0:
            return 0
        return signs[entry.column] + 2 if entry.column in signs else WITHOUT_LSTM

    return [tier(entry) for entry in entries]


def _signs_from_lstm(analysis: Analysis, row: str) -> dict[Column, int]:
    """Returns for each model that was compared with the LSTM over seeds whether it differs: -1 if
    it is better. All of the row are one family here, so that equal models get equal colours."""
    compared = {
        column: (difference.both.estimate, is_turned)
        for column, (difference, is_turned) in analysis.from_lstm(row).items()
        if difference.both is not None
    }
    judged = judge(
        [estimate for estimate, _ in compared.values()], analysis.num_planned_from_lstm(row)
    )
    return {
        column: -of_family.sign if is_turned else of_family.sign
        for (column, (_, is_turned)), of_family in zip(compared.items(), judged, strict=True)
    }


def _loss_line(
    panel: Axes,
    y: float,
    entry: Entry,
    from_best: Difference | None,
    best: Entry,
    tier: int,
    edge: float,
) -> None:
    colour = TIERS[tier][0]
    if entry.test_nats > edge:
        write_at_edge(panel, y, f"{entry.test_nats:.3f}", colour=colour)
        return
    if from_best is not None and from_best.both is not None:
        low, high = from_best.both.interval
        ends = best.test_nats + low, min(best.test_nats + high, edge)
        panel.plot(ends, (y, y), color=colour, linewidth=1.5)
    face = _face(tier)
    (dot,) = panel.plot(entry.test_nats, y, color=colour, marker="o", markersize=5,
                        markerfacecolor=face)  # fmt: skip
    dot.set_gid(RUN_GID + "+".join(entry.run_ids))


def _face(tier: int) -> str:
    return "white" if tier == NOT_COMPARED else TIERS[tier][0]


def _handles(tiers: Sequence[int]) -> list[Line2D]:
    """Returns legend handles for the tiers that occur."""
    return [
        Line2D([], [], color=colour, marker="o", markerfacecolor=_face(number), label=meaning)
        for number, (colour, meaning) in enumerate(TIERS) if number in tiers
    ]  # fmt: skip


def _reference(entries: Sequence[Entry], speeds: Speeds) -> Entry | None:
    """Returns the shallowest plain LSTM whose speed is known, or None."""
    lstms = [
        entry for entry in entries if entry.cell == "lstm" and entry.column in speeds.by_column
    ]
    return min(lstms, key=lambda entry: entry.layers, default=None)


def _speed_bars(
    panel: Axes, entries: Sequence[Entry], speeds: Speeds, reference: Entry | None
) -> None:
    unit = speeds.by_column[reference.column] if reference is not None else 1000.0
    panel.barh(
        range(len(entries)), [speeds.by_column.get(entry.column, 0.0) / unit for entry in entries],
        height=0.6, color="#999999",
    )  # fmt: skip
    panel.tick_params(axis="y", length=0, labelleft=False)
    panel.grid(axis="y", visible=False)
    panel.set_xlabel(
        "thousand characters\na second of training" if reference is None
        else f"training speed\n({name(reference)} = 1)"
    )  # fmt: skip


def _caption(
    analysis: Analysis,
    row: str,
    entries: Sequence[Entry],
    speeds: Speeds,
    reference: Entry | None,
) -> str:
    best = analysis.best(row)
    assert best is not None  # the row has many models
    sentences = [
        f"the models at {row} in order of test loss. The lines are plain 95 % intervals, over "
        f"seeds and text, of the difference from {name(best)}, the model with the lowest mean "
        "validation loss, which is why a model may lie to its left. It was chosen because it did "
        "well with these seeds, so its loss is likely too low. The colours tell what is "
        "significant after Holm (5 %), against the best and against the LSTM, each as one family "
        "of all models of the row."
    ]
    if detectable := analysis.detectable_from_best(row):
        sentences.append(
            f"With these seeds, a model that is {detectable:.3f} nats behind the best would be "
            "found significantly worse four times in five (in the median of those compared); "
            "one that is nearer, less often."
        )
    scatter = [entry.sd_over_seeds for entry in entries if entry.sd_over_seeds is not None]
    if scatter and len(scatter) < len(entries):
        sentences.append(
            "Another seed might move a model that has one by as much as it moves the others: "
            f"their SD over seeds is {statistics.median(scatter):.3f} in the median, "
            f"{max(scatter):.3f} at most."
        )
    if reference is not None:
        speed = speeds.by_column[reference.column]
        sentences.append(f"{name(reference)} read {speed:,.0f} characters a second.")
    sentences.append(speed_note(entries))
    return " ".join(sentences)
