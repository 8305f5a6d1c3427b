"""Fill-in models: no leak, right context and where it ends, sizes, training, scoring, misuse."""

import itertools
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.console import TINY, Charcmp, run_of, write_tiny_text
from helpers.models import shape
from helpers.training import folder_of, history_of, quiet, tiny_spec, without_times

from charcmp.cli.status import Runs, overview
from charcmp.config.rules import check
from charcmp.config.spec import notes_on, resolve
from charcmp.data.chunks import to_chunks, windows
from charcmp.data.corpus import Streams, corpus_from_bytes, split_corpus
from charcmp.data.dataset import DatasetConfig
from charcmp.errors import Interrupted, UserError
from charcmp.inference.score import fill_nats, score_file, score_split
from charcmp.inference.trained import load_trained, runs_with_weights
from charcmp.models.budget import budget_label, solve, target_params
from charcmp.models.cells.registry import CELLS
from charcmp.models.fill_in import NOTHING, FillModel
from charcmp.runs.folder import RunFolder
from charcmp.sweeping.cost import speed_key
from charcmp.sweeping.measure import measure_speed
from charcmp.training.evaluate import losses
from charcmp.training.session import Session
from charcmp.training.step import Step
from charcmp.training.train import train

T, R, B, V, H, K = 6, 4, 3, 7, 5, 3
torch.set_num_threads(1)
DEVICE = torch.device("cpu")


def make(cell: str = "lstm", layers: int = 2, right_context: int = R, **options) -> FillModel:
    """A float64 model with values large enough that everything matters."""
    model = FillModel(shape(cell, layers, H, V, **options), right_context).double()
    model.initialize(0.6, seed=0)
    return model.eval()


def make_streams() -> Streams:
    text_N = np.random.default_rng(0).integers(V, size=B * K * T + 1, dtype=np.uint8)
    return Streams(text_N[:-1].reshape(B, -1), text_N[1:].reshape(B, -1))


def window() -> torch.Tensor:
    return torch.randint(V, (T + 1 + R, B), generator=torch.Generator().manual_seed(1))


def logits_of(model: FillModel, x_WB: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(x_WB, model.zero_state(B))[0]


# The model.


@pytest.mark.parametrize("cell", CELLS)
def test_no_logit_depends_on_the_byte_that_it_predicts(cell: str) -> None:
    """To the last bit; all others in the row move, and no other row does."""
    model, x_WB = make(cell), window()
    before = logits_of(model, x_WB)
    for t in range(T):
        changed_WB = x_WB.clone()
        changed_WB[t + 1, 1] = (x_WB[t + 1, 1] + 1) % V  # y_t
        moved_TB = (logits_of(model, changed_WB) != before).any(dim=2)
        expected_TB = torch.zeros(T, B, dtype=torch.bool)
        expected_TB[:, 1] = torch.arange(T) != t
        assert moved_TB.equal(expected_TB)


@pytest.mark.parametrize("beyond", range(R))
def test_what_stands_beyond_the_chunk_is_read(beyond: int) -> None:
    model, x_WB = make(), window()
    before = logits_of(model, x_WB)
    changed_WB = x_WB.clone()
    changed_WB[T + 1 + beyond, 1] = (x_WB[T + 1 + beyond, 1] + 1) % V
    moved_TB = (logits_of(model, changed_WB) != before).any(dim=2)
    assert moved_TB[:, 1].all()
    assert not moved_TB[:, [0, 2]].any()


def test_where_the_text_ends_nothing_is_read() -> None:
    """A row without context: the last step's logits come from the forward stack alone."""
    model, x_WB = make(), window()
    x_WB[T + 1 :, 0] = NOTHING
    logits_TBV = logits_of(model, x_WB)
    forward_TBH, _ = model.run_stack(model.cells, x_WB[:T], model.zero_state(B))
    alone_BV = F.linear(forward_TBH[-1], model.decoder.weight[:, :H], model.decoder.bias)
    torch.testing.assert_close(logits_TBV[-1, 0], alone_BV[0], rtol=0, atol=1e-12)
    assert not torch.allclose(logits_TBV[-1, 1], alone_BV[1])


@torch.no_grad()
def reference_nll(model: FillModel, streams: Streams, row: int, column: int) -> float:
    """-ln p of one target, both stacks read anew for it by the cells' equations."""
    x_C = torch.tensor(streams.x_BC[row]).long()
    y_C = torch.tensor(streams.y_BC[row]).long()
    end = (column // T + 1) * T  # of its chunk
    right_N = y_C[column + 1 : end + model.right_context].flip(0)

    def read(cells, symbols_N: torch.Tensor) -> torch.Tensor:
        if not len(symbols_N):
            return torch.zeros(H, dtype=torch.float64)
        h = F.one_hot(symbols_N.unsqueeze(1), V).double()
        for cell in cells:
            h = cell.reference(h, h.new_zeros(cell.num_states, 1, H)).h_TBH
        return h[-1, 0]

    both_H = torch.cat([read(model.cells, x_C[: column + 1]), read(model.backward_cells, right_N)])
    return -float(torch.log_softmax(model.decoder(both_H), 0)[y_C[column]])


@pytest.mark.parametrize(
    ("cell", "right_context"), [*((cell, R) for cell in CELLS), ("gru", 1), ("gru", T)]
)
def test_the_evaluation_is_a_slow_readers(cell: str, right_context: int) -> None:
    """Every target of a stream once, with all the text before it and the context after it."""
    model, streams = make(cell, right_context=right_context), make_streams()
    chunks = to_chunks(streams, T, DEVICE, right_context)
    expected_BC = [
        [reference_nll(model, streams, row, c) for c in range(K * T)] for row in range(B)
    ]
    state, nll = model.zero_state(B), []
    for x_WB, y_TB in zip(chunks.x_KTB.long(), chunks.y_KTB.long(), strict=True):
        logits_TBV, state = model(x_WB, state)
        log_probs_TBV = torch.log_softmax(logits_TBV, 2)
        nll.append(-log_probs_TBV.gather(2, y_TB.unsqueeze(2)).squeeze(2).detach())
    measured_BC = torch.cat(nll).t()
    np.testing.assert_allclose(measured_BC, expected_BC, rtol=0, atol=1e-10)
    measured_N = losses(model.float(), chunks)
    np.testing.assert_allclose(measured_N, np.ravel(expected_BC), rtol=0, atol=1e-5)


@pytest.mark.parametrize("layout", ["columns", "contiguous"])
def test_windows_stay_in_their_row_of_their_part(layout: str) -> None:
    """Of a text where every byte tells its place; the targets are the language model's."""
    corpus = corpus_from_bytes("x", bytes(range(240)))
    splits = split_corpus(corpus, layout, [50, 25, 25], 2, 10, min_chunks=2)
    for streams in (splits.train, splits.val, splits.test):
        x_KWB = windows(streams, 10, 4)
        for row, (k, x_WB) in itertools.product(range(2), enumerate(x_KWB)):
            mine_W, y_C = x_WB[:, row].numpy(), streams.y_BC[row]
            assert np.array_equal(mine_W[:10], streams.x_BC[row, 10 * k : 10 * k + 10])
            assert np.array_equal(mine_W[1:11], y_C[10 * k : 10 * k + 10])
            beyond_R = y_C[10 * k + 10 : 10 * k + 14] if k < len(x_KWB) - 1 else [NOTHING] * 4
            assert np.array_equal(mine_W[11:], beyond_R)
        assert np.array_equal(
            to_chunks(streams, 10, DEVICE, 4).y_KTB, to_chunks(streams, 10, DEVICE).y_KTB
        )


# Sizes.


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("layers", [1, 3])
def test_the_formula_counts_the_built_model(cell: str, layers: int) -> None:
    built = sum(parameter.numel() for parameter in make(cell, layers).parameters())
    assert built == shape(cell, layers, H, V, "fill").num_params


def test_the_same_budgets_are_met_by_narrower_stacks() -> None:
    for cell, layers, budget in itertools.product(CELLS, (1, 2, 3), ("50k", "400k")):
        target = target_params(budget, 87)
        solved = solve(shape(cell, layers, 1, 87, "fill"), target)
        H = solved.hidden_size
        off = [abs(solved.with_size(h).num_params - target) for h in (H - 1, H, H + 1)]
        assert min(off) == off[1]
        assert solve(shape(cell, layers, 1, 87), target).hidden_size > H
        assert budget_label(solved) == budget
    with pytest.raises(UserError, match="no hidden size meets it; 1-layer lstm, task=fill, on 87"):
        solve(shape("lstm", 1, 1, 87, "fill"), shape("lstm", 1, 1, 87).num_params)


def test_its_id(tiny_text: Path) -> None:
    """Told at a glance and by its hash; one run however its context is named."""
    lm, fill = tiny_spec(tiny_text), tiny_spec(tiny_text, task="fill")
    assert fill.run_id.startswith(f"tiny-fill-lstm-1x6-{fill.num_params}p-s0-")
    assert fill.identity() == lm.identity() | {
        **{"task": "fill", "fill_context": 10},
        "protocol_version": 1,  # a contiguous text is scored whole for language models alone
    }
    assert tiny_spec(tiny_text, task="fill", fill_context=10).run_id == fill.run_id
    other = tiny_spec(tiny_text, task="fill", fill_context=9)
    assert other.run_id.rpartition("-")[0] == fill.run_id.rpartition("-")[0]
    assert other.run_id != fill.run_id
    named = tiny_spec(tiny_text, task="fill", hidden_size=None, budget="50k")
    assert "-50k-" in named.run_id
    sized = replace(named.config, budget=None, hidden_size=named.hidden_size)
    assert resolve(sized).run_id == named.run_id


def test_a_context_without_effect_says_so_and_is_no_other_run(tiny_text: Path) -> None:
    spec = tiny_spec(tiny_text, fill_context=3)
    assert notes_on(spec) == ["no effect: fill_context=3: task=lm does not use it"]
    assert spec.run_id == tiny_spec(tiny_text).run_id


# Training.


def test_training_never_reads_the_other_parts(tiny_text: Path) -> None:
    """All characters behind the last training target may be others: the same steps to the bit."""
    spec = tiny_spec(tiny_text, task="fill")
    whole = spec.corpus.symbols_N
    splits = split_corpus(spec.corpus, "contiguous", [80, 10, 10], 4, 10, min_chunks=2)
    changed_N = whole.copy()
    changed_N[splits.train.num_chars + 1 :] = 0
    states = []
    for symbols_N in (whole, changed_N):
        corpus = replace(spec.corpus, symbols_N=symbols_N)
        streams = split_corpus(corpus, "contiguous", [80, 10, 10], 4, 10).train
        step = Step(spec, DEVICE, to_chunks(streams, 10, DEVICE, 10))
        for _ in range(len(step.chunks)):
            step()
        states.append(step.model.state_dict())
    assert all(states[0][key].equal(states[1][key]) for key in states[0])


def test_its_steps_touch_only_what_was_there_before(tiny_text: Path) -> None:
    spec = tiny_spec(tiny_text, "gru", task="fill", dropout=0.3)
    streams = split_corpus(spec.corpus, "contiguous", [80, 10, 10], 4, 10).train
    step = Step(spec, DEVICE, to_chunks(streams, 10, DEVICE, spec.right_context))
    kept = [step.state_LSBH, step.loss_sum, step.chunk, *step.parameters]
    pointers = [t.data_ptr() for t in kept] + [p.grad.data_ptr() for p in step.parameters]
    step()
    step()
    assert pointers == [t.data_ptr() for t in kept] + [p.grad.data_ptr() for p in step.parameters]
    assert all(p.grad.abs().max() > 0 for p in step.parameters)


def test_resume_is_exact(tiny_text: Path, tmp_path: Path) -> None:
    spec = tiny_spec(tiny_text, task="fill", layers=2, dropout=0.3, fill_context=7)
    whole, broken = folder_of(tmp_path, "whole"), folder_of(tmp_path, "broken")
    expected = train(spec, whole, Session(say=quiet))
    for steps in (1, 40, 73, 2):
        calls = iter(range(1, steps + 1))
        with pytest.raises(Interrupted):
            train(spec, broken, Session(lambda calls=calls, last=steps: next(calls) == last, quiet))
    result = train(spec, broken, Session(say=quiet))
    assert without_times(result) == without_times(expected)
    assert history_of(broken) == history_of(whole)
    for name in ("best.safetensors", "test_nll.npy"):
        assert (broken.path / name).read_bytes() == (whole.path / name).read_bytes()


# A run through the command line, and what can be done with it.


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder with a language model and a fill-in model, of four rows, and a fill-in model
    of one row (`one-fill-...`)."""
    folder = tmp_path_factory.mktemp("filled")
    text = write_tiny_text(folder / "tiny.txt")
    (folder / "one.txt").write_bytes(text.read_bytes())
    columns = DatasetConfig(source="file", path=str(text), layout="columns")
    for name, changes in {
        "tiny": {"dataset": columns, "hidden_size": 12, "epochs": 6, "task": "lm"},
        "tiny, filled in": {"dataset": columns, "hidden_size": 12, "epochs": 6},
        "one": {"batch_size": 1, "epochs": 1, "fill_context": 4},
    }.items():
        file = folder / f"{name.split(',')[0]}.txt"
        spec = tiny_spec(file, "gru", **{"task": "fill"} | changes)
        run = RunFolder(folder / "runs" / spec.run_id)
        run.create()
        train(spec, run, Session(say=quiet))
    return folder


def test_it_fills_in_better_than_a_language_model_predicts(filled: Path) -> None:
    """The same characters at once: inside a word of this text both sides tell the byte."""
    fill, lm = (
        json.loads((run_of(filled, name) / "result.json").read_text())
        for name in ("tiny-fill", "tiny-gru")
    )
    assert (fill["task"], lm["task"]) == ("fill", "lm")
    assert fill["seconds_per_sampled_char"] is None
    assert lm["seconds_per_sampled_char"] > 0
    assert fill["num_test_chars"] == lm["num_test_chars"]
    assert fill["test_nats_per_char"] < lm["test_nats_per_char"] - 0.1
    nll_N = np.load(run_of(filled, "tiny-fill") / "test_nll.npy")
    assert nll_N.shape == (fill["num_test_chars"],)
    assert nll_N.mean(dtype=np.float64) == pytest.approx(fill["test_nats_per_char"], abs=1e-6)


@pytest.mark.parametrize("name", ["tiny-fill", "one-fill"])
def test_score_of_a_split_is_the_runs(filled: Path, name: str) -> None:
    run = load_trained(name, str(filled))
    for part in ("test", "val"):
        scores = score_split(run, part)
        assert scores.nats_per_char == pytest.approx(
            getattr(run.result, f"{part}_nats_per_char"), abs=1e-7
        )
    assert score_split(run, "test").num_chars == run.result.num_test_chars


def test_score_of_a_file(filled: Path, tmp_path: Path) -> None:
    """The test text of the run of one row, as a file, is the same stream; cuts do not matter."""
    run = load_trained("one-fill", str(filled))
    test = split_corpus(run.corpus(), "contiguous", [80, 10, 10], 1, 10).test
    symbols_N = np.append(test.x_BC[0], test.y_BC[0, -1])
    file = tmp_path / "test.txt"
    file.write_bytes(bytes(run.vocabulary[symbol] for symbol in symbols_N))
    scores = score_file(run, file)
    assert scores.num_chars == run.result.num_test_chars
    assert scores.nats_per_char == pytest.approx(run.result.test_nats_per_char, abs=1e-6)
    for length in (2, 3, 11, 15, 16):
        text_N = symbols_N[:length]
        whole = fill_nats(run.model(), [text_N], 10, 4)
        assert whole[0] == length - 1
        assert fill_nats(run.model(), [text_N[:1], text_N[1:1], text_N[1:]], 10, 4) == whole


def test_sample_and_the_scripts_for_language_models_refuse(filled: Path, charcmp: Charcmp) -> None:
    done = charcmp("sample", "run=tiny-fill", f"results_dir={filled}")
    assert done.returncode == 2
    assert "cannot generate text from left to right; use charcmp score" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert [run.run_id for run in runs_with_weights(filled, ["*"])] == [
        run_of(filled, "tiny-gru").name
    ]
    with pytest.raises(UserError, match="no language model with weights matches"):
        runs_with_weights(filled, ["*-fill-*"])


def test_a_foreign_context_is_refused(filled: Path, tmp_path: Path) -> None:
    result = json.loads((run_of(filled, "tiny-fill") / "result.json").read_text())
    result["identity"]["fill_context"] = 10**12
    folder = tmp_path / "runs" / result["run_id"]
    folder.mkdir(parents=True)
    for file in run_of(filled, "tiny-fill").iterdir():
        if file.is_file():
            (folder / file.name).write_bytes(file.read_bytes())
    (folder / "result.json").write_text(json.dumps(result))
    with pytest.raises(UserError, match="fill_context is 1000000000000"):
        load_trained("tiny-fill", str(tmp_path)).model()


def test_status_and_plan_keep_it_apart(filled: Path, charcmp: Charcmp) -> None:
    runs = Runs(str(filled), lease_seconds=60).look()
    assert sorted(str(run.task) for run in runs) == ["fill", "fill", "lm"]
    best = [line for line in overview(runs).splitlines() if line.startswith("best so far")]
    assert [" fill-in: GRU 1" in line for line in best] == [True, False, True]  # one, tiny, tiny
    sizes = json.loads(
        charcmp(
            *("params", "--json", "task=lm,fill", "dataset=wp"),
            *("budget=50k", "cell=lstm", "layers=1"),
        ).stdout
    )
    assert [(row["task"], row["hidden_size"]) for row in sizes] == [("lm", 64), ("fill", 38)]
    assert {row["target_params"] for row in sizes} == {44_823}
    plan = charcmp(
        *("sweep", "--dry-run", "--no-cost", "task=fill", "cell=lstm,gru", "layers=1"),
        *("budget=50k", "dataset=text", f"dataset.path={filled / 'tiny.txt'}"),
        *("batch_size=4", "unroll_steps=10"),
    )
    assert plan.stdout.count("tiny-fill-") == 2


def test_its_speed_can_be_measured(tiny_text: Path) -> None:
    """Of text predicted, not of text read; a shape of its own."""
    lm, fill = tiny_spec(tiny_text), tiny_spec(tiny_text, task="fill")
    assert measure_speed(fill, threads=1) > 0
    assert len({speed_key(spec.identity(), 14, "here") for spec in (lm, fill)}) == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "both"}, "task=both: one of lm, fill"),
        ({"task": "fill", "fill_context": 11}, "fill_context=11: must be at most unroll_steps=10"),
        ({"task": "fill", "fill_context": 0}, "fill_context=0: must be at least 1"),
    ],
)
def test_bad_values(tiny_text: Path, changes: dict, message: str) -> None:
    config = replace(tiny_spec(tiny_text).config, **changes)
    with pytest.raises(UserError, match=message):
        check(config)


@pytest.mark.parametrize("layout", ["columns", "contiguous"])
def test_a_corpus_too_short_for_a_context(tmp_path: Path, layout: str) -> None:
    """Long enough for a language model, with one chunk in a part: nothing would lie beyond it."""
    corpus = corpus_from_bytes("short", write_tiny_text(tmp_path / "tiny.txt").read_bytes()[:450])
    split_corpus(corpus, layout, [80, 10, 10], 4, 10)
    with pytest.raises(UserError) as raised:
        split_corpus(corpus, layout, [80, 10, 10], 4, 10, min_chunks=2)
    assert "450 characters are too few for task=fill batch_size=4 unroll_steps=10" in str(raised)
    assert "at least 2 chunks of 40 characters in each of train, validation and test" in str(raised)
    advised = re.search(r"; batch_size=(\d+) works", str(raised.value))
    assert advised
    split_corpus(corpus, layout, [80, 10, 10], int(advised[1]), 10, min_chunks=2)


def test_a_corpus_too_short_is_one_line(charcmp: Charcmp, tmp_path: Path) -> None:
    short = tmp_path / "short.txt"
    short.write_bytes(write_tiny_text(tmp_path / "tiny.txt").read_bytes()[:450])
    done = charcmp("train", "task=fill", "dataset=text", f"dataset.path={short}", *TINY)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("charcmp: short: 450 characters are too few for task=fill")
