"""One run, from configuration to result: the whole protocol, top to bottom.

Shape suffixes: T steps of a chunk, B batch rows, V vocabulary, L layers, S state vectors, H hidden.
Marks: [code] read in the author's published char-rnn, [paper] Karpathy, Johnson & Fei-Fei 2015.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save as save_safetensors
from torch import Tensor
from tqdm import tqdm

from charcmp.cells import fused
from charcmp.checkpoint import Place, load_checkpoint, restore, save_checkpoint
from charcmp.corpus import split_corpus
from charcmp.environment import resolve_device, set_up
from charcmp.errors import Interrupted
from charcmp.evaluate import Chunks, Evaluation, mean_loss, to_chunks
from charcmp.fill import make_model
from charcmp.graph import Late, Replayed
from charcmp.memory import keep_freed_memory
from charcmp.optim import (
    clip_gradients,
    is_capturable,
    learning_rate,
    make_optimizer,
    rate_tensor,
)
from charcmp.precision import multiplying
from charcmp.record import describe_run, make_result, note_progress, tensorboard_writer
from charcmp.runs import RUNAWAY, VOCABULARY_KEY, RunFolder
from charcmp.sample import seconds_per_char
from charcmp.slots import num_lanes
from charcmp.spec import RunSpec

TICK_SECONDS = 1.0
# A loss this many times that of guessing, ln V, has diverged: bounded cells hardly ever overflow.
# The paper's code gives up at three times its first loss, which is about ln V. [code]
EXPLODED = 3.0


class Step:
    """One training step over tensors that exist before it, captured as a graph on a GPU.

    Nothing in it reads a number back from the device; where it is in the text is a number there.
    """

    def __init__(self, spec: RunSpec, device: torch.device, chunks: Chunks) -> None:
        config = spec.config
        options = {key: value for key, value in asdict(config.cell).items() if key != "name"}
        model = make_model(
            spec.right_context,
            config.cell.name,
            config.layers,
            spec.hidden_size,
            spec.corpus.num_symbols,
            config.dropout,
            **options,
        )
        model.initialize(config.init_range, config.seed, config.init)
        self.model = model.to(device)
        # What is left to draw is dropout.
        self.generator = torch.Generator(device).manual_seed(config.seed)
        self.model.generator = self.generator
        self.parameters = list(self.model.parameters())
        self.lr = rate_tensor(config.optimizer, device)
        self.optimizer = make_optimizer(config.optimizer, self.parameters, self.lr)
        self.clip, self.clip_mode = config.clip, config.clip_mode
        self.chunks = chunks
        self.chunk = torch.zeros(1, dtype=torch.int64, device=device)  # the next one's number
        self.state_LSBH = self.model.zero_state(config.batch_size)
        self.loss_sum = torch.zeros((), dtype=torch.float64, device=device)
        for parameter in self.parameters:
            parameter.grad = torch.zeros_like(parameter)
        self.is_capturable = is_capturable(config.optimizer)
        work = multiplying(self._compute, config.precision)
        self.replay = Replayed(work, device, self._changed, self.generator)

    def __call__(self) -> None:
        """Trains on the next chunk; behind the last comes the first."""
        self.replay()
        if not self.is_capturable:
            self.optimizer.step()

    def _compute(self) -> None:
        x_TB, y_TB = self.chunks[self.chunk]
        logits_TBV, state_LSBH = self.model(x_TB, self.state_LSBH)
        # Mean over the batch, sum over the steps: clip and eps both refer to this scale. [code]
        loss = (
            F.cross_entropy(logits_TBV.flatten(0, 1), y_TB.flatten(), reduction="sum")
            / x_TB.shape[1]
        )
        self.optimizer.zero_grad(set_to_none=False)
        loss.backward()
        if self.clip is not None:
            clip_gradients(self.parameters, self.clip_mode, self.clip)
        if self.is_capturable:
            self.optimizer.step()
        # Carried from chunk to chunk and across epochs; no gradient flows back. [code]
        self.state_LSBH.copy_(state_LSBH.detach())
        self.loss_sum += loss.detach()
        self.chunk.add_(1).remainder_(len(self.chunks))

    def _changed(self) -> list[Tensor]:
        """All that a step changes; what the optimiser keeps is there, as zeros, from its first."""
        kept = [
            value
            for parameter in self.parameters
            for value in self.optimizer.state[parameter].values()
            if self.is_capturable
        ]
        return [*self.parameters, self.chunk, self.state_LSBH, self.loss_sum, *kept]


def train(
    spec: RunSpec,
    folder: RunFolder,
    should_stop: Callable[[], bool] = lambda: False,
    say: Callable[[str], None] = print,
    command: str | None = None,
) -> dict[str, Any]:
    """Trains a run, or goes on with it from its checkpoint, and writes its result.

    Args:
        spec: what to train.
        folder: where it lives; created and locked by the caller.
        should_stop: asked after every step; a true answer ends the run with a checkpoint.
        say: receives lines for the user.
        command: what environment.json names as the run's command; None: this process's.

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
        min_chunks=1 if spec.right_context is None else 2,
    )
    device = resolve_device(config.device)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    keep_freed_memory()
    set_up(device, config.precision)
    train_chunks, val_chunks, test_chunks = (
        to_chunks(stream, config.unroll_steps, device, spec.right_context)
        for stream in (splits.train, splits.val, splits.test)
    )
    step = Step(spec, device, train_chunks)
    validate, test = (
        Evaluation(step.model, part, precision=config.precision)
        for part in (val_chunks, test_chunks)
    )
    if device.type == "cuda" and not step.is_capturable:
        say(f"note: optimizer={config.optimizer.name}: outside the CUDA graph, launch by launch")
    if remark := fused.remark(device, step.model.in_cudnn):
        say(f"note: {remark}")
    place = Place()
    best: dict[str, Tensor] = {}  # weights of the best epoch
    if (checkpoint := load_checkpoint(spec, folder, say)) is not None:
        place, best = restore(step, checkpoint, device)
        say(f"resuming {spec.run_id} in epoch {place.epoch}, chunk {place.chunk}")
    describe_run(spec, folder, device, command)
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

    loss_sum: Late[int] = Late(step.loss_sum)

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
        if config.reset_state == "epoch" and place.chunk == 0:
            step.state_LSBH.zero_()
        while place.chunk < len(train_chunks):
            step()
            place.chunk += 1
            bar.update(chars_per_chunk)
            stop = should_stop()
            now = time.monotonic()
            if now - last_tick < TICK_SECONDS and not stop:
                continue
            last_tick = now
            told = loss_sum.read(place.chunk)
            should_save = stop or now - last_checkpoint >= config.checkpoint_seconds
            if should_save:
                step.loss_sum.item()  # waits for the device, so that its work is in the seconds
            place.seconds_train += time.perf_counter() - clock
            if should_save:
                save()
            if stop:
                raise Interrupted(f"{spec.run_id}: interrupted in epoch {place.epoch}")
            note_progress(spec, folder, place, len(train_chunks), chars_per_chunk)
            clock = time.perf_counter()
            if told is None:
                continue
            train_nats = told[0] / (told[1] * config.unroll_steps)
            bar.set_postfix_str(f"epoch {place.epoch} loss {train_nats:.3f}", refresh=False)
            if not math.isfinite(train_nats):
                break  # the sum stays so: no need to finish the epoch
        train_nats = step.loss_sum.item() / (len(train_chunks) * config.unroll_steps)
        place.seconds_train += time.perf_counter() - clock

        try:
            val_nats = mean_loss(validate(between_chunks))
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
            "largest_state": float(step.state_LSBH.abs().max()),
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
    if place.history and (largest := place.history[-1].get("largest_state", 0.0)) > RUNAWAY:
        say(
            f"note: the training's carried state reaches {largest:,.0f}: its memory ran away, and "
            "evaluation starts from zero (docs/cells.md); reset_state=epoch is there to compare"
        )
    if board is not None:
        board.close()

    test_nats = None
    if status == "done":
        # Once, with the weights that did best on validation. [code]
        step.model.load_state_dict(best)
        nll_BC = test(between_chunks).cpu()
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
    # In others' company a time would say nothing; a fill-in model does not generate text.
    if status == "done" and config.task == "lm" and num_lanes() == 1:
        on_cpu = step.model.cpu().eval()  # the last that it is used for
        result["seconds_per_sampled_char"] = round(seconds_per_char(on_cpu), 8)
    folder.write_json(folder.result, result)
    return result
