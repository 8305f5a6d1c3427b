"""A pretended GPU: a device other than the CPU, whose tensors have shapes and no values.

Tensors that a GPU would hold are FakeTensors here, so a step runs as on a GPU as far as Python
decides: which form of a cell, which optimiser, which device each tensor is on. This tests nothing
about streams, about what may be captured, about cuDNN or about the kernels' results.

The device is registered for the whole process, which cannot be undone: use a process of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from charcmp.config.optimizers import OptimizerConfig
from charcmp.models.cells.activations import MINUS_ONE
from charcmp.models.cells.fused import dispatch, gru, lstm, rnn
from charcmp.models.cells.lstm_softmax_gate import THREE
from charcmp.models.language_model import CharModel
from charcmp.training import step as training_step
from charcmp.training.optim import make_optimizer, rate_tensor

torch.utils.backend_registration._setup_privateuseone_for_python_backend("pretend")
GPU = torch.device("pretend:0")
CONSTANTS = (MINUS_ONE, THREE)  # on the host: a launch has their values among its arguments
HOST_READS = (
    torch.ops.aten._local_scalar_dense.default,
    torch.ops.aten.nonzero.default,
    torch.ops.aten.is_nonzero.default,
)


class Watched(TorchDispatchMode):
    """A mode that notes what a captured step must not do: mix devices, or be read by the host."""

    def __init__(self) -> None:
        super().__init__()
        self.wrong: set[str] = set()
        self.num_seen = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.num_seen += 1
        leaves = torch.utils._pytree.tree_leaves((args, kwargs))
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        devices = {t.device.type for t in tensors if not any(t is c for c in CONSTANTS)}
        devices |= {leaf.type for leaf in leaves if isinstance(leaf, torch.device)}
        if func in HOST_READS:
            self.wrong.add(f"{func} is read by the host")
        if devices - {"pretend"}:
            self.wrong.add(f"{func} on {sorted(devices)}")
        return func(*args, **(kwargs or {}))


class Kernel:
    """A stand-in for a Triton kernel: takes what the kernel takes, if a GPU could use it."""

    def __init__(self, name: str, launched: set[str]) -> None:
        self.name, self.launched = name, launched

    def __getitem__(self, grid: tuple[int, int]) -> Kernel:
        assert all(isinstance(size, int) and size > 0 for size in grid)
        return self

    def __call__(self, *args: Any) -> None:
        self.launched.add(self.name)
        for tensor in (arg for arg in args if isinstance(arg, Tensor)):
            assert tensor.device.type == "pretend", f"{self.name} gets a tensor of the CPU's"
            assert tensor.is_contiguous(), f"{self.name} gets a tensor that is not contiguous"


class HostGenerator(torch.Generator):
    """A generator for any device: there are no values to draw."""

    def __new__(cls, device: torch.device | None = None) -> HostGenerator:
        return super().__new__(cls)


def moved(model: CharModel, device: torch.device) -> CharModel:
    """Stands in for `model.to(device)`, which torch refuses here, by making new parameters."""
    for module in model.modules():
        for name, value in module._parameters.items():
            if value is not None:
                module._parameters[name] = nn.Parameter(torch.empty(value.shape, device=device))
        for name, value in module._buffers.items():
            module._buffers[name] = torch.empty(value.shape, device=device)
        if isinstance(module, nn.RNNBase):
            module._init_flat_weights()
    return model


def rate(config: OptimizerConfig, device: torch.device) -> Tensor:
    """Stands in for `rate_tensor`, with torch.full: torch.tensor would make it on the CPU first."""
    if config.capturable:
        return torch.full((), config.lr, device=device)
    return rate_tensor(config, device)


def optimizer(
    config: OptimizerConfig, parameters: list[nn.Parameter], lr: Tensor
) -> torch.optim.Optimizer:
    """Stands in for `make_optimizer`, which checks the rate's value: here it is set afterwards."""
    made = make_optimizer(config, parameters, torch.tensor(config.lr))
    for group in made.param_groups:
        group["lr"] = lr
    return made


@contextmanager
def pretended_gpu(kernels: bool) -> Iterator[set[str]]:
    """Lets tensors be on GPU; yields the names of the kernels that are launched there.

    Args:
        kernels: whether Triton works there.
    """
    launched: set[str] = set()
    with ExitStack() as patches:
        on_gpu = property(lambda tensor: tensor.device.type == "pretend")
        patches.enter_context(patch.object(FakeTensor, "is_cuda", on_gpu))
        patches.enter_context(patch.object(CharModel, "to", moved))
        patches.enter_context(patch.object(torch.cuda, "device_of", lambda tensor: nullcontext()))
        patches.enter_context(
            patch.object(dispatch, "why_not", lambda device: None if kernels else "no Triton")
        )
        patches.enter_context(patch.object(training_step, "rate_tensor", rate))
        patches.enter_context(patch.object(training_step, "make_optimizer", optimizer))
        patches.enter_context(patch.object(torch, "Generator", HostGenerator))
        for module in (rnn, gru, lstm):
            for name in dir(module):
                kind = type(getattr(module, name)).__name__
                if kind in ("JITFunction", "InterpretedFunction") and "_" in name:
                    patches.enter_context(patch.object(module, name, Kernel(name, launched)))
        patches.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        yield launched
