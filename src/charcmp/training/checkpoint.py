"""Checkpoints: all that the rest of a run depends on, in one file."""

from __future__ import annotations

import io
import json
import math
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import msgspec
import torch
from msgspec import Meta, Struct
from torch import Tensor

from charcmp.config.schema import Config
from charcmp.config.spec import RunSpec
from charcmp.files import canonical_json
from charcmp.runs.folder import RunFolder
from charcmp.runs.reading import CorruptFileError, UnreadableFileError, open_file
from charcmp.runs.result import Epoch

if TYPE_CHECKING:
    from charcmp.training.step import Step

CHECKPOINT_FORMAT = 1


class Place(Struct, forbid_unknown_fields=True):
    """A run's position and history: the part of a checkpoint that is not tensors."""

    epoch: Annotated[int, Meta(ge=1)] = 1  # the one being trained; after the last, one more
    chunk: Annotated[int, Meta(ge=0)] = 0  # of this epoch: how many are trained
    best_epoch: Annotated[int, Meta(ge=0)] = 0  # by validation loss; 0: none is over yet
    best_val: Annotated[float, Meta(ge=0)] = math.inf  # its loss, in nats per character
    seconds_train: Annotated[float, Meta(ge=0)] = 0.0  # of all starts, without evaluations
    history: list[Epoch] = msgspec.field(default_factory=list)

    def is_over(self, config: Config) -> bool:
        """Returns whether training ends before `epoch`: all are done, or `patience` has run out."""
        epochs_since_best = self.epoch - 1 - self.best_epoch
        return self.epoch > config.epochs or epochs_since_best >= (config.patience or math.inf)


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """All that the rest of a run depends on.

    The file is a dictionary of these fields by torch.save, with `format` before them and `place` as
    JSON.
    """

    identity: str  # of the run, as JSON
    model: dict[str, Tensor]
    optimizer: dict[str, Any]
    state: Tensor  # carried into the next chunk, (L, S, B, H)
    loss_sum: Tensor  # of the epoch so far, float64 ()
    best: dict[str, Tensor]  # the weights of the best epoch; empty before the first one's end
    rng: Tensor  # the state of the generator that dropout draws from
    rng_device: str = "cpu"  # its device's type; older files lack it
    place: Place

    @classmethod
    def from_step(
        cls, spec: RunSpec, step: Step, place: Place, best: dict[str, Tensor]
    ) -> Checkpoint:
        """Returns the checkpoint of a run where it stands; it shares the step's tensors."""
        return cls(
            identity=canonical_json(spec.identity()),
            model=step.model.state_dict(),
            optimizer=step.optimizer.state_dict(),
            state=step.state_LSBH,
            loss_sum=step.loss_sum,
            best=best,
            rng=step.generator.get_state(),
            rng_device=step.generator.device.type,
            place=place,
        )

    def save(self, folder: RunFolder) -> None:
        """Writes it to the run's folder.

        Raises:
            LostLeaseError, UserError, StorageError: as RunFolder.write_bytes does.
        """
        place = json.dumps(msgspec.to_builtins(self.place))
        contents = {"format": CHECKPOINT_FORMAT, **vars(self), "place": place}
        # In memory first: on a full disk torch.save to a file raises errors of its own.
        buffer = io.BytesIO()
        torch.save(contents, buffer)
        folder.write_bytes(folder.checkpoint, buffer.getbuffer())

    @classmethod
    def read(
        cls, spec: RunSpec, folder: RunFolder, step: Step, say: Callable[[str], None]
    ) -> Checkpoint | None:
        """Reads the run's checkpoint, onto the CPU; returns None if there is none that can be used.

        Sets an unusable one aside, so that the run starts from scratch.

        Args:
            spec, folder: the run's.
            step: the step that the checkpoint has to fit.
            say: prints a line for the user if the checkpoint cannot be used.

        Raises:
            StorageError: if the disk or its server fails to deliver the file, which may be intact.
        """
        try:
            if (opened := open_file(folder.checkpoint, max_bytes(step))) is None:
                return None
            with opened:
                _read_through(opened, folder.checkpoint)
                _check_archive(opened)
                contents = torch.load(opened, map_location="cpu", weights_only=True)
            return _checked(contents, spec, step)
        except UnreadableFileError as error:
            raise error.storage_error from None
        except (MemoryError, torch.OutOfMemoryError, torch.AcceleratorError):
            raise  # a problem of this process, not of the file
        except Exception as error:  # torch.load raises many kinds of errors for broken files
            aside = folder.set_aside(folder.checkpoint)
            reason = str(error) if isinstance(error, CorruptFileError) else "unreadable"
            reason = reason.removeprefix(f"{folder.checkpoint}: ")
            say(f"{folder.checkpoint}: {reason}; kept as {aside.name}; the run starts from scratch")
            return None

    def restore(self, step: Step) -> dict[str, Tensor]:
        """Puts the tensors back in place; returns the best weights, on the step's device."""
        device = step.loss_sum.device
        step.model.load_state_dict(self.model)
        # The optimiser's options come from the configuration, never from the file, which may be a
        # stranger's.
        options = [dict(group) for group in step.optimizer.param_groups]
        step.optimizer.load_state_dict(
            {
                "state": self.optimizer["state"],
                "param_groups": step.optimizer.state_dict()["param_groups"],
            }
        )
        for group, given in zip(step.optimizer.param_groups, options, strict=True):
            group |= given  # loading made copies, even of step.lr, by which training sets the rate
        step.state_LSBH.copy_(self.state)
        step.loss_sum.copy_(self.loss_sum)
        if self.rng_device == device.type:  # the states of CPU and GPU differ
            step.generator.set_state(self.rng)
        # After an epoch's last chunk comes the first.
        step.chunk.fill_(self.place.chunk % len(step.chunks))
        return {key: value.to(device) for key, value in self.best.items()}


def max_bytes(step: Step) -> int:
    """Returns the largest size that a checkpoint of this step can have.

    It has the weights and the best weights, each with the buffers of a user's class, up to two
    averages of each weight in the optimiser, the carried state, and 256 MiB for names, a
    generator's state and the history of a million epochs.
    """
    model = sum(value.nbytes for value in step.model.state_dict().values())
    averages = 2 * sum(weight.nbytes for weight in step.parameters)
    return 2 * model + averages + step.state_LSBH.nbytes + (1 << 28)


def _read_through(opened: IO[bytes], file: Path) -> None:
    """Raises UnreadableFileError if the disk fails; zipfile would call the file not an archive."""
    try:
        while opened.read(1 << 20):
            pass
    except OSError as error:
        raise UnreadableFileError(f"{file}: {error.strerror}") from None
    opened.seek(0)


def _check_archive(opened: IO[bytes]) -> None:
    """Raises CorruptFileError for a compressed archive, which may unpack to far more than its size.

    zipfile refuses everything that is not an archive. That includes torch's older format, in which
    the file names the size of each tensor's memory before any of it is read.
    """
    with zipfile.ZipFile(opened) as archive:
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise CorruptFileError("compressed, which checkpoints never are")
    opened.seek(0)


def _checked(contents: Any, spec: RunSpec, step: Step) -> Checkpoint:
    """Returns a file's checkpoint.

    Raises:
        CorruptFileError: unless `restore` can put every part of it back.
    """
    names = [field.name for field in fields(Checkpoint)]
    required = {"format", *names} - {"rng_device"}
    missing = required - contents.keys() if isinstance(contents, dict) else required
    if missing:
        raise CorruptFileError(f"without {', '.join(sorted(missing))}")
    if contents["format"] != CHECKPOINT_FORMAT:
        raise CorruptFileError("of another format")
    if contents["identity"] != canonical_json(spec.identity()):
        raise CorruptFileError("of another configuration")
    parts = {name: contents[name] for name in names if name in contents}
    checkpoint = Checkpoint(**parts | {"place": _checked_place(contents["place"], spec, step)})
    model = step.model.state_dict()
    _check_tensors("model", checkpoint.model, model)
    _check_tensors(
        "state and loss_sum",
        {"state": checkpoint.state, "loss_sum": checkpoint.loss_sum, "rng": checkpoint.rng},
        {"state": step.state_LSBH, "loss_sum": step.loss_sum, "rng": None},
    )
    if checkpoint.rng_device == step.generator.device.type:
        # Raises an error if it is not a generator's state.
        torch.Generator(step.generator.device).set_state(checkpoint.rng)
    _check_optimizer(checkpoint.optimizer, step)
    _check_tensors("best", checkpoint.best, model if checkpoint.place.best_epoch else {})
    return checkpoint


def _check_tensors(what: str, found: Any, wanted: Mapping[str, Tensor | None]) -> None:
    """Raises CorruptFileError unless the tensors are finite and have these names, shapes and types.

    Where `wanted` has None, any shape and type will do. Where it is not finite, as the causal mask
    of a user's class, in a buffer, the tensor need not be.
    """
    if not isinstance(found, dict) or found.keys() != wanted.keys():
        raise CorruptFileError(f"{what}: not the tensors of this run")
    for name, value in found.items():
        like = wanted[name]
        if not isinstance(value, Tensor) or value.layout != torch.strided:
            raise CorruptFileError(f"{what}: {name} is not a tensor")
        if like is not None and (value.shape != like.shape or value.dtype != like.dtype):
            raise CorruptFileError(f"{what}: {name} has another shape or type")
        may_be_infinite = like is not None and not like.isfinite().all()
        if not may_be_infinite and not value.isfinite().all():
            raise CorruptFileError(f"{what}: {name} is not finite")


def _check_optimizer(found: Any, step: Step) -> None:
    """Raises CorruptFileError unless an optimiser's state fits this step's parameters.

    An empty state fits: it is that before the first step.
    """
    state = found.get("state") if isinstance(found, dict) else None
    if not isinstance(state, dict) or not isinstance(found.get("param_groups"), list):
        raise CorruptFileError("optimizer: not the state of an optimiser")
    if not state:
        return
    if state.keys() != set(range(len(step.parameters))):
        raise CorruptFileError("optimizer: not of this run's parameters")
    kept = step.kept_by_optimizer()
    for number, parameter in enumerate(step.parameters):
        values = state[number]
        if not isinstance(values, dict) or values.keys() != kept.keys():
            raise CorruptFileError("optimizer: keeps other values than this one")
        likes = {name: parameter if kept[name] else None for name in kept}
        tensors = {name: value for name, value in values.items() if value is not None}
        _check_tensors("optimizer", tensors, {name: likes[name] for name in tensors})
        if any(not kept[name] and value.numel() != 1 for name, value in tensors.items()):
            raise CorruptFileError("optimizer: counts its steps differently")


def _checked_place(text: Any, spec: RunSpec, step: Step) -> Place:
    """Returns a checkpoint's place; raises CorruptFileError if this run cannot be there."""
    try:
        place = msgspec.convert(json.loads(text), Place)
    except (TypeError, ValueError, RecursionError, msgspec.ValidationError):
        raise CorruptFileError("place: not that of a run") from None
    done = place.epoch - 1
    if (
        place.epoch > spec.config.epochs + 1
        or place.chunk > len(step.chunks)
        or place.best_epoch > done
        or [entry.epoch for entry in place.history] != [*range(1, done + 1)]
        or (done > 0) != (place.best_epoch > 0)
    ):
        raise CorruptFileError("place: not one of this run")
    return place
