"""All that the rest of a run depends on, in one file, and back."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from charcmp.config import Config
from charcmp.runs import CorruptFileError, RunFolder
from charcmp.spec import RunSpec, canonical_json

if TYPE_CHECKING:
    from charcmp.train import Step

CHECKPOINT_FORMAT = 1


@dataclass
class Place:
    """Where a run is: the part of a checkpoint that is not tensors."""

    epoch: int = 1
    chunk: int = 0
    best_epoch: int = 0
    best_val: float = math.inf
    seconds_train: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)

    def is_over(self, config: Config) -> bool:
        """Whether training ends before `epoch`: all are done, or the best lies `patience` back."""
        epochs_since_best = self.epoch - 1 - self.best_epoch
        return self.epoch > config.epochs or epochs_since_best >= (config.patience or math.inf)


def save_checkpoint(
    spec: RunSpec, folder: RunFolder, step: Step, place: Place, best: dict[str, Tensor]
) -> None:
    """All that the rest of the run depends on, in one file."""
    checkpoint = {
        "format": CHECKPOINT_FORMAT,
        "identity": canonical_json(spec.identity()),
        "model": step.model.state_dict(),
        "optimizer": step.optimizer.state_dict(),
        "state": step.state_LSBH,
        "loss_sum": step.loss_sum,
        "best": best,
        "rng": step.generator.get_state(),
        "rng_device": step.generator.device.type,
        "place": json.dumps(asdict(place)),
    }
    folder.write(folder.checkpoint, lambda file: torch.save(checkpoint, file))


def load_checkpoint(
    spec: RunSpec, folder: RunFolder, say: Callable[[str], None]
) -> dict[str, Any] | None:
    """The run's checkpoint; one that cannot be used is set aside and the run redone."""
    if not folder.checkpoint.exists():
        return None
    try:
        checkpoint = torch.load(folder.checkpoint, map_location="cpu", weights_only=True)
        if checkpoint["format"] != CHECKPOINT_FORMAT:
            raise CorruptFileError("of another format")
        if checkpoint["identity"] != canonical_json(spec.identity()):
            raise CorruptFileError("of another configuration")
        Place(**json.loads(checkpoint["place"]))
    except Exception as error:  # torch.load fails in as many ways as files break
        aside = folder.set_aside(folder.checkpoint)
        reason = str(error) if isinstance(error, CorruptFileError) else "unreadable"
        say(f"{folder.checkpoint}: {reason}; kept as {aside.name}, the run starts anew")
        return None
    return dict(checkpoint)


def restore(step: Step, checkpoint: dict[str, Any]) -> tuple[Place, dict[str, Tensor]]:
    """Puts a checkpoint's tensors back in place; returns the rest of it."""
    device = step.loss_sum.device
    step.model.load_state_dict(checkpoint["model"])
    step.optimizer.load_state_dict(checkpoint["optimizer"])
    for group in step.optimizer.param_groups:
        group["lr"] = step.lr  # loading made a copy of it
    step.state_LSBH.copy_(checkpoint["state"])
    step.loss_sum.copy_(checkpoint["loss_sum"])
    if checkpoint.get("rng_device", "cpu") == device.type:  # else another device's draws
        step.generator.set_state(checkpoint["rng"])
    best = {key: value.to(device) for key, value in checkpoint["best"].items()}
    place = Place(**json.loads(checkpoint["place"]))
    step.chunk.fill_(place.chunk % len(step.chunks))  # behind an epoch's last comes the first
    return place, best
