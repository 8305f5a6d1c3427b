"""What one run is: a configuration and a corpus, the hidden size they lead to, and their id."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from typing import Any

from charcmp.budget import (
    budget_label,
    canonical_budget,
    num_params,
    solve_hidden_size,
    target_params,
)
from charcmp.check import without_effect
from charcmp.config import (
    NOT_SCIENTIFIC,
    OPTIMIZERS,
    PROTOCOL_VERSION,
    CascadedGateConfig,
    Config,
    flatten,
)
from charcmp.corpus import Corpus
from charcmp.sources import load_corpus

DEFAULT_BUDGET = "50k"
WARN_DEVIATION_PERCENT = 2.0


@dataclass(frozen=True, eq=False)
class RunSpec:
    """One cell of a grid, fully resolved."""

    config: Config
    corpus: Corpus
    hidden_size: int
    num_params: int
    target_params: int  # num_params itself where a hidden size was asked for, not a budget
    budget: str  # its name where it has one, else the target as digits

    @property
    def deviation_percent(self) -> float:
        return 100 * (self.num_params - self.target_params) / self.target_params

    @property
    def right_context(self) -> int | None:
        """Of a fill-in model: bytes that it reads beyond a chunk's right edge; else None."""
        config = self.config
        return None if config.task == "lm" else config.fill_context or config.unroll_steps

    @property
    def run_id(self) -> str:
        """`wp-lstm-2x84-130k-s0-1f3a9c2e`: a readable prefix and a hash of the identity.

        `wp-fill-lstm-...` where the task is not that of a language model.
        """
        config = self.config
        cell, layers, num_symbols = config.cell.name, config.layers, self.corpus.num_symbols
        label = budget_label(cell, layers, self.hidden_size, num_symbols, config.task)
        parts = (
            self.corpus.name,
            *([] if config.task == "lm" else [config.task]),
            config.cell.name,
            f"{config.layers}x{self.hidden_size}",
            label or f"{self.num_params}p",
            f"s{config.seed}",
            hashlib.sha256(canonical_json(self.identity()).encode()).hexdigest()[:8],
        )
        return "-".join(parts)

    def row(self) -> dict[str, Any]:
        """Which row of which table the run counts in, and as what."""
        config = self.config
        return {
            "dataset": self.corpus.name,
            "task": config.task,
            "budget": self.budget,
            "cell": config.cell.name,
            "layers": config.layers,
            "hidden_size": self.hidden_size,
            "seed": config.seed,
        }

    def identity(self) -> dict[str, Any]:
        """The scientific configuration, without what stands at its default, and the corpus.

        An option added later, at its default, leaves the ids of today's runs as they are.
        """
        config = self.config
        defaults = DEFAULTS | OPTIMIZER_DEFAULTS[config.optimizer.name]
        identity = {
            key: value
            for key, value in flatten(config).items()
            if key not in NOT_SCIENTIFIC and value != defaults.get(key, ...)
        }
        if config.init != "uniform":
            identity.pop("init_range", None)  # it changes nothing: not another run
        identity.pop("fill_context", None)
        if self.right_context is not None:
            identity["fill_context"] = self.right_context  # however it came about
        return identity | {
            "protocol_version": PROTOCOL_VERSION,
            "corpus_sha256": self.corpus.sha256,
            "cell.name": config.cell.name,
            "layers": config.layers,
            "hidden_size": self.hidden_size,
            "seed": config.seed,
            "dataset.layout": config.dataset.layout,
            "dataset.split": [float(part) for part in config.dataset.split],
        }


def canonical_json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


# What an identity may leave out: a key at its default, options of cells and optimisers included.
DEFAULTS = flatten(Config(cell=CascadedGateConfig())) | {"optimizer.name": "rmsprop"}
# Each optimiser has defaults of its own. Leaving them out keeps ids apart, since every name but
# rmsprop's stays in.
OPTIMIZER_DEFAULTS = {
    name: {
        key: value
        for key, value in flatten(optimizer(), "optimizer.").items()
        if key != "optimizer.name"
    }
    for name, optimizer in OPTIMIZERS.items()
}


def resolve(config: Config) -> RunSpec:
    """Loads the corpus and solves for the hidden size.

    Raises:
        UserError: if the corpus cannot be had or no hidden size meets the budget.
    """
    return resolve_with(config, load_corpus(config.dataset, config.data_dir))


def resolve_with(config: Config, corpus: Corpus) -> RunSpec:
    """`resolve` for a corpus that is at hand."""
    cell, layers = config.cell.name, config.layers
    size = resolve_size(config, corpus.num_symbols)
    count = num_params(cell, layers, size.hidden_size, corpus.num_symbols, config.task)
    return RunSpec(config, corpus, size.hidden_size, count, size.target_params, size.budget)


@dataclass(frozen=True)
class Size:
    hidden_size: int
    target_params: int
    budget: str


def resolve_size(config: Config, num_symbols: int) -> Size:
    """The hidden size a configuration asks for, by budget or directly."""
    cell, layers, task = config.cell.name, config.layers, config.task
    if config.hidden_size is not None:
        hidden_size = config.hidden_size
        label = budget_label(cell, layers, hidden_size, num_symbols, task)
        target = (
            target_params(label, num_symbols)
            if label
            else num_params(cell, layers, hidden_size, num_symbols, task)
        )
        return Size(hidden_size, target, label or str(target))
    budget = canonical_budget(config.budget or DEFAULT_BUDGET)
    target = target_params(budget, num_symbols)
    return Size(solve_hidden_size(cell, layers, target, num_symbols, task), target, budget)


def warnings(spec: RunSpec) -> list[str]:
    """What a user should know before a run: options without effect, a budget that is missed."""
    missed = deviation_warning(spec)
    return [*without_effect(spec.config), *([missed] if missed else [])]


def deviation_warning(spec: RunSpec) -> str | None:
    """A line for a budget that the solver misses by more than two percent."""
    if math.fabs(spec.deviation_percent) <= WARN_DEVIATION_PERCENT:
        return None
    return (
        f"budget {spec.budget}: the closest model, hidden size {spec.hidden_size}, has "
        f"{spec.num_params:,} parameters, {spec.deviation_percent:+.1f} % off the target"
    )
