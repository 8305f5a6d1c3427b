"""The typed configuration: every key a user can set, its type, its default.

The defaults of the scientific keys are the paper's protocol. A run's identity (spec.py) leaves out
what stands at its default here, so a default may move only together with PROTOCOL_VERSION.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

from charcmp.data.dataset import DatasetConfig

PROTOCOL_VERSION = 1
# 2: a language model's validation and test text of `contiguous` is scored whole, each stretch after
# some text that is read but not scored (corpus.WARM_UP_CHARS). 1 dropped what filled no chunk of
# every stream and began each stream from a zero state, as the paper's layout does to this day.
CONTIGUOUS_PROTOCOL_VERSION = 2


def protocol_version(layout: str, task: str) -> int:
    """The version of how such runs are trained and scored, part of their identity."""
    is_new = layout == "contiguous" and task == "lm"
    return CONTIGUOUS_PROTOCOL_VERSION if is_new else PROTOCOL_VERSION


@dataclass
class CellConfig:
    name: str = MISSING
    activation: str = "tanh"  # of the candidate, and of an LSTM's output: tanh | softsign | relu


@dataclass
class LSTMConfig(CellConfig):
    forget_bias: float | None = None  # initial value of the forget gate's bias; the paper: none


@dataclass
class CascadedGateConfig(LSTMConfig):
    open_bias: float | None = None  # initial value of both biases of i, f and o


@dataclass
class OptimizerConfig:
    name: str = MISSING
    lr: float = MISSING
    schedule: str = "exponential"  # exponential (the paper's) | cosine | constant
    lr_decay: float = 0.95  # exponential: factor per epoch ...
    lr_decay_after: int = 10  # ... after this many epochs
    warmup_epochs: int = 0  # epochs of a rate that rises linearly, before any schedule


@dataclass
class RMSpropConfig(OptimizerConfig):
    lr: float = 2e-3
    alpha: float = 0.95
    eps: float = 1e-8


@dataclass
class AdagradConfig(OptimizerConfig):
    lr: float = 5e-2
    eps: float = 1e-10


@dataclass
class AdamConfig(OptimizerConfig):
    lr: float = 1e-2
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])
    eps: float = 1e-8


@dataclass
class AdamWConfig(AdamConfig):
    weight_decay: float = 1e-2


@dataclass
class SGDConfig(OptimizerConfig):
    lr: float = 1e-2
    momentum: float = 0.9
    nesterov: bool = False


OPTIMIZERS: dict[str, type[OptimizerConfig]] = {
    "rmsprop": RMSpropConfig,
    "adagrad": AdagradConfig,
    "adam": AdamConfig,
    "adamw": AdamWConfig,
    "sgd": SGDConfig,
}


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


def register_schemas() -> None:
    """Makes the dataclasses known to Hydra; the YAML files in conf/ name them as their base."""
    store = ConfigStore.instance()
    store.store(name="charcmp_schema", node=Config)
    for group, name, node in (
        ("schema/cell", "plain", CellConfig),
        ("schema/cell", "lstm", LSTMConfig),
        ("schema/cell", "cascaded_gate", CascadedGateConfig),
        ("schema/dataset", "dataset", DatasetConfig),
        *(("schema/optimizer", name, optimizer) for name, optimizer in OPTIMIZERS.items()),
    ):
        store.store(group=group, name=name, node=node)


def config_dir() -> Path:
    """conf/ of the checkout this module lies in, else the copy inside the installed package."""
    package = Path(__file__).resolve().parents[1]
    checkout = package.parents[1] / "conf"
    return checkout if (checkout / "config.yaml").is_file() else package / "conf"


def cell_schema(name: str) -> type[CellConfig]:
    """The options that a cell has."""
    if name == "lstm_cascaded_gate":
        return CascadedGateConfig
    return LSTMConfig if name.startswith("lstm") else CellConfig


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
