"""Makes tables of runs: what may be in one block, which row a run counts in, what an entry shows.

If models were trained at several learning rates, one more table shows each model at the rate that
did best on validation text: no rate is right for all cells (docs/reading_the_tables.md).
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple

from charcmp.files import canonical_json
from charcmp.models.budget import BUDGETS, Shape, solve, target_params
from charcmp.models.cells.registry import CELLS, cell_config
from charcmp.report import paper
from charcmp.report.filters import Filters
from charcmp.report.load import Run
from charcmp.uncertainty.text_variance import text_variance

# The paper's cells come first.
CELL_ORDER = (*paper.CELLS, *(name for name in CELLS if name not in paper.CELLS))
# Keys of an identity in which runs of one block may differ, besides all options of the cell
# (`cell.*`). Runs that differ in any other key are in different blocks.
WITHIN_A_BLOCK = ("layers", "hidden_size", "seed", "dropout")
DEFAULT_SPLIT = [80.0, 10.0, 10.0]
ANY_RATE = {"optimizer.lr": "each model's own"}  # in the settings of that additional table
LENGTH = ("epochs", "updates_per_epoch")  # of a training; without the second, epochs are whole
MANY_MODELS = 10  # of a budget: too many to see their order at a glance
Column = tuple[str, int]  # a cell with its options, and the number of layers
Model = tuple[str, int, int]  # a cell with its options, the number of layers, the hidden size
Candidate = tuple[float, float]  # a learning rate and a dropout; validation loss chooses one


@dataclass(frozen=True)
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
    num_diverged: int  # among all its runs, at any dropout and learning rate
    num_left_out: int  # diverged seeds at the chosen ones: the means are over the others
    dropout: float
    dropout_candidates: list[float]
    rate: float  # learning rate; NaN for the default of an optimiser other than RMSProp
    rate_candidates: list[float]
    rates_given_up: list[float]  # after a shorter training, in a table of own rates
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
    def deviation_percent(self) -> float:
        return 100 * (self.num_params - self.target_params) / self.target_params

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
    entries: dict[tuple[str, str, int], Entry]  # by (row, *column); absent without a run

    @property
    def dataset(self) -> str:
        return str(self.settings["dataset"])

    @property
    def task(self) -> str:
        return str(self.settings.get("task", "lm"))

    @property
    def protocol(self) -> str:
        """The heading without the name of the corpus."""
        return _heading(self.settings).removeprefix(f"{self.dataset}, ")

    @property
    def epochs(self) -> int:
        return int(self.settings["epochs"])

    @property
    def layout(self) -> str:
        return str(self.settings["dataset.layout"])

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
    rows = {
        sha256: row_targets(same_text)
        for sha256, same_text in _grouped(runs, lambda run: run.corpus_sha256).items()
    }
    admitted = [run for run in runs if filters.admits(run)]
    blocks = [block for block in arranged(admitted) if block.runs]
    blocks.sort(key=lambda block: _block_order(block.runs[0], block.settings))
    headings = block_headings([block.settings for block in blocks])
    tables = [
        make_table(heading, block, rows[block.runs[0].corpus_sha256], filters)
        for heading, block in zip(headings, blocks, strict=True)
    ]
    return [table for table in tables if table.entries]


@dataclass(frozen=True)
class Block:
    """Runs that one table shows."""

    settings: dict[str, Any]
    runs: list[Run]
    tried_shorter: dict[Model, set[Candidate]] = field(default_factory=dict)


def arranged(runs: Iterable[Run]) -> list[Block]:
    """Returns a block for each training, and one of all models at their own learning rates.

    There is such a block only if models were trained at several rates (see at_every_rate). Of these
    rates only the protocol's then has a block to itself.
    """
    blocks = []
    runs = list(runs)
    for alike in _grouped(runs, lambda run: canonical_json(settings(run) | ANY_RATE)).values():
        shorter = _tried_shorter(alike, runs)
        complete = at_every_rate(alike, shorter)
        for rate, at_rate in _grouped(alike, rate_of).items():
            if not complete or rate == paper.LEARNING_RATE:
                blocks.append(Block(settings(at_rate[0]), at_rate))
        if complete:
            blocks.append(Block(settings(complete[0]) | ANY_RATE, complete, shorter))
    return blocks


def at_every_rate(
    runs: Sequence[Run], shorter: Mapping[Model, set[Candidate]] | None = None
) -> list[Run]:
    """Returns the runs of models trained at every rate and dropout that was tried at their budget.

    A rate at which a model was trained only for a shorter time counts too: it was tried, and given
    up for something better (scripts/census.py).

    Returns [] unless some budget has several rates and at least two such models.
    """
    found = []
    shorter = shorter or {}
    for at_budget in _grouped(runs, lambda run: run.target_params).values():
        ladder = {candidate_of(run) for run in at_budget}
        complete = [
            of_model
            for model, of_model in _grouped(at_budget, model_of).items()
            if {*map(candidate_of, of_model), *shorter.get(model, ())} >= ladder
        ]
        if len({rate for rate, _ in ladder}) > 1 and len(complete) > 1:
            found += [run for of_model in complete for run in of_model]
    return found


def _tried_shorter(runs: Sequence[Run], others: Iterable[Run]) -> dict[Model, set[Candidate]]:
    """Returns what each model was tried at in shorter trainings; empty if `runs` share one rate."""
    tried: dict[Model, set[Candidate]] = defaultdict(set)
    if len({rate_of(run) for run in runs}) > 1:
        for run in others:
            if _is_shorter(run, runs[0]):
                tried[model_of(run)].add(candidate_of(run))
    return tried


def model_of(run: Run) -> Model:
    return run.variant, run.layers, run.hidden_size


def _is_shorter(run: Run, other: Run) -> bool:
    """Returns whether `run` was trained as `other` was, but for a shorter time."""
    if _without_length(run) != _without_length(other):
        return False
    length, longer = _length(run), _length(other)
    return length != longer and all(a <= b for a, b in zip(length, longer, strict=True))


def _without_length(run: Run) -> dict[str, Any]:
    return {key: value for key, value in (settings(run) | ANY_RATE).items() if key not in LENGTH}


def _length(run: Run) -> tuple[float, float]:
    """Returns the epochs, and the updates of each: infinity if an epoch is not cut short."""
    updates = run.identity.get("updates_per_epoch", math.inf)
    return run.epochs, updates if isinstance(updates, int | float) else math.inf


def _grouped(runs: Iterable[Run], key: Any) -> dict[Any, list[Run]]:
    groups = defaultdict(list)
    for run in runs:
        groups[key(run)].append(run)
    return groups


def rate_of(run: Run) -> float:
    """Returns a run's learning rate; an identity leaves it out if it is the optimiser's default."""
    default = math.nan if "optimizer.name" in run.identity else paper.LEARNING_RATE
    rate = run.identity.get("optimizer.lr", default)
    return rate if isinstance(rate, float) else math.nan


def candidate_of(run: Run) -> Candidate:
    return rate_of(run), run.dropout


def settings(run: Run) -> dict[str, Any]:
    """Returns what all runs of a block have in common, by the names of the configuration."""
    return {
        key: value
        for key, value in run.identity.items()
        if key not in WITHIN_A_BLOCK and not key.startswith("cell.")
    } | {
        "dataset": run.dataset,
        "corpus_sha256": run.corpus_sha256,
        "dataset.layout": run.layout,
        "dataset.split": [float(part) for part in run.split],
        "protocol_version": run.protocol_version,
        "num_test_chars": run.num_test_chars,
        "precision": run.precision,
        "epochs": run.epochs,
        "batch_size": run.batch_size,
        "unroll_steps": run.unroll_steps,
    }


def _block_order(run: Run, common: dict[str, Any]) -> tuple[Any, ...]:
    names = [*paper.SPLITS, run.dataset]
    settled = canonical_json(common)
    return names.index(run.dataset), run.dataset, run.layout, -run.epochs, len(settled), settled


def block_headings(blocks: list[dict[str, Any]]) -> list[str]:
    """Returns headings: `wp, 50 epochs`, and whatever else differs from the paper's protocol.

    Blocks that would have equal headings also show those of protocol version, corpus and test
    length in which they differ.
    """
    headings = [_heading(block) for block in blocks]
    full = []
    for heading, block in zip(headings, blocks, strict=True):
        alike = [other for name, other in zip(headings, blocks, strict=True) if name == heading]
        parts = [heading]
        for key, text in {
            "protocol_version": f"protocol {block['protocol_version']}",
            "corpus_sha256": f"text {block['corpus_sha256'][:8]}",
            "num_test_chars": f"{block['num_test_chars']:,} test characters",
        }.items():
            if any(other[key] != block[key] for other in alike):
                parts.append(text)
        full.append(", ".join(parts))
    return full


def _heading(block: dict[str, Any]) -> str:
    parts = [block["dataset"]]
    if block.get("task") == "fill":
        parts.append("fill-in")
    if block["dataset.layout"] != "columns":
        parts.append(block["dataset.layout"])
    parts.append(f"{block['epochs']} epoch" + ("s" if block["epochs"] != 1 else ""))
    if block["dataset.split"] != paper.SPLITS.get(block["dataset"], DEFAULT_SPLIT):
        parts.append("split " + "/".join(f"{part:g}" for part in block["dataset.split"]))
    parts += [
        "each at its own learning rate" if {key: value} == ANY_RATE else f"{key}={value}"
        for key, value in sorted(unusual(block).items())
    ]
    return ", ".join(parts)


# Settings that headings show in their own way. All others, except those in USUAL, are in an
# identity only if they are not at their default.
ALWAYS = (
    *("dataset", "corpus_sha256", "dataset.layout", "dataset.split", "protocol_version"),
    *("num_test_chars", "epochs", "task"),
)
USUAL = {"precision": "float32", "batch_size": 100, "unroll_steps": 100}


def unusual(block: dict[str, Any]) -> dict[str, Any]:
    """Returns the settings of a block that are not the paper's, except those in ALWAYS."""
    return {
        key: value
        for key, value in block.items()
        if key not in ALWAYS and USUAL.get(key, ...) != value
    }


def is_the_papers(block: dict[str, Any]) -> bool:
    """Returns whether the runs of a block are on wp or lk, trained and tested as in the paper."""
    return (
        not unusual(block)
        and "task" not in block
        and block["epochs"] == paper.EPOCHS
        and block["dataset.layout"] == "columns"
        and block["dataset.split"] == paper.SPLITS.get(block["dataset"])
    )


def row_targets(runs: Sequence[Run]) -> dict[str, int]:
    """Returns the rows that runs of one corpus can count in: name -> target parameters.

    They are the named budgets, and every number of parameters that a run was asked to meet.
    """
    rows = {name: target_params(name, runs[0].num_symbols) for name in BUDGETS}
    for run in runs:
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


def make_table(heading: str, block: Block, rows: dict[str, int], filters: Filters) -> Table:
    """Returns the table of a block's runs."""
    runs, common = block.runs, block.settings
    runs_of_entry = defaultdict(list)
    used: dict[str, int] = {}
    for run in runs:
        for row, target in rows_of(run, rows).items():
            if filters.admits_row(row):
                used[row] = target
                runs_of_entry[row, run.variant, run.layers].append(run)
    entries = {
        place: make_entry(
            place[0],
            used[place[0]],
            same_place,
            _paper_nats(common, *place),
            block.tried_shorter.get(model_of(same_place[0]), set()),
        )
        for place, same_place in runs_of_entry.items()
    }
    columns = {(cell, layers) for _, cell, layers in entries}
    if _is_lm(common) and common["dataset"] in paper.SPLITS:
        columns |= {column for column in paper.COLUMNS if filters.admits_column(*column)}
    return Table(
        heading,
        common,
        runs[0].corpus_note,
        dict(sorted(used.items(), key=lambda item: item[1])),
        sorted(columns, key=_column_order),
        entries,
    )


def _is_lm(settings: dict[str, Any]) -> bool:
    """Returns whether a block holds language models: the paper has no others."""
    return "task" not in settings


def _paper_nats(settings: dict[str, Any], row: str, cell: str, layers: int) -> float | None:
    if not _is_lm(settings):
        return None
    layout = settings["dataset.layout"]
    return paper.test_nats(settings["dataset"], layout, row, cell, layers)


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
    tried_shorter: Set[Candidate] = frozenset(),
) -> Entry:
    """Returns a model's entry from its runs: seeds, perhaps at several dropouts or rates."""
    candidates = _grouped(runs, candidate_of)
    rates = {rate for rate, _ in candidates}
    chosen = chosen_by_validation(candidates)
    done = [run for run in candidates[chosen] if run.status == "done"]
    shown = sorted(done or candidates[chosen], key=lambda run: run.seed)
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
        num_diverged=sum(run.status == "diverged" for run in runs),
        num_left_out=len(candidates[chosen]) - len(shown),
        dropout=chosen[1],
        dropout_candidates=sorted({dropout for _, dropout in candidates}),
        rate=chosen[0],
        rate_candidates=sorted(rates),
        rates_given_up=sorted({rate for rate, _ in tried_shorter} - rates),
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


def chosen_by_validation(candidates: dict[Candidate, list[Run]]) -> Candidate:
    """Returns the candidate with the lowest mean validation loss over the seeds that all have.

    So no candidate wins because it had more seeds. If exactly the best ones share further seeds, as
    after a first look at all with one seed, they are compared again by all seeds that they share. A
    candidate with a diverged run among the compared seeds comes last. If no seed is common to all,
    each candidate is judged by its own seeds.
    """
    seeds = {candidate: {run.seed for run in runs} for candidate, runs in candidates.items()}
    common = set.intersection(*seeds.values())

    def mean_loss(candidate: Candidate) -> float:
        runs = candidates[candidate]
        compared = [run for run in runs if run.seed in common] or runs
        if any(run.status != "done" for run in compared):
            return math.inf
        return statistics.fmean(run.val_nats_per_char for run in compared)

    ranked = sorted(candidates, key=lambda candidate: (mean_loss(candidate), candidate))
    further = [candidate for candidate in ranked if seeds[candidate] > common]
    if common and further == ranked[: len(further)] and len(further) > 1:
        shared = set.intersection(*(seeds[candidate] for candidate in further))
        if shared > common:
            return chosen_by_validation({candidate: candidates[candidate] for candidate in further})
    return ranked[0]
