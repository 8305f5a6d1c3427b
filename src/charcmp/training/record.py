"""What a run records about itself: its configuration, what was tested and its result."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal, cast

import torch
import yaml
from safetensors.torch import save as save_safetensors
from torch import Tensor

from charcmp.config.schema import protocol_version
from charcmp.config.spec import RunSpec
from charcmp.files import write_error
from charcmp.output import bits
from charcmp.runs.folder import VOCABULARY_KEY, RunFolder
from charcmp.runs.reading import CorruptFileError, UnreadableFileError, read_json
from charcmp.runs.result import (
    EARLIER,
    MAX_ENVIRONMENT_BYTES,
    SCHEMA_VERSION,
    Epoch,
    Result,
)
from charcmp.training.checkpoint import Place
from charcmp.training.device import device_name
from charcmp.training.environment import describe, git_state
from charcmp.training.session import Session


def make_result(
    spec: RunSpec,
    place: Place,
    status: Literal["done", "diverged"],
    device: torch.device,
    *,
    test_nats: float | None,
    num_test_chars: int,
    chars_per_second: float,
    seconds_per_sampled_char: float | None,
    verified: bool | None,
) -> Result:
    """Makes the contents of result.json for a run that is over. Missing losses are None."""
    config = spec.config
    best = place.history[place.best_epoch - 1] if place.best_epoch else None
    code = git_state()
    return Result(
        schema_version=SCHEMA_VERSION,
        protocol_version=protocol_version(config.dataset.layout, config.task),
        status=status,
        run_id=spec.run_id,
        dataset=spec.corpus.name,
        corpus_sha256=spec.corpus.sha256,
        corpus_note=spec.corpus.note,
        num_symbols=spec.corpus.num_symbols,
        layout=cast("Any", config.dataset.layout),
        split=list(config.dataset.split),
        task=cast("Any", config.task),  # checked by config.rules, but typed as str
        cell=spec.cell_name,
        layers=config.layers,
        budget=spec.budget,
        hidden_size=spec.hidden_size,
        num_params=spec.num_params,
        target_params=spec.target_params,
        seed=config.seed,
        dropout=config.dropout,
        precision=cast("Any", config.precision),
        epochs=config.epochs,
        patience=config.patience,
        epochs_trained=len(place.history),  # fewer with patience, or if the run diverged
        unroll_steps=spec.unroll_steps,
        batch_size=spec.batch_size,
        identity=spec.identity(),
        best_epoch=place.best_epoch or None,
        train_nats_per_char=best.train_nats_per_char if best else None,  # mean of the best epoch
        val_nats_per_char=best.val_nats_per_char if best else None,
        test_nats_per_char=test_nats,
        test_perplexity=None if test_nats is None else math.exp(test_nats),
        test_bits_per_char=None if test_nats is None else bits(test_nats),
        num_test_chars=num_test_chars,
        seconds_train=round(place.seconds_train, 3),
        chars_per_second=chars_per_second,
        seconds_per_sampled_char=seconds_per_sampled_char,
        device=str(device),
        device_name=device_name(device),
        verified=verified,
        git_commit=code["git_commit"],
        git_dirty=code["git_dirty"],
    )


def describe_run(
    spec: RunSpec,
    folder: RunFolder,
    device: torch.device,
    session: Session,
) -> None:
    """Writes config.yaml and environment.json; the latter keeps the records of earlier starts.

    Sets an earlier environment.json that is corrupt aside, and tells the session.

    Raises:
        StorageError: if the disk or its server fails to deliver an earlier environment.json.
    """
    resolved = replace(spec.config, budget=None, hidden_size=spec.hidden_size)
    # Not by OmegaConf, which takes a file's name with `${` in it for a reference.
    text = yaml.safe_dump(asdict(resolved), sort_keys=False, allow_unicode=True)
    folder.write_bytes(folder.config, f"# {spec.run_id}\n{text}".encode())
    environment = describe(device, spec.corpus, session.num_lanes)
    if session.command is not None:
        environment["command"] = session.command
    try:
        if earlier := read_json(folder.environment, EARLIER, MAX_ENVIRONMENT_BYTES):
            starts = earlier.pop("earlier_starts", [])
            environment["earlier_starts"] = [*(starts if isinstance(starts, list) else []), earlier]
    except UnreadableFileError as error:
        raise error.storage_error from None
    except CorruptFileError as error:
        session.say(f"{error}; kept as {folder.set_aside(folder.environment).name}")
    folder.write_json(folder.environment, environment)


def write_tested(
    spec: RunSpec,
    folder: RunFolder,
    best: dict[str, Tensor],
    val_nll_N: Tensor,
    test_nll_N: Tensor,
) -> None:
    """Writes the weights that were tested, and their losses on every character.

    Args:
        spec: the run.
        folder: the run's folder.
        best: the weights.
        val_nll_N, test_nll_N: nats per character, float32 on the CPU, stream after stream.

    Raises:
        LostLeaseError, UserError, StorageError: as RunFolder.write does.
    """
    folder.write_npy(folder.val_nll, val_nll_N.numpy())
    folder.write_npy(folder.test_nll, test_nll_N.numpy())
    weights = {key: value.contiguous().cpu() for key, value in best.items()}
    metadata = {VOCABULARY_KEY: spec.corpus.vocabulary.hex()}
    folder.write_bytes(folder.best, save_safetensors(weights, metadata))


@contextmanager
def tensorboard(folder: RunFolder, place: Place) -> Iterator[Callable[[Epoch], None]]:
    """Yields a function that adds an epoch's record to the run's TensorBoard log.

    The function does nothing if TensorBoard is not installed.

    Raises:
        UserError, StorageError: if the log cannot be written, as files.write_error says.
    """
    if (writer := _summary_writer()) is None:
        yield lambda entry: None
        return

    path = folder.path / "tensorboard"
    with _told_by_path(path):
        board = writer(str(path), purge_step=place.epoch)

    def note(entry: Epoch) -> None:
        with _told_by_path(path):
            for key in ("lr", "train_nats_per_char", "val_nats_per_char"):
                board.add_scalar(key, getattr(entry, key), entry.epoch)

    try:
        yield note
    finally:
        with _told_by_path(path):
            board.close()


def _summary_writer() -> Any:
    """Returns TensorBoard's SummaryWriter; None if it is not installed or cannot be imported.

    Some versions do not work with this numpy or protobuf.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except Exception:
        return None
    return SummaryWriter


@contextmanager
def _told_by_path(path: Path) -> Iterator[None]:
    """Turns a library's errors in writing to a path into those of files.write_error."""
    try:
        yield
    except OSError as error:
        raise write_error(path, error) from None
