"""What defines a run: its configuration, its corpus, the hidden size they lead to, and its id."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from charcmp.config.rules import without_effect
from charcmp.config.schema import (
    NOT_SCIENTIFIC,
    Config,
    flatten,
    is_scored_whole,
    protocol_version,
)
from charcmp.data.corpus import (
    PAPER_SIZE,
    Corpus,
    Splits,
    fitting_sizes,
    num_train_chars,
    split_corpus,
    training_part,
)
from charcmp.data.dataset import safe_name
from charcmp.data.sources import load_corpus
from charcmp.errors import UserError
from charcmp.files import canonical_json
from charcmp.models.budget import (
    DEFAULT_BUDGET,
    Shape,
    budget_label,
    canonical_budget,
    deviation_percent,
    solve,
    target_params,
)
from charcmp.models.cells.options import ModuleConfig
from charcmp.models.cells.registry import cell_identity
from charcmp.runs.result import MAX_RUN_ID

WARN_DEVIATION_PERCENT = 2.0


@dataclass(frozen=True, eq=False)
class RunSpec:
    """One run of a grid, fully resolved."""

    config: Config
    corpus: Corpus
    shape: Shape
    # With hidden_size=: the parameters of the named budget that has this size, else num_params.
    target_params: int
    budget: str  # its name if it has one, else the target in digits
    chosen_sizes: str | None = None  # a note on batch and steps if the text is too short for 100

    @property
    def hidden_size(self) -> int:
        return self.shape.hidden_size

    @cached_property
    def num_params(self) -> int:
        return self.shape.num_params

    @cached_property
    def cell_identity(self) -> dict[str, Any]:
        """`cell.name` (with `cell=module` the class's name) and the cell's options."""
        return cell_identity(self.config.cell, self.corpus.num_symbols, self.hidden_size)

    @property
    def cell_name(self) -> str:
        return str(self.cell_identity["cell.name"])

    @property
    def deviation_percent(self) -> float:
        return deviation_percent(self.num_params, self.target_params)

    @property
    def batch_size(self) -> int:
        assert self.config.batch_size is not None  # resolve_with has chosen it
        return self.config.batch_size

    @property
    def unroll_steps(self) -> int:
        assert self.config.unroll_steps is not None
        return self.config.unroll_steps

    @property
    def train_batch_size(self) -> int:
        """Streams that a training update reads."""
        return self.config.train_batch_size or self.batch_size

    @property
    def train_unroll_steps(self) -> int:
        """Steps that a training update unrolls."""
        return self.config.train_unroll_steps or self.unroll_steps

    @property
    def values_per_chunk(self) -> int:
        """Values of h, of one layer, that a training update computes: T·B·H."""
        return self.train_unroll_steps * self.train_batch_size * self.hidden_size

    @cached_property
    def updates_per_epoch(self) -> int:
        """Training updates per epoch."""
        return self.config.updates_per_epoch or _num_updates(self.config, self.corpus)

    @property
    def right_context(self) -> int | None:
        """Bytes that a fill-in model reads beyond a chunk's edge; None for a language model."""
        config = self.config
        return None if config.task == "lm" else config.fill_context or self.unroll_steps

    @property
    def text_name(self) -> str:
        """The text's name in the names of files and folders."""
        return self.config.dataset.name or safe_name(self.corpus.name)

    @property
    def run_id(self) -> str:
        """`wp-lstm-2x84-130k-s0-1f3a9c2e`: a readable prefix and a hash of the identity.

        `wp-fill-lstm-...` for a fill-in model.
        """
        config = self.config
        parts = (
            self.text_name,
            *([] if config.task == "lm" else [config.task]),
            self.cell_name,
            f"{config.layers}x{self.hidden_size}",
            budget_label(self.shape) or f"{self.num_params}p",
            f"s{config.seed}",
            hashlib.sha256(canonical_json(self.identity()).encode()).hexdigest()[:8],
        )
        return "-".join(parts)

    def row(self) -> dict[str, Any]:
        """Returns which table and row the run belongs to, and as which entry and seed."""
        config = self.config
        return {
            "dataset": self.corpus.name,
            "task": config.task,
            "budget": self.budget,
            "cell": self.cell_name,
            "layers": config.layers,
            "hidden_size": self.hidden_size,
            "seed": config.seed,
        }

    def identity(self) -> dict[str, Any]:
        """Returns what can change the run's numbers: the corpus and the keys not at their default.

        A key added later, at its default, so leaves the ids of today's runs unchanged.
        """
        config = self.config
        defaults = _defaults(config)
        flat = {k: v for k, v in flatten(config).items() if not k.startswith("cell.")}
        identity = {
            key: value
            for key, value in (flat | self.cell_identity).items()
            if key not in NOT_SCIENTIFIC and value != defaults.get(key, ...)
        }
        if config.init != "uniform":
            identity.pop("init_range", None)  # has no effect, so it is the same run
        identity.pop("fill_context", None)
        if self.right_context is not None:
            identity["fill_context"] = self.right_context  # the same if given or by default
        return identity | {
            "protocol_version": protocol_version(config.dataset.layout, config.task),
            "corpus_sha256": self.corpus.sha256,
            "cell.name": self.cell_name,
            "layers": config.layers,
            "hidden_size": self.hidden_size,
            "seed": config.seed,
            "dataset.layout": config.dataset.layout,
            "dataset.split": [float(part) for part in config.dataset.split],
        }


def _defaults(config: Config) -> dict[str, Any]:
    """Returns what an identity leaves out: the keys' defaults with this cell and optimiser."""
    cell, optimizer = type(config.cell)(), type(config.optimizer)()
    return flatten(Config(cell=cell, optimizer=optimizer)) | {
        # Other optimisers' names stay in identities, so their ids differ though defaults are left
        # out.
        "optimizer.name": "rmsprop",
        "batch_size": PAPER_SIZE,  # whether given, or chosen because it was null
        "unroll_steps": PAPER_SIZE,
    }


def resolve(config: Config) -> RunSpec:
    """Loads the corpus and solves for the hidden size.

    Raises:
        UserError: if the corpus cannot be loaded, no hidden size meets the budget, or the text's
            name makes the run id too long.
    """
    return resolve_with(config, load_corpus(config.dataset, config.data_dir))


def resolve_with(config: Config, corpus: Corpus) -> RunSpec:
    """Does what `resolve` does, for a corpus that is already loaded."""
    config, chosen = _with_sizes(config, corpus)
    if config.updates_per_epoch is not None and config.updates_per_epoch >= _num_updates(
        config, corpus
    ):
        config = replace(config, updates_per_epoch=None)  # the whole text, so it is the same run
    size = resolve_size(config, corpus.num_symbols)
    spec = RunSpec(config, corpus, size.shape, size.target_params, size.budget, chosen)
    if len(spec.run_id) > MAX_RUN_ID:
        names = {"dataset.name": spec.text_name, "cell.target": spec.cell_name}
        key = max(names, key=lambda key: len(names[key]))
        raise UserError(
            f"{key}={names[key]}: too long: the run's id would have "
            f"{len(spec.run_id)} characters, and at most {MAX_RUN_ID} are allowed"
        )
    return spec


def _with_sizes(config: Config, corpus: Corpus) -> tuple[Config, str | None]:
    """Fills in batch and steps; returns a note too if the text is too short for the usual ones."""
    given = config.batch_size, config.unroll_steps
    if config.dataset.layout == "columns" or config.task == "fill":
        batch, steps = (size or PAPER_SIZE for size in given)
        config = replace(config, batch_size=batch, unroll_steps=steps)
        if config.train_batch_size == batch:  # its default, so it is the same run
            config = replace(config, train_batch_size=None)
        if config.train_unroll_steps == steps:
            config = replace(config, train_unroll_steps=None)
        return config, None
    num_chars = training_part(corpus.num_chars, config.dataset.split)
    most = config.train_batch_size or PAPER_SIZE, config.train_unroll_steps or PAPER_SIZE
    batch, steps = fitting_sizes(num_chars, *given, *most)
    config = replace(config, batch_size=batch, unroll_steps=steps)
    config = replace(config, train_batch_size=None, train_unroll_steps=None)
    if (batch, steps) == tuple(a or b for a, b in zip(given, most, strict=True)):
        return config, None
    return config, (
        f"batch_size={batch} unroll_steps={steps}: {corpus.name} has {num_chars:,} characters to "
        f"train on, and these leave {num_chars // (batch * steps)} updates an epoch"
    )


def _num_updates(config: Config, corpus: Corpus) -> int:
    """Returns the updates of an epoch that reads all the training text."""
    batch, steps = config.batch_size or PAPER_SIZE, config.unroll_steps or PAPER_SIZE
    dataset = config.dataset
    num_chars = num_train_chars(corpus.num_chars, dataset.layout, dataset.split, batch, steps)
    return num_chars // ((config.train_batch_size or batch) * (config.train_unroll_steps or steps))


@dataclass(frozen=True)
class Size:
    """The size of a model, and the budget that it is to meet."""

    shape: Shape
    # With hidden_size=: the parameters of the named budget that has this size, else its own.
    target_params: int
    budget: str  # its name if it has one, else the target in digits


def resolve_size(config: Config, num_symbols: int) -> Size:
    """Returns the size of the model that a configuration asks for, by budget or by hidden size."""
    shape = Shape(config.cell, config.layers, config.hidden_size or 1, num_symbols, config.task)
    if config.hidden_size is not None:
        label = budget_label(shape)
        target = target_params(label, num_symbols) if label else shape.num_params
        return Size(shape, target, label or str(target))
    budget = canonical_budget(config.budget or DEFAULT_BUDGET)
    target = target_params(budget, num_symbols)
    return Size(solve(shape, target), target, budget)


def split_of(spec: RunSpec) -> Splits:
    """Cuts the run's corpus into training, validation and test text.

    Raises:
        UserError: if it is too short for that.
    """
    config = spec.config
    return split_corpus(
        spec.corpus,
        config.dataset.layout,
        config.dataset.split,
        spec.batch_size,
        spec.unroll_steps,
        min_chunks=1 if spec.right_context is None else 2,
        scored_whole=is_scored_whole(protocol_version(config.dataset.layout, config.task)),
    )


def notes_on(spec: RunSpec) -> list[str]:
    """Returns notes to the user before a run: options without effect, a missed budget and so on."""
    missed = deviation_note(spec)
    notes = (spec.chosen_sizes, _left_out(spec), missed, _how_called(spec))
    return [*without_effect(spec.config), *filter(None, notes)]


def _how_called(spec: RunSpec) -> str | None:
    """Returns a line that says how the class of cell=module is called, if there is one.

    A trial call may have found that out.
    """
    if not isinstance(cell := spec.config.cell, ModuleConfig):
        return None
    kind, states = (spec.cell_identity[f"cell.{key}"] for key in ("kind", "states"))
    return f"cell.target={cell.target}: cell.kind={kind} cell.states={states}"


def _left_out(spec: RunSpec) -> str | None:
    """Returns a note if more than one percent of the training text fills no whole chunk."""
    dataset, num_chars = spec.config.dataset, spec.corpus.num_chars
    share = training_part(num_chars, dataset.split)
    used = num_train_chars(
        num_chars, dataset.layout, dataset.split, spec.batch_size, spec.unroll_steps
    )
    if dataset.layout == "columns" or used >= 0.99 * share:
        return None
    return (
        f"the last {share - used:,} of {share:,} training characters of {spec.corpus.name} fill no "
        "whole chunk of the batch and are left out"
    )


def deviation_note(spec: RunSpec) -> str | None:
    """Returns a line if the model misses its budget by more than two percent."""
    if math.fabs(spec.deviation_percent) <= WARN_DEVIATION_PERCENT:
        return None
    return (
        f"budget {spec.budget}: the closest model, hidden size {spec.hidden_size}, has "
        f"{spec.num_params:,} parameters, {spec.deviation_percent:+.1f} % off the target"
    )
