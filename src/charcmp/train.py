"""One run, from configuration to result: the whole protocol, top to bottom.

Shape suffixes: T steps of a chunk, B batch rows, V vocabulary, L layers, S state vectors, H hidden.
Marks: [code] read in the author's published char-rnn, [paper] Karpathy, Johnson & Fei-Fei 2015.
"""

from __future__ import annotations

import importlib.util
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch
import torch.nn.functional as F
from omegaconf import OmegaConf
from safetensors.torch import save as save_safetensors
from torch import Tensor
from tqdm import tqdm

from charcmp.cells import fused
from charcmp.checkpoint import Place, load_checkpoint, restore, save_checkpoint
from charcmp.config import PROTOCOL_VERSION
from charcmp.corpus import split_corpus
from charcmp.environment import describe, resolve_device
from charcmp.errors import Interrupted
from charcmp.evaluate import losses, mean_loss, to_chunks
from charcmp.memory import keep_freed_memory
from charcmp.model import CharModel
from charcmp.optim import clip_gradients, learning_rate, make_optimizer
from charcmp.runs import SCHEMA_VERSION, VOCABULARY_KEY, RunFolder
from charcmp.spec import RunSpec

TICK_SECONDS = 1.0
# A loss this many times that of guessing, ln V, has diverged: bounded cells hardly ever overflow.
# The paper's code gives up at three times its first loss, which is about ln V. [code]
EXPLODED = 3.0


class Step:
    """One training step over buffers that exist before it, so that it could be captured as a graph.

    Nothing in `__call__` reads a number back from the device.
    """

    def __init__(self, spec: RunSpec, device: torch.device) -> None:
        config = spec.config
        options = {key: value for key, value in asdict(config.cell).items() if key != "name"}
        model = CharModel(
            config.cell.name,
            config.layers,
            spec.hidden_size,
            spec.corpus.num_symbols,
            config.dropout,
            **options,
        )
        model.initialize(config.init_range, config.seed, config.init)
        torch.manual_seed(config.seed)  # what is left to draw is dropout
        self.model = model.to(device)
        self.parameters = list(self.model.parameters())
        self.lr = torch.tensor(config.optimizer.lr, dtype=torch.float64, device=device)
        self.optimizer = make_optimizer(config.optimizer, self.parameters, self.lr)
        self.clip, self.clip_mode = config.clip, config.clip_mode
        shape = (config.unroll_steps, config.batch_size)
        self.x_TB = torch.zeros(shape, dtype=torch.int64, device=device)
        self.y_TB = torch.zeros(shape, dtype=torch.int64, device=device)
        self.state_LSBH = self.model.zero_state(config.batch_size)
        self.loss_sum = torch.zeros((), dtype=torch.float64, device=device)
        for parameter in self.parameters:
            parameter.grad = torch.zeros_like(parameter)

    def __call__(self, x_TB: Tensor, y_TB: Tensor) -> None:
        self.x_TB.copy_(x_TB)
        self.y_TB.copy_(y_TB)
        logits_TBV, state_LSBH = self.model(self.x_TB, self.state_LSBH)
        # Mean over the batch, sum over the steps: clip and eps both refer to this scale. [code]
        loss = (
            F.cross_entropy(logits_TBV.flatten(0, 1), self.y_TB.flatten(), reduction="sum")
            / self.x_TB.shape[1]
        )
        self.optimizer.zero_grad(set_to_none=False)
        loss.backward()
        if self.clip is not None:
            clip_gradients(self.parameters, self.clip_mode, self.clip)
        self.optimizer.step()
        # Carried from chunk to chunk and across epochs, never reset; no gradient flows back. [code]
        self.state_LSBH.copy_(state_LSBH.detach())
        self.loss_sum += loss.detach()


def train(
    spec: RunSpec,
    folder: RunFolder,
    should_stop: Callable[[], bool] = lambda: False,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Trains a run, or goes on with it from its checkpoint, and writes its result.

    Args:
        spec: what to train.
        folder: where it lives; created and locked by the caller.
        should_stop: asked after every step; a true answer ends the run with a checkpoint.
        say: receives lines for the user.

    Returns:
        The contents of result.json; its status is `done`, or `diverged` if the training or the
        validation loss of an epoch was not finite or above EXPLODED times ln V.

    Raises:
        Interrupted: if `should_stop` said so.
        UserError: if the corpus is too short, the device absent or a file cannot be written.
    """
    config = spec.config
    splits = split_corpus(
        spec.corpus,
        config.dataset.layout,
        config.dataset.split,
        config.batch_size,
        config.unroll_steps,
    )
    device = resolve_device(config.device)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    keep_freed_memory()
    torch.backends.cudnn.allow_tf32 = False  # cuDNN would round float32 products to TF32
    train_chunks, val_chunks, test_chunks = (
        to_chunks(stream, config.unroll_steps, device)
        for stream in (splits.train, splits.val, splits.test)
    )
    step = Step(spec, device)
    if remark := fused.remark(device, step.model.in_cudnn):
        say(f"note: {remark}")
    place = Place()
    best: dict[str, Tensor] = {}  # weights of the best epoch
    if (checkpoint := load_checkpoint(spec, folder, say)) is not None:
        place, best = restore(step, checkpoint, device)
        say(f"resuming {spec.run_id} in epoch {place.epoch}, chunk {place.chunk}")
    describe_run(spec, folder, device)
    folder.failure.unlink(missing_ok=True)

    chars_per_chunk = config.batch_size * config.unroll_steps
    chars_per_epoch = len(train_chunks) * chars_per_chunk
    bar = tqdm(
        total=config.epochs * chars_per_epoch,
        initial=(place.epoch - 1) * chars_per_epoch + place.chunk * chars_per_chunk,
        unit="char",
        unit_scale=True,
        desc=spec.run_id,
        disable=not config.progress or None,  # None: where it is not a terminal
    )
    board = tensorboard_writer(folder, place)
    status = "done"
    highest = EXPLODED * math.log(spec.corpus.num_symbols)
    clock = time.perf_counter()
    last_tick = last_checkpoint = time.monotonic()

    def save() -> None:
        nonlocal last_checkpoint
        save_checkpoint(spec, folder, step, place, best)
        last_checkpoint = time.monotonic()

    def between_chunks() -> None:
        """In evaluations, which are long on long texts: ends if asked to, gives a sign of life."""
        nonlocal last_tick
        if should_stop():
            raise Interrupted(f"{spec.run_id}: interrupted while evaluating")
        if time.monotonic() - last_tick >= TICK_SECONDS:
            last_tick = time.monotonic()
            note_progress(spec, folder, place, len(train_chunks), chars_per_chunk)

    while not place.is_over(config):
        lr = learning_rate(config.optimizer, place.epoch, config.epochs)
        step.lr.fill_(lr)
        while place.chunk < len(train_chunks):
            step(train_chunks.x_KTB[place.chunk], train_chunks.y_KTB[place.chunk])
            place.chunk += 1
            bar.update(chars_per_chunk)
            stop = should_stop()
            now = time.monotonic()
            if now - last_tick < TICK_SECONDS and not stop:
                continue
            last_tick = now
            place.seconds_train += time.perf_counter() - clock
            if stop or now - last_checkpoint >= config.checkpoint_seconds:
                save()
            if stop:
                raise Interrupted(f"{spec.run_id}: interrupted in epoch {place.epoch}")
            note_progress(spec, folder, place, len(train_chunks), chars_per_chunk)
            train_nats = float(step.loss_sum) / (place.chunk * config.unroll_steps)
            bar.set_postfix_str(f"epoch {place.epoch} loss {train_nats:.3f}", refresh=False)
            clock = time.perf_counter()
            if not math.isfinite(train_nats):
                break  # the sum stays so: no need to finish the epoch
        place.seconds_train += time.perf_counter() - clock

        train_nats = float(step.loss_sum) / (len(train_chunks) * config.unroll_steps)
        try:
            val_nats = mean_loss(losses(step.model, val_chunks, between_chunks))
        except Interrupted:
            save()  # the epoch's last chunk is done; what remains of the epoch is this evaluation
            raise
        if not (train_nats <= highest and val_nats <= highest):  # nor if one is NaN
            status = "diverged"
            break
        if val_nats < place.best_val:
            place.best_val, place.best_epoch = val_nats, place.epoch
            best = {key: value.clone() for key, value in step.model.state_dict().items()}
        entry = {
            "epoch": place.epoch,
            "lr": lr,
            "train_nats_per_char": train_nats,
            "val_nats_per_char": val_nats,
            "seconds_train": round(place.seconds_train, 3),
        }
        place.history.append(entry)
        if board is not None:
            for key in ("lr", "train_nats_per_char", "val_nats_per_char"):
                board.add_scalar(key, entry[key], place.epoch)
        bar.clear()
        where = f"epoch {place.epoch}/{config.epochs}"
        say(f"{where}  train {train_nats:.4f}  val {val_nats:.4f} nats/char")
        place.epoch, place.chunk = place.epoch + 1, 0
        step.loss_sum.zero_()
        note_progress(spec, folder, place, len(train_chunks), chars_per_chunk)
        if place.is_over(config) or time.monotonic() - last_checkpoint >= min(
            config.checkpoint_seconds, TICK_SECONDS
        ):
            save()
        clock = time.perf_counter()
    bar.close()
    if board is not None:
        board.close()

    test_nats = None
    if status == "done":
        # Once, with the weights that did best on validation. [code]
        step.model.load_state_dict(best)
        nll_BC = losses(step.model, test_chunks, between_chunks).cpu()
        test_nats = mean_loss(nll_BC)
        folder.write_npy(folder.test_nll, nll_BC.flatten().numpy())
        weights = save_safetensors(
            {key: value.contiguous().cpu() for key, value in best.items()},
            {VOCABULARY_KEY: spec.corpus.vocabulary.hex()},
        )
        folder.write(folder.best, lambda file: file.write(weights))
    folder.write_json(folder.history, place.history)
    result = make_result(spec, place, status, test_nats, splits.test.num_chars, device)
    chars_trained = len(place.history) * chars_per_epoch
    result["chars_per_second"] = round(chars_trained / max(place.seconds_train, 1e-9))
    folder.write_json(folder.result, result)
    return result


def make_result(
    spec: RunSpec,
    place: Place,
    status: str,
    test_nats: float | None,
    num_test_chars: int,
    device: torch.device,
) -> dict[str, Any]:
    """What result.json says, all but the speed. Losses that do not exist are null."""
    config = spec.config
    best = place.history[place.best_epoch - 1] if place.best_epoch else None
    environment = describe(device, spec.corpus)
    return {
        "schema_version": SCHEMA_VERSION,
        "protocol_version": PROTOCOL_VERSION,
        "status": status,
        "run_id": spec.run_id,
        "dataset": spec.corpus.name,
        "corpus_sha256": spec.corpus.sha256,
        "corpus_note": spec.corpus.note,
        "num_symbols": spec.corpus.num_symbols,
        "layout": config.dataset.layout,
        "split": list(config.dataset.split),
        "cell": config.cell.name,
        "layers": config.layers,
        "budget": spec.budget,
        "hidden_size": spec.hidden_size,
        "num_params": spec.num_params,
        "target_params": spec.target_params,
        "seed": config.seed,
        "dropout": config.dropout,
        "precision": config.precision,
        "epochs": config.epochs,
        "patience": config.patience,
        "epochs_trained": len(place.history),  # fewer with patience, or if the run diverged
        "unroll_steps": config.unroll_steps,
        "batch_size": config.batch_size,
        "identity": spec.identity(),
        "best_epoch": place.best_epoch or None,
        "train_nats_per_char": best and best["train_nats_per_char"],  # mean over that epoch
        "val_nats_per_char": best and best["val_nats_per_char"],
        "test_nats_per_char": test_nats,
        "test_perplexity": test_nats and math.exp(test_nats),
        "test_bits_per_char": test_nats and test_nats / math.log(2),
        "num_test_chars": num_test_chars,
        "seconds_train": round(place.seconds_train, 3),
        "device": environment["device"],
        "device_name": environment["device_name"],
        "git_commit": environment["git_commit"],
        "git_dirty": environment["git_dirty"],
    }


def describe_run(spec: RunSpec, folder: RunFolder, device: torch.device) -> None:
    """Writes config.yaml and environment.json; earlier starts of the same run are kept in it."""
    resolved = OmegaConf.structured(spec.config)
    resolved.budget, resolved.hidden_size = None, spec.hidden_size
    header = f"# {spec.run_id}\n"
    text = header + OmegaConf.to_yaml(resolved)
    folder.write(folder.config, lambda file: file.write(text.encode()))
    environment = describe(device, spec.corpus)
    try:
        earlier = json.loads(folder.environment.read_text())
        environment["earlier_starts"] = [*earlier.pop("earlier_starts", []), earlier]
    except (OSError, ValueError, AttributeError):
        pass  # the first start, or an unreadable note about an earlier one
    folder.write_json(folder.environment, environment)


def note_progress(
    spec: RunSpec, folder: RunFolder, place: Place, num_chunks: int, chars_per_chunk: int
) -> None:
    """For whoever watches from outside: how far the run is."""
    chunks_done = (place.epoch - 1) * num_chunks + place.chunk
    chunks_left = spec.config.epochs * num_chunks - chunks_done
    folder.write_progress(
        spec.row()
        | {
            "epoch": place.epoch,
            "epochs": spec.config.epochs,
            "fraction": chunks_done / (spec.config.epochs * num_chunks),
            "chars_per_second": chunks_done * chars_per_chunk / max(place.seconds_train, 1e-9),
            "seconds_left": place.seconds_train * chunks_left / max(chunks_done, 1),
            "best_val_nats_per_char": place.best_val if place.best_epoch else None,
            "time": time.time(),
        }
    )


def tensorboard_writer(folder: RunFolder, place: Place) -> Any:
    """A TensorBoard log in the run's folder where the extra is installed, else None."""
    if importlib.util.find_spec("tensorboard") is None:
        return None
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder.path / "tensorboard"), purge_step=place.epoch)
