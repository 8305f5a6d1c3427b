"""The trainer: the protocol's arithmetic, exact resume, what it leaves on disk."""

import errno
import io
import json
import math
import os
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import IO

import msgspec
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import broken_cells
from helpers.runs import write_run
from helpers.training import folder_of, history_of, quiet, tiny_spec, without_times
from safetensors.torch import load_file

from charcmp.config.optimizers import (
    OPTIMIZERS,
    AdamConfig,
    OptimizerConfig,
    RMSpropConfig,
    SGDConfig,
)
from charcmp.config.spec import RunSpec, resolve, split_of
from charcmp.data.chunks import Chunks, to_chunks
from charcmp.data.corpus import split_corpus
from charcmp.errors import Interrupted, StorageError, UserError
from charcmp.models.budget import Shape
from charcmp.models.cells.registry import CELLS, cell_config
from charcmp.models.language_model import CharModel
from charcmp.runs.folder import RunFolder
from charcmp.runs.reading import CorruptFileError
from charcmp.runs.result import Result, read_config
from charcmp.training import progress
from charcmp.training.checkpoint import Place
from charcmp.training.evaluate import losses
from charcmp.training.optim import learning_rate
from charcmp.training.record import describe_run, tensorboard
from charcmp.training.session import Session
from charcmp.training.step import Step
from charcmp.training.train import time_sampling, train


def bare_loop(spec: RunSpec) -> list[tuple[float, ...]]:
    """The protocol written out once more, plainly: of every epoch the training loss, the validation
    loss and the largest element of the state."""
    config, num_rows, num_steps = spec.config, spec.batch_size, spec.unroll_steps
    options, clip = config.optimizer, config.clip
    sizes = (num_rows, num_steps)
    splits = split_corpus(spec.corpus, "contiguous", [80, 10, 10], *sizes, scored_whole=True)
    model = CharModel(spec.shape)
    model.initialize(config.init_range, config.seed)
    averages = [torch.zeros_like(p) for p in model.parameters()]
    state = model.zero_state(num_rows)
    epochs = []
    for epoch in range(1, config.epochs + 1):
        lr = options.lr * options.lr_decay ** max(0, epoch - options.lr_decay_after)
        total = 0.0
        if config.reset_state == "epoch":
            state = model.zero_state(num_rows)
        for start in range(0, splits.train.x_BC.shape[1], num_steps):
            x = torch.tensor(splits.train.x_BC[:, start : start + num_steps]).long().t()
            y = torch.tensor(splits.train.y_BC[:, start : start + num_steps]).long().t()
            logits, state = model(x, state)
            state = state.detach()
            nll_TB = -torch.log_softmax(logits, 2).gather(2, y.unsqueeze(2)).squeeze(2)
            loss = nll_TB.mean(1).sum(0)  # mean over the batch, sum over the steps
            model.zero_grad()
            loss.backward()
            total += loss.item()
            with torch.no_grad():
                for p, average in zip(model.parameters(), averages, strict=True):
                    g = p.grad.clamp(-clip, clip)
                    average.mul_(0.95).add_(0.05 * g * g)
                    p -= lr * g / (average.sqrt() + 1e-8)
        val = losses(model, to_chunks(splits.val, num_steps, torch.device("cpu")))
        largest = float(state.abs().max())
        epochs.append((total / splits.train.x_BC.shape[1], float(val.mean()), largest))
    return epochs


@pytest.mark.parametrize("reset_state", ["never", "epoch"])
@pytest.mark.parametrize("cell", CELLS)
def test_the_trainer_is_the_protocol(
    tiny_text: Path, tmp_path: Path, cell: str, reset_state: str
) -> None:
    spec = tiny_spec(
        tiny_text,
        cell,
        layers=2,
        batch_size=16,
        reset_state=reset_state,
        optimizer=RMSpropConfig("rmsprop", lr_decay=0.5, lr_decay_after=1),
        clip=0.05,  # most updates have larger gradients
        init_range=0.5,
    )
    folder = folder_of(tmp_path, "run")
    train(spec, folder, Session(say=quiet))
    keys = ("train_nats_per_char", "val_nats_per_char", "largest_state")
    measured = [tuple(entry[key] for key in keys) for entry in history_of(folder)]
    assert np.allclose(measured, bare_loop(spec), atol=2e-4)


def test_a_memory_that_runs_away_is_told(tiny_text: Path, tmp_path: Path) -> None:
    lines: dict[float, list[str]] = {0.0: [], 30.0: []}  # with a bias of 30 nothing is forgotten
    for forget_bias, said in lines.items():
        spec = tiny_spec(tiny_text, "lstm", epochs=6, batch_size=1, unroll_steps=50)
        cell = cell_config("lstm", forget_bias=forget_bias)
        folder = folder_of(tmp_path, f"run{forget_bias}")
        train(resolve(replace(spec.config, cell=cell)), folder, Session(say=said.append))
        assert (history_of(folder)[-1]["largest_state"] > 1000) == (forget_bias > 0)
    assert "the memory ran away" in lines[30.0][-1]
    assert not any("ran away" in line for line in lines[0.0])


def test_it_learns(tiny_text: Path, tmp_path: Path) -> None:
    spec = tiny_spec(tiny_text, epochs=12, hidden_size=24)
    result = train(spec, folder_of(tmp_path, "run"), Session(say=quiet))
    # Words in random order: about log2(12)/4.4 bits a character at best, log(14) nats at worst.
    assert 0.4 < result.test_nats_per_char < 1.3
    assert result.test_perplexity == pytest.approx(math.exp(result.test_nats_per_char))
    assert result.test_bits_per_char == pytest.approx(result.test_nats_per_char / math.log(2))


def test_what_it_leaves_on_disk(tiny_text: Path, tmp_path: Path) -> None:
    spec = tiny_spec(tiny_text)
    folder = folder_of(tmp_path, "run")
    result = train(spec, folder, Session(say=quiet))
    assert folder.read_result() == msgspec.convert(result, Result)
    nll = np.load(folder.test_nll)
    splits = split_corpus(spec.corpus, "contiguous", [80, 10, 10], 4, 10, scored_whole=True)
    assert (nll.dtype, nll.shape) == (np.float32, (splits.test.num_chars,))
    assert nll.mean(dtype=np.float64) == pytest.approx(result.test_nats_per_char, abs=1e-6)
    history = history_of(folder)
    best = min(history, key=lambda entry: entry["val_nats_per_char"])
    assert result.best_epoch == best["epoch"]
    assert result.val_nats_per_char == best["val_nats_per_char"]

    # The published weights are the ones the losses are of; losses in the order of the rows.
    model = CharModel(spec.shape)
    model.load_state_dict(load_file(folder.best))
    model.eval()
    x = torch.tensor(splits.test.x_BC).long().t()
    y = torch.tensor(splits.test.y_BC).long().t()
    logits, _ = model(x, model.zero_state(x.shape[1]))
    expected = F.cross_entropy(logits.flatten(0, 1), y.flatten(), reduction="none").view(y.shape)
    scored = expected[splits.test.warm_up :].t().detach().numpy().ravel()[: len(nll)]
    np.testing.assert_allclose(nll, scored, atol=1e-5)

    environment = json.loads(folder.environment.read_text())
    assert environment["corpus"]["sha256"] == spec.corpus.sha256
    assert {"torch", "python", "git_commit", "git_dirty", "device_name", "command"} < set(
        environment
    )


@pytest.mark.parametrize(
    ("cell", "changes"),
    [
        *((cell, {"layers": 2, "dropout": 0.3}) for cell in CELLS),
        *(("rnn", {"optimizer": make(name=name)}) for name, make in OPTIMIZERS.items()),
        ("rnn", {"optimizer": AdamConfig(name="adam", schedule="cosine"), "clip_mode": "norm"}),
        ("gru", {"reset_state": "epoch"}),
        (
            "rnn",
            {
                "optimizer": RMSpropConfig(
                    name="rmsprop", schedule="cosine", rate_per="update", warmup_updates=30
                )
            },
        ),
        ("gru", {"layout": "columns", "updates_per_epoch": 11, "epochs": 12}),
        (
            "gru",
            {"layout": "columns", "train_batch_size": 8, "train_unroll_steps": 5, "epochs": 2},
        ),
        # Ends early, and after every resume where it does without.
        ("rnn", {"optimizer": RMSpropConfig(name="rmsprop", lr=0.3), "patience": 1, "epochs": 9}),
    ],
    ids=str,
)
def test_resume_at_any_step_is_exact(
    tiny_text: Path, tmp_path: Path, cell: str, changes: dict
) -> None:
    spec = tiny_spec(tiny_text, cell, batch_size=16, **changes)
    whole, broken = folder_of(tmp_path, "whole"), folder_of(tmp_path, "broken")
    expected = train(spec, whole, Session(say=quiet))
    # An epoch asks 20 times in training, then 41 times in validation.
    for steps in (1, 15, 30, 2, 50):
        left = steps

        def stop() -> bool:
            nonlocal left
            left -= 1
            return left == 0

        torch.manual_seed(99)  # what this process drew before must not matter
        with pytest.raises(Interrupted):
            train(spec, broken, Session(stop, quiet))
        assert not broken.result.exists()
    result = train(spec, broken, Session(say=quiet))
    assert without_times(result) == without_times(expected)
    assert history_of(broken) == history_of(whole)
    for name in ("best.safetensors", "test_nll.npy"):
        assert (broken.path / name).read_bytes() == (whole.path / name).read_bytes()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_resume_from_a_gpus_checkpoint(tiny_text: Path, tmp_path: Path, name: str) -> None:
    """Its optimiser works many tensors at once, captured, with its rate and its count of steps on
    the device: none of that is this one's."""
    spec = tiny_spec(tiny_text, "rnn", optimizer=OPTIMIZERS[name](name=name))
    whole, broken = folder_of(tmp_path, "whole"), folder_of(tmp_path, "broken")
    expected = train(spec, whole, Session(say=quiet))
    left = iter([False] * 40 + [True])
    with pytest.raises(Interrupted):
        train(spec, broken, Session(lambda: next(left), quiet))
    checkpoint = torch.load(broken.checkpoint, weights_only=True)
    (group,) = checkpoint["optimizer"]["param_groups"]
    group |= {"capturable": True, "foreach": True, "lr": torch.tensor(7.0)}
    checkpoint |= {"rng_device": "cuda", "rng": torch.zeros(16, dtype=torch.uint8)}
    torch.save(checkpoint, broken.checkpoint)
    lines: list[str] = []
    result = train(spec, broken, Session(say=lines.append))
    assert lines[0].startswith("resuming")
    assert without_times(result) == without_times(expected)
    assert history_of(broken) == history_of(whole)


def is_at(epoch: int, folder: RunFolder) -> bool:
    return (folder.read_progress().epoch or 0) >= epoch


def test_checkpoints_are_read_by_older_and_newer_code(tiny_text: Path, tmp_path: Path) -> None:
    """The file keeps its keys. Older ones lack the generator's device and their epochs' states."""
    spec = tiny_spec(tiny_text, "rnn", layers=2, dropout=0.3)
    whole, broken = folder_of(tmp_path, "whole"), folder_of(tmp_path, "broken")
    expected = train(spec, whole, Session(say=quiet))
    with pytest.raises(Interrupted):
        train(spec, broken, Session(lambda: is_at(2, broken), quiet))
    checkpoint = torch.load(broken.checkpoint, weights_only=True)
    assert list(checkpoint) == [
        *("format", "identity", "model", "optimizer", "state", "loss_sum", "best"),
        *("rng", "rng_device", "place"),
    ]
    place = json.loads(checkpoint["place"])
    assert list(place) == [
        *("epoch", "chunk", "best_epoch", "best_val", "seconds_train", "history"),
    ]
    (entry,) = place["history"]
    assert list(entry) == [
        *("epoch", "lr", "train_nats_per_char", "val_nats_per_char", "largest_state"),
        "seconds_train",
    ]
    assert type(entry["epoch"]) is int

    del checkpoint["rng_device"], entry["largest_state"]
    torch.save(checkpoint | {"place": json.dumps(place)}, broken.checkpoint)
    result = train(spec, broken, Session(say=quiet))
    assert without_times(result) == without_times(expected)
    first, *others = history_of(whole)
    assert history_of(broken) == [first | {"largest_state": 0.0}, *others]


def test_a_resumed_runs_speed_is_that_of_its_last_start(
    tiny_text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever machine the earlier one was on; a start that trains too little tells none."""
    spec = tiny_spec(tiny_text)
    for enough_seconds in (0.0, 1e6):
        monkeypatch.setattr(progress, "ENOUGH_SECONDS", enough_seconds)
        folder = folder_of(tmp_path, f"{enough_seconds}")
        with pytest.raises(Interrupted):
            train(spec, folder, Session(lambda: is_at(2, folder), quiet))  # noqa: B023
        checkpoint = torch.load(folder.checkpoint, weights_only=True)
        place = json.loads(checkpoint["place"]) | {"seconds_train": 1e9}
        torch.save(checkpoint | {"place": json.dumps(place)}, folder.checkpoint)
        result = train(spec, folder, Session(say=quiet))
        assert result.seconds_train >= 1e9
        assert (result.chars_per_second > 100) == (enough_seconds == 0)
        note = folder.read_progress()
        assert note.seconds_left == 0
        assert note.chars_per_second > 100


@pytest.mark.parametrize("damage", ["truncated", "garbage", "empty", "another run's"])
def test_a_checkpoint_that_cannot_be_used(tiny_text: Path, tmp_path: Path, damage: str) -> None:
    spec = tiny_spec(tiny_text, "rnn")
    folder = folder_of(tmp_path, "run")
    with pytest.raises(Interrupted):
        train(spec, folder, Session(lambda: True, quiet))
    whole = folder.checkpoint.read_bytes()
    if damage == "another run's":
        with pytest.raises(Interrupted):
            train(
                tiny_spec(tiny_text, "rnn", seed=1),
                folder_of(tmp_path, "b"),
                Session(lambda: True, quiet),
            )
        folder.checkpoint.write_bytes((tmp_path / "b" / "checkpoint.pt").read_bytes())
    else:
        bad = {"truncated": whole[: len(whole) // 2], "garbage": b"\0" * 999, "empty": b""}
        folder.checkpoint.write_bytes(bad[damage])
    lines: list[str] = []
    result = train(spec, folder, Session(say=lines.append))
    assert "kept as checkpoint.pt.bad-1; the run starts from scratch" in lines[0]
    assert (folder.path / "checkpoint.pt.bad-1").exists()
    undisturbed = train(spec, folder_of(tmp_path, "undisturbed"), Session(say=quiet))
    assert without_times(result) == without_times(undisturbed)


class FailingDisk(io.FileIO):
    """A file whose second block cannot be read."""

    error: Exception

    def readinto(self, buffer) -> int | None:
        if self.tell() > 0:
            raise self.error
        return super().readinto(memoryview(buffer)[:100])


@pytest.mark.parametrize("name", ["checkpoint.pt", "environment.json"])
@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (OSError(errno.EIO, "Input/output error"), StorageError),
        (OSError(errno.ESTALE, "Stale file handle"), StorageError),
        (MemoryError(), MemoryError),
    ],
    ids=["EIO", "ESTALE", "memory"],
)
def test_what_cannot_be_read_now_is_not_set_aside(
    tiny_text: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    error: Exception,
    raised: type[Exception],
) -> None:
    spec, folder = tiny_spec(tiny_text, "rnn"), folder_of(tmp_path, "run")
    with pytest.raises(Interrupted):
        train(spec, folder, Session(lambda: True, quiet))
    before = {file.name: file.read_bytes() for file in folder.path.iterdir()}
    fdopen = os.fdopen

    def fdopen_or_fail(descriptor: int, mode: str) -> IO[bytes]:
        if Path(f"/proc/self/fd/{descriptor}").readlink().name != name:
            return fdopen(descriptor, mode)
        disk = FailingDisk(descriptor, mode)
        disk.error = error
        return io.BufferedReader(disk)

    monkeypatch.setattr(os, "fdopen", fdopen_or_fail)
    with pytest.raises(raised) as told:
        train(spec, folder, Session(say=quiet))
    if raised is StorageError:
        assert str(told.value).startswith(f"{folder.path / name}: {error.strerror}; nothing was")
    monkeypatch.undo()
    assert {file: (folder.path / file).read_bytes() for file in before} == before
    assert not list(folder.path.glob("*.bad-*"))
    lines: list[str] = []
    train(spec, folder, Session(say=lines.append))
    assert "resuming" in lines[0]


def test_a_result_that_cannot_be_read_now_is_not_set_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RunFolder(write_run(tmp_path))
    opened = os.open

    def open_or_fail(path: Path, *flags: int) -> int:
        if path == folder.result:
            raise PermissionError(errno.EACCES, "Permission denied")
        return opened(path, *flags)

    monkeypatch.setattr(os, "open", open_or_fail)
    with pytest.raises(StorageError, match=r"result\.json: Permission denied"):
        folder.usable_result()
    monkeypatch.undo()
    assert folder.usable_result() is not None


def test_a_checkpoint_cannot_run_code(tiny_text: Path, tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "executed",))

    spec = tiny_spec(tiny_text, "rnn")
    folder = folder_of(tmp_path, "run")
    torch.save({"format": 1, "identity": Payload()}, folder.checkpoint)
    train(spec, folder, Session(say=quiet))
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("optimizer", "changes"),
    [
        *((make(name=name, lr=1e3), {}) for name, make in OPTIMIZERS.items()),
        (SGDConfig(name="sgd", lr=1e3), {"clip_mode": "norm"}),
        (RMSpropConfig(name="rmsprop", lr=1e38), {"clip": None}),  # overflows, to NaN
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_divergence_is_recorded(
    tiny_text: Path, tmp_path: Path, optimizer: OptimizerConfig, changes: dict
) -> None:
    spec = tiny_spec(tiny_text, "rnn", optimizer=optimizer, **changes)
    folder = folder_of(tmp_path, "run")
    result = train(spec, folder, Session(say=quiet))
    assert result.status == "diverged"
    assert result.epochs_trained == 0
    assert result.test_nats_per_char is None
    assert folder.read_result() == msgspec.convert(result, Result)
    assert not folder.test_nll.exists()


def test_a_state_that_is_not_finite_is_divergence(tiny_text: Path, tmp_path: Path) -> None:
    """The losses are: no JSON could hold the state, and no checkpoint be read again."""
    cell = cell_config("module", target=f"{broken_cells.__file__}:Grows")
    folder = folder_of(tmp_path, "run")
    result = train(tiny_spec(tiny_text, cell), folder, Session(say=quiet))
    assert (result.status, result.epochs_trained) == ("diverged", 0)
    assert folder.read_result() == msgspec.convert(result, Result)


def test_a_test_loss_that_no_record_can_hold_is_divergence(tmp_path: Path) -> None:
    """A decoder's bias alone has learned; what comes last would need thousands of nats."""
    text = tmp_path / "text"
    text.write_text("a" * 3650 + "b" * 349 + "a")
    wild = RMSpropConfig(name="rmsprop", lr=1e3)
    folder = folder_of(tmp_path, "run")
    result = train(
        tiny_spec(text, optimizer=wild, epochs=1, init_range=0.0), folder, Session(say=quiet)
    )
    assert (result.status, result.epochs_trained) == ("diverged", 1)
    assert result.val_nats_per_char == 0.0
    assert folder.read_result() == msgspec.convert(result, Result)
    assert not folder.test_nll.exists()


def test_a_loss_of_zero_is_a_loss(tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("aaab" + "a" * 3996)  # in the first update
    wild = RMSpropConfig(name="rmsprop", lr=1e3)
    spec = tiny_spec(text, optimizer=wild, epochs=1, init_range=0.0)
    result = train(spec, folder_of(tmp_path, "run"), Session(say=quiet))
    assert result.test_nats_per_char == result.test_bits_per_char == 0.0
    assert result.test_perplexity == 1.0


def test_a_result_that_could_not_be_read_is_not_written(tiny_text: Path, tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "run")
    result = train(tiny_spec(tiny_text, epochs=1), folder, Session(say=quiet))
    with pytest.raises(CorruptFileError, match="run_id"):
        folder.write_result(msgspec.structs.replace(result, run_id="größe"))
    assert folder.read_result() == msgspec.convert(result, Result)


def test_patience(tiny_text: Path, tmp_path: Path) -> None:
    """The run is the whole one cut short: it ends `patience` epochs after its best, and is tested
    with the weights of that."""
    wild = RMSpropConfig(name="rmsprop", lr=0.1)
    whole, stopped = folder_of(tmp_path, "whole"), folder_of(tmp_path, "stopped")
    all_of_it = train(
        tiny_spec(tiny_text, "rnn", optimizer=wild, epochs=12), whole, Session(say=quiet)
    )
    spec = tiny_spec(tiny_text, "rnn", optimizer=wild, epochs=12, patience=2)
    result = train(spec, stopped, Session(say=quiet))
    assert (all_of_it.epochs, all_of_it.epochs_trained) == (12, 12)
    assert (result.epochs, result.patience) == (12, 2)
    assert result.epochs_trained == result.best_epoch + 2 < 12
    assert history_of(stopped) == history_of(whole)[: result.epochs_trained]
    assert stopped.read_result() == msgspec.convert(result, Result)

    model = CharModel(spec.shape)
    model.load_state_dict(load_file(stopped.best))
    splits = split_of(spec)
    val, test = (
        losses(model, to_chunks(part, spec.unroll_steps, torch.device("cpu")))
        for part in (splits.val, splits.test)
    )
    assert float(val.mean()) == pytest.approx(result.val_nats_per_char, abs=1e-6)
    np.testing.assert_allclose(np.load(stopped.test_nll), test, atol=1e-5)


@pytest.mark.parametrize(("hidden_size", "room"), [(6, 4096), (128, 40_000)])
def test_a_full_disk_is_one_line_and_loses_nothing(
    tiny_text: Path, tmp_path: Path, hidden_size: int, room: int
) -> None:
    """Full before the checkpoint's first write, or within a tensor: there torch.save to a file ends
    in an error of its own."""
    import resource

    spec = tiny_spec(tiny_text, "rnn", hidden_size=hidden_size)
    folder = folder_of(tmp_path, "run")
    with pytest.raises(Interrupted):
        train(spec, folder, Session(lambda: True, quiet))
    before = folder.checkpoint.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    import signal

    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # writes then fail as on a full disk
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        with pytest.raises(UserError, match=r"cannot be written .*existing files are intact"):
            train(spec, folder, Session(lambda: True, quiet))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, previous)
    assert folder.checkpoint.read_bytes() == before
    assert not list(folder.path.glob(".*"))
    assert train(spec, folder, Session(say=quiet)).status == "done"


def test_a_run_whose_text_cannot_be_sampled_keeps_its_result() -> None:
    """A state that grows without limit, as that of relu can, is soon not finite."""
    model = CharModel(Shape(cell_config("rnn", activation="relu"), 1, 4, 5, "lm"))
    with torch.no_grad():
        for weight in model.parameters():
            weight.fill_(100.0)
    lines: list[str] = []
    assert time_sampling(model, lines.append) is None
    assert len(lines) == 1
    assert lines[0].startswith("note: no text can be sampled from this model (")


def test_any_name_of_a_file_is_recorded(tiny_text: Path, tmp_path: Path) -> None:
    text = tmp_path / "a${b, 'c'.txt"
    text.write_bytes(tiny_text.read_bytes())
    folder = folder_of(tmp_path, "run")
    describe_run(tiny_spec(text), folder, torch.device("cpu"), Session(say=quiet))
    stored = read_config(folder.config)
    assert stored is not None
    assert stored.dataset is not None
    assert stored.dataset.path == str(text)


def test_tensorboard_has_each_epoch_once(tiny_text: Path, tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    spec, folder = tiny_spec(tiny_text), folder_of(tmp_path, "run")
    steps = iter(range(100))
    with pytest.raises(Interrupted):
        train(spec, folder, Session(lambda: next(steps) == 99, quiet))  # in the second epoch
    train(spec, folder, Session(say=quiet))
    board = accumulator.EventAccumulator(str(folder.path / "tensorboard"))
    board.Reload()
    history = history_of(folder)
    for key in ("lr", "train_nats_per_char", "val_nats_per_char"):
        told = [(event.step, event.value) for event in board.Scalars(key)]
        assert told == [(entry["epoch"], pytest.approx(entry[key])) for entry in history]


def test_without_tensorboard_an_error_has_no_other_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)  # importing it fails
    with pytest.raises(ZeroDivisionError) as told, tensorboard(folder_of(tmp_path, "run"), Place()):
        raise ZeroDivisionError
    assert told.value.__context__ is None


@pytest.mark.parametrize("full_at", ["__init__", "add_scalar", "close"])
def test_a_disk_that_is_full_for_tensorboard(
    tiny_text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, full_at: str
) -> None:
    """The library's writer raises plain OSErrors, at whatever moment it writes."""

    def write(self: object, *args: object, **options: object) -> None:
        pass

    def fail(self: object, *args: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    methods = dict.fromkeys(("__init__", "add_scalar", "close"), write) | {full_at: fail}
    library = ModuleType("torch.utils.tensorboard")
    vars(library)["SummaryWriter"] = type("SummaryWriter", (), methods)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", library)
    spec, folder = tiny_spec(tiny_text, "rnn"), folder_of(tmp_path, "run")
    with pytest.raises(StorageError, match=r"tensorboard: cannot be written \(No space left"):
        train(spec, folder, Session(say=quiet))


def test_the_papers_schedule() -> None:
    config = RMSpropConfig(name="rmsprop")
    rates = [learning_rate(config, epoch, epochs=50) for epoch in (1, 10, 11, 50)]
    assert rates == pytest.approx([2e-3, 2e-3, 2e-3 * 0.95, 2e-3 * 0.95**40])


def test_a_step_touches_only_buffers_that_were_there_before(tiny_text: Path) -> None:
    """What a captured graph needs: the same memory before and after, and the state in place."""
    spec = tiny_spec(tiny_text, "gru")
    drawn_KTB = torch.randint(spec.corpus.num_symbols, (3, 10, 4), dtype=torch.uint8)
    step = Step(spec, torch.device("cpu"), Chunks(drawn_KTB, drawn_KTB))
    step()  # makes the optimiser's state

    def addresses() -> list[int]:
        gradients = [p.grad for p in step.parameters]
        buffers = [step.lr, *step.replay.changes(), *gradients]
        assert len(buffers) > 3 * len(step.parameters)  # the optimiser's are among them
        return [b.data_ptr() for b in buffers]

    before = addresses()
    step()
    step()
    assert addresses() == before
    assert step.chunk.item() == 0  # three chunks: the first is the next again
    assert step.state_LSBH.abs().max() > 0
    assert not step.state_LSBH.requires_grad


@pytest.mark.cuda
def test_cuda_gives_the_cpus_losses(tiny_text: Path, tmp_path: Path) -> None:
    for cell in CELLS:
        on_cpu, on_gpu = (
            train(
                tiny_spec(tiny_text, cell, device=d),
                folder_of(tmp_path, f"{cell}{d}"),
                Session(say=quiet),
            )
            for d in ("cpu", "cuda")
        )
        assert on_gpu.test_nats_per_char == pytest.approx(on_cpu.test_nats_per_char, abs=1e-3)
