"""The page of a race: the advice, the race as a picture, the leaderboard."""

from __future__ import annotations

import io
import shlex
from pathlib import Path

import matplotlib as mpl
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from charcmp.output import epochs_text
from charcmp.report.figures.style import NATS, STYLE, style_of
from charcmp.sweeping.race.advice import Advice
from charcmp.sweeping.race.arms import label
from charcmp.sweeping.race.board import Board
from charcmp.sweeping.race.wording import advice_text

LINE_STYLES = {1: "-", 2: "--", 3: ":"}


def race_page(advice: Advice, board: Board) -> str:
    """Returns one HTML file that can be opened from disk; every text in it is escaped."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined
    )
    run = advice.chosen.best_run
    return environment.get_template("race.html").render(
        advice=advice,
        text=advice_text(advice),
        picture=Markup(_svg(race_figure(advice, board))),
        rows=board.rows(),
        run_folder=Path(advice.results_dir) / "runs" / run.run_id,
        run_arguments=shlex.join(advice.run_arguments),
        train_arguments=shlex.join(advice.train_overrides),
        chosen=label(advice.chosen.model),
    )


def race_figure(advice: Advice, board: Board) -> Figure:
    """Draws loss against length of training, a line for each model; means over seeds."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.5, 4.2), layout="constrained")
        panel = figure.subplots()
        cells = sorted({model.cell for model in board.models})
        for model in board.ranked():
            losses = board.losses_by_epochs(model)
            colour, marker = style_of(model.cell, cells)
            panel.plot(
                [*losses],
                [*losses.values()],
                color=colour,
                marker=marker,
                markersize=5,
                linestyle=LINE_STYLES.get(model.layers, "-."),
                label=label(model),
            )
        _add_intervals(panel, advice, cells)
        panel.set_xscale("log")
        # Ticks where there are points. A log scale's own labels are formulas, which STYLE does not
        # render.
        lengths = sorted({length for model in board.ranked()
                          for length in board.losses_by_epochs(model)})  # fmt: skip
        panel.set_xticks(lengths, [*map(epochs_text, lengths)])
        panel.minorticks_off()
        panel.set_xlabel("epochs of training, each run annealed to its end")
        panel.set_ylabel(f"validation loss ({NATS})")
        figure.legend(loc="outside right upper")
    return figure


def _add_intervals(panel: Axes, advice: Advice, cells: list[str]) -> None:
    """Draws the intervals of the finalists' distances from the leader, beside their last points."""
    leader = advice.chosen.val_nats
    for place, challenge in enumerate(advice.finish.challenges, start=1):
        if challenge.of_models is None:
            continue
        low, high = challenge.interval(advice.finish.alpha)
        x = advice.epochs * (1 + 0.04 * place)
        colour, _ = style_of(challenge.model.cell, cells)
        panel.plot([x, x], [leader + low, leader + high], color=colour, linewidth=2)


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    with mpl.rc_context(STYLE):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]
