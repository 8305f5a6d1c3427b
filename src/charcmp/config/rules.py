"""Which values a run can have, and which of its options change nothing beside the others."""

from __future__ import annotations

import copy
import difflib
from dataclasses import fields, is_dataclass

from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from charcmp.config.optimizers import OPTIMIZERS, OptimizerConfig
from charcmp.config.schema import Config, flatten
from charcmp.data.corpus import PAPER_SIZE
from charcmp.errors import UserError, require
from charcmp.files import SAFE_NAME
from charcmp.models.budget import MAX_HIDDEN_SIZE, NUM_STACKS
from charcmp.models.cells.options import ModuleConfig
from charcmp.models.cells.registry import check_cell
from charcmp.values import (
    AT_LEAST_1,
    BELOW_1,
    NOT_NEGATIVE,
    POSITIVE,
    Rule,
    matching,
    one_of,
    or_null,
    rules_of,
    whole_up_to,
)

RESETS = ("never", "epoch")
MAX_LAYERS, MAX_AT_ONCE = 1000, 4096

# Those of cells and optimisers stand with their options.
RULES: dict[str, Rule] = {
    "task": one_of(NUM_STACKS),
    "fill_context": or_null(AT_LEAST_1),
    "dataset.name": or_null(
        (SAFE_NAME.fullmatch, "letters, digits, '_', '.' and '-' only, as it names folders")
    ),
    "dataset.layout": one_of(("columns", "contiguous")),
    "dataset.split": (
        lambda s: len(s) == 3 and all(part > 0 for part in s) and abs(sum(s) - 100) < 1e-9,
        "three positive percentages that sum to 100",
    ),
    "layers": whole_up_to(MAX_LAYERS),
    "hidden_size": or_null(whole_up_to(MAX_HIDDEN_SIZE)),
    # Generators take no more bits than these: beyond, other seeds give the same numbers.
    "seed": (lambda seed: 0 <= seed < 2**32, "must be in [0, 2^32)"),
    "dropout": BELOW_1,
    "epochs": AT_LEAST_1,
    "batch_size": or_null(AT_LEAST_1),
    "unroll_steps": or_null(AT_LEAST_1),
    "train_batch_size": or_null(AT_LEAST_1),
    "train_unroll_steps": or_null(AT_LEAST_1),
    "updates_per_epoch": or_null(AT_LEAST_1),
    "clip": or_null(POSITIVE),
    "clip_mode": one_of(("value", "norm")),
    "reset_state": one_of(RESETS),
    "patience": or_null(AT_LEAST_1),
    "init": one_of(("uniform", "xavier", "orthogonal")),
    "init_range": POSITIVE,
    "precision": one_of(("float32", "tf32"), "; the paper's is float32"),
    "threads": or_null(whole_up_to(MAX_AT_ONCE)),
    "jobs": or_null(whole_up_to(MAX_AT_ONCE)),
    "jobs_per_gpu": matching(r"auto|[1-9]\d*", "auto, or a whole number from 1"),
    "gpus": matching(r"all|\d+(,\d+)*", "all, or numbers as in gpus=0,1"),
    "results_dir": (bool, "name a folder"),
    "checkpoint_seconds": NOT_NEGATIVE,
    "hang_seconds": POSITIVE,
    "lease_seconds": POSITIVE,
}


def typed(cfg: DictConfig) -> Config:
    """The configuration as dataclasses, checked; Hydra's own node is dropped.

    Raises:
        UserError: for a key that is not in the schema, or a value no run can have.
    """
    if "hydra" in cfg:
        cfg = copy.copy(cfg)
        with read_write(cfg), open_dict(cfg):
            del cfg["hydra"]
    try:
        _check_keys(cfg, Config)
        config = OmegaConf.to_object(cfg)
    except OmegaConfBaseException as error:
        raise UserError(not_resolved(error)) from None
    assert isinstance(config, Config)
    check(config)
    return config


def not_resolved(error: OmegaConfBaseException) -> str:
    """One line for a value whose `${name}` leads nowhere, or to a value of another type."""
    key = f"{error.full_key}: " if error.full_key else ""
    return key + str(error).splitlines()[0]


def _check_keys(cfg: DictConfig, schema: type, prefix: str = "") -> None:
    """Hydra lets `+new=1` and `~old` through; here exactly the schema's keys must be given."""
    given = {str(key) for key in cfg if not OmegaConf.is_missing(cfg, key)}
    known = {f.name for f in fields(schema)}
    if unknown := given - known:
        raise UserError(unknown_key(prefix + min(unknown)))
    if missing := known - given:
        raise UserError(
            f"missing key '{prefix}{min(missing)}': charcmp train --help lists the keys"
        )
    for key in known:
        if is_dataclass(part := OmegaConf.get_type(cfg, key)):
            assert isinstance(part, type)
            _check_keys(cfg[key], part, f"{prefix}{key}.")


def unknown_key(key: str) -> str:
    """What is said of a key that there is not."""
    part, _, option = key.rpartition(".")
    known = [f.name for f in fields(Config)]
    if part in known:
        return f"unknown key '{key}': this {part} has no {option}"
    alike = difflib.get_close_matches(key, known, n=1)
    meant = f"; is it {alike[0]}?" if alike else ":"
    return f"unknown key '{key}'{meant} charcmp train --help lists the keys"


def check(config: Config) -> None:
    """UserError for the first value that no run can have."""
    check_cell(config.cell)
    optimizer = config.optimizer
    require(
        OPTIMIZERS.get(optimizer.name) is type(optimizer),
        f"optimizer.name={optimizer.name}: optimizer=... chooses, one of {', '.join(OPTIMIZERS)}",
    )
    rules = RULES | {f"optimizer.{key}": rule for key, rule in rules_of(optimizer).items()}
    for key, value in flatten(config).items():
        if key in rules:
            holds, wanted = rules[key]
            require(bool(holds(value)), f"{key}={value}: {wanted}")
    steps = config.unroll_steps or PAPER_SIZE
    require(
        config.task == "lm" or (config.fill_context or 1) <= steps,
        f"fill_context={config.fill_context}: must be at most unroll_steps={steps}",
    )
    for key in ("batch_size", "unroll_steps"):
        whole, part = getattr(config, key) or PAPER_SIZE, getattr(config, f"train_{key}") or 1
        require(
            config.dataset.layout == "contiguous" or whole % part == 0,
            f"train_{key}={part}: must be a divisor of {key}={whole}",
        )
        require(
            config.dataset.layout == "columns" or part == 1 or getattr(config, key) is None,
            f"train_{key}={part}: in a contiguous text give it or {key}, not both",
        )
        require(config.task == "lm" or part == 1, f"train_{key}={part}: task=lm alone has it")
    require(
        optimizer.warmup_epochs < config.epochs,
        f"optimizer.warmup_epochs={optimizer.warmup_epochs}: must be fewer than the epochs",
    )
    unused = "warmup_epochs" if optimizer.rate_per == "update" else "warmup_updates"
    require(
        getattr(optimizer, unused) == 0,
        f"optimizer.{unused}={getattr(optimizer, unused)}: with rate_per={optimizer.rate_per} the "
        f"warm-up is set by warmup_{optimizer.rate_per}s",
    )
    cell = config.cell
    require(
        config.init == "uniform" or not isinstance(cell, ModuleConfig) or cell.init == "own",
        f"init={config.init} cell.init=charcmp: which parameters of another's class are recurrent "
        "matrices is not known; init=uniform, or cell.init=own",
    )
    if problem := optimizer.problem():
        raise UserError(problem)
    require(
        config.budget is None or config.hidden_size is None,
        f"budget={config.budget} and hidden_size={config.hidden_size}: give one of them",
    )


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
