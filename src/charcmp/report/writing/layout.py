"""What the lines of a printed table are and what is said beneath, whatever the file format."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

from charcmp.models.cells.registry import CELLS
from charcmp.report import paper
from charcmp.report.analysis.comparisons import Analysis, Power
from charcmp.report.analysis.speed import chars_per_second, rows_of_many, trained_on
from charcmp.report.analysis.wording import (
    FEW_EPOCHS,
    FEW_EPOCHS_CAUTION,
    cell_label,
    name,
    training,
)
from charcmp.report.load import largest_state
from charcmp.report.tables import ANY_RATE, Cell, Table, is_the_papers
from charcmp.runs.folder import RUNAWAY

MISSING = "—"
# Nats a character by which a row's first block lies above the others. Without a context a trained
# model loses 0.05 to 0.35 there.
MUCH_AT_START = 0.5
MOST_MISSING_NAMED = 12
ENOUGH_BLOCKS = 20  # to estimate a variance from


@dataclass(frozen=True)
class Measure:
    """A unit to show losses in."""

    name: str
    title: str
    of_nats: Callable[[float], float]
    slope: Callable[[float], float]  # its derivative, by which a small SD in nats is multiplied


MEASURES = (
    Measure("nats", "test nats per character", lambda nats: nats, lambda nats: 1.0),
    Measure("perplexity", "test perplexity per character", math.exp, math.exp),
    Measure(
        "bits",
        "test bits per character",
        lambda nats: nats / math.log(2),
        lambda nats: 1 / math.log(2),
    ),
)


@dataclass(frozen=True)
class Line:
    """One line of a table: a budget's losses, or something about them."""

    budget: str
    label: str
    values: list[float | str | None]
    format: str
    missing: str = ""
    bold: tuple[bool, ...] = ()

    def texts(self) -> list[str]:
        return [
            value if isinstance(value, str)
            else self.missing if value is None
            else format(value, self.format)
            for value in self.values
        ]  # fmt: skip

    def is_bold(self) -> list[bool]:
        return list(self.bold) or [False] * len(self.values)


def table_lines(analysis: Analysis, measure: Measure) -> list[Line]:
    """Under each budget's losses what belongs to them; lines that would be empty are left out."""
    lines = []
    for row in analysis.table.rows:
        for line in _row_lines(analysis, row, measure):
            if line.label == "test" or any(value is not None for value in line.values):
                lines.append(line)
    return lines


def _row_lines(analysis: Analysis, row: str, measure: Measure) -> list[Line]:
    table = analysis.table
    cells = [table.cells.get((row, *column)) for column in table.columns]
    papers = [table.paper_nats(row, *column) for column in table.columns]

    def values(of_cell: Callable[[Cell], float | None]) -> list[float | str | None]:
        return [of_cell(cell) if cell and cell.is_done else None for cell in cells]

    def ours(cell: Cell) -> float:
        return measure.of_nats(cell.test_nats)

    def difference(cell: Cell) -> float | None:
        return None if cell.paper_nats is None else ours(cell) - measure.of_nats(cell.paper_nats)

    def sd(name: str) -> list[float | str | None]:
        def of_cell(cell: Cell) -> float | None:
            in_nats: float | None = getattr(cell, name)
            return None if in_nats is None else in_nats * measure.slope(cell.test_nats)

        return values(of_cell)

    def speed(cell: Cell) -> float | None:
        return chars_per_second(cell) if row in rows_of_many(table) else None

    not_worse = {cell.column for cell in analysis.not_worse(row)}
    shown: list[float | str | None] = [
        None if cell is None else ours(cell) if cell.is_done else "diverged" for cell in cells
    ]
    return [
        Line(row, "test", shown, ".3f", MISSING,
             tuple(column in not_worse for column in table.columns)),
        Line(row, "paper", [p and measure.of_nats(p) for p in papers], ".3f"),
        Line(row, "difference", values(difference), "+.3f"),
        Line(row, "SD, characters", sd("sd_chars"), ".4f"),
        Line(row, "SD, blocks", sd("sd_blocks"), ".4f"),
        Line(row, "SD, seeds", sd("sd_over_seeds"), ".4f"),
        Line(row, "seeds", values(lambda cell: len(cell.seeds)), "d"),
        Line(row, "characters/s", values(speed), ",.0f"),
    ]  # fmt: skip


def column_label(column: tuple[str, int]) -> tuple[str, str]:
    """("LSTM", "2")"""
    cell, layers = column
    return cell_label(cell), str(layers)


def caption(analysis: Analysis, measure: Measure, bold: str) -> str:
    """What the table shows, and what its bold figures mean."""
    return f"{analysis.table.heading}: {measure.title}; {_bold_rule(analysis, bold)}"


def _bold_rule(analysis: Analysis, bold: str) -> str:
    """What is bold, or why nothing is."""
    compared = analysis.of("best")
    if not compared:
        return "nothing to compare with"
    if any(one.both is not None for one in compared):
        return (
            f"{bold}: not significantly worse than the model with the lowest mean validation loss "
            "of its row (Holm, 5 %, over seeds and text); a model with one seed is not compared, "
            "and where that best model has one, nothing in its row is"
        )
    if all(min(len(one.a.seeds), len(one.b.seeds)) < 2 for one in compared):
        return "nothing is bold, as there is one seed: how much another would change is not known"
    return "nothing is bold, as no comparison with the best is over seeds and text"


def notes(analysis: Analysis) -> list[str]:
    """What must be known to read this block rightly."""
    table = analysis.table
    order = (
        f"The order of the models is that {training(table)}; another training, such as each model "
        "at a learning rate of its own, may order them differently."
    )
    return [
        *size_notes(table),
        order,
        *_power_notes(analysis),
        *_few_blocks_notes(analysis),
        *_speed_notes(table),
        *remarks(table),
    ]


def size_notes(table: Table) -> list[str]:
    """Sizes and seeds."""
    return [budgets_note(table), _seeds_note(table)]


def remarks(table: Table) -> list[str]:
    """What is missing, and what is unusual about text, cells or training."""
    said = []
    if missing := [
        f"{cell_label(cell)} {layers} at {row}" for row in table.rows
        for cell, layers in table.columns if (row, cell, layers) not in table.cells
    ]:  # fmt: skip
        more = len(missing) - MOST_MISSING_NAMED
        said.append(
            f"Not there yet: {', '.join(missing[:MOST_MISSING_NAMED])}"
            + (f" and {more} more." if more > 0 else ".")
        )
    said += short_notes(table)
    if table.task != "lm":
        return [*said, *_dropout_notes(table), *_diverged_notes(table), *_gpu_notes(table)]
    if table.dataset in paper.SPLITS and not is_the_papers(table.settings):
        said.append("These runs are not at the paper's settings; its figures are no target here.")
    said += [
        *_rate_notes(table),
        *_dropout_notes(table),
        *_runaway_notes(table),
        *_start_notes(table),
        *_diverged_notes(table),
        *_gpu_notes(table),
    ]
    if table.layout == "columns" and (ngram := paper.best_ngram(table.dataset)):
        said.append(
            f"The paper's best n-gram model has {ngram[1]:.3f} nats (n = {ngram[0]}, its Table 2)."
        )
    return said


def short_notes(table: Table) -> list[str]:
    """What must stand beside a table's figures wherever they are shown."""
    said = []
    if table.corpus_note:
        said.append(f"Text: {table.corpus_note}.")
        if table.dataset == "lk" and "stand-in" in table.corpus_note:
            said.append("The stand-in has another file order than the paper's text.")
    runs = [run for cell in table.done() for run in cell.runs]
    shown = {run.cell for run in runs}
    said += [note for name in CELLS if name in shown and (note := CELLS[name].note)]
    if own := sorted({run.cell for run in runs if run.origin and "cell.init" not in run.identity}):
        said.append(f"Initial values of their own, not the protocol's: {', '.join(own)}.")
    if table.epochs < FEW_EPOCHS:
        said.append(f"Only {table.epochs} epoch{'s' * (table.epochs > 1)}. {FEW_EPOCHS_CAUTION}")
    return said


def _name(cell: Cell) -> str:
    return f"{name(cell)} at {cell.row}"


def budgets_note(table: Table) -> str:
    targets = ", ".join(
        f"{name} = {target:,}" if not name.isdecimal() else f"{target:,}"
        for name, target in table.rows.items()
    )
    off = max((abs(cell.deviation_percent) for cell in table.cells.values()), default=0.0)
    return f"Parameters: {targets}; met to {off:.1f} %. Columns: number of layers."


def _seeds_note(table: Table) -> str:
    counts = sorted({len(cell.seeds) for cell in table.done()})
    if counts in ([], [1]):
        return "One seed per cell: how much a seed moves a loss is not known from these runs."
    if len(counts) == 1:
        said = f"Means over {counts[0]} seeds."
    else:
        said = f"Means over {counts[0]} to {counts[-1]} seeds, as marked."
    if counts[0] == 1:
        said += " A 1 says nothing of how much a seed moves the loss."
    if 2 in counts:
        said += (
            " Two seeds of each of two cells leave two degrees of freedom: only differences many "
            "times their standard error are significant, and what is bold may be far from the best."
        )
    return said


def _power_notes(analysis: Analysis) -> list[str]:
    """The smallest differences that could have been told, against what LSTM - GRU came out as."""
    groups: dict[tuple[str, int], list[Power]] = {}
    for power in analysis.power:
        groups.setdefault((power.row, power.num_seeds), []).append(power)
    said = []
    for (row, num_seeds), powers in groups.items():
        of = f"{num_seeds} seeds" if num_seeds > 1 else "one seed, so by text alone,"
        limits = ", ".join(f"{one.detectable:.4f} nats ({_depth(one)})" for one in powers)
        line = (
            f"{row}: with {of} a difference of LSTM and GRU below {limits} would usually be missed "
            f"(80 % power, Holm's first step of {analysis.family_size('lstm_gru')} comparisons)"
        )
        if beyond := [one for one in powers if one.is_beyond]:
            line += "; smaller it came out with " + ", ".join(
                f"{_depth(one)}: {one.difference:.4f}" for one in beyond
            )
        said.append(f"{line}.")
    return said


def _few_blocks_notes(analysis: Analysis) -> list[str]:
    """Where the test text is too short, or its stretches too much alike, for good intervals."""
    said = []
    measured = [one.text_variance for one in analysis.differences if one.text_variance is not None]
    fewest = min((text.num_blocks for text in measured), default=math.inf)
    if fewest < ENOUGH_BLOCKS:
        said.append(
            f"The test text is as few as {fewest:.0f} blocks of the length that its dependence "
            f"asks for; below {ENOUGH_BLOCKS}, standard errors and intervals over text are rough."
        )
    if any(one.text_variance is None and one.has_losses for one in analysis.differences):
        said.append(
            "The test text is a single block of characters, so there is no interval over text, and "
            "nothing is significant: a longer text is needed."
        )
    return said


def _speed_notes(table: Table) -> list[str]:
    """Under which conditions the speeds were measured, where there are any."""
    rows = rows_of_many(table)
    if not rows:
        return []
    cells = [cell for cell in table.done() if cell.row in rows]
    return [f"characters/s: that training read, evaluations apart. {trained_on(cells)}"]


def _depth(power: Power) -> str:
    return f"{power.layers} layer{'s' * (power.layers > 1)}"


def _rate_notes(table: Table) -> list[str]:
    """Which learning rates a table of own rates has, and which lie at an end of what was tried."""
    cells = table.done()
    if table.settings.get("optimizer.lr") != ANY_RATE["optimizer.lr"] or not cells:
        return []
    told = []
    for row in table.rows:
        rates = sorted({rate for cell in cells if cell.row == row for rate in cell.rates_tried})
        told.append(f"{row}: " + ", ".join(f"{rate:g}" for rate in rates))
    notes = [
        "Each model at the learning rate with the lowest mean validation loss over the seeds that "
        f"all its rates share. Rates tried at {'; '.join(told)}. A model is here only if it was "
        "trained at all of them"
        + (", at some for a shorter time alone" if any(c.rates_given_up for c in cells) else "")
        + ". Chosen: "
        + "; ".join(f"{_name(cell)}: {cell.rate:g}" for cell in cells)
        + "."
    ]
    at_end = [
        _name(cell) for cell in cells if cell.rate in (cell.rates_tried[0], cell.rates_tried[-1])
    ]
    if at_end:
        notes.append(
            f"The rate lies at an end of what was tried, so another may be better still: "
            f"{', '.join(at_end)}."
        )
    return notes


def _dropout_notes(table: Table) -> list[str]:
    chosen = [cell for cell in table.done() if len(cell.dropout_candidates) > 1]
    if chosen:
        return [
            "Dropout chosen by validation loss: "
            + "; ".join(
                f"{_name(cell)}: {cell.dropout:g} of "
                + ", ".join(f"{value:g}" for value in cell.dropout_candidates)
                for cell in chosen
            )
            + "."
        ]
    used = {cell.dropout for cell in table.done()}
    if used in (set(), {0.0}):
        return []
    return ["Dropout: " + "; ".join(f"{_name(c)}: {c.dropout:g}" for c in table.done()) + "."]


def _runaway_notes(table: Table) -> list[str]:
    largest = [(cell, max(map(largest_state, cell.runs))) for cell in table.done()]
    reached = [f"{_name(cell)}: {top:,.0f}" for cell, top in largest if top > RUNAWAY]
    if not reached:
        return []
    return [
        f"Memory that ran away, the largest element of the state that training carried: "
        f"{'; '.join(reached)}. Evaluation starts from a zero state, where such a model behaves "
        "differently."
    ]


def _start_notes(table: Table) -> list[str]:
    """The models that need long to find into a text from a zero state."""
    told = []
    for cell in table.done():
        losses = [
            run.losses
            for run in cell.runs
            # The series of `contiguous` has one start, too few for a mean.
            if run.losses is not None and run.layout == "columns"
        ]
        if losses and fmean(one.rise_at_start for one in losses) > MUCH_AT_START:
            cost = fmean(one.cost_of_start for one in losses)
            told.append(f"{_name(cell)}: {cost:.3f}")
    if not told:
        return []
    return [
        "Evaluation starts each row of the text from a zero state, which training leaves at its "
        f"first step for good. Models whose first characters of a row lie {MUCH_AT_START:g} nats "
        f"or more above the rest, and what that adds to their test loss: {'; '.join(told)}."
    ]


def _diverged_notes(table: Table) -> list[str]:
    diverged = [cell for cell in table.cells.values() if cell.num_diverged]
    if not diverged:
        return []
    return ["Diverged runs: " + "; ".join(f"{_name(c)}: {c.num_diverged}" for c in diverged) + "."]


def _gpu_notes(table: Table) -> list[str]:
    """Which runs of a GPU were checked against calls and against the CPU, and which were not."""
    runs = [run for cell in table.done() for run in cell.runs if run.device.startswith("cuda")]
    verified = [run for run in runs if run.verified]
    said = []
    if verified:
        said.append(f"Verified runs of a GPU (docs/gpu.md): {len(verified)}.")
    if unverified := sorted({run.run_id for run in runs if not run.verified}):
        shown = ", ".join(unverified[:MOST_MISSING_NAMED])
        more = len(unverified) - MOST_MISSING_NAMED
        shown += f" and {more} more" if more > 0 else ""
        said.append(f"Trained on a GPU and not verified: {shown}.")
    return said


def sd_notes(tables: Sequence[Table], measure: Measure) -> list[str]:
    """What the lines of standard deviations mean."""
    cells = [cell for table in tables for cell in table.done()]
    lengths = sorted({length for cell in cells for length in cell.block_lengths})
    if not lengths:
        return []
    of = f"{lengths[0]:,}" + (f" to {lengths[-1]:,}" if len(lengths) > 1 else "")
    said = [
        "SD: bootstrap standard deviation of the test loss of one trained model, resampling "
        f"single characters (the paper's way) or blocks of {of} characters, as long as each "
        "series' dependence asks for, that never cross a row of the split (cells.csv has the "
        "lengths); in closed form, the limit of infinitely many resamples. "
        "It says how exactly this text measures one model, not how far another seed moves it, and "
        "not how exactly it measures a difference: all models meet the same text."
    ]
    if measure.name == "perplexity":
        said.append("SDs of perplexities are perplexity times the SD in nats.")
    return said


NO_RUN_NOTE = f"{MISSING}: no finished run."


def general_notes(tables: Sequence[Table]) -> list[str]:
    """What holds for every block of the report."""
    said = [NO_RUN_NOTE]
    cells = [cell for table in tables for cell in table.done()]
    if any(cell.paper_nats is not None for cell in cells) or any(
        table.paper_nats(row, *column) for table in tables for row in table.rows
        for column in table.columns
    ):  # fmt: skip
        said.append(paper.REMARK)
    return said
