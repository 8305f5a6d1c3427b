"""One training step, written so that it can be captured as a CUDA graph, and the text it reads."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from charcmp.config.spec import RunSpec, split_of
from charcmp.data.chunks import Chunks, to_chunks
from charcmp.models.cells.compiled import dispatch as compiled
from charcmp.models.cells.fused import dispatch as fused
from charcmp.models.fill_in import make_model
from charcmp.training.cuda_graph import Replayed
from charcmp.training.gate import GATE
from charcmp.training.optim import clip_gradients, make_optimizer, rate_tensor


class Step:
    """One training step over tensors that are allocated beforehand, captured as a graph on a GPU.

    It never reads a number back from the device; the number of the next chunk is on the device too.

    Args:
        spec: the run; its model is made and initialised here.
        device: where to train.
        chunks: the training text, on the device.
        capture: whether to capture the step on a GPU.

    Attributes:
        state_LSBH: the state carried into the next chunk, float32 (L, S, B, H).
        loss_sum: nats of the steps since it was last zeroed, each the sum over a chunk's T and the
            mean over its B; float64 ().
        lr: the learning rate, which a caller sets in place.
    """

    def __init__(
        self, spec: RunSpec, device: torch.device, chunks: Chunks, capture: bool = True
    ) -> None:
        config = spec.config
        with GATE.stood_back():  # another lane may be making its model, which takes turns
            model = make_model(spec.shape, spec.right_context, config.dropout)
            model.initialize(config.init_range, config.seed, config.init)
        self.model = model.to(device)
        # From here on, only dropout draws random numbers.
        self.generator = torch.Generator(device).manual_seed(config.seed)
        self.model.generator = self.generator
        self.parameters = list(self.model.parameters())
        self.lr = rate_tensor(config.optimizer, device)
        self.options = config.optimizer
        self.optimizer = make_optimizer(config.optimizer, self.parameters, self.lr)
        self.clip, self.clip_mode = config.clip, config.clip_mode
        self.chunks = chunks
        self.chunk = torch.zeros(1, dtype=torch.int64, device=device)  # number of the next chunk
        self.state_LSBH = self.model.zero_state(spec.train_batch_size)
        self.loss_sum = torch.zeros((), dtype=torch.float64, device=device)
        for parameter in self.parameters:
            parameter.grad = torch.zeros_like(parameter)
        self.is_capturable = config.optimizer.capturable
        self.replay = Replayed(
            self._compute,
            device,
            self._changed,
            self.generator,
            capture,
            keeps_tensors=self.model.keeps_tensors if self.model.is_of_a_class else None,
        )

    def __call__(self) -> None:
        """Trains on the next chunk; after the last comes the first."""
        self.replay()
        if not self.is_capturable:
            self.optimizer.step()

    def close(self) -> None:
        """Frees what it holds on a GPU; it cannot be used afterwards."""
        self.replay.close()

    def _compute(self) -> None:
        x_TB, y_TB = self.chunks[self.chunk]
        logits_TBV, state_LSBH = self.model(x_TB, self.state_LSBH)
        # Mean over the batch, sum over the steps: clip and eps are meant for this scale. [code]
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

    def computed(self) -> list[Tensor]:
        """Returns the results of a step that depend smoothly on the values before it.

        The weights are not among them: see verify.check_graph.
        """
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        return [*gradients, self.state_LSBH, self.loss_sum, *self._kept()]

    def kept_by_optimizer(self) -> dict[str, bool]:
        """Returns what the optimiser keeps per parameter, and whether in the parameter's shape."""
        probe = torch.nn.Parameter(torch.zeros(2, 3))
        probe.grad = torch.zeros_like(probe)
        optimizer = make_optimizer(self.options, [probe], rate_tensor(self.options, probe.device))
        optimizer.step()
        return {
            name: isinstance(value, Tensor) and value.shape == probe.shape
            for name, value in optimizer.state[probe].items()
        }

    def _changed(self) -> list[Tensor]:
        """Returns all tensors that a step changes; the optimiser's exist from the first step on."""
        return [*self.parameters, self.chunk, self.state_LSBH, self.loss_sum, *self._kept()]

    def _kept(self) -> list[Tensor]:
        """Returns what the optimiser keeps, if its step is part of the captured work; else []."""
        return [
            value
            for parameter in self.parameters
            for value in self.optimizer.state[parameter].values()
            if self.is_capturable
        ]


def cut_corpus(spec: RunSpec, device: torch.device) -> list[Chunks]:
    """Cuts the run's corpus into training, validation and test text, on the device.

    Raises:
        UserError: if it is too short for that.
    """
    splits = split_of(spec)
    train = splits.train.in_streams(spec.train_batch_size)
    chunks = to_chunks(train, spec.train_unroll_steps, device, spec.right_context)
    evaluated = (
        to_chunks(streams, spec.unroll_steps, device, spec.right_context)
        for streams in (splits.val, splits.test)
    )
    return [chunks.first(spec.updates_per_epoch), *evaluated]


def notes(spec: RunSpec, step: Step, device: torch.device) -> Iterator[str]:
    """Yields notes to the user on what is slower on this device than it could be."""
    if device.type == "cuda" and not step.is_capturable:
        name = type(step.optimizer).__name__
        yield f"{name} runs outside the CUDA graph, one kernel launch at a time"
    if note := fused.note(device, step.model.in_cudnn):
        yield note
    # Asking whether Numba works loads it.
    may_compile = compiled.may_compile(spec.config.cell.name, spec.values_per_chunk)
    if may_compile and (note := compiled.note(device)):
        yield note
