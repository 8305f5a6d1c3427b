"""Optimiser, learning-rate schedule, clipping."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from charcmp.config.optimizers import OptimizerConfig


def learning_rate(
    optimizer: OptimizerConfig, epoch: int, epochs: int, chunk: int = 0, chunks: int = 1
) -> float:
    """Returns the learning rate of an update.

    The rate changes with every epoch; with rate_per=update it changes with every update, so below
    read "update" for "epoch", except for the exponential schedule, which always goes by epochs.

    exponential: lr · lr_decay^max(0, epoch − lr_decay_after), the paper's. cosine: half a period,
    from lr in the first epoch towards 0, which it would reach after the last (Loshchilov & Hutter
    2017, without restarts). Of w warm-up epochs, the first has lr/(w+1), the next 2·lr/(w+1), and
    so on. cosine begins after the warm-up; exponential counts its epochs too.

    Args:
        optimizer: the schedule and its options.
        epoch: the update's epoch, counted from 1.
        epochs: number of epochs of the whole run.
        chunk: the chunk of the epoch that the update trains on, counted from 0.
        chunks: number of chunks of an epoch.
    """
    number, total, warmup = epoch, epochs, optimizer.warmup_epochs
    if optimizer.rate_per == "update":
        number, total = (epoch - 1) * chunks + chunk + 1, epochs * chunks
        warmup = min(optimizer.warmup_updates, total - 1)
    if number <= warmup:
        return optimizer.lr * number / (warmup + 1)
    if optimizer.schedule == "cosine":
        fraction = (number - 1 - warmup) / (total - warmup)
        return optimizer.lr * (1 + math.cos(math.pi * fraction)) / 2
    if optimizer.schedule == "constant":
        return optimizer.lr
    return optimizer.lr * optimizer.lr_decay ** max(0, epoch - optimizer.lr_decay_after)


def rate_tensor(config: OptimizerConfig, device: torch.device) -> Tensor:
    """Makes the tensor that holds the current rate, which the optimiser reads at every step.

    For a capturable optimiser on a GPU it is on the GPU, in float32 like the parameters: the
    optimiser's multi-tensor kernels take no other type. Otherwise it is on the CPU, in float64.
    """
    if device.type == "cuda" and config.capturable:
        return torch.tensor(config.lr, dtype=torch.float32, device=device)
    return torch.tensor(config.lr, dtype=torch.float64)


def make_optimizer(
    config: OptimizerConfig, parameters: Sequence[nn.Parameter], lr: Tensor
) -> torch.optim.Optimizer:
    """Makes the configured torch.optim optimiser, which reads its rate from `lr` at every step."""
    on_gpu = parameters[0].is_cuda
    options: dict[str, Any] = {"lr": lr, "foreach": on_gpu, **config.torch_options()}
    if config.capturable:
        options["capturable"] = on_gpu
    optimizer: torch.optim.Optimizer = getattr(torch.optim, config.torch_name)(
        parameters, **options
    )
    return optimizer


def clip_gradients(parameters: Sequence[nn.Parameter], mode: str, limit: float) -> None:
    """Clips gradients in place, without waiting for the device.

    value: clips each element to [-limit, limit], as the paper's code does. norm: takes all
    gradients as one vector Δw and scales it to Δw · limit/‖Δw‖ if ‖Δw‖ exceeds the limit (Pascanu,
    Mikolov & Bengio 2013).
    """
    if mode == "value":
        torch.nn.utils.clip_grad_value_(parameters, limit)
    else:
        torch.nn.utils.clip_grad_norm_(parameters, limit)
