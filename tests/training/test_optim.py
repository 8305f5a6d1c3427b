"""Optimisers, schedules, clipping: against their formulas, and what a configuration may say."""

import math
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from charcmp.config.optimizers import (
    OPTIMIZERS,
    AdagradConfig,
    AdamConfig,
    AdamWConfig,
    OptimizerConfig,
    RMSpropConfig,
    SGDConfig,
)
from charcmp.config.rules import without_effect
from charcmp.config.schema import Config
from charcmp.data.dataset import DatasetConfig
from charcmp.files import config_dir
from charcmp.training.optim import clip_gradients, learning_rate, make_optimizer

LR = 0.1


def rmsprop(weight, gradients):
    average = 0.0
    for g in gradients:
        average = 0.95 * average + 0.05 * g * g
        weight = weight - LR * g / (average**0.5 + 1e-8)
    return weight


def adagrad(weight, gradients):
    total = 0.0
    for g in gradients:
        total += g * g
        weight = weight - LR * g / (total**0.5 + 1e-10)
    return weight


def adam(weight, gradients, decay=0.0):
    m = v = 0.0
    for t, g in enumerate(gradients, 1):
        weight = weight * (1 - LR * decay)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        weight = weight - LR * (m / (1 - 0.9**t)) / ((v / (1 - 0.999**t)) ** 0.5 + 1e-8)
    return weight


def sgd(weight, gradients, nesterov=False):
    velocity = 0.0
    for g in gradients:
        velocity = 0.9 * velocity + g
        weight = weight - LR * (g + 0.9 * velocity if nesterov else velocity)
    return weight


@pytest.mark.parametrize(
    ("config", "formula"),
    [
        (RMSpropConfig(name="rmsprop"), rmsprop),
        (AdagradConfig(name="adagrad"), adagrad),
        (AdamConfig(name="adam"), adam),
        (AdamWConfig(name="adamw"), lambda w, g: adam(w, g, decay=1e-2)),
        (SGDConfig(name="sgd"), sgd),
        (SGDConfig(name="sgd", nesterov=True), lambda w, g: sgd(w, g, nesterov=True)),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_an_optimiser_is_its_formula_and_reads_the_rate_tensor(
    config: OptimizerConfig, formula
) -> None:
    gradients = [3.0, -1.0, 0.5, 2.0]
    parameter = nn.Parameter(torch.tensor(0.7, dtype=torch.float64))
    lr = torch.tensor(5.0, dtype=torch.float64)
    optimizer = make_optimizer(config, [parameter], lr)
    lr.fill_(LR)  # as train.py does in each epoch: the optimiser was made with another
    for gradient in gradients:
        parameter.grad = torch.tensor(gradient, dtype=torch.float64)
        optimizer.step()
    assert parameter.item() == pytest.approx(formula(0.7, gradients), rel=1e-6)


def schedule(epochs: int = 5, **changes) -> list[float]:
    config = RMSpropConfig(name="rmsprop", lr=1.0, **changes)
    return [learning_rate(config, epoch, epochs) for epoch in range(1, epochs + 1)]


def test_schedules() -> None:
    assert schedule(lr_decay=0.5, lr_decay_after=3) == [1, 1, 1, 0.5, 0.25]
    assert schedule(schedule="constant", lr_decay=0.5, lr_decay_after=0) == [1] * 5
    cosine = [0.5 * (1 + math.cos(math.pi * k / 5)) for k in range(5)]
    assert schedule(schedule="cosine") == pytest.approx(cosine)
    assert schedule(schedule="constant", warmup_epochs=3) == [0.25, 0.5, 0.75, 1, 1]
    assert schedule(7, schedule="cosine", warmup_epochs=2) == pytest.approx([1 / 3, 2 / 3, *cosine])
    warm = schedule(lr_decay=0.5, lr_decay_after=1, warmup_epochs=2)
    assert warm == pytest.approx([1 / 3, 2 / 3, 0.25, 0.125, 0.0625])


def test_a_rate_that_changes_with_every_update() -> None:
    """Three epochs of four updates are one schedule of twelve; exponential goes by epochs."""
    options = {"name": "rmsprop", "lr": 1.0, "rate_per": "update", "warmup_updates": 2}
    cosine = RMSpropConfig(**options, schedule="cosine")
    rates = [learning_rate(cosine, e, 3, c, 4) for e in (1, 2, 3) for c in range(4)]
    expected = [(1 + math.cos(math.pi * n / 10)) / 2 for n in range(10)]
    assert rates == pytest.approx([1 / 3, 2 / 3, *expected])
    paper = RMSpropConfig(**options, lr_decay=0.5, lr_decay_after=1)
    rates = [learning_rate(paper, e, 3, c, 4) for e in (1, 2, 3) for c in range(4)]
    assert rates == pytest.approx([1 / 3, 2 / 3, 1, 1, *[0.5] * 4, *[0.25] * 4])
    short = RMSpropConfig(**{**options, "warmup_updates": 50}, schedule="cosine")
    assert learning_rate(short, 1, 1, 3, 4) == 1.0  # the last update is never a warm-up's


@pytest.mark.parametrize("limit", [0.5, 4.9, 5.1, 1e6])
def test_clipping_by_the_global_norm(limit: float) -> None:
    """Δw · limit/‖Δw‖ where the norm of all gradients as one vector exceeds the limit."""
    gradients = [torch.tensor([[3.0, 0.0], [0.0, 0.0]]), torch.tensor([-4.0])]  # norm 5
    parameters = [nn.Parameter(torch.zeros_like(g)) for g in gradients]
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient.clone()
    clip_gradients(parameters, "norm", limit)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        assert torch.allclose(parameter.grad, gradient * min(1.0, limit / 5))


def test_clipping_by_value() -> None:
    parameter = nn.Parameter(torch.zeros(4))
    parameter.grad = torch.tensor([-9.0, -1.0, 2.0, 7.0])
    clip_gradients([parameter], "value", 5.0)
    assert parameter.grad.tolist() == [-5, -1, 2, 5]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_yaml_files_say_what_the_dataclasses_do(name: str) -> None:
    """An id leaves out the dataclass's defaults; a run gets the file's."""
    stated = OmegaConf.load(config_dir() / "optimizer" / f"{name}.yaml")
    assert stated.pop("defaults") == [{"/schema/optimizer@_here_": name}]
    assert OmegaConf.structured(OPTIMIZERS[name](name=name)) == OmegaConf.merge(
        OPTIMIZERS[name], stated
    )
    assert "lr" in stated


def test_a_choice_for_every_optimiser() -> None:
    files = (config_dir() / "optimizer").glob("*.yaml")
    assert {file.stem for file in files} == set(OPTIMIZERS)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"schedule": "cosine", "lr_decay": 0.9}, "lr_decay=0.9: schedule=cosine does not use it"),
        ({"schedule": "constant", "lr_decay_after": 3}, "schedule=constant does not use it"),
        ({"lr_decay": 0.9}, "lr_decay_after=10 of 8 epochs"),
        ({"clip": None, "clip_mode": "norm"}, "clip is null"),
        ({"reset_state": "epoch", "epochs": 1}, "there is one epoch"),
        ({"patience": 8}, "cannot end a run of 8 epochs early"),
        ({}, None),
        ({"lr_decay": 0.9, "lr_decay_after": 7, "patience": 7, "clip_mode": "norm"}, None),
        ({"clip": None, "schedule": "cosine", "warmup_epochs": 2}, None),
    ],
)
def test_options_without_effect_say_so(changes: dict, complaint: str | None) -> None:
    options = {key: changes.pop(key) for key in list(changes) if hasattr(RMSpropConfig, key)}
    optimizer = RMSpropConfig(name="rmsprop", **options)
    others = {"optimizer": optimizer, "dataset": DatasetConfig(), "epochs": 8}
    lines = without_effect(Config(**others | changes))
    assert len(lines) == (complaint is not None)
    assert (complaint or "") in "".join(lines)


def test_no_effect_through_the_command_line(charcmp, tiny_text: Path) -> None:
    from helpers.console import TINY

    text = ["dataset=text", f"dataset.path={tiny_text}", "cell=rnn", "patience=3"]
    for command in ("train", "sweep"):
        done = charcmp(command, *text, *TINY, "layers=1", f"results_dir={command}")
        assert "note: no effect: patience=3 cannot end a run of 3 epochs early" in done.stdout
