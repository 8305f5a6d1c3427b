"""Scoring: a run's own test loss again, files against the evaluation, bounded memory."""

import json
import math
import os
import shutil
import threading
import weakref
from collections.abc import Callable, Iterator
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.console import TINY, Charcmp, call, run_of, write_tiny_text
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from charcmp.data.corpus import split_corpus
from charcmp.errors import UserError
from charcmp.inference.score import BLOCK_BYTES, read_blocks, score_file, score_split, stream_nats
from charcmp.inference.trained import TrainedRun, load_trained


@pytest.fixture(params=["tiny", "mixed"])
def run(request: pytest.FixtureRequest, trained: Path) -> TrainedRun:
    return load_trained(request.param, str(trained))


def test_the_test_split_scores_as_the_run_says(run: TrainedRun) -> None:
    """In rows (tiny: four, layout columns) as in one (mixed: contiguous)."""
    scores = score_split(run, "test")
    assert scores.nats_per_char == pytest.approx(run.result.test_nats_per_char, abs=1e-7)
    assert scores.num_chars == run.result.num_test_chars
    assert score_split(run, "val").nats_per_char == pytest.approx(
        run.result.val_nats_per_char, abs=1e-7
    )


def test_a_file_scores_as_the_evaluation_does(trained: Path, tmp_path: Path) -> None:
    """A run with one row: its warm-up and test text, as a file, are the same stream."""
    run = load_trained("mixed", str(trained))
    splits = split_corpus(run.corpus(), "contiguous", [80, 10, 10], 1, 10, scored_whole=True)
    test = splits.test
    symbols_N = np.append(test.x_BC[0], test.y_BC[0, -1])
    file = tmp_path / "test.txt"
    file.write_bytes(bytes(run.vocabulary[symbol] for symbol in symbols_N))
    scores = score_file(run, file)
    assert scores.num_chars == test.warm_up + run.result.num_test_chars
    num_warm, warm_nats = stream_nats(run.model(), [symbols_N[: test.warm_up + 1]])
    assert num_warm == test.warm_up
    scored_nats = scores.num_chars * scores.nats_per_char - warm_nats
    measured = scored_nats / run.result.num_test_chars
    assert measured == pytest.approx(run.result.test_nats_per_char, abs=1e-5)
    assert scores.perplexity == pytest.approx(math.exp(scores.nats_per_char))
    assert scores.bits_per_char == pytest.approx(scores.nats_per_char / math.log(2))


def test_where_a_text_is_cut_does_not_matter(trained: Path) -> None:
    run = load_trained("tiny", str(trained))
    symbols_N = run.encode(b"the cat sat on the mat and ran to the dog " * 60)  # over STEPS
    whole = stream_nats(run.model(), [symbols_N])
    rng = np.random.default_rng(0)
    cuts = [0, 0, 1, 2, *np.sort(rng.integers(3, len(symbols_N), 20)), len(symbols_N)]
    pieces = [symbols_N[a:b] for a, b in pairwise(cuts)]
    num_chars, nats = stream_nats(run.model(), pieces)
    assert num_chars == whole[0] == len(symbols_N) - 1
    assert nats == pytest.approx(whole[1], rel=1e-6)

    model = run.model()  # and it is the model's loss, plainly
    x_TB = torch.tensor(symbols_N[:-1], dtype=torch.int64).unsqueeze(1)
    log_probs_TBV = torch.log_softmax(model(x_TB, model.zero_state(1))[0], 2)
    y_TBV = torch.tensor(symbols_N[1:], dtype=torch.int64).view(-1, 1, 1)
    assert -float(log_probs_TBV.detach().gather(2, y_TBV).sum()) == pytest.approx(nats, rel=1e-5)


def test_unknown_bytes(charcmp: Charcmp, trained: Path, tmp_path: Path) -> None:
    run = load_trained("tiny", str(trained))
    file = tmp_path / "other.txt"
    file.write_text("the cat, the dog & the sun!")
    with pytest.raises(UserError, match=r"other\.txt: 0x21 0x26 0x2c: not .*unknown_bytes=skip"):
        score_file(run, file)
    plain = tmp_path / "plain.txt"
    plain.write_text("the cat the dog  the sun")
    expected = score_file(run, plain)
    args = [f"results_dir={trained}", "run=tiny", str(file), "unknown_bytes=skip"]
    skipped = json.loads(charcmp("score", *args, "--json").stdout)
    assert skipped == asdict(expected) | {"text": str(file), "num_skipped": 3}
    printed = charcmp("score", *args).stdout
    assert f"{expected.nats_per_char:.4f} nats/char" in printed
    assert "note: left out 3 bytes" in printed


@pytest.mark.parametrize("text", ["t", "!!t!!", "!!"])
def test_nothing_to_predict(trained: Path, tmp_path: Path, text: str) -> None:
    file = tmp_path / "short.txt"
    file.write_text(text)
    with pytest.raises(UserError, match="fewer than two bytes to score"):
        score_file(load_trained("tiny", str(trained)), file, skip_unknown=True)


def test_the_split_through_the_command_line(charcmp: Charcmp, trained: Path) -> None:
    result = json.loads((run_of(trained, "tiny") / "result.json").read_text())
    done = charcmp("score", f"results_dir={trained}", "run=tiny", "split=test")
    assert f"tiny, test: {result['test_nats_per_char']:.4f} nats/char" in done.stdout
    assert f"over {result['num_test_chars']:,} characters, under tiny-lstm-" in done.stdout


def test_memory_does_not_grow_with_the_file(trained: Path, tmp_path: Path) -> None:
    """A file is read piece by piece, and of the pieces at most the last two are kept."""
    file = tmp_path / "huge.txt"
    with file.open("wb") as sparse:
        sparse.truncate(1 << 35)
    assert len(next(read_blocks(file))) == BLOCK_BYTES

    run = load_trained("tiny", str(trained))
    given: list[weakref.ref] = []

    def pieces() -> Iterator[np.ndarray]:
        for _ in range(50):
            piece_N = run.encode(b"the cat sat on ")
            given.append(weakref.ref(piece_N))
            yield piece_N
            del piece_N
            assert sum(piece() is not None for piece in given) <= 2

    assert stream_nats(run.model(), pieces())[0] == 50 * 15 - 1


def test_a_pipe_is_read_but_nothing_waits_for_its_writer(trained: Path, tmp_path: Path) -> None:
    run = load_trained("tiny", str(trained))
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(UserError, match="pipe: the file is empty"):
        score_file(run, pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)  # so that the writer need not wait
    writer = os.open(pipe, os.O_WRONLY)
    os.write(writer, b"the cat sat")
    scorer = threading.Timer(0.5, lambda: os.close(writer))
    scorer.start()
    try:
        assert score_file(run, pipe).num_chars == len("the cat sat") - 1
    finally:
        scorer.join()
        os.close(reader)


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/null"])
def test_no_device_is_scored(trained: Path, device: str) -> None:
    with pytest.raises(UserError, match=f"{device}: a device, not a regular file"):
        score_file(load_trained("tiny", str(trained)), Path(device))


@pytest.mark.parametrize("start", ["relative", "absolute", "data_dir", "gone", "changed"])
def test_the_text_of_a_run_is_found_from_another_folder(
    charcmp: Charcmp, tiny_text: Path, tmp_path: Path, start: str
) -> None:
    """The run is named by its folder; its configuration has the text's path as it was typed."""
    work = tmp_path / "work"
    named = tiny_text if start == "absolute" else tiny_text.rename(work / tiny_text.name)
    path = named if start == "absolute" else named.name
    args = ["dataset=text", f"dataset.path={path}", *TINY, "epochs=1", "cell=rnn"]
    assert charcmp("train", *args, "results_dir=r").returncode == 0
    (folder,) = (work / "r" / "runs").iterdir()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    complaint = None
    if start in ("data_dir", "gone"):
        named.rename(elsewhere / named.name)
        complaint = "its text was not found; looked for" if start == "gone" else None
    if start == "changed":
        (elsewhere / named.name).write_text("another text of the same name")  # passed over
        named.write_text("another text")
        complaint = f"{named} is not the run's text"
    (tmp_path / "run").symlink_to(folder)
    options = [f"data_dir={elsewhere}"] if start == "data_dir" else []
    done = call(
        *("score", f"run={tmp_path / 'run'}", "split=test", *options),
        cwd=elsewhere if start == "changed" else tmp_path,
        env={"CHARCMP_DATA": ""},
    )
    if complaint is None:
        assert (done.returncode, done.stderr) == (0, "")
        assert "tiny, test:" in done.stdout
    else:
        assert done.returncode == 2
        assert complaint in done.stderr.splitlines()[0]
        assert len(done.stderr.splitlines()) == 1


def test_a_score_unlike_the_recorded_one_is_told(
    charcmp: Charcmp, trained: Path, tmp_path: Path
) -> None:
    run = run_of(trained, "tiny")
    copy = shutil.copytree(run, tmp_path / "runs" / run.name)
    result = json.loads((run / "result.json").read_text())
    for test_nats, is_told in ((result["test_nats_per_char"], False), (0.5, True)):
        (copy / "result.json").write_text(json.dumps(result | {"test_nats_per_char": test_nats}))
        shown = charcmp("score", f"run={copy}", "split=test").stdout
        assert ("note: its result.json says 0.5000 nats/char" in shown) == is_told


@pytest.mark.long
def test_an_unusable_file_does_not_hide_the_right_text(
    charcmp_process: Charcmp, tiny_text: Path, tmp_path: Path
) -> None:
    """The first place has an empty file, then a folder; data_dir= names the right one."""
    first, right = tmp_path / "work" / "my.txt", tmp_path / "right"
    shutil.copy(tiny_text, first)
    args = ["dataset=text", "dataset.path=my.txt", *TINY, "epochs=1", "cell=rnn"]
    assert charcmp_process("train", *args).returncode == 0
    right.mkdir()
    first.rename(right / "my.txt")
    score = ["score", "run=my", "split=test"]
    first.touch()
    done = charcmp_process(*score, f"data_dir={right}")
    assert (done.returncode, done.stderr) == (0, "")
    first.unlink()
    first.mkdir()
    done = charcmp_process(*score, f"data_dir={right}")
    assert (done.returncode, done.stderr) == (0, "")
    done = charcmp_process(*score)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert f"{first} cannot be used ({first}: a folder, not a file)" in line
    assert "set data_dir= to the folder of the right one" in line


def test_a_file_whose_name_looks_like_a_key(
    charcmp: Charcmp, trained: Path, tmp_path: Path
) -> None:
    args = [f"results_dir={trained}", "run=tiny", "--json"]
    for name in ("a=b.txt", "split=test"):
        (tmp_path / "work" / name).write_text("the cat sat")
    assert json.loads(charcmp("score", *args, "a=b.txt").stdout)["text"] == "a=b.txt"
    # A key of the command is one even where a file is called so.
    assert json.loads(charcmp("score", *args, "split=test").stdout)["text"] == "tiny, test"
    assert "c=d.txt: not understood" in charcmp("score", *args, "c=d.txt").stderr


def spoiled(run: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    """Changes the weights of a run."""
    file = run / "best.safetensors"
    with safe_open(file, framework="pt") as stored:
        metadata = stored.metadata()
    weights = load_file(file)
    change(weights)
    save_file(weights, file, metadata)


def strictly(text: str) -> dict:
    def refuse(constant: str) -> None:
        raise ValueError(constant)

    return json.loads(text, parse_constant=refuse)


def test_a_model_that_is_very_wrong_has_a_loss_but_no_perplexity(
    charcmp: Charcmp, trained: Path, tmp_path: Path
) -> None:
    run = run_of(trained, "tiny")
    copy = shutil.copytree(run, tmp_path / "runs" / run.name)
    spoiled(copy, lambda weights: weights["decoder.weight"].mul_(1e6))
    (tmp_path / "work" / "my.txt").write_text("the cat sat on the mat")
    scored = strictly(charcmp("score", f"run={copy}", "my.txt", "--json").stdout)
    assert scored["nats_per_char"] > 710
    assert scored["perplexity"] is None
    assert "perplexity too large, " in charcmp("score", f"run={copy}", "my.txt").stdout


@pytest.fixture(scope="module")
def growing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of a relu RNN whose state doubles with every character."""
    folder = tmp_path_factory.mktemp("growing")
    text = write_tiny_text(folder / "tiny.txt")
    args = ["dataset=text", f"dataset.path={text}", *TINY, "epochs=1", "cell=rnn"]
    call("train", *args, "cell.activation=relu", cwd=folder, env={}).check_returncode()
    (run,) = (folder / "results" / "runs").iterdir()

    def doubles(weights: dict[str, torch.Tensor]) -> None:
        weights["cells.0.weights.weight_hh_l0"].copy_(2 * torch.eye(8))
        weights["cells.0.weights.bias_hh_l0"].fill_(1.0)

    spoiled(run, doubles)
    return run


def test_a_state_that_overflows_is_told_in_one_line(
    charcmp: Charcmp, growing: Path, tmp_path: Path
) -> None:
    text = tmp_path / "work" / "long.txt"
    text.write_text("the cat sat on the mat " * 20)
    for args, complaint in {
        ("score", str(text)): "its loss is not finite, because the state of tiny-rnn",
        ("score", "split=test", f"data_dir={growing}"): "tiny, test: its loss is not finite",
        ("sample", "length=1000000", "seed=1"): "the model's state overflowed: its outputs",
    }.items():
        done = charcmp(args[0], f"run={growing}", *args[1:])
        assert done.returncode == 2
        (line,) = done.stderr.splitlines()
        assert complaint in line
    assert 100 < len(done.stdout) < 200  # what was drawn until then
