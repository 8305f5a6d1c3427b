"""Makes tables of the blocks of runs: which row a run counts in, and what an entry shows."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Sequence, Set
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, NamedTuple

from charcmp.models.budget import BUDGETS, Shape, deviation_percent, solve, target_params
from charcmp.models.cells.registry import CELLS, cell_config
from charcmp.report import paper
from charcmp.report.blocks import (
    ANY_RATE,
    Block,
    arranged,
    block_headings,
    block_order,
    candidates_tried,
    grouped,
    heading_of,
    is_the_papers,
    model_of,
)
from charcmp.report.candidates import Candidate, candidate_of, chosen_by_validation
from charcmp.report.filters import Filters
from charcmp.report.load import Run, epochs_read, num_updates_of
from charcmp.uncertainty.text_variance import text_variance

# The paper's cells come first.
CELL_ORDER = (*paper.CELLS, *(name for name in CELLS if name not in paper.CELLS))
MANY_MODELS = 10  # of a budget: too many to see their order at a glance
Column = tuple[str, int]  # a cell with its options, and the number of layers
Place = tuple[str, str, int]  # a row and a column


@dataclass(frozen=True, eq=False)  # by identity, so that it can be a key
class Entry:
    """One entry of a table: the mean over seeds, at the dropout that did best on validation text.

    In a table of own rates, it is also at the learning rate that did best there.
    """

    row: str
    target_params: int
    cell: str  # with its options: Run.variant
    layers: int
    hidden_size: int
    num_params: int
    status: str  # done | diverged: every run at the chosen dropout and learning rate
    runs: list[Run]  # behind the figures, by seed
    all_runs: list[Run]  # at every dropout and learning rate that was tried
    num_diverged: int  # among all its runs, at any dropout and learning rate
    num_left_out: int  # diverged seeds at the chosen ones: the means are over the others
    dropout: float
    dropout_candidates: list[float]
    rate: float  # learning rate; NaN: not known (see Run.default_rate)
    rate_candidates: list[float]
    rates_given_up: list[float]  # after a shorter training, in a table of own rates
    # How much lower its mean is expected to be by choosing the best of equally good candidates, in
    # SDs over seeds.
    selection_bias: float
    train_nats: float
    val_nats: float
    test_nats: float
    sd_over_seeds: float | None  # sample SD (n - 1)
    sd_chars: float | None  # of one run's test loss, mean over the seeds
    sd_blocks: float | None
    block_lengths: list[int]  # characters; the seeds' own lengths may differ
    paper_nats: float | None

    @property
    def column(self) -> Column:
        return self.cell, self.layers

    @property
    def seeds(self) -> list[int]:
        return [run.seed for run in self.runs]

    @property
    def run_ids(self) -> list[str]:
        return [run.run_id for run in self.runs]

    @property
    def rates_tried(self) -> list[float]:
        """The learning rates it was trained at, in full or for a shorter time, ascending."""
        return sorted({*self.rate_candidates, *self.rates_given_up})

    @property
    def epochs_read(self) -> float:
        """How often its training read the training text: see load.epochs_read."""
        return epochs_read(self.runs[0])

    @property
    def deviation_percent(self) -> float:
        return deviation_percent(self.num_params, self.target_params)

    @property
    def is_done(self) -> bool:
        return self.status == "done"


@dataclass(frozen=True)
class Table:
    """A block: runs that differ only in cell (with its options), layers, size, seed and dropout."""

    heading: str
    settings: dict[str, Any]  # everything that its runs have in common
    corpus_note: str | None
    rows: dict[str, int]  # name -> target parameters, ascending
    columns: list[Column]
    entries: dict[Place, Entry]  # absent without a run
    left_out: list[Entry]  # of models whose search for a learning rate is not over
    only_shorter: list[Column] = field(default_factory=list)  # tried in shorter trainings alone
    is_narrowed: bool = False  # filters keep runs of the block out, so what is missing may exist

    @property
    def dataset(self) -> str:
        return str(self.settings["dataset"])

    @property
    def task(self) -> str:
        return str(self.settings.get("task", "lm"))

    @property
    def protocol(self) -> str:
        """The heading without the name of the corpus."""
        return heading_of(self.settings).removeprefix(f"{self.dataset}, ")

    @property
    def epochs(self) -> int:
        return int(self.settings["epochs"])

    @property
    def layout(self) -> str:
        return str(self.settings["dataset.layout"])

    @property
    def epochs_read(self) -> float:
        """How often training read its text: less than `epochs` if these are cut short."""
        return max(entry.epochs_read for entry in self.entries.values())

    @property
    def num_updates(self) -> int | None:
        """The updates of the longest training; None if no run has its text's length."""
        runs = [run for entry in self.entries.values() for run in entry.runs]
        return max(filter(None, map(num_updates_of, runs)), default=None)

    @property
    def has_own_rates(self) -> bool:
        """Whether each model is at the learning rate that validation text chose for it."""
        return self.settings.get("optimizer.lr") == ANY_RATE["optimizer.lr"]

    def done(self) -> list[Entry]:
        return [entry for entry in self.entries.values() if entry.is_done]

    def entries_in(self, row: str) -> list[Entry | None]:
        """Returns a row's entry in each column, None where no run has finished."""
        return [self.entries.get((row, *column)) for column in self.columns]

    def done_in(self, row: str) -> list[Entry]:
        """Returns the trained models of a row, in the order of the columns."""
        return [entry for entry in self.entries_in(row) if entry is not None and entry.is_done]

    def paper_nats(self, row: str, cell: str, layers: int) -> float | None:
        return _paper_nats(self.settings, row, cell, layers)


def make_tables(runs: Sequence[Run], filters: Filters, task: str = "lm") -> list[Table]:
    """Returns a table for each group of runs that may be compared, all of one task."""
    runs = [run for run in runs if run.task == task]
    blocks = admitted_blocks(runs, filters)
    blocks.sort(key=lambda block: block_order(block.runs[0], block.settings))
    headings = block_headings([block.settings for block in blocks])
    tables = [
        make_table(heading, block, filters) for heading, block in zip(headings, blocks, strict=True)
    ]
    return [table for table in tables if table.entries]


def admitted_blocks(runs: Sequence[Run], filters: Filters) -> list[Block]:
    """Returns the blocks of the runs that pass.

    They are arranged as if there were no filters, since what one model was trained at decides what
    may be said of another. But if filters ask for a length of training of which some runs were only
    the shorter tries of longer ones, they get that length by itself, tries included.
    """
    blocks = _narrowed(arranged(runs), filters)
    if "epochs" not in filters.axes:
        return blocks
    shown = {run.run_id for block in blocks for run in (*block.runs, *block.left_out)}
    for epochs, same_length in grouped(runs, lambda run: run.epochs).items():
        if any(run.run_id not in shown for run in filter(filters.admits, same_length)):
            blocks = [block for block in blocks if block.settings["epochs"] != epochs]
            blocks += _narrowed(arranged(same_length), filters)
    return blocks


def _narrowed(blocks: Sequence[Block], filters: Filters) -> list[Block]:
    """Returns the blocks with the runs that pass, without blocks of which none does."""
    found = []
    for block in blocks:
        runs = [run for run in block.runs if filters.admits(run)]
        left_out = [run for run in block.left_out if filters.admits(run)]
        hidden = [run for run in block.all_runs if not filters.admits(run)]
        if runs:
            found.append(replace(block, runs=runs, left_out=left_out, hidden=hidden))
    return found


def row_targets(block: Block) -> dict[str, int]:
    """Returns the rows that runs of a block can count in: name -> target parameters.

    They are the numbers of parameters that one of its runs was asked to meet, by the names of the
    budgets that have one. What other blocks were asked for adds no row here: it would show runs of
    this one twice.
    """
    asked = {run.target_params for run in block.all_runs}
    named = {name: target_params(name, block.runs[0].num_symbols) for name in BUDGETS}
    rows = {name: target for name, target in named.items() if target in asked}
    for run in block.all_runs:
        if run.budget.isdecimal() and run.target_params not in rows.values():
            rows[str(run.target_params)] = run.target_params
    return rows


@cache
def _solution(cell: str, layers: int, target: int, num_symbols: int, task: str) -> int | None:
    smallest = Shape(cell_config(cell), layers, 1, num_symbols, task)
    return None if target < smallest.num_params else solve(smallest, target).hidden_size


def rows_of(run: Run, rows: dict[str, int]) -> dict[str, int]:
    """Returns the rows for which the solver finds the run's size, or else one of the run's own."""
    if run.origin is not None:  # a class has no formula to solve: take the row it was made for
        same = [name for name, target in rows.items() if target == run.target_params]
        return {(same or [run.budget])[0]: run.target_params}
    return {
        name: target
        for name, target in rows.items()
        if _solution(run.cell, run.layers, target, run.num_symbols, run.task) == run.hidden_size
    } or {str(run.num_params): run.num_params}


def make_table(heading: str, block: Block, filters: Filters) -> Table:
    """Returns the table of a block's runs."""
    common = block.settings
    rows = row_targets(block)
    entries = _entries(block, block.runs, rows, filters)
    left_out = _entries(block, block.left_out, rows, filters)
    shown = {entry.column for entry in (*entries.values(), *left_out.values())}
    only_shorter = {
        (cell, layers)
        for cell, layers, _ in block.tried_shorter
        if (cell, layers) not in shown and filters.admits_column(base_cell(cell), layers)
    }
    rows_used = {entry.row: entry.target_params for entry in entries.values()}
    columns = {(cell, layers) for _, cell, layers in entries}
    if is_the_papers(common):
        columns |= {column for column in paper.COLUMNS if filters.admits_column(*column)}
    return Table(
        heading,
        common,
        block.runs[0].corpus_note,
        dict(sorted(rows_used.items(), key=lambda item: item[1])),
        sorted(columns, key=_column_order),
        entries,
        list(left_out.values()),
        sorted(only_shorter, key=_column_order),
        bool(block.hidden) or any(
            not filters.admits_row(*row) for run in block.runs for row in rows_of(run, rows).items()
        ),
    )  # fmt: skip


def _entries(
    block: Block, runs: Sequence[Run], rows: dict[str, int], filters: Filters
) -> dict[Place, Entry]:
    """Returns the entries of a block's runs in the rows that the filters admit."""
    tried_here = candidates_tried([block.all_runs])
    targets: dict[str, int] = {}
    runs_of_entry = defaultdict(list)
    for run in runs:
        for row, target in rows_of(run, rows).items():
            if filters.admits_row(row, target):
                targets[row] = target
                runs_of_entry[row, run.variant, run.layers].append(run)
    return {
        place: make_entry(
            place[0],
            targets[place[0]],
            same_place,
            _paper_nats(block.settings, *place),
            tried_here.get(model_of(same_place[0]), set()),
            block.tried_shorter.get(model_of(same_place[0]), set()),
        )
        for place, same_place in runs_of_entry.items()
    }


def _paper_nats(settings: dict[str, Any], row: str, cell: str, layers: int) -> float | None:
    """Returns the paper's loss; None for runs at other settings, with which it does not compare."""
    if not is_the_papers(settings):
        return None
    return paper.test_nats(settings["dataset"], row, cell, layers)


def base_cell(cell: str) -> str:
    """Returns the cell without its options."""
    return cell.partition("(")[0]


def cell_order(cell: str) -> tuple[int, str]:
    """Returns a sort key: first the paper's cells, then charcmp's others, then classes by name."""
    return [*CELL_ORDER, base_cell(cell)].index(base_cell(cell)), cell


def _column_order(column: Column) -> tuple[int, str, int]:
    cell, layers = column
    return *cell_order(cell), layers


def make_entry(
    row: str,
    target: int,
    runs: Sequence[Run],
    paper_nats: float | None,
    tried_here: Set[Candidate] = frozenset(),
    tried_shorter: Set[Candidate] = frozenset(),
) -> Entry:
    """Returns a model's entry from its runs: seeds, perhaps at several dropouts or rates.

    Args:
        tried_here: what it was trained at, in runs that filters keep out as well.
        tried_shorter: the same for shorter trainings.
    """
    candidates = grouped(runs, candidate_of)
    rates = {rate for rate, _ in (*candidates, *tried_here)}
    choice = chosen_by_validation(candidates)
    chosen = candidates[choice.candidate]
    done = [run for run in chosen if run.status == "done"]
    shown = sorted(done or chosen, key=lambda run: run.seed)
    test = [run.test_nats_per_char for run in shown]
    spread = _spread_over_text(shown)
    return Entry(
        row=row,
        target_params=target,
        cell=runs[0].variant,
        layers=runs[0].layers,
        hidden_size=runs[0].hidden_size,
        num_params=runs[0].num_params,
        status="done" if done else "diverged",
        runs=shown,
        all_runs=list(runs),
        num_diverged=sum(run.status == "diverged" for run in runs),
        num_left_out=len(chosen) - len(shown),
        dropout=choice.candidate[1],
        dropout_candidates=sorted({dropout for _, dropout in candidates}),
        rate=choice.candidate[0],
        rate_candidates=sorted(rates),
        rates_given_up=sorted({rate for rate, _ in tried_shorter} - rates),
        selection_bias=choice.lead_by_chance / len(chosen),
        train_nats=statistics.fmean(run.train_nats_per_char for run in shown) if done else math.nan,
        val_nats=statistics.fmean(run.val_nats_per_char for run in shown) if done else math.nan,
        test_nats=statistics.fmean(test) if done else math.nan,
        sd_over_seeds=statistics.stdev(test) if done and len(test) > 1 else None,
        sd_chars=spread.sd_chars,
        sd_blocks=spread.sd_blocks,
        block_lengths=spread.block_lengths,
        paper_nats=paper_nats,
    )


class _SpreadOverText(NamedTuple):
    """The precision with which the text measures one run's test loss; see Entry."""

    sd_chars: float | None
    sd_blocks: float | None
    block_lengths: list[int]


def _spread_over_text(runs: Sequence[Run]) -> _SpreadOverText:
    losses = [run.losses for run in runs if run.losses is not None]
    variances = [(text_variance(kept.block_means_RJ), kept.block_length) for kept in losses]
    known = [(variance, length) for variance, length in variances if variance is not None]
    return _SpreadOverText(
        statistics.fmean(kept.sd_chars for kept in losses) if losses else None,
        statistics.fmean(variance.se for variance, _ in known) if known else None,
        sorted({variance.block_length * length for variance, length in known}),
    )
