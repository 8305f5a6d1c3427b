"""The typed configuration: every key a user can set, its type, its default.

The defaults of the scientific keys are the paper's protocol. A run's identity (spec.py) leaves out
every key at its default, so a default may change only together with PROTOCOL_VERSION.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import Field, dataclass, field, fields, is_dataclass
from functools import cache
from typing import Any

from charcmp.config.optimizers import OPTIMIZERS, OptimizerConfig
from charcmp.data.dataset import DatasetConfig
from charcmp.models.budget import BUDGETS, MAX_HIDDEN_SIZE, NUM_STACKS
from charcmp.models.cells.options import CellConfig
from charcmp.models.cells.registry import cell_options
from charcmp.values import (
    AT_LEAST_1,
    BELOW_1,
    MISSING,
    NOT_NEGATIVE,
    POSITIVE,
    Rule,
    any_value,
    matching,
    one_of,
    option,
    or_null,
    whole_up_to,
)

PROTOCOL_VERSION = 1
# Version 2, for language models on `contiguous`: every character of the validation and test text is
# scored, and each stream first reads some text that is not scored (corpus.WARM_UP_CHARS). Version 1
# dropped the characters that did not fill a chunk of every stream, and scored each stream from a
# zero state; `columns`, the paper's layout, still does.
CONTIGUOUS_PROTOCOL_VERSION = 2


def protocol_version(layout: str, task: str) -> int:
    """Returns the version of how such runs are trained and scored, part of their identity."""
    is_new = layout == "contiguous" and task == "lm"
    return CONTIGUOUS_PROTOCOL_VERSION if is_new else PROTOCOL_VERSION


def is_scored_whole(version: int) -> bool:
    """Returns whether runs of this version score every character of the held-out texts."""
    return version >= CONTIGUOUS_PROTOCOL_VERSION


MAX_LAYERS, MAX_AT_ONCE = 1000, 4096
# Generators use only these 32 bits: larger seeds would repeat the numbers of smaller ones.
SEED = Rule(lambda seed: 0 <= seed < 2**32, "must be in [0, 2^32)")
# The solver checks whether a value is a budget.
BUDGET = Rule(any_value, "a name, or a number of parameters such as 60k", tuple(BUDGETS))

# torch checks whether the machine has the device.
DEVICE = Rule(any_value, "auto, cpu, cuda, or one GPU such as cuda:1", ("auto", "cpu", "cuda"))
PRECISION = one_of(("float32", "tf32"), "; the paper's is float32")


@dataclass(kw_only=True)
class Config:
    """What a run is asked to be: every key of its line, its default, its meaning, its rule.

    `config.rules.check` says which combinations are allowed; `config.spec.resolve` makes of it the
    run, with its text and its size.
    """

    # What is trained and how: part of a run's identity.
    task: str = option(
        "lm", "predict the next byte (lm), or each byte from both sides of it", one_of(NUM_STACKS)
    )
    fill_context: int | None = option(
        None, "bytes that task=fill reads beyond a chunk; null: unroll_steps", or_null(AT_LEAST_1)
    )
    cell: CellConfig = option(
        MISSING, "the recurrent cell; module: any class (docs/your_own_cell.md)"
    )
    dataset: DatasetConfig = option(
        MISSING, "the text; text: a file of your own, dataset.path=my.txt"
    )
    optimizer: OptimizerConfig = option(MISSING, "the optimiser")
    layers: int = option(1, "recurrent layers", whole_up_to(MAX_LAYERS))
    budget: str | None = option(
        None, "size in parameters: a name, or a number such as 60k; null: 50k", or_null(BUDGET)
    )
    hidden_size: int | None = option(
        None, "units of each layer, in place of a budget", or_null(whole_up_to(MAX_HIDDEN_SIZE))
    )
    seed: int = option(0, "seed of the initial weights and of dropout", SEED)
    dropout: float = option(
        0.0, "share of units dropped between layers and before the decoder", BELOW_1
    )
    epochs: int = option(50, "passes over the training text", AT_LEAST_1)
    batch_size: int | None = option(
        None, "streams read side by side; null: 100, fewer on a short text", or_null(AT_LEAST_1)
    )
    unroll_steps: int | None = option(
        None, "steps of a chunk; null: 100, fewer on a short text", or_null(AT_LEAST_1)
    )
    train_batch_size: int | None = option(
        None, "streams of one update, a divisor of batch_size; null: all", or_null(AT_LEAST_1)
    )
    train_unroll_steps: int | None = option(
        None, "steps of one update, a divisor of unroll_steps; null: all", or_null(AT_LEAST_1)
    )
    updates_per_epoch: int | None = option(
        None,
        "updates of an epoch, which then reads only the beginning of each stream; null: all",
        or_null(AT_LEAST_1),
    )
    clip: float | None = option(
        5.0, "bound of the gradient, as clip_mode says; null: none", or_null(POSITIVE)
    )
    clip_mode: str = option(
        "value",
        "clip each element (value), or the whole gradient's norm",
        one_of(("value", "norm")),
    )
    reset_state: str = option(
        "never",
        "when the carried state is set to zero; never is the paper's",
        one_of(("never", "epoch")),
    )
    patience: int | None = option(
        None,
        "end a run after this many epochs without a better validation loss; null: never",
        or_null(AT_LEAST_1),
    )
    init: str = option(
        "uniform",
        "initial weights; uniform is the paper's",
        one_of(("uniform", "xavier", "orthogonal")),
    )
    init_range: float = option(0.08, "init=uniform draws from [-init_range, init_range]", POSITIVE)
    precision: str = option(
        "float32",
        "precision of the factors in matrix products; tf32 needs an NVIDIA GPU",
        PRECISION,
    )
    # How and where it is computed: not part of the identity.
    device: str = option("auto", "where to train; cuda:1 is the second GPU", DEVICE)
    threads: int | None = option(
        None,
        "CPU threads of a run; null: all, in a sweep cores/jobs",
        or_null(whole_up_to(MAX_AT_ONCE)),
    )
    jobs: int | None = option(
        None,
        "runs at once in a sweep; null: one per core, or jobs_per_gpu",
        or_null(whole_up_to(MAX_AT_ONCE)),
    )
    jobs_per_gpu: str = option(
        "auto",
        "runs that share a GPU in a sweep: auto, or a number",
        matching(r"auto|[1-9]\d*", "auto, or a whole number from 1"),
    )
    gpus: str = option(
        "all",
        "GPUs of a sweep: all, or their numbers as in 0,1",
        matching(r"all|\d+(,\d+)*", "all, or numbers as in gpus=0,1"),
    )
    results_dir: str = option(
        "results",
        "folder of runs/, report/, races/, baselines/ and speeds.json",
        Rule(bool, "name a folder"),
    )
    data_dir: str | None = option(
        None, "folder of wp.txt and lk.txt; null: $CHARCMP_DATA, or the cache"
    )
    checkpoint_seconds: float = option(
        30.0,
        "seconds between two checkpoints within an epoch; its end also writes one",
        NOT_NEGATIVE,
    )
    hang_seconds: float = option(
        900.0, "seconds without progress after which a sweep ends a run", POSITIVE
    )
    lease_seconds: float = option(
        60.0,
        "seconds of silence after which a run's owner on another host counts as dead",
        POSITIVE,
    )
    progress: bool = option(True, "show a progress bar, or without a terminal a line every 30 s")


# Keys of Config that are not part of a run's identity: they say how and where it is computed, or
# something else identifies it. Forgetting one here costs a rerun; it never merges different runs.
NOT_SCIENTIFIC = {
    *("device", "threads", "jobs", "jobs_per_gpu", "gpus", "results_dir", "data_dir", "progress"),
    *("checkpoint_seconds", "hang_seconds", "lease_seconds"),
    *("budget", "hidden_size"),  # identity() has the hidden size that they lead to
    # identity() has the corpus's sha256.
    *("dataset.name", "dataset.source", "dataset.path", "dataset.url"),
    *("dataset.num_chars", "dataset.num_symbols", "dataset.stand_ins"),
}


@dataclass
class SweeperConfig:
    """The options of Hydra's sweeper; holds an experiment's grid."""

    _target_: str = "hydra_plugins.charcmp.sweeper.GridSweeper"
    params: dict[str, str] = field(default_factory=dict)  # axis -> values, unless the user sets it
    variants: dict[str, list[str]] = field(default_factory=dict)  # name -> overrides of the axes
    retry_failed: bool = False  # charcmp sweep --retry-failed
    fail_fast: bool = False


@dataclass
class LauncherConfig:
    """The options of Hydra's launcher."""

    _target_: str = "hydra_plugins.charcmp.launcher.ProcessLauncher"


@cache  # commands call it more than once, and Hydra copies every schema each time: 60 ms
def register_schemas() -> None:
    """Registers the dataclasses with Hydra; the YAML files in conf/ name them as their base.

    The choices of `cell=` come from the registry. So do the bases that a user's own cell/NAME.yaml
    may name: `defaults: [/schema/cell@_here_: lstm]`, `name: lstm`, `forget_bias: 1.0`.
    """
    from hydra.core.config_store import ConfigStore  # slow to import, and --help does not need it

    store = ConfigStore.instance()
    store.store(name="charcmp_schema", node=Config)
    store.store(group="hydra/sweeper", name="charcmp", node=SweeperConfig)
    store.store(group="hydra/launcher", name="charcmp", node=LauncherConfig)
    store.store(group="schema/dataset", name="dataset", node=DatasetConfig)
    for name, optimizer in OPTIMIZERS.items():
        store.store(group="schema/optimizer", name=name, node=optimizer)
    for name, options in cell_options().items():
        store.store(group="cell", name=name, node=options(name=name))
        store.store(group="schema/cell", name=_schema_name(options), node=options)


def _schema_name(options: type[CellConfig]) -> str:
    """Returns a class's name in YAML files: CascadedGateConfig is `cascaded_gate`."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", options.__name__.removesuffix("Config"))
    return words.lower()


def flatten(config: Any) -> dict[str, Any]:
    """Returns a configuration dataclass as {'optimizer.lr': 0.002, ...}."""
    return {key: value for key, value, _ in flat_fields(config)}


def flat_fields(config: Any, prefix: str = "") -> Iterator[tuple[str, Any, Field[Any]]]:
    """Yields the key, value and field of every option of a configuration dataclass."""
    for f in fields(config):
        value = getattr(config, f.name)
        if is_dataclass(value):
            yield from flat_fields(value, f"{prefix}{f.name}.")
        else:
            yield prefix + f.name, value, f
