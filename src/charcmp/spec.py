"""What one run is: a configuration and a corpus, the hidden size they lead to, and their id."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from typing import Any

from charcmp.budget import budget_label, num_params, solve_hidden_size, target_params
from charcmp.config import (
    NOT_SCIENTIFIC,
    PROTOCOL_VERSION,
    Config,
    LSTMConfig,
    RMSpropConfig,
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
    def run_id(self) -> str:
        """`wp-lstm-2x84-130k-s0-1f3a9c2e`: a readable prefix and a hash of the identity."""
        config = self.config
        label = budget_label(
            config.cell.name, config.layers, self.hidden_size, self.corpus.num_symbols
        )
        parts = (
            self.corpus.name,
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
        identity = {
            key: value
            for key, value in flatten(config).items()
            if key not in NOT_SCIENTIFIC and value != DEFAULTS.get(key, ...)
        }
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
DEFAULTS = flatten(Config(cell=LSTMConfig(), optimizer=RMSpropConfig())) | {
    "optimizer.name": "rmsprop"
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
    count = num_params(cell, layers, size.hidden_size, corpus.num_symbols)
    return RunSpec(config, corpus, size.hidden_size, count, size.target_params, size.budget)


@dataclass(frozen=True)
class Size:
    hidden_size: int
    target_params: int
    budget: str


def resolve_size(config: Config, num_symbols: int) -> Size:
    """The hidden size a configuration asks for, by budget or directly."""
    cell, layers = config.cell.name, config.layers
    if config.hidden_size is not None:
        hidden_size = config.hidden_size
        label = budget_label(cell, layers, hidden_size, num_symbols)
        target = (
            target_params(label, num_symbols)
            if label
            else num_params(cell, layers, hidden_size, num_symbols)
        )
        return Size(hidden_size, target, label or str(target))
    budget = config.budget or DEFAULT_BUDGET
    target = target_params(budget, num_symbols)
    return Size(solve_hidden_size(cell, layers, target, num_symbols), target, budget)


def deviation_warning(spec: RunSpec) -> str | None:
    """A line for a budget that the solver misses by more than two percent."""
    if math.fabs(spec.deviation_percent) <= WARN_DEVIATION_PERCENT:
        return None
    return (
        f"budget {spec.budget}: the closest model, hidden size {spec.hidden_size}, has "
        f"{spec.num_params:,} parameters, {spec.deviation_percent:+.1f} % off the target"
    )
