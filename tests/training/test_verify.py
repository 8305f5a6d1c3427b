"""Checks of what a GPU computes, on a CPU: a graph in the place of CUDA's that does its work, or
does it wrong."""

import json
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from helpers.training import folder_of, quiet, tiny_spec

from charcmp.data.chunks import Chunks
from charcmp.training import verify
from charcmp.training.evaluate import Evaluation
from charcmp.training.session import Session
from charcmp.training.step import Step
from charcmp.training.train import train
from charcmp.training.verify import (
    MAX_NATS,
    MOST_NATS,
    WrongResult,
    allowance,
    check_graph,
    check_test,
    is_check_due,
    nll_of,
    relative_difference,
)


@dataclass
class Graph:
    """Replays a step by calling it, then does some damage."""

    step: Step
    damage: Callable[[Step], object] = lambda step: None

    def replay(self) -> None:
        self.step.replay.work()
        self.damage(self.step)

    def reset(self) -> None:
        pass


def make_step(text: Path, cell: str = "gru", **changes) -> Step:
    spec = tiny_spec(text, cell, layers=2, dropout=0.2, **changes)
    torch.manual_seed(0)
    drawn_KTB = torch.randint(spec.corpus.num_symbols, (5, 10, 4), dtype=torch.uint8)
    step = Step(spec, torch.device("cpu"), Chunks(drawn_KTB, drawn_KTB))
    for _ in range(3):
        step()
    return step


def test_a_graph_that_does_what_calls_do(tiny_text: Path) -> None:
    step, other = make_step(tiny_text), make_step(tiny_text)
    step.replay.graph = Graph(step)
    check_graph(step)
    step.replay.graph = None
    step()  # goes on as if nothing had been: weights, state, dropout, place in the text
    other()
    for ours, theirs in zip(step.replay.changes(), other.replay.changes(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    "damage",
    [
        lambda step: step.parameters[0].grad.view(-1)[0].mul_(3),
        lambda step: step.parameters[-1].grad.zero_(),
        lambda step: step.state_LSBH.add_(0.01),
        lambda step: step.loss_sum.fill_(float("nan")),
        lambda step: step.optimizer.state[step.parameters[1]]["square_avg"].mul_(1.01),
        lambda step: step.replay.work(),  # twice
    ],
)
def test_a_graph_that_does_something_else(
    tiny_text: Path, damage: Callable[[Step], object]
) -> None:
    step = make_step(tiny_text)
    step.replay.graph = Graph(step, damage)
    with pytest.raises(WrongResult, match="graph and the same step by calls differ by"):
        check_graph(step)


def test_test_losses_are_those_of_the_cpu(tiny_text: Path) -> None:
    step = make_step(tiny_text)
    test = Evaluation(step.model, step.chunks)
    test()
    check_test(test, step.model, "float32")
    test.nll_KTB[1, 3] += 0.01
    with pytest.raises(WrongResult, match=r"by a CUDA graph and by calls differ by 5\.0e-04"):
        check_test(test, step.model, "float32")
    check_test(test, step.model, "tf32")


def test_rounding_that_a_chaotic_model_amplifies_is_no_fault_of_the_gpu(tiny_text: Path) -> None:
    step = make_step(tiny_text, "rnn")
    tame = allowance(step.model, step.chunks, nll_of(step.model, step.chunks))
    with torch.no_grad():
        for parameter in step.parameters:
            parameter.mul_(50)
    chaotic = allowance(step.model, step.chunks, nll_of(step.model, step.chunks))
    assert tame < 0.1 * MAX_NATS["float32"] < MAX_NATS["float32"] < chaotic <= MOST_NATS


@pytest.mark.parametrize(("off", "passes"), [(0.5, True), (1.5, False)])
def test_a_model_may_be_off_by_its_allowance(
    tiny_text: Path, monkeypatch: pytest.MonkeyPatch, off: float, passes: bool
) -> None:
    """The CPU's losses, which come last, differ from those of the graph and of calls."""
    step = make_step(tiny_text)
    test = Evaluation(step.model, step.chunks)
    test()
    allowed = 10 * MAX_NATS["float32"]
    monkeypatch.setattr(verify, "allowance", lambda model, chunks, expected: allowed)
    asked = iter([0.0, off * allowed])
    monkeypatch.setattr(verify, "nll_of", lambda *args: nll_of(*args) + next(asked))
    with nullcontext() if passes else pytest.raises(WrongResult, match="on the GPU and on the CPU"):
        check_test(test, step.model, "float32")


def test_a_class_that_works_in_float32_alone_has_no_allowance(tiny_text: Path) -> None:
    step = make_step(tiny_text)
    step.model.register_forward_pre_hook(lambda model, args: torch.ones(2, 2) @ model.zero_state(2))
    assert allowance(step.model, step.chunks, torch.zeros(1)) == 0.0


def test_it_is_asked_ever_more_rarely() -> None:
    due = [epoch for epoch in range(1, 1001) if is_check_due(epoch)]
    assert due == [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000]


@pytest.mark.parametrize(
    ("found", "expected", "difference"),
    [
        ([2.0, 0.0], [2.0, 0.0], 0.0),
        ([2.0, 0.1], [2.0, 0.0], 0.05),
        ([0.0, 0.0], [0.0, 0.0], 0.0),
        ([1.0, float("nan")], [1.0, float("nan")], 0.0),
        ([1.0, 1.0], [1.0, float("nan")], float("inf")),
    ],
)
def test_relative_difference(found: list, expected: list, difference: float) -> None:
    one, other = torch.tensor(found), torch.tensor(expected)
    assert relative_difference([one], [other]) == pytest.approx(difference)


def test_a_run_that_fails_a_check_is_never_done(
    tiny_text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does a later attempt go on from weights that may be wrong."""
    spec = tiny_spec(tiny_text, epochs=12, checkpoint_seconds=0.0)
    folder = folder_of(tmp_path, "run")
    steps: list[Step] = []
    make = Step.__init__

    def with_graph(step: Step, *args, **keys) -> None:
        make(step, *args, **keys)
        step.replay.graph = Graph(step)
        steps.append(step)

    def say(line: str) -> None:
        if line.startswith("epoch 7/"):
            steps[0].replay.graph.damage = lambda step: step.state_LSBH.mul_(2)

    with monkeypatch.context() as patch:
        patch.setattr(Step, "__init__", with_graph)
        with pytest.raises(WrongResult):
            train(spec, folder, Session(say=say))
    assert not folder.result.exists()
    assert not folder.checkpoint.exists()
    assert (folder.path / "checkpoint.pt.bad-1").exists()
    train(spec, folder, Session(say=quiet))
    assert json.loads(folder.result.read_text())["verified"] is None  # of a CPU
