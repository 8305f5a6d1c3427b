"""CUDA graphs: on a GPU, what they replay is what the calls do; on a CPU there are none."""

import gc
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from helpers.training import folder_of, quiet, tiny_spec, without_times

from charcmp.config.spec import RunSpec
from charcmp.data.chunks import Chunks
from charcmp.errors import Interrupted
from charcmp.models.cells.registry import CELLS, cell_config
from charcmp.models.fill_in import make_model
from charcmp.training.cuda_graph import WARM_UP_CALLS, Late, Replayed
from charcmp.training.cuda_streams import at_work_on
from charcmp.training.evaluate import Evaluation
from charcmp.training.gate import GATE
from charcmp.training.session import Session
from charcmp.training.step import Step, cut_corpus
from charcmp.training.train import NO_GRAPH, train


def test_without_a_gpu_work_is_called() -> None:
    number = torch.zeros(())
    work = Replayed(lambda: number.add_(1), torch.device("cpu"), lambda: [number])
    late: Late[str] = Late(number)
    assert late.read("before") == (0.0, "before")
    work()
    work()
    assert late.read("after") == (2.0, "after")
    work.close()
    with pytest.raises(AssertionError, match="closed"):
        work()


def test_closed_a_step_is_freed_at_once(tiny_text: Path) -> None:
    """With its tensors, on a GPU its graph: not at some later garbage collection."""
    spec = tiny_spec(tiny_text)
    drawn_KTB = torch.randint(spec.corpus.num_symbols, (3, 10, 4), dtype=torch.uint8)
    Step(spec, torch.device("cpu"), Chunks(drawn_KTB, drawn_KTB))  # torch's first optimiser
    gc.disable()
    try:
        step = Step(spec, torch.device("cpu"), Chunks(drawn_KTB, drawn_KTB))
        scored = Evaluation(step.model, step.chunks)
        step()
        scored()
        left = weakref.ref(step), weakref.ref(scored), weakref.ref(step.model)
        step.close()
        scored.close()
        del step, scored
        assert [reference() for reference in left] == [None] * 3
    finally:
        gc.enable()


def test_a_text_of_one_chunk_is_scored_as_often_as_a_capture_does(tiny_text: Path) -> None:
    spec = tiny_spec(tiny_text)
    one_1TB = torch.randint(spec.corpus.num_symbols, (1, 10, 4), dtype=torch.uint8)
    scored = Evaluation(make_model(spec.shape, None), Chunks(one_1TB, one_1TB))
    expected = scored()
    for _ in range(WARM_UP_CALLS + 1):
        scored.replay.work()
    assert torch.equal(scored(), expected)


def of_a_class(
    work: Callable[[], object], *changes: torch.Tensor, keeps_tensors: Callable[[], bool] = bool
) -> Replayed:
    """Work that is to be captured if it can be, without a GPU to capture it."""
    device = torch.device("cpu")
    replayed = Replayed(lambda: work() and None, device, lambda: changes, None, True, keeps_tensors)
    replayed.capture = True
    return replayed


@pytest.mark.parametrize("does_wait", [True, False])
def test_work_that_waits_for_a_gpu_is_called(
    monkeypatch: pytest.MonkeyPatch, does_wait: bool
) -> None:
    """As torch.cuda would report it; the tests below that need a GPU ask torch itself."""
    modes = ["default"]
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)
    number = torch.zeros(())

    def work() -> None:
        number.add_(1)
        if does_wait and modes[-1] == "error":
            raise RuntimeError("called a synchronizing CUDA operation")

    with GATE.shared():
        replayed = of_a_class(work, number)
        assert replayed.must_be_called() == does_wait
        assert modes == ["default", "error", "default"]
        assert number == 0
        assert replayed.must_be_called() == does_wait
        assert len(modes) == 3  # tried once


def test_another_error_while_that_is_tried_is_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    modes = ["default"]
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)

    def work() -> None:
        if modes[-1] == "error":
            raise RuntimeError("shapes do not match")

    with GATE.shared():
        with pytest.raises(RuntimeError, match="shapes"):
            of_a_class(work).must_be_called()
        assert modes[-1] == "default"


def test_work_that_is_called_lets_other_lanes_capture() -> None:
    has_captured = threading.Event()
    number = torch.zeros(())

    def capture() -> None:
        with GATE.alone():
            has_captured.set()

    with GATE.shared():
        replayed = of_a_class(lambda: number.add_(1), number, keeps_tensors=lambda: True)
        replayed()
        other = threading.Thread(target=capture)
        other.start()
        until = time.monotonic() + 60
        while not has_captured.is_set() and time.monotonic() < until:
            replayed()
        assert has_captured.is_set()
        other.join()
    assert number > 1


class Keeps(torch.nn.Module):
    """A cell that makes a table when it is first called, and again for other sizes."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.cell = torch.nn.GRUCell(input_size, hidden_size)
        self.tables: dict[str, list[torch.Tensor]] = {}

    def forward(self, x: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
        if not self.tables or len(self.tables["ones"][0]) != len(x):
            self.tables["ones"] = [torch.ones(len(x), 1, device=x.device)]
        return self.cell(x, h * self.tables["ones"][0])


@pytest.mark.parametrize(
    ("target", "keeps"), [(f"{__file__}:Keeps", True), ("torch.nn.GRU", False)]
)
def test_a_class_that_keeps_tensors_is_known(tiny_text: Path, target: str, keeps: bool) -> None:
    """torch.nn.GRU has a list of its own parameters, which does not count."""
    spec = tiny_spec(tiny_text, cell_config("module", target=target))
    step = Step(spec, torch.device("cpu"), cut_corpus(spec, torch.device("cpu"))[0])
    assert not step.model.keeps_tensors()
    step()
    assert step.model.keeps_tensors() == keeps


class Waits(torch.nn.Module):
    """A cell that looks at its state."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.cell = torch.nn.GRUCell(input_size, hidden_size)

    def forward(self, x: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
        new = self.cell(x, h)
        return new if new.abs().max() < 2 else -new


@pytest.mark.cuda
@pytest.mark.parametrize("name", ["Waits", "Keeps"])
def test_a_class_that_no_graph_can_hold_trains(tiny_text: Path, tmp_path: Path, name: str) -> None:
    """Beside lanes that capture, which must not see torch's errors."""
    cell = cell_config("module", target=f"{__file__}:{name}")
    cells = [cell, "gru", cell, "lstm"]
    lines: list[list[str]] = [[] for _ in cells]
    specs = [tiny_spec(tiny_text, c, device="cuda") for c in cells]
    folders = [folder_of(tmp_path, str(number)) for number in range(len(cells))]
    sessions = [Session(say=said.append, num_lanes=4) for said in lines]
    with ThreadPoolExecutor(4) as lanes:
        found = list(lanes.map(train, specs, folders, sessions))
    for result, said, each in zip(found, lines, cells, strict=True):
        assert result.verified
        assert any(NO_GRAPH in line for line in said) == (each is cell)
    on_cpu = train(tiny_spec(tiny_text, cell), folder_of(tmp_path, "cpu"), Session(say=quiet))
    assert found[0].test_nats_per_char == pytest.approx(on_cpu.test_nats_per_char, abs=1e-3)


def make_step(spec: RunSpec, capture: bool) -> Step:
    torch.manual_seed(0)
    drawn_KTB = torch.randint(spec.corpus.num_symbols, (3, 10, 4), dtype=torch.uint8).cuda()
    step = Step(spec, torch.device("cuda"), Chunks(drawn_KTB, drawn_KTB))
    step.replay.capture = capture
    return step


@pytest.mark.cuda
@pytest.mark.parametrize("cell", CELLS)
def test_a_graph_does_what_the_calls_do(tiny_text: Path, cell: str) -> None:
    spec = tiny_spec(tiny_text, cell, device="cuda", layers=2, dropout=0.2)
    with at_work_on(torch.device("cuda")):
        replayed, called = make_step(spec, capture=True), make_step(spec, capture=False)
        for _ in range(7):
            replayed()
            called()
        assert replayed.replay.graph is not None
        for one, other in zip(replayed.replay.changes(), called.replay.changes(), strict=True):
            torch.testing.assert_close(one, other)
        scored = Evaluation(replayed.model, replayed.chunks)
        expected = Evaluation(replayed.model, replayed.chunks, capture=False)()
        torch.testing.assert_close(scored(), expected)
        torch.testing.assert_close(scored(), expected)  # again, from a zero state
        replayed.close()
        scored.close()


@pytest.mark.cuda
def test_runs_in_lanes_are_as_alone(tiny_text: Path, tmp_path: Path) -> None:
    """More runs than torch has streams for, were each capture to take one: losses to the bit, while
    others capture and free their graphs."""
    specs = [
        tiny_spec(tiny_text, cell, device="cuda", layers=2, dropout=0.2, seed=seed)
        for seed in range(8)
        for cell in ("lstm", "gru", "rnn")
    ]
    expected = [train(spec, folder_of(tmp_path, f"a{n}"), Session(say=quiet))
                for n, spec in enumerate(specs)]  # fmt: skip
    with ThreadPoolExecutor(6) as lanes:
        folders = [folder_of(tmp_path, f"b{number}") for number in range(len(specs))]
        found = list(lanes.map(train, specs, folders, [Session(say=quiet, num_lanes=6)] * 24))
    for one, other in zip(found, expected, strict=True):
        assert one.verified
        assert one.test_nats_per_char == other.test_nats_per_char


@pytest.mark.cuda
def test_a_graph_resumes_where_it_was(tiny_text: Path, tmp_path: Path) -> None:
    spec = tiny_spec(tiny_text, "gru", device="cuda", dropout=0.2)
    whole, broken = folder_of(tmp_path, "whole"), folder_of(tmp_path, "broken")
    expected = train(spec, whole, Session(say=quiet))
    left = iter([False] * 40 + [True])
    with pytest.raises(Interrupted):
        train(spec, broken, Session(lambda: next(left), quiet))
    result = without_times(train(spec, broken, Session(say=quiet)))
    nats = "test_nats_per_char"
    assert result[nats] == pytest.approx(without_times(expected)[nats], abs=1e-4)
