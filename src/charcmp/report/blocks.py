"""Arranges runs in blocks, each of which becomes a table: which runs may be compared.

If models were trained at several learning rates, one block shows each model at the rate that did
best on validation text: no rate is right for all cells (docs/reading_the_tables.md).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from charcmp.files import canonical_json
from charcmp.report import paper
from charcmp.report.candidates import Candidate, candidate_of, chosen_by_validation, rate_of
from charcmp.report.load import Run, epochs_read

# Keys of an identity in which runs of one block may differ, besides all options of the cell
# (`cell.*`). Runs that differ in any other key are in different blocks.
WITHIN_A_BLOCK = ("layers", "hidden_size", "seed", "dropout")
DEFAULT_SPLIT = [80.0, 10.0, 10.0]
ANY_RATE = {"optimizer.lr": "each model's own"}  # in the settings of a block of own rates
LENGTH = ("epochs", "updates_per_epoch")  # of a training; without the second, epochs are whole
TRY = 0.1  # of a longer training: what is not longer than this part of it only chooses rates
Model = tuple[str, int, int]  # a cell with its options, the number of layers, the hidden size
Tried = Mapping[Model, set[Candidate]]  # what each model was trained at
Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Block:
    """Runs that one table shows."""

    settings: dict[str, Any]
    runs: list[Run]
    tried_shorter: Tried = field(default_factory=dict)  # in shorter trainings, with own rates
    left_out: list[Run] = field(default_factory=list)  # of models whose own rate is not known yet
    hidden: list[Run] = field(default_factory=list)  # of either kind, that filters keep out

    @property
    def all_runs(self) -> list[Run]:
        """What decides its rows, and which rates were tried, whatever the filters show of it."""
        return [*self.runs, *self.left_out, *self.hidden]


def arranged(runs: Iterable[Run]) -> list[Block]:
    """Returns a block for each training, and one for each length at which rates were searched.

    That one shows all models at their own learning rates (see own_rates). Of the rates that were
    tried, only the protocol's then has a block to itself. Runs that served only as the shorter
    tries of a longer training are in no block: its block lists their rates.
    """
    blocks = []
    for alike in grouped(runs, lambda run: canonical_json(_without_length(run))).values():
        trainings = grouped(alike, lambda run: canonical_json(settings(run) | ANY_RATE))
        blocks += _blocks_by_length(list(trainings.values()))
    return blocks


def _blocks_by_length(trainings: Sequence[list[Run]]) -> list[Block]:
    """Returns the blocks of trainings that differ in length alone."""
    blocks: list[Block] = []
    own_blocks: list[list[Run]] = []  # the runs of each block of own rates
    for runs in sorted(trainings, key=lambda training: _length(training[0]), reverse=True):
        shorter = candidates_tried([other for other in trainings if _is_shorter(other[0], runs[0])])
        longer = candidates_tried([other for other in trainings if _is_shorter(runs[0], other[0])])
        own_longer = [other for other in own_blocks if _is_shorter(runs[0], other[0])]
        is_try = any(epochs_read(runs[0]) <= TRY * epochs_read(other[0]) for other in own_longer)
        shown = _without_given_up(runs, candidates_tried(own_longer), is_try)
        budgets = grouped(shown, lambda run: run.target_params)
        searches = {
            target: own_rates(at_budget, shorter, longer) for target, at_budget in budgets.items()
        }
        own = [run for search in searches.values() for run in search.shown]
        left_out = [run for search in searches.values() for run in search.left_out]
        fixed = [
            run for run in shown if not searches[run.target_params] or _has_own_block(rate_of(run))
        ]
        if own:
            own_blocks.append(own)
            blocks.append(Block(settings(own[0]) | ANY_RATE, own, shorter, left_out))
        for same in grouped(fixed, lambda run: canonical_json(settings(run))).values():
            blocks.append(Block(settings(same[0]), same))
    return blocks


@dataclass(frozen=True)
class Search:
    """A search for each model's learning rate, at one budget and one length of training."""

    shown: list[Run]  # of the models whose search is over
    left_out: list[Run]

    def __bool__(self) -> bool:
        return bool(self.shown)


def _has_own_block(rate: float) -> bool:
    """Returns whether a rate has a block to itself although rates were searched."""
    return rate == paper.LEARNING_RATE or math.isnan(rate)


def own_rates(at_budget: Sequence[Run], shorter: Tried, longer: Tried) -> Search:
    """Returns which models of a budget can be shown at their own learning rates.

    They are those whose search for a rate is over: they were trained at every rate and dropout of
    the ladder, which is all that were tried at this budget. A rate at which a model was trained
    only for a shorter time counts too: it was tried, and given up for something better
    (scripts/census.py).

    A race adapts its search to each model, so no model need have been trained at every rate. In
    such a search, which gives up rates from one length of training to the next, a model's is over

    - if every model of the budget gave up rates after shorter trainings: these chose the rates that
      are trained here;
    - or if both neighbours on the ladder of the model's best rate were tried.

    Args:
        at_budget: runs that differ in learning rate, and otherwise as runs of a block may.
        shorter: what models were tried at in shorter trainings.
        longer: the same for longer ones.

    Returns:
        a search without runs unless there are several rates and at least two such models, or every
        model gave up rates.
    """
    models = grouped([run for run in at_budget if not math.isnan(rate_of(run))], model_of)
    here = candidates_tried(models.values())
    ladder: set[Candidate] = set().union(*here.values())
    rates = sorted(_rates(ladder))
    gave_up = {model for model in models if _rates(shorter.get(model, set())) - _rates(here[model])}
    is_staged = len(gave_up) == len(models)
    # Some model went on from here with a part of its rates, so all had been tried here before that.
    goes_on = any(
        here[model] & further and here[model] - further
        for model in models
        if (further := longer.get(model))
    )

    def is_over(model: Model) -> bool:
        tried = here[model] | shorter.get(model, set())
        if is_staged or tried >= ladder:
            return True
        return (goes_on or model in gave_up) and _has_neighbours(models[model], tried, rates)

    over = set(filter(is_over, models))
    if len(rates) > 1:
        is_search = is_staged or len(over) > 1
    else:  # all models have chosen the same rate
        is_search = is_staged and len(models) > 1 and rates != [paper.LEARNING_RATE]
    if not is_search:
        return Search([], [])
    return Search(
        [run for model, of_model in models.items() for run in of_model if model in over],
        [run for model, of_model in models.items() for run in of_model if model not in over],
    )


def _has_neighbours(runs: Sequence[Run], tried: set[Candidate], rates: list[float]) -> bool:
    """Returns whether a model was tried at both neighbours, among `rates`, of its best rate."""
    best, _ = chosen_by_validation(grouped(runs, candidate_of)).candidate
    place = rates.index(best)
    return {*rates[max(0, place - 1) : place + 2]} <= _rates(tried)


def _rates(candidates: Iterable[Candidate]) -> set[float]:
    return {rate for rate, _ in candidates}


def _without_given_up(runs: Sequence[Run], kept: Tried, is_try: bool) -> list[Run]:
    """Drops the runs of models all of whose rates here were given up.

    Args:
        runs: of one length of training.
        kept: the rates that the models have in longer trainings, in blocks of own rates. These
            blocks also list the rates given up.
        is_try: whether these trainings are so much shorter that they only chose rates, if every
            model gave up some here, as in a census: then all runs are dropped.
    """
    if len({rate_of(run) for run in runs}) == 1:
        return list(runs)  # a training at a fixed rate, not tries of several
    here = candidates_tried([runs])
    given_up = {model for model in here.keys() & kept.keys() if not here[model] & kept[model]}
    if is_try and all(model in kept and here[model] - kept[model] for model in here):
        given_up = {*here}
    return [run for run in runs if model_of(run) not in given_up or _has_own_block(rate_of(run))]


def candidates_tried(trainings: Iterable[Iterable[Run]]) -> dict[Model, set[Candidate]]:
    """Returns the learning rates and dropouts that each model had, without rates not known."""
    found: dict[Model, set[Candidate]] = defaultdict(set)
    for runs in trainings:
        for run in runs:
            if not math.isnan(rate_of(run)):
                found[model_of(run)].add(candidate_of(run))
    return dict(found)


def model_of(run: Run) -> Model:
    return run.variant, run.layers, run.hidden_size


def _is_shorter(run: Run, other: Run) -> bool:
    """Returns whether `run`, which may differ from `other` in length, was trained for less time."""
    length, longer = _length(run), _length(other)
    return length != longer and all(a <= b for a, b in zip(length, longer, strict=True))


def _without_length(run: Run) -> dict[str, Any]:
    return {key: value for key, value in (settings(run) | ANY_RATE).items() if key not in LENGTH}


def _length(run: Run) -> tuple[float, float]:
    """Returns the epochs, and the updates of each: infinity if an epoch is not cut short."""
    updates = run.identity.get("updates_per_epoch", math.inf)
    return run.epochs, updates if isinstance(updates, int | float) else math.inf


def grouped(runs: Iterable[Run], key: Callable[[Run], Key]) -> dict[Key, list[Run]]:
    groups: dict[Key, list[Run]] = defaultdict(list)
    for run in runs:
        groups[key(run)].append(run)
    return dict(groups)


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


def block_order(run: Run, common: dict[str, Any]) -> tuple[Any, ...]:
    names = [*paper.SPLITS, run.dataset]
    settled = canonical_json(common)
    return names.index(run.dataset), run.dataset, run.layout, -run.epochs, len(settled), settled


def block_headings(blocks: list[dict[str, Any]]) -> list[str]:
    """Returns headings: `wp, 50 epochs`, and whatever else differs from the paper's protocol.

    Blocks that would have equal headings also show those of protocol version, corpus and test
    length in which they differ.
    """
    headings = [heading_of(block) for block in blocks]
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


def heading_of(block: dict[str, Any]) -> str:
    """Returns a block's heading, which another block may share."""
    parts = [block["dataset"]]
    if block.get("task") == "fill":
        parts.append("fill-in")
    if block["dataset.layout"] != "columns":
        parts.append(block["dataset.layout"])
    parts.append(f"{block['epochs']} epoch" + ("s" if block["epochs"] != 1 else ""))
    if block["dataset.split"] != paper.SPLITS.get(block["dataset"], DEFAULT_SPLIT):
        parts.append("split " + "/".join(f"{part:g}" for part in block["dataset.split"]))
    others = unusual(block)
    if is_fast(block):
        parts.append("experiment=fast")
        others = {key: value for key, value in others.items() if FAST.get(key, ...) != value}
    parts += [
        "each at its own learning rate" if {key: value} == ANY_RATE else f"{key}={value}"
        for key, value in sorted(others.items())
    ]
    return ", ".join(parts)


def is_fast(block: dict[str, Any]) -> bool:
    """Returns whether runs were trained by experiment=fast, whatever their updates read."""
    return FAST_OPTIMIZER.items() <= block.items()


# Settings that headings show in their own way. All others, except those in USUAL, are in an
# identity only if they are not at their default.
ALWAYS = (
    *("dataset", "corpus_sha256", "dataset.layout", "dataset.split", "protocol_version"),
    *("num_test_chars", "epochs", "task"),
)
USUAL = {"precision": "float32", "batch_size": 100, "unroll_steps": 100}
# What conf/experiment/fast.yaml sets besides the length of the training; a test compares them.
FAST_OPTIMIZER = {
    "optimizer.schedule": "cosine",
    "optimizer.rate_per": "update",
    "optimizer.warmup_updates": 100,
}
FAST = FAST_OPTIMIZER | {"train_batch_size": 50, "train_unroll_steps": 50}


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
