"""Optimiser and learning-rate schedule."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from charcmp.config import OptimizerConfig, RMSpropConfig
from charcmp.errors import UserError


def learning_rate(optimizer: OptimizerConfig, epoch: int) -> float:
    """The rate in an epoch counted from 1: lr · lr_decay^max(0, epoch − lr_decay_after). [paper]"""
    return optimizer.lr * optimizer.lr_decay ** max(0, epoch - optimizer.lr_decay_after)


def make_optimizer(
    config: OptimizerConfig, parameters: Iterable[nn.Parameter], lr: Tensor
) -> torch.optim.Optimizer:
    """The optimiser; it reads its rate from the tensor `lr`, so that a captured step follows it."""
    if isinstance(config, RMSpropConfig):
        # torch adds eps outside the root and starts the average at 0, as the paper's code does.
        return torch.optim.RMSprop(
            parameters,
            lr=lr,
            alpha=config.alpha,
            eps=config.eps,
            capturable=lr.is_cuda,
            foreach=lr.is_cuda,
        )
    raise UserError(f"unknown optimizer '{config.name}'")
