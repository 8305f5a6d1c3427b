"""The lines of a table and the notes beneath it, whatever the file format."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

from charcmp.models.cells.registry import CELLS
from charcmp.output import bits, counted, first_few, length_text
from charcmp.report import paper
from charcmp.report.analysis.comparisons import Analysis, Power
from charcmp.report.analysis.speed import comparable_speeds, rows_of_many, speed_note
from charcmp.report.analysis.wording import (
    FEW_EPOCHS_NOTE,
    cell_label,
    interval_text,
    is_short,
    name,
    training,
)
from charcmp.report.blocks import FAST, is_fast
from charcmp.report.load import largest_state
from charcmp.report.tables import Entry, Table, is_the_papers
from charcmp.runs.folder import RUNAWAY

MISSING = "—"
# Nats per character by which a series' first block lies above the others. A trained model loses
# 0.05 to 0.35 there, as it has no context.
MUCH_AT_START = 0.5
MOST_MISSING_NAMED = 12
MOST_OWN_NAMED = 6  # classes that start from initial values of their own
ENOUGH_BLOCKS = 20  # to estimate a variance from
# A training by the paper's protocol has 13,000 updates on War and Peace, but 6,400 on a text of
# 800 KB and 2,400 on one of 600 KB. The ranking there was one of speed: each at its own learning
# rate, the models were in another order and better by 0.12 nats.
MANY_UPDATES = 8000
WIDE = 0.05  # nats; of an interval of a model's difference to the best


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
        bits,
        lambda nats: bits(1.0),
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
    """Returns each budget's losses and the lines below them, but no lines that would be empty."""
    lines = []
    for row in analysis.table.rows:
        for line in _row_lines(analysis, row, measure):
            if line.label == "test" or any(value is not None for value in line.values):
                lines.append(line)
    return lines


def _row_lines(analysis: Analysis, row: str, measure: Measure) -> list[Line]:
    table = analysis.table
    entries = table.entries_in(row)
    papers = [table.paper_nats(row, *column) for column in table.columns]

    def values(value_of: Callable[[Entry], float | None]) -> list[float | str | None]:
        return [value_of(entry) if entry and entry.is_done else None for entry in entries]

    def ours(entry: Entry) -> float:
        return measure.of_nats(entry.test_nats)

    def difference(entry: Entry) -> float | None:
        return None if entry.paper_nats is None else ours(entry) - measure.of_nats(entry.paper_nats)

    def sd(name: str) -> list[float | str | None]:
        def value_of(entry: Entry) -> float | None:
            in_nats: float | None = getattr(entry, name)
            return None if in_nats is None else in_nats * measure.slope(entry.test_nats)

        return values(value_of)

    is_of_many = row in rows_of_many(table)
    speeds = comparable_speeds(table.done_in(row)).by_column if is_of_many else {}

    def speed(entry: Entry) -> float | None:
        return speeds.get(entry.column)

    not_worse = {entry.column for entry in analysis.not_worse(row)}
    shown: list[float | str | None] = [
        None if entry is None else ours(entry) if entry.is_done else "diverged" for entry in entries
    ]
    return [
        Line(row, "test", shown, ".3f", MISSING,
             tuple(column in not_worse for column in table.columns)),
        Line(row, "paper", [p and measure.of_nats(p) for p in papers], ".3f"),
        Line(row, "difference", values(difference), "+.3f"),
        Line(row, "SD, characters", sd("sd_chars"), ".4f"),
        Line(row, "SD, blocks", sd("sd_blocks"), ".4f"),
        Line(row, "SD, seeds", sd("sd_over_seeds"), ".4f"),
        Line(row, "seeds", values(lambda entry: len(entry.seeds)), "d"),
        Line(row, "characters/s", values(speed), ",.0f"),
    ]  # fmt: skip


def column_label(column: tuple[str, int]) -> tuple[str, str]:
    """Returns a column's label in two parts: ("LSTM", "2")."""
    cell, layers = column
    return cell_label(cell), str(layers)


def caption(analysis: Analysis, measure: Measure, bold: str) -> str:
    """Returns what the table shows, and what its bold figures mean."""
    return f"{analysis.table.heading}: {measure.title}; {_bold_rule(analysis, bold)}"


def _bold_rule(analysis: Analysis, bold: str) -> str:
    """Says what is bold, or why nothing is."""
    compared = analysis.differences_of("best")
    if not compared:
        return "nothing to compare with"
    if any(difference.both is not None for difference in compared):
        return (
            f"{bold}: not significantly worse than the model with the lowest mean validation loss "
            "of its row (Holm, 5 %, over seeds and text); a model with one seed is not compared, "
            "and where that best model has one, nothing in its row is"
        )
    if all(min(len(difference.a.seeds), len(difference.b.seeds)) < 2 for difference in compared):
        return "nothing is bold, as there is one seed: how much another would change is not known"
    return "nothing is bold, as no comparison with the best is over seeds and text"


def notes(analysis: Analysis) -> list[str]:
    """Returns what must be known to read this block correctly."""
    table = analysis.table
    return [
        *size_notes(table),
        _order_note(table),
        *_bold_notes(analysis),
        *_power_notes(analysis),
        *_few_blocks_notes(analysis),
        *_speed_notes(table),
        *unusual_notes(table),
    ]


def _order_note(table: Table) -> str:
    example = "" if table.has_own_rates else ", such as each model at a learning rate of its own,"
    return (
        f"The models are ranked {training(table)}; another training{example} may rank them "
        "differently."
    )


def size_notes(table: Table) -> list[str]:
    """Returns the notes on sizes and seeds."""
    return [budgets_note(table), _seeds_note(table)]


def unusual_notes(table: Table) -> list[str]:
    """Says what is missing, and what is unusual about text, cells or training."""
    found = [*_missing_notes(table), *short_notes(table)]
    if table.task == "lm":
        found += [
            *_settings_notes(table),
            *_rate_notes(table),
            *_dropout_notes(table),
            *_runaway_notes(table),
            *_start_notes(table),
            *_diverged_notes(table),
            *_gpu_notes(table),
            *_ngram_notes(table),
        ]
    else:
        found += [*_dropout_notes(table), *_diverged_notes(table), *_gpu_notes(table)]
    return found


def _missing_notes(table: Table) -> list[str]:
    missing = [
        f"{cell_label(cell)} {layers} at {row}" for row in table.rows
        for cell, layers in table.columns if (row, cell, layers) not in table.entries
    ]  # fmt: skip
    if not missing:
        return []
    label = "Not in this report" if table.is_narrowed else "No finished run yet"
    return [f"{label}: {first_few(missing, MOST_MISSING_NAMED)}."]


def _settings_notes(table: Table) -> list[str]:
    notes = []
    if is_fast(table.settings):
        named = ", ".join(f"{key}={table.settings[key]}" for key in FAST if key in table.settings)
        notes.append(f"experiment=fast: {named}.")
    if table.dataset in paper.SPLITS and not is_the_papers(table.settings):
        notes.append(
            "These runs are not at the paper's settings, so its losses are not shown beside them."
        )
    return notes


def _papers_ngram(table: Table) -> tuple[int, float] | None:
    """Returns the paper's best n-gram model, if the block has the paper's test text."""
    has_its_text = table.layout == "columns" and table.settings[
        "dataset.split"
    ] == paper.SPLITS.get(table.dataset)
    return paper.best_ngram(table.dataset) if has_its_text else None


def _ngram_notes(table: Table) -> list[str]:
    if (ngram := _papers_ngram(table)) is None:
        return []
    return [f"The paper's best n-gram model has {ngram[1]:.3f} nats (n = {ngram[0]}, its Table 2)."]


def short_notes(table: Table) -> list[str]:
    """Returns the notes that must stand beside a table's figures wherever they are shown."""
    lines = []
    if table.corpus_note:
        lines.append(f"Text: {table.corpus_note}.")
        if table.dataset == "lk" and "stand-in" in table.corpus_note:
            lines.append("The stand-in has another file order than the paper's text.")
    runs = [run for entry in table.done() for run in entry.runs]
    shown = {run.cell for run in runs}
    lines += [note for name in CELLS if name in shown and (note := CELLS[name].note)]
    classes = [run for run in runs if run.origin]
    own = {cell_label(run.variant) for run in classes if "cell.init" not in run.identity}
    if own == {cell_label(run.variant) for run in classes} and len(own) > MOST_OWN_NAMED:
        lines.append("Classes from outside charcmp start from initial values of their own.")
    elif own:
        named = ", ".join(sorted(own))
        lines.append(f"Initial values of their own, not the protocol's: {named}.")
    return [*lines, *_length_notes(table)]


def _length_notes(table: Table) -> list[str]:
    """Warns of trainings so short that they rank models by how fast they learn."""
    if is_short(table):
        of_text = "" if table.epochs_read == table.epochs else " of the whole text"
        return [f"Only {length_text(table.epochs_read)}{of_text}. {FEW_EPOCHS_NOTE}"]
    updates = table.num_updates
    if table.task != "lm" or table.has_own_rates or updates is None or updates >= MANY_UPDATES:
        return []
    return [
        f"With only {updates:,} updates at one learning rate for all, the ranking shows how fast "
        "models learn; experiment=fast and charcmp recommend compare each at its own rate."
    ]


def _name(entry: Entry) -> str:
    return f"{name(entry)} at {entry.row}"


def budgets_note(table: Table) -> str:
    targets = ", ".join(
        f"{name} = {target:,}" if not name.isdecimal() else f"{target:,}"
        for name, target in table.rows.items()
    )
    off = max((abs(entry.deviation_percent) for entry in table.entries.values()), default=0.0)
    return f"Parameters: {targets}; met within {off:.1f} %. Columns show the number of layers."


def _seeds_note(table: Table) -> str:
    counts = sorted({len(entry.seeds) for entry in table.done()})
    if counts in ([], [1]):
        return "One seed per model: how much a seed moves a loss is not known from these runs."
    if len(counts) == 1:
        note = f"Means over {counts[0]} seeds."
    else:
        note = f"Means over {counts[0]} to {counts[-1]} seeds, as marked."
    if counts[0] == 1:
        note += " With one seed, how much a seed moves the loss is not known."
    if 2 in counts:
        note += (
            " Two seeds of each of two cells leave two degrees of freedom: only differences many "
            "times their standard error are significant."
        )
    return note


def _bold_notes(analysis: Analysis) -> list[str]:
    """Names the models that are bold because their seeds scatter, not because they are near the
    best."""
    unsure = []
    for difference in analysis.differences_of("best"):
        judged = difference.both
        if judged is None or judged.sign > 0:
            continue
        low, high = judged.interval
        if judged.plain_sign > 0 or high - low > WIDE:
            behind = interval_text(difference.nats, judged)
            unsure.append(f"{_name(difference.a)}: {behind}")
    if not unsure:
        return []
    return [
        "Bold means not significantly worse, not equally good. By the plain 95 % intervals of "
        "their difference to the best, these bold models may be well behind it: "
        f"{'; '.join(unsure)}."
    ]


def _power_notes(analysis: Analysis) -> list[str]:
    """Compares the smallest differences that could be detected with the measured LSTM - GRU."""
    groups: dict[tuple[str, int], list[Power]] = {}
    for power in analysis.power:
        groups.setdefault((power.row, power.num_seeds), []).append(power)
    lines = []
    for (row, num_seeds), powers in groups.items():
        measured = f"{num_seeds} seeds" if num_seeds > 1 else "one seed, so by text alone,"
        limits = ", ".join(f"{power.detectable:.4f} nats ({_depth(power)})" for power in powers)
        line = (
            f"{row}: with {measured} a difference of LSTM and GRU of {limits} would be found four "
            "times in five, a smaller one less often (Holm's first step of "
            f"{analysis.family_size('lstm_gru')} comparisons)"
        )
        if beyond := [power for power in powers if power.is_beyond]:
            line += "; the measured difference is smaller with " + ", ".join(
                f"{_depth(power)}: {power.difference:.4f}" for power in beyond
            )
        lines.append(f"{line}.")
    return lines


def _few_blocks_notes(analysis: Analysis) -> list[str]:
    """Warns of a test text too short, or too dependent from block to block, for good intervals."""
    lines = []
    measured = [
        difference.text_variance
        for difference in analysis.differences
        if difference.text_variance is not None
    ]
    fewest = min((text.num_required for text in measured), default=math.inf)
    if fewest < ENOUGH_BLOCKS:
        lines.append(
            f"The test text has as few as {fewest:.0f} blocks of the length that its dependence "
            f"requires; with fewer than {ENOUGH_BLOCKS}, standard errors and intervals over text "
            "are rough."
        )
    if any(
        difference.text_variance is None and difference.has_losses
        for difference in analysis.differences
    ):
        lines.append(
            "The test text is a single block of characters, so there is no interval over text, and "
            "nothing is significant: a longer text is needed."
        )
    return lines


def _speed_notes(table: Table) -> list[str]:
    """Says under which conditions the speeds were measured, if any are shown."""
    said = {row: speed_note(table.done_in(row)) for row in rows_of_many(table)}
    if not said:
        return []
    notes = ["characters/s: read in training, evaluations not counted."]
    if len({*said.values()}) == 1:
        return [f"{notes[0]} {next(iter(said.values()))}"]
    return notes + [f"At {row}: {note}" for row, note in said.items()]


def _depth(power: Power) -> str:
    return counted(power.layers, "layer")


def _rate_notes(table: Table) -> list[str]:
    """Says which rates a table of own rates has, and which lie at an end of those tried."""
    entries = table.done()
    if not table.has_own_rates or not entries:
        return []
    shorter = any(entry.rates_given_up for entry in entries)
    notes = [
        "Each model at the learning rate with the lowest mean validation loss over the seeds that "
        "all its rates share; the best of them compared again where they share further seeds. "
        f"{_tried_text(table)}"
        + ("; some rates were tried only for a shorter time" if shorter else "")
        + ". Chosen: "
        + "; ".join(f"{_name(entry)}: {entry.rate:g}" for entry in entries)
        + "."
    ]
    if table.left_out:
        named = [f"{_name(entry)} ({_rates(entry.rates_tried)})" for entry in table.left_out]
        notes.append(f"Not shown, as their search for a rate is not over: {', '.join(named)}.")
    if flattered := _flattered_text(entries):
        notes.append(
            "The seeds that chose a rate also count in its mean: where the rates compared last are "
            f"equally good, this flatters {flattered} of the SD over seeds."
        )
    at_end = [entry for entry in entries if entry.rate in _ends(entry.rates_tried)]
    if at_end:
        notes.append(
            "The rate of these models is the lowest or highest one tried, so another may be better "
            f"still: {', '.join(map(_name, at_end))}."
        )
    not_in_full = [
        _name(entry)
        for entry in entries
        if entry not in at_end and entry.rates_given_up and len(entry.rate_candidates) > 1
        and entry.rate in _ends(entry.rate_candidates)
    ]  # fmt: skip
    if not_in_full:
        notes.append(
            "The rate of these models is the lowest or highest one that was not given up after a "
            f"shorter time: {', '.join(not_in_full)}."
        )
    if table.only_shorter:
        notes.append(
            "Trained for a shorter time alone, and not shown: "
            f"{', '.join(f'{cell_label(cell)} {layers}' for cell, layers in table.only_shorter)}."
        )
    return notes


def _flattered_text(entries: Sequence[Entry]) -> str:
    """Says by how much the choice of rates may flatter models with several seeds, and with one."""
    parts = []
    for what, is_such in (("a mean by up to", lambda n: n > 1),
                          ("a single run by up to", lambda n: n == 1)):  # fmt: skip
        biases = [entry.selection_bias for entry in entries if is_such(len(entry.seeds))]
        if any(biases):
            parts.append(f"{what} {max(biases):.2f}")
    return " and ".join(parts)


def _ends(rates: Sequence[float]) -> tuple[float, float]:
    return rates[0], rates[-1]


def _tried_text(table: Table) -> str:
    """Says which rates were tried: by budget, or by model if a search went on from the best rate of
    each."""
    of_rows = {row: table.done_in(row) for row in table.rows}
    if all(entry.rates_tried == of_row[0].rates_tried for of_row in of_rows.values()
           for entry in of_row):  # fmt: skip
        tried = "; ".join(
            f"{row}: {_rates(of_row[0].rates_tried)}" for row, of_row in of_rows.items() if of_row
        )
        return f"Rates tried at {tried}. Only models trained at all of these rates are shown"
    tried = "; ".join(f"{_name(entry)}: {_rates(entry.rates_tried)}" for entry in table.done())
    return f"The search differed from model to model. Rates tried by {tried}"


def _rates(rates: Sequence[float]) -> str:
    return ", ".join(f"{rate:g}" for rate in rates)


def _dropout_notes(table: Table) -> list[str]:
    chosen = [entry for entry in table.done() if len(entry.dropout_candidates) > 1]
    if chosen:
        return [
            "Dropout chosen by validation loss: "
            + "; ".join(
                f"{_name(entry)}: {entry.dropout:g} of "
                + ", ".join(f"{value:g}" for value in entry.dropout_candidates)
                for entry in chosen
            )
            + "."
        ]
    if not any(entry.dropout for entry in table.done()):
        return []
    used = [f"{_name(entry)}: {entry.dropout:g}" for entry in table.done()]
    return [f"Dropout: {'; '.join(used)}."]


def _runaway_notes(table: Table) -> list[str]:
    largest = [(entry, max(map(largest_state, entry.runs))) for entry in table.done()]
    reached = [f"{_name(entry)}: {top:,.0f}" for entry, top in largest if top > RUNAWAY]
    if not reached:
        return []
    return [
        "The memory of these models ran away (largest element of the state that training "
        f"carried): {'; '.join(reached)}. Evaluation starts from a zero state, where such a model "
        "behaves differently."
    ]


def _start_notes(table: Table) -> list[str]:
    """Names the models that predict badly at first when they start a text from a zero state."""
    costs = []
    for entry in table.done():
        losses = [
            run.losses
            for run in entry.runs
            # `contiguous` has one series, so one start: too few for a mean.
            if run.losses is not None and run.layout == "columns"
        ]
        if losses and fmean(kept.rise_at_start for kept in losses) > MUCH_AT_START:
            cost = fmean(kept.cost_of_start for kept in losses)
            costs.append(f"{_name(entry)}: {cost:.3f}")
    if not costs:
        return []
    return [
        "Evaluation starts each series of the text from a zero state, which training rarely "
        f"meets. The loss of these models is more than {MUCH_AT_START:g} nats higher at the first "
        "characters of a series than at the rest, which adds to their test loss: "
        f"{'; '.join(costs)}."
    ]


def _left_out(entry: Entry) -> str:
    """Says if a mean leaves out seeds that diverged, which flatters it."""
    if not entry.num_left_out:
        return ""
    if entry.num_left_out == entry.num_diverged:
        return ", left out of its mean"
    return f", {entry.num_left_out} of them at the rate shown and left out of its mean"


def _diverged_notes(table: Table) -> list[str]:
    diverged = [
        f"{_name(entry)}: {entry.num_diverged}" + _left_out(entry)
        for entry in table.entries.values()
        if entry.num_diverged
    ]
    return [f"Diverged runs: {'; '.join(diverged)}."] if diverged else []


def _gpu_notes(table: Table) -> list[str]:
    """Counts the runs of a GPU that were verified (training/verify.py) and names the others."""
    runs = [run for entry in table.done() for run in entry.runs if run.device.startswith("cuda")]
    verified = [run for run in runs if run.verified]
    lines = []
    if verified:
        lines.append(f"Verified runs of a GPU (docs/gpu.md): {len(verified)}.")
    if unverified := sorted({run.run_id for run in runs if not run.verified}):
        shown = first_few(unverified, MOST_MISSING_NAMED)
        lines.append(f"Trained on a GPU and not verified: {shown}.")
    return lines


def sd_notes(tables: Sequence[Table], measure: Measure) -> list[str]:
    """Says what the lines of standard deviations mean."""
    entries = [entry for table in tables for entry in table.done()]
    lengths = sorted({length for entry in entries for length in entry.block_lengths})
    if not lengths:
        return []
    length = f"{lengths[0]:,}" + (f" to {lengths[-1]:,}" if len(lengths) > 1 else "")
    lines = [
        "SD: bootstrap standard deviation of the test loss of one trained model, resampling "
        f"single characters (the paper's way) or blocks of {length} characters, as long as each "
        "series' dependence asks for, that never leave it (entries.csv has the "
        "lengths); in closed form, the limit of infinitely many resamples. "
        "It says how exactly this text measures one model, not how far another seed moves it, and "
        "not how exactly it measures a difference: all models meet the same text."
    ]
    if measure.name == "perplexity":
        lines.append("SDs of perplexities are perplexity times the SD in nats.")
    return lines


def missing_note(tables: Sequence[Table]) -> str:
    """Says what an entry without figures means."""
    where = " in this report" if any(table.is_narrowed for table in tables) else ""
    return f"{MISSING}: no finished run{where}."


def general_notes(tables: Sequence[Table]) -> list[str]:
    """Returns the notes that hold for every block of the report."""
    lines = [missing_note(tables)]
    entries = [entry for table in tables for entry in table.done()]
    has_losses = any(entry.paper_nats is not None for entry in entries) or any(
        table.paper_nats(row, *column) for table in tables for row in table.rows
        for column in table.columns
    )  # fmt: skip
    if has_losses or any(map(_papers_ngram, tables)):
        lines.append(paper.SOURCE_NOTE)
    return lines
