"""Whether a GPU computes what it should, asked while a run goes on and when it ends.

A captured graph runs from memory that it was given once: another graph that wrote there, a library
or a driver at fault would change a run's numbers without an error. So a run compares the graph of
its step with the same step by calls at epochs 1, 2, 5, 10, 20, 50, ..., and at its end the losses
of some test text by the graph, by calls and on the CPU.
"""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from dataclasses import replace

from torch import Tensor

from charcmp.data.chunks import Chunks
from charcmp.models.language_model import CharModel
from charcmp.training.evaluate import Evaluation
from charcmp.training.step import Step

# Largest difference of a gradient or an average, relative to its largest element; graph and calls
# run the same kernels, in the same order but for atomic additions.
MAX_GRAPH_DIFFERENCE = 1e-4
# Nats per character between GPU and CPU, by precision.
MAX_NATS = {"float32": 1e-4, "tf32": 1e-2}
# A model that trained badly can be chaotic, and rounding then grows. Its limit is this many times
# the difference between its float32 and float64 losses on the CPU, up to so many nats.
TIMES_ROUNDING = 30.0
MOST_NATS = 0.5
TEST_CHUNKS = 2


class WrongResult(Exception):
    """The device computed something else than it should: what it has trained is not to be used."""


def is_check_due(epoch: int) -> bool:
    """Epochs 1, 2, 5, 10, 20, 50, ..."""
    while epoch % 10 == 0:
        epoch //= 10
    return epoch in (1, 2, 5)


def relative_difference(found: Iterable[Tensor], expected: Iterable[Tensor]) -> float:
    """The largest |found - expected| of any tensor, relative to the largest element expected there;
    infinite where one is not a number and the other is."""
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


def check_graph(step: Step) -> None:
    """Compares the next step by its graph with the same step by calls; changes nothing.

    Gradients, loss, state and the optimiser's averages, not the weights: RMSprop and Adam make a
    whole step of the sign of a gradient near zero. Does nothing where there is no graph.

    Raises:
        WrongResult: if they differ.
    """
    both = step.replay.by_graph_and_by_calls(step.computed)
    if both is not None and not (difference := relative_difference(*both)) < MAX_GRAPH_DIFFERENCE:
        raise WrongResult(
            f"the step's CUDA graph and the same step by calls differ by {difference:.1e}, relative"
        )


def check_test(test: Evaluation, precision: str) -> None:
    """Scores the first test chunks again, by calls on the device, then on the CPU, where the model
    stays.

    The graph and the calls run the same kernels: between them there is no allowance for a model
    that amplifies rounding.

    Args:
        test: that has just scored the test text.
        precision: of the run.

    Raises:
        WrongResult: if a loss differs by more than rounding.
    """
    chunks, model = test.chunks, test.model
    few = replace(chunks, x_KTB=chunks.x_KTB[:TEST_CHUNKS], y_KTB=chunks.y_KTB[:TEST_CHUNKS])
    by_graph, by_calls = test.nll_KTB[:TEST_CHUNKS].cpu(), nll_of(model, few)
    limit = MAX_NATS[precision]
    if not (nats := mean_difference(by_graph, by_calls)) < limit:
        raise WrongResult(
            f"test losses by a CUDA graph and by calls differ by {nats:.1e} nats per character"
        )
    on_cpu = replace(few, x_KTB=few.x_KTB.cpu(), y_KTB=few.y_KTB.cpu())
    expected = nll_of(model.cpu(), on_cpu)
    nats = mean_difference(by_calls, expected)
    if not nats < limit and not nats < allowance(model, on_cpu, expected):
        raise WrongResult(
            f"test losses on the GPU and on the CPU differ by {nats:.1e} nats per character"
        )


def mean_difference(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().mean())


def allowance(model: CharModel, chunks: Chunks, expected: Tensor) -> float:
    """Nats per character by which rounding may move these losses of the model on the CPU."""
    try:
        exact = nll_of(deepcopy(model).double(), chunks)
    except Exception:  # a stranger's class that works in float32 alone
        return 0.0
    return min(TIMES_ROUNDING * mean_difference(exact, expected), MOST_NATS)


def nll_of(model: CharModel, chunks: Chunks) -> Tensor:
    """Losses of all characters of these chunks, from a zero state, without a graph, (K, T, B)."""
    evaluation = Evaluation(model, chunks, capture=False)
    evaluation()
    return evaluation.nll_KTB.cpu()
