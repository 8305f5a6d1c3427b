"""The optimisers, a class each: its torch.optim class, its options, their defaults and rules.

A new optimiser is its class here, with its name in OPTIMIZERS, and conf/optimizer/NAME.yaml. A
run's identity leaves out what stands at its default, so a default may move only together with
PROTOCOL_VERSION.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

from omegaconf import MISSING

from charcmp.values import (
    BELOW_1,
    FINITE_NOT_NEGATIVE,
    NOT_NEGATIVE,
    POSITIVE,
    Rule,
    one_of,
    option,
)

BETAS: Rule = (
    lambda betas: len(betas) == 2 and all(0 <= beta < 1 for beta in betas),
    "must be two, each in [0, 1)",
)
DECAY: Rule = (lambda factor: 0 < factor <= 1, "must be in (0, 1]")


@dataclass
class OptimizerConfig:
    """What all optimisers have: a rate and its schedule."""

    torch_name: ClassVar[str]  # of the class in torch.optim
    # Whether its step can be part of a CUDA graph: whether torch.optim's class has `capturable`.
    capturable: ClassVar[bool] = False

    name: str = MISSING
    lr: float = option(MISSING, POSITIVE)
    # exponential (the paper's) | cosine | constant
    schedule: str = option("exponential", one_of(("exponential", "cosine", "constant")))
    lr_decay: float = option(0.95, DECAY)  # exponential: factor per epoch ...
    lr_decay_after: int = option(10, NOT_NEGATIVE)  # ... after this many epochs
    # Epochs of a rate that rises linearly, before any schedule.
    warmup_epochs: int = option(0, NOT_NEGATIVE)
    # The rate changes with every epoch (the paper's) | update
    rate_per: str = option("epoch", one_of(("epoch", "update")))
    warmup_updates: int = option(0, NOT_NEGATIVE)  # instead of warmup_epochs, with rate_per=update

    def torch_options(self) -> dict[str, Any]:
        """The optimiser's own options, by the keywords of its torch.optim class."""
        shared = {f.name for f in fields(OptimizerConfig)}
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in shared}

    def problem(self) -> str | None:
        """What of the options cannot go together; None if they can."""
        return None


@dataclass
class RMSpropConfig(OptimizerConfig):
    # torch adds eps outside the root and starts the average at 0, as the paper's code does.
    torch_name = "RMSprop"
    capturable = True

    lr: float = option(2e-3, POSITIVE)
    alpha: float = option(0.95, BELOW_1)
    eps: float = option(1e-8, POSITIVE)


@dataclass
class AdagradConfig(OptimizerConfig):
    torch_name = "Adagrad"

    lr: float = option(5e-2, POSITIVE)
    eps: float = option(1e-10, POSITIVE)


@dataclass
class AdamConfig(OptimizerConfig):
    torch_name = "Adam"
    capturable = True

    lr: float = option(1e-2, POSITIVE)
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999], metadata={"rule": BETAS})
    eps: float = option(1e-8, POSITIVE)


@dataclass
class AdamWConfig(AdamConfig):
    torch_name = "AdamW"

    weight_decay: float = option(1e-2, FINITE_NOT_NEGATIVE)


@dataclass
class SGDConfig(OptimizerConfig):
    torch_name = "SGD"

    lr: float = option(1e-2, POSITIVE)
    momentum: float = option(0.9, BELOW_1)
    nesterov: bool = False

    def problem(self) -> str | None:
        needs_momentum = self.nesterov and self.momentum == 0
        return "optimizer.nesterov=true needs a momentum above 0" if needs_momentum else None


OPTIMIZERS: dict[str, type[OptimizerConfig]] = {
    "rmsprop": RMSpropConfig,
    "adagrad": AdagradConfig,
    "adam": AdamConfig,
    "adamw": AdamWConfig,
    "sgd": SGDConfig,
}
