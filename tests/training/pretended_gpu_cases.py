"""Training steps on a pretended GPU; run by test_pretended_gpu.py, in a process of their own."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.pretended_gpu import GPU, Watched, pretended_gpu
from helpers.training import folder_of, quiet, tiny_spec
from torch.utils._pytree import tree_map_only

from charcmp.config.optimizers import OPTIMIZERS
from charcmp.config.spec import RunSpec, resolve
from charcmp.data.chunks import Chunks
from charcmp.errors import Interrupted
from charcmp.models.cells.registry import CELLS
from charcmp.training.checkpoint import Checkpoint
from charcmp.training.evaluate import Evaluation
from charcmp.training.session import Session
from charcmp.training.step import Step, cut_corpus
from charcmp.training.train import train

torch.set_num_threads(1)
# torch's own GRU allocates memory that a pretended device does not have.
VARIANTS = [
    (name, activation)
    for name in CELLS
    if name != "gru_reset_after"
    for activation in CELLS[name].activations
]


def make_step(spec: RunSpec, device: torch.device = GPU) -> Step:
    T, R = spec.unroll_steps, spec.right_context
    y_KTB = torch.zeros(3, T, 4, dtype=torch.uint8, device=device)
    x_KTB = y_KTB
    if R is not None:
        x_KTB = torch.zeros(3, T + 1 + R, 4, dtype=torch.int16, device=device)
    return Step(spec, device, Chunks(x_KTB, y_KTB))


def check_step(step: Step) -> None:
    """What is captured of a step touches the GPU alone, and the same gradients each time."""
    step()  # makes the optimiser's state
    gradients = [parameter.grad for parameter in step.parameters]
    kept = step.replay.changes()
    with Watched() as watched:
        step._compute()
    assert watched.num_seen > 50
    assert not watched.wrong
    assert all(p.grad is grad for p, grad in zip(step.parameters, gradients, strict=True))
    assert all(a is b for a, b in zip(step.replay.changes(), kept, strict=True))
    assert all(tensor.device.type == "pretend" for tensor in (*gradients, *kept))


def of(text: Path, cell: str, activation: str = "tanh", **changes) -> RunSpec:
    spec = tiny_spec(text, cell, **{"layers": 2, "dropout": 0.2, "unroll_steps": 2, **changes})
    config = replace(spec.config, cell=replace(spec.config.cell, activation=activation))
    return resolve(config)


@pytest.mark.parametrize("kernels", [True, False], ids=["kernels", "torch"])
@pytest.mark.parametrize("task", ["lm", "fill"])
@pytest.mark.parametrize(("cell", "activation"), VARIANTS)
def test_every_cell(tiny_text: Path, cell: str, activation: str, task: str, kernels: bool) -> None:
    keys = {"task": "fill", "fill_context": 1} if task == "fill" else {}
    with pretended_gpu(kernels) as launched:
        step = make_step(of(tiny_text, cell, activation, **keys))
        check_step(step)
        scored = Evaluation(step.model, step.chunks)
        with torch.no_grad(), Watched() as watched:
            scored._score_chunk()
        assert not watched.wrong
    assert bool(launched) == (kernels and not step.model.in_cudnn)  # it is narrow
    assert all(name.startswith(cell.split("_")[0]) for name in launched)


@pytest.mark.parametrize("kernels", [True, False], ids=["kernels", "torch"])
@pytest.mark.parametrize("cell", ["lstm", "rnn"])
def test_a_wide_one_leaves_cudnn_where_there_are_kernels(
    tiny_text: Path, cell: str, kernels: bool
) -> None:
    with pretended_gpu(kernels) as launched:
        check_step(make_step(of(tiny_text, cell, "tanh", hidden_size=400)))
    assert bool(launched) == kernels


@pytest.mark.parametrize("clip_mode", ["value", "norm"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimiser(tiny_text: Path, name: str, clip_mode: str) -> None:
    optimizer = OPTIMIZERS[name](name=name)
    with pretended_gpu(kernels=True):
        check_step(make_step(of(tiny_text, "gru", optimizer=optimizer, clip_mode=clip_mode)))


@pytest.mark.parametrize("name", ["rmsprop", "adam", "adamw"])
def test_a_cpus_checkpoint_goes_on_on_a_gpu(tiny_text: Path, tmp_path: Path, name: str) -> None:
    spec = of(tiny_text, "gru", optimizer=OPTIMIZERS[name](name=name))
    folder = folder_of(tmp_path, "run")
    stops = iter([False] * 20 + [True])
    with pytest.raises(Interrupted):
        train(spec, folder, Session(lambda: next(stops), quiet))
    cpu = torch.device("cpu")
    loaded = Checkpoint.read(spec, folder, Step(spec, cpu, cut_corpus(spec, cpu)[0]), quiet)
    assert loaded is not None
    with pretended_gpu(kernels=True):
        # Of the same shapes, with nothing behind them: torch may crash on what torch.load makes of
        # a file in here, and cannot copy a real tensor to this device.
        fields = tree_map_only(torch.Tensor, torch.empty_like, vars(loaded))
        step = make_step(spec)
        lr = step.optimizer.param_groups[0]["lr"]
        Checkpoint(**fields).restore(step)
        (group,) = step.optimizer.param_groups
        assert group["capturable"] and group["foreach"] and group["lr"] is lr  # noqa: PT018
        check_step(step)


def test_what_is_watched_for(tiny_text: Path) -> None:
    """The cases above can fail."""
    with pretended_gpu(kernels=True):
        on_gpu, on_cpu = torch.zeros(3, device=GPU), torch.zeros(())
        with Watched() as watched:
            on_gpu + on_cpu
        assert watched.wrong == {"aten.add.Tensor on ['cpu', 'pretend']"}
        with Watched() as watched, pytest.raises(Exception, match="_local_scalar_dense"):
            on_gpu.sum().item()
        assert watched.wrong == {"aten._local_scalar_dense.default is read by the host"}
        from charcmp.models.cells.fused.rnn import rnn_step

        with pytest.raises(AssertionError, match="not contiguous"):
            rnn_step[(1, 1)](torch.zeros(3, 4, device=GPU).t())
        with pytest.raises(AssertionError, match="a tensor of the CPU's"):
            rnn_step[(1, 1)](torch.zeros(3))
