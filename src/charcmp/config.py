"""The typed configuration: every key a user can set, its type, its default.

The defaults of the scientific keys are the paper's protocol. A run's identity (spec.py) leaves out
what stands at its default here, so a default may move only together with PROTOCOL_VERSION.
"""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf, open_dict, read_write

from charcmp.budget import NUM_STACKS
from charcmp.cells import check_activation
from charcmp.errors import UserError
from charcmp.files import SAFE_NAME

PROTOCOL_VERSION = 1
INITS = ("uniform", "xavier", "orthogonal")


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
class DatasetConfig:
    name: str | None = None  # in run ids and tables; for dataset=text the file's stem
    source: str = MISSING  # paper | file | pydocs | pysrc
    path: str | None = None  # a file of one's own
    url: str | None = None
    num_chars: int | None = None  # what a right download has
    num_symbols: int | None = None
    stand_ins: dict[str, str] = field(default_factory=dict)  # sha256 -> what this other file is
    layout: str = "columns"  # columns (the paper's) | contiguous
    split: list[float] = field(default_factory=lambda: [80.0, 10.0, 10.0])  # percent


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
SCHEDULES = ("exponential", "cosine", "constant")
PRECISIONS = ("float32", "tf32", "bf16")
CLIP_MODES = ("value", "norm")
RESETS = ("never", "epoch")
# What an optimiser's options must be: whether a value is, and how that reads.
OPTIMIZER_VALUES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "lr": (lambda lr: 0 < lr < math.inf, "positive and finite"),
    "schedule": (lambda schedule: schedule in SCHEDULES, f"one of {', '.join(SCHEDULES)}"),
    "lr_decay": (lambda factor: 0 < factor <= 1, "in (0, 1]"),
    "lr_decay_after": (lambda epochs: epochs >= 0, "0 or more"),
    "warmup_epochs": (lambda epochs: epochs >= 0, "0 or more"),
    "alpha": (lambda alpha: 0 <= alpha < 1, "in [0, 1)"),
    "betas": (lambda b: len(b) == 2 and all(0 <= beta < 1 for beta in b), "two, each in [0, 1)"),
    "momentum": (lambda momentum: 0 <= momentum < 1, "in [0, 1)"),
    "weight_decay": (lambda decay: 0 <= decay < math.inf, "0 or more and finite"),
    "eps": (lambda eps: 0 < eps < math.inf, "positive and finite"),
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
    batch_size: int = 100
    unroll_steps: int = 100
    clip: float | None = 5.0  # of the gradient, as clip_mode says; null for none
    clip_mode: str = "value"  # value: each element to [-clip, clip] | norm: the whole, to this norm
    reset_state: str = "never"  # to zero: never (the paper's) | epoch, at each one's start
    patience: int | None = None  # ends after so many epochs without a better validation loss
    init: str = "uniform"  # uniform (the paper's) | xavier | orthogonal
    init_range: float = 0.08  # of init=uniform
    precision: str = "float32"  # of products' factors: float32 | tf32 (on NVIDIA GPUs) | bf16
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
    here = Path(__file__).resolve().parent
    checkout = here.parents[1] / "conf"
    return checkout if (checkout / "config.yaml").is_file() else here / "conf"


def typed(cfg: DictConfig) -> Config:
    """The configuration as dataclasses, checked; Hydra's own node is dropped.

    Raises:
        UserError: for a key that is not in the schema, or a value no run can have.
    """
    if "hydra" in cfg:
        cfg = copy.copy(cfg)
        with read_write(cfg), open_dict(cfg):
            del cfg["hydra"]
    _check_keys(cfg, Config)
    config = OmegaConf.to_object(cfg)
    assert isinstance(config, Config)
    check(config)
    return config


def _check_keys(cfg: DictConfig, schema: type, prefix: str = "") -> None:
    """Hydra lets `+new=1` and `~old` through; here exactly the schema's keys must be given."""
    given = {str(key) for key in cfg if not OmegaConf.is_missing(cfg, key)}
    known = {f.name for f in fields(schema)}
    for what, keys in (("unknown", given - known), ("missing", known - given)):
        if keys:
            raise UserError(
                f"{what} key '{prefix}{min(keys)}': charcmp train --help lists the keys"
            )
    for key in known:
        if is_dataclass(part := OmegaConf.get_type(cfg, key)):
            assert isinstance(part, type)
            _check_keys(cfg[key], part, f"{prefix}{key}.")


def check(config: Config) -> None:
    """UserError for the first value that no run can have."""

    def require(condition: bool, message: str) -> None:
        if not condition:
            raise UserError(message)

    require(bool(config.results_dir), "results_dir is empty: name a folder")
    name = config.dataset.name
    require(
        name is None or SAFE_NAME.fullmatch(name) is not None,
        f"dataset.name={name}: letters, digits, '_', '.' and '-' only, as it names folders",
    )
    for key in ("layers", "epochs", "batch_size", "unroll_steps"):
        value = getattr(config, key)
        require(value >= 1, f"{key}={value}: must be at least 1")
    require(config.task in NUM_STACKS, f"task={config.task}: one of {', '.join(NUM_STACKS)}")
    for key in ("hidden_size", "threads", "jobs", "patience", "fill_context"):
        value = getattr(config, key)
        require(value is None or value >= 1, f"{key}={value}: must be at least 1")
    require(
        config.task == "lm" or (config.fill_context or 1) <= config.unroll_steps,
        f"fill_context={config.fill_context}: must be at most unroll_steps={config.unroll_steps}",
    )
    require(config.seed >= 0, f"seed={config.seed}: must not be negative")
    require(0 <= config.dropout < 1, f"dropout={config.dropout}: must be in [0, 1)")
    check_cell(config.cell)
    require(config.init in INITS, f"init={config.init}: one of {', '.join(INITS)}")
    require(
        0 < config.init_range < math.inf,
        f"init_range={config.init_range}: must be positive and finite",
    )
    require(config.checkpoint_seconds >= 0, "checkpoint_seconds must not be negative")
    for key in ("hang_seconds", "lease_seconds"):
        value = getattr(config, key)
        require(value > 0 and math.isfinite(value), f"{key}={value}: must be positive")
    require(
        config.jobs_per_gpu == "auto" or re.fullmatch(r"[1-9]\d*", config.jobs_per_gpu) is not None,
        f"jobs_per_gpu={config.jobs_per_gpu}: auto, or a whole number from 1",
    )
    require(
        config.gpus == "all" or re.fullmatch(r"\d+(,\d+)*", config.gpus) is not None,
        f"gpus={config.gpus}: all, or numbers as in gpus=0,1",
    )
    require(
        config.clip is None or 0 < config.clip < math.inf,
        f"clip={config.clip}: must be positive and finite, or null",
    )
    require(
        config.clip_mode in CLIP_MODES,
        f"clip_mode={config.clip_mode}: one of {', '.join(CLIP_MODES)}",
    )
    require(
        config.reset_state in RESETS,
        f"reset_state={config.reset_state}: one of {', '.join(RESETS)}",
    )
    optimizer = config.optimizer
    require(
        OPTIMIZERS.get(optimizer.name) is type(optimizer),
        f"optimizer.name={optimizer.name}: optimizer=... chooses, one of {', '.join(OPTIMIZERS)}",
    )
    for key, value in vars(optimizer).items():
        holds, wanted = OPTIMIZER_VALUES.get(key, (lambda value: True, ""))
        require(holds(value), f"optimizer.{key}={value}: must be {wanted}")
    require(
        optimizer.warmup_epochs < config.epochs,
        f"optimizer.warmup_epochs={optimizer.warmup_epochs}: must be fewer than the epochs",
    )
    require(
        not (isinstance(optimizer, SGDConfig) and optimizer.nesterov and optimizer.momentum == 0),
        "optimizer.nesterov=true needs a momentum above 0",
    )
    require(
        config.precision in PRECISIONS,
        f"precision={config.precision}: one of {', '.join(PRECISIONS)}; the paper's is float32",
    )
    layouts = ("columns", "contiguous")
    require(
        config.dataset.layout in layouts,
        f"dataset.layout={config.dataset.layout}: one of {', '.join(layouts)}",
    )
    split = config.dataset.split
    require(
        len(split) == 3 and all(part > 0 for part in split) and abs(sum(split) - 100) < 1e-9,
        f"dataset.split={split}: three positive percentages that sum to 100",
    )
    require(
        config.budget is None or config.hidden_size is None,
        f"budget={config.budget} and hidden_size={config.hidden_size}: give one of them",
    )


def cell_schema(name: str) -> type[CellConfig]:
    """The options that a cell has."""
    if name == "lstm_cascaded_gate":
        return CascadedGateConfig
    return LSTMConfig if name.startswith("lstm") else CellConfig


def check_cell(cell: CellConfig) -> None:
    """UserError for an option that the cell does not have, or a value it cannot start from."""
    check_activation(cell.name, cell.activation)
    if type(cell) is not cell_schema(cell.name):
        raise UserError(f"cell.name={cell.name}: the cell is chosen by cell={cell.name}")
    for key in ("forget_bias", "open_bias"):
        value = getattr(cell, key, None)
        if value is not None and not math.isfinite(value):
            raise UserError(f"cell.{key}={value}: a finite number, or null for none")


def without_effect(config: Config) -> list[str]:
    """A line for each option away from its default that changes nothing beside the others."""
    optimizer, epochs = config.optimizer, config.epochs
    lines = []
    if config.task == "lm" and config.fill_context is not None:
        lines.append(f"fill_context={config.fill_context}: task=lm does not use it")
    for key in ("lr_decay", "lr_decay_after"):
        value = getattr(optimizer, key)
        if optimizer.schedule != "exponential" and value != getattr(OptimizerConfig, key):
            lines.append(f"optimizer.{key}={value}: schedule={optimizer.schedule} does not use it")
    if (
        optimizer.schedule == "exponential"
        and optimizer.lr_decay != OptimizerConfig.lr_decay
        and optimizer.lr_decay_after >= epochs
    ):
        after = f"lr_decay_after={optimizer.lr_decay_after} of {epochs} epochs"
        lines.append(f"optimizer.lr_decay={optimizer.lr_decay}: {after}")
    if config.init != "uniform" and config.init_range != Config.init_range:
        lines.append(f"init_range={config.init_range}: init={config.init} does not use it")
    if config.clip is None and config.clip_mode != Config.clip_mode:
        lines.append(f"clip_mode={config.clip_mode}: clip is null")
    if config.reset_state == "epoch" and epochs == 1:
        lines.append("reset_state=epoch: there is one epoch")
    if config.patience is not None and config.patience >= epochs:
        lines.append(f"patience={config.patience}: {epochs} epochs are no more")
    return [f"no effect: {line}" for line in lines]


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
