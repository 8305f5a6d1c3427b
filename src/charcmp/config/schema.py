"""The typed configuration: every key a user can set, its type, its default.

The defaults of the scientific keys are the paper's protocol. A run's identity (spec.py) leaves out
what stands at its default here, so a default may move only together with PROTOCOL_VERSION.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cache
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

from charcmp.config.optimizers import OPTIMIZERS, OptimizerConfig
from charcmp.data.dataset import DatasetConfig
from charcmp.models.cells.options import CellConfig
from charcmp.models.cells.registry import cell_options

PROTOCOL_VERSION = 1
# 2: a language model's validation and test text of `contiguous` is scored whole, each stretch after
# some text that is read but not scored (corpus.WARM_UP_CHARS). 1 dropped what filled no chunk of
# every stream and began each stream from a zero state, as the paper's layout does to this day.
CONTIGUOUS_PROTOCOL_VERSION = 2


def protocol_version(layout: str, task: str) -> int:
    """The version of how such runs are trained and scored, part of their identity."""
    is_new = layout == "contiguous" and task == "lm"
    return CONTIGUOUS_PROTOCOL_VERSION if is_new else PROTOCOL_VERSION


@dataclass(kw_only=True)
class Config:
    # The science: part of a run's identity.
    task: str = "lm"  # lm: predicts the next byte | fill: one from the text on both sides
    fill_context: int | None = None  # fill reads so far beyond a chunk; null: unroll_steps
    cell: CellConfig = MISSING
    dataset: DatasetConfig = MISSING
    optimizer: OptimizerConfig = MISSING
    layers: int = 1
    budget: str | None = None  # 50k | 130k | 400k | 1300k | a number; 50k where nothing is said
    hidden_size: int | None = None  # instead of a budget
    seed: int = 0
    dropout: float = 0.0
    epochs: int = 50
    batch_size: int | None = None  # null: the paper's 100; fewer where a `contiguous` text is short
    unroll_steps: int | None = None  # null: likewise
    # An update's streams and steps, where they are to be fewer than those that lay out the text; a
    # divisor of them, or in a `contiguous` text their upper limit. null: the same.
    train_batch_size: int | None = None
    train_unroll_steps: int | None = None
    # An epoch's updates, where it is to read only the beginning of every stream: a short training
    # on a part of a long text. null: all of the training text.
    updates_per_epoch: int | None = None
    clip: float | None = 5.0  # of the gradient, as clip_mode says; null for none
    clip_mode: str = "value"  # value: each element to [-clip, clip] | norm: the whole, to this norm
    reset_state: str = "never"  # to zero: never (the paper's) | epoch, at each one's start
    patience: int | None = None  # ends after so many epochs without a better validation loss
    init: str = "uniform"  # uniform (the paper's) | xavier | orthogonal
    init_range: float = 0.08  # of init=uniform
    precision: str = "float32"  # of products' factors: float32 | tf32 (on NVIDIA GPUs)
    # How and where: not part of it.
    device: str = "auto"  # auto | cpu | cuda | cuda:1
    threads: int | None = None  # CPU threads of a run; null: all for train, cores/jobs in a sweep
    jobs: int | None = None  # runs at once in a sweep; null: jobs_per_gpu, or one per core
    jobs_per_gpu: str = "auto"  # runs that share a GPU, in one process; auto, or a number
    gpus: str = "all"  # of a sweep: all, or the numbers of some: 0,1
    results_dir: str = "results"
    data_dir: str | None = None
    checkpoint_seconds: float = 30.0
    hang_seconds: float = 900.0  # a sweep ends a run that has made no progress for so long
    lease_seconds: float = (
        60.0  # an owner of a run on another host that is silent for so long is dead
    )
    progress: bool = True


# Keys of Config that say how and where a run is computed, not what it is. A key that is not listed
# is part of the identity: forgetting one here costs a rerun, never a wrong merge.
NOT_SCIENTIFIC = {
    *("device", "threads", "jobs", "jobs_per_gpu", "gpus", "results_dir", "data_dir", "progress"),
    *("checkpoint_seconds", "hang_seconds", "lease_seconds"),
    *("budget", "hidden_size"),  # identified by the hidden size that they lead to
    *("dataset.name", "dataset.source", "dataset.path", "dataset.url"),  # by the corpus's sha256
    *("dataset.num_chars", "dataset.num_symbols", "dataset.stand_ins"),
}


@dataclass
class SweeperConfig:
    """Of Hydra's sweeper; an experiment's grid stands here."""

    _target_: str = "hydra_plugins.charcmp.sweeper.GridSweeper"
    params: dict[str, str] = field(default_factory=dict)  # axes of the grid that stand by default
    variants: dict[str, list[str]] = field(default_factory=dict)  # name -> overrides of the axes
    retry_failed: bool = False  # charcmp sweep --retry-failed
    fail_fast: bool = False


@dataclass
class LauncherConfig:
    """Of Hydra's launcher."""

    _target_: str = "hydra_plugins.charcmp.launcher.ProcessLauncher"


@cache  # a command asks for it more than once, and Hydra copies each of them: 60 ms
def register_schemas() -> None:
    """Makes the dataclasses known to Hydra; the YAML files in conf/ name them as their base.

    The choices of `cell=` come from the registry, and so do the bases of a cell/NAME.yaml of
    one's own: `defaults: [/schema/cell@_here_: lstm]`, `name: lstm`, `forget_bias: 1.0`.
    """
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
    """CascadedGateConfig as the YAML files name it: `/schema/cell@_here_: cascaded_gate`."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", options.__name__.removesuffix("Config"))
    return words.lower()


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """{'optimizer.lr': 0.002, ...} of a configuration dataclass."""
    flat: dict[str, Any] = {}
    for f in fields(config):
        value = getattr(config, f.name)
        if is_dataclass(value):
            flat |= flatten(value, f"{prefix}{f.name}.")
        else:
            flat[prefix + f.name] = value
    return flat
