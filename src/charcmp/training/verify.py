"""Checks, during a run and at its end, that a GPU computes what it should.

A captured graph runs in memory that was assigned to it once. If another graph writes there, or a
library or driver has a fault, the run's numbers change without an error. So a run compares the
graph of its step with the same step by calls at epochs 1, 2, 5, 10, 20, 50, ..., and at its end the
losses of some test text by the graph, by calls and on the CPU.
"""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from dataclasses import replace

from torch import Tensor

from charcmp.config.spec import RunSpec
from charcmp.data.chunks import Chunks
from charcmp.models.fill_in import make_model
from charcmp.models.language_model import CharModel
from charcmp.training.evaluate import Evaluation
from charcmp.training.gate import GATE
from charcmp.training.step import Step

# Largest difference of a gradient or an average, relative to its largest element. Graph and calls
# run the same kernels in the same order, except for atomic additions.
MAX_GRAPH_DIFFERENCE = 1e-4
# Nats per character between GPU and CPU, by precision.
MAX_NATS = {"float32": 1e-4, "tf32": 1e-2}
# A badly trained model can be chaotic and amplify rounding errors. It may differ by TIMES_ROUNDING
# times the difference between its float32 and float64 losses on the CPU, at most by MOST_NATS.
TIMES_ROUNDING = 30.0
MOST_NATS = 0.5
TEST_CHUNKS = 2


class WrongResult(Exception):
    """The device computed wrong results: what it has trained must not be used."""


def is_check_due(epoch: int) -> bool:
    """Returns whether an epoch is one of 1, 2, 5, 10, 20, 50, ..."""
    while epoch % 10 == 0:
        epoch //= 10
    return epoch in (1, 2, 5)


def relative_difference(found: Iterable[Tensor], expected: Iterable[Tensor]) -> float:
    """Returns the largest |found - expected|, relative to the tensor's largest expected element.

    It is infinite if an element is NaN in one tensor and not in the other.
    """
    worst = 0.0
    for ours, theirs in zip(found, expected, strict=True):
        if ours.isnan().ne(theirs.isnan()).any():
            return float("inf")
        off = (ours.double() - theirs.double()).nan_to_num().abs().max()
        if off > 0:
            worst = max(
                worst, float(off / theirs.double().nan_to_num().abs().max().clamp_min(1e-30))
            )
    return worst


def made_again(spec: RunSpec, model: CharModel) -> CharModel:
    """Returns a run's model with the same weights, made anew on the CPU, in evaluation mode.

    A class of the user's may keep tensors of its own, which `.cpu()` would leave on the GPU.
    """
    with GATE.stood_back():  # making models takes turns
        again = make_model(spec.shape, spec.right_context)
    again.load_state_dict(model.state_dict())
    return again.eval()


def check_graph(step: Step) -> None:
    """Compares the next step by its graph with the same step by calls; changes nothing.

    Compares gradients, loss, state and the optimiser's averages, but not the weights: RMSprop and
    Adam turn the sign of a gradient near zero into a whole step. Does nothing if there is no graph.

    Raises:
        WrongResult: if they differ.
    """
    both = step.replay.by_graph_and_by_calls(step.computed)
    if both is not None and not (difference := relative_difference(*both)) < MAX_GRAPH_DIFFERENCE:
        raise WrongResult(
            f"the step's CUDA graph and the same step by calls differ by {difference:.1e}, relative"
        )


def check_test(test: Evaluation, on_cpu: CharModel, precision: str) -> None:
    """Scores the first test chunks again, by calls on the device and on the CPU, and compares.

    Since the graph and the calls run the same kernels, there is no allowance between them for a
    model that amplifies rounding.

    Args:
        test: the evaluation that has just scored the test text.
        on_cpu: the same model there.
        precision: the run's precision.

    Raises:
        WrongResult: if the losses differ by more than rounding explains.
    """
    chunks = test.chunks
    few = replace(chunks, x_KTB=chunks.x_KTB[:TEST_CHUNKS], y_KTB=chunks.y_KTB[:TEST_CHUNKS])
    by_graph, by_calls = test.nll_KTB[:TEST_CHUNKS].cpu(), nll_of(test.model, few)
    limit = MAX_NATS[precision]
    if not (nats := mean_difference(by_graph, by_calls)) < limit:
        raise WrongResult(
            f"test losses by a CUDA graph and by calls differ by {nats:.1e} nats per character"
        )
    few = replace(few, x_KTB=few.x_KTB.cpu(), y_KTB=few.y_KTB.cpu())
    with GATE.stood_back():
        expected = nll_of(on_cpu, few)
        nats = mean_difference(by_calls, expected)
        is_right = nats < limit or nats < allowance(on_cpu, few, expected)
    if not is_right:
        raise WrongResult(
            f"test losses on the GPU and on the CPU differ by {nats:.1e} nats per character"
        )


def mean_difference(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().mean())


def allowance(model: CharModel, chunks: Chunks, expected: Tensor) -> float:
    """Returns by how many nats per character rounding may change these losses on the CPU."""
    try:
        exact = nll_of(deepcopy(model).double(), chunks)
    except Exception:  # a user's class may work in float32 alone
        return 0.0
    return min(TIMES_ROUNDING * mean_difference(exact, expected), MOST_NATS)


def nll_of(model: CharModel, chunks: Chunks) -> Tensor:
    """Returns the losses of all characters of the chunks, from a zero state, without a graph.

    Shape (K, T, B), on the CPU.
    """
    evaluation = Evaluation(model, chunks, capture=False)
    evaluation()
    return evaluation.nll_KTB.cpu()
