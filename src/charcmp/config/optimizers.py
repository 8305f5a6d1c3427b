"""The optimisers, one class each: its torch.optim class, its options, their defaults and rules.

To add an optimiser, write its class here, add its name to OPTIMIZERS and write
conf/optimizer/NAME.yaml. A run's identity leaves out every option at its default, so a default may
change only together with PROTOCOL_VERSION.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, ClassVar

from charcmp.values import (
    BELOW_1,
    FINITE_NOT_NEGATIVE,
    MISSING,
    NOT_NEGATIVE,
    POSITIVE,
    Rule,
    one_of,
    option,
)

BETAS = Rule(
    lambda betas: len(betas) == 2 and all(0 <= beta < 1 for beta in betas),
    "must be two, each in [0, 1)",
)
DECAY = Rule(lambda factor: 0 < factor <= 1, "must be in (0, 1]")


def learning_rate(default: Any) -> Any:
    return option(default, "learning rate, which the schedule then lowers", POSITIVE)


def epsilon(default: float) -> Any:
    return option(default, "added to the root that the gradient is divided by", POSITIVE)


@dataclass
class OptimizerConfig:
    """The options that all optimisers share: a rate and its schedule."""

    torch_name: ClassVar[str]  # name of the class in torch.optim
    # Whether its step can be part of a CUDA graph, that is, torch.optim's class has `capturable`.
    capturable: ClassVar[bool] = False

    name: str = MISSING
    lr: float = learning_rate(MISSING)
    schedule: str = option(
        "exponential",
        "how the rate falls; exponential is the paper's, cosine ends at 0",
        one_of(("exponential", "cosine", "constant")),
    )
    lr_decay: float = option(
        0.95, "with schedule=exponential, the factor on the rate each epoch", DECAY
    )
    lr_decay_after: int = option(10, "epochs before the first lr_decay", NOT_NEGATIVE)
    warmup_epochs: int = option(
        0, "epochs in which the rate rises linearly, before any schedule", NOT_NEGATIVE
    )
    rate_per: str = option(
        "epoch", "when the rate changes; epoch is the paper's", one_of(("epoch", "update"))
    )
    warmup_updates: int = option(0, "with rate_per=update, in place of warmup_epochs", NOT_NEGATIVE)

    def torch_options(self) -> dict[str, Any]:
        """Returns the optimiser's own options, which are keywords of its torch.optim class."""
        shared = {f.name for f in fields(OptimizerConfig)}
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in shared}

    def problem(self) -> str | None:
        """Says which options exclude each other; returns None if none do."""
        return None


@dataclass
class RMSpropConfig(OptimizerConfig):
    """v ← α v + (1 − α) g²;  w ← w − lr g / (√v + ε): Hinton 2012, Coursera lecture 6e.

    torch adds ε outside the root and starts v at 0, as the paper's code does.
    """

    torch_name = "RMSprop"
    capturable = True

    lr: float = learning_rate(2e-3)
    alpha: float = option(0.95, "decay of the mean of squared gradients", BELOW_1)
    eps: float = epsilon(1e-8)


@dataclass
class AdagradConfig(OptimizerConfig):
    """v ← v + g²;  w ← w − lr g / (√v + ε): Duchi, Hazan & Singer 2011, diagonal form."""

    torch_name = "Adagrad"

    lr: float = learning_rate(5e-2)
    eps: float = epsilon(1e-10)


@dataclass
class AdamConfig(OptimizerConfig):
    """m ← β₁ m + (1 − β₁) g;  v ← β₂ v + (1 − β₂) g²;  w ← w − lr m̂ / (√v̂ + ε).

    After t updates m̂ = m / (1 − β₁ᵗ) and v̂ = v / (1 − β₂ᵗ): Kingma & Ba 2015, algorithm 1.
    """

    torch_name = "Adam"
    capturable = True

    lr: float = learning_rate(1e-2)
    betas: list[float] = option(
        [0.9, 0.999], "decay of the means of gradients and of their squares", BETAS
    )
    eps: float = epsilon(1e-8)


@dataclass
class AdamWConfig(AdamConfig):
    """w ← (1 − lr λ) w before Adam's update: Loshchilov & Hutter 2019, with λ = weight_decay."""

    torch_name = "AdamW"

    weight_decay: float = option(1e-2, "decoupled weight decay", FINITE_NOT_NEGATIVE)


@dataclass
class SGDConfig(OptimizerConfig):
    """m ← μ m + g;  w ← w − lr m, with nesterov w ← w − lr (g + μ m): Sutskever et al. 2013.

    As torch has it: the first m is g, and lr scales m rather than g.
    """

    torch_name = "SGD"

    lr: float = learning_rate(1e-2)
    momentum: float = option(0.9, "momentum factor", BELOW_1)
    nesterov: bool = option(False, "Nesterov's momentum")

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
