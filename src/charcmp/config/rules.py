"""Which values a run's keys may have, and which options have no effect given the others."""

from __future__ import annotations

import copy
from dataclasses import fields, is_dataclass

from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from charcmp.config.keys import all_keys
from charcmp.config.optimizers import OPTIMIZERS, OptimizerConfig
from charcmp.config.schema import Config, flat_fields
from charcmp.data.corpus import PAPER_SIZE
from charcmp.data.dataset import DatasetConfig, builtin_datasets
from charcmp.errors import UserError, first_line, require
from charcmp.models.cells.options import ModuleConfig
from charcmp.models.cells.registry import check_cell
from charcmp.values import ANY, did_you_mean


def typed(cfg: DictConfig) -> Config:
    """Checks a configuration and returns it as dataclasses, without Hydra's own node.

    Raises:
        UserError: if a key is not in the schema or missing, or no run can have a value.
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
    """Returns a line on a value whose `${name}` names nothing, or a value of another type."""
    key = f"{error.full_key}: " if error.full_key else ""
    return key + first_line(error)


def _check_keys(cfg: DictConfig, schema: type, prefix: str = "") -> None:
    """Requires exactly the schema's keys: Hydra lets `+new=1` and `~old` through."""
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
    """Returns the message for an unknown key."""
    part, _, option = key.rpartition(".")
    known = [known_key.name for known_key in all_keys()]
    if part in ("cell", "dataset", "optimizer") and key in known:
        return f"unknown key '{key}': this {part} has no {option}"
    meant = did_you_mean(key, known) or ";"
    return f"unknown key '{key}'{meant} charcmp train --help lists the keys"


def check(config: Config) -> None:
    """Raises UserError for the first value that no run can have."""
    check_cell(config.cell)
    optimizer = config.optimizer
    require(
        OPTIMIZERS.get(optimizer.name) is type(optimizer),
        f"optimizer.name={optimizer.name}: choose with optimizer=, one of {', '.join(OPTIMIZERS)}",
    )
    for key, value, field in flat_fields(config):
        rule = field.metadata.get("rule", ANY)
        if problem := rule.problem(key, value):
            raise UserError(problem)
    _check_dataset(config.dataset)
    steps = config.unroll_steps or PAPER_SIZE
    require(
        config.task == "lm" or (config.fill_context or 1) <= steps,
        f"fill_context={config.fill_context}: must be at most unroll_steps={steps}",
    )
    for key in ("batch_size", "unroll_steps"):
        whole, part = getattr(config, key) or PAPER_SIZE, getattr(config, f"train_{key}")
        if part is None:
            continue
        require(
            config.dataset.layout == "contiguous" or whole % part == 0,
            f"train_{key}={part}: must be a divisor of {key}={whole}",
        )
        require(
            config.dataset.layout == "columns" or getattr(config, key) is None,
            f"train_{key}={part}: in a contiguous text give it or {key}, not both",
        )
        require(config.task == "lm", f"train_{key}={part}: only task=lm can use it")
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
        f"init={config.init} cell.init=charcmp: charcmp does not know which parameters of this "
        "class are recurrent matrices; use init=uniform or cell.init=own",
    )
    if problem := optimizer.problem():
        raise UserError(problem)
    require(
        config.budget is None or config.hidden_size is None,
        f"budget={config.budget} and hidden_size={config.hidden_size}: give one of them",
    )


def _check_dataset(dataset: DatasetConfig) -> None:
    """Raises UserError if a text would go by another's name, or another text would be read."""
    called_so = builtin_datasets().get(dataset.name or "")
    require(
        called_so is None or called_so.source == dataset.source,
        f"dataset.name={dataset.name}: the name of a built-in text; give this one another",
    )
    require(
        dataset.path is None or dataset.source in ("file", "download"),
        f"dataset.path={dataset.path}: {dataset.source} comes with Python and reads no file; "
        "dataset=text reads one",
    )


def without_effect(config: Config) -> list[str]:
    """Returns a line for each option that was changed from its default but has no effect."""
    optimizer, dataset, epochs = config.optimizer, config.dataset, config.epochs
    lines = []
    if config.task == "lm" and config.fill_context is not None:
        lines.append(f"fill_context={config.fill_context}: task=lm does not use it")
    for key in ("url", "num_chars", "num_symbols", "stand_ins"):
        if dataset.source != "download" and (value := getattr(dataset, key)):
            lines.append(f"dataset.{key}={value}: only a download has it")
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
    if (
        optimizer.rate_per == "update"
        and optimizer.schedule != "cosine"
        and optimizer.warmup_updates == 0
    ):
        why = f"schedule={optimizer.schedule} changes no rate within an epoch"
        lines.append(f"optimizer.rate_per=update: {why}, and warmup_updates is 0")
    if config.init != "uniform" and config.init_range != Config.init_range:
        lines.append(f"init_range={config.init_range}: init={config.init} does not use it")
    if config.clip is None and config.clip_mode != Config.clip_mode:
        lines.append(f"clip_mode={config.clip_mode}: clip is null")
    if config.reset_state == "epoch" and epochs == 1:
        lines.append("reset_state=epoch: there is one epoch")
    if config.patience is not None and config.patience >= epochs:
        lines.append(f"patience={config.patience} cannot end a run of {epochs} epochs early")
    return [f"no effect: {line}" for line in lines]
