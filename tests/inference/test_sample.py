"""Sampling: the draws, the bytes on their way to a reader, runs that cannot be sampled from."""

import io
import os
import pty
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from helpers.console import Charcmp, Ended, command, in_turn, run_of
from safetensors.torch import load_file, save_file

from charcmp.cli.options import SampleOptions, parse
from charcmp.cli.sample import decoded, harmless, write
from charcmp.errors import UserError
from charcmp.inference.find import find_run
from charcmp.inference.trained import TrainedRun, load_trained
from charcmp.models.sampling import draw, generate


@pytest.fixture
def tiny(trained: Path) -> TrainedRun:
    return load_trained("tiny", str(trained))


def text_of(run: TrainedRun, prime: str, **options) -> str:
    options = {"length": 30, "temperature": 1.0} | options
    symbols = generate(run.model(), run.encode(prime.encode()), **options)
    return bytes(run.vocabulary[symbol] for symbol in symbols).decode()


@torch.no_grad()
def most_likely(run: TrainedRun, prime: str, length: int) -> str:
    """The argmax, the whole text read anew for every byte."""
    text = prime.encode()
    model = run.model()
    for _ in range(length):
        x_TB = torch.tensor(run.encode(text), dtype=torch.int64).unsqueeze(1)
        logits_TBV, _ = model(x_TB, model.zero_state(1))
        text += bytes([run.vocabulary[int(logits_TBV[-1, 0].argmax())]])
    return text[len(prime) :].decode()


@pytest.mark.parametrize("options", [{"temperature": 1e-300}, {"temperature": 9.0, "top_k": 1}])
def test_temperature_towards_zero_and_one_candidate_give_the_argmax(
    tiny: TrainedRun, options: dict
) -> None:
    assert text_of(tiny, "the d", **options) == most_likely(tiny, "the d", 30)


def test_a_seed_is_a_text(tiny: TrainedRun) -> None:
    texts = [text_of(tiny, prime, seed=seed) for prime in ("", "the ") for seed in (0, 0, 1)]
    assert texts[0] == texts[1] != texts[2]
    assert texts[3] == texts[4] != texts[5]
    assert len({len(text) for text in texts} | {30}) == 1


def test_without_a_prime_the_first_byte_is_drawn_uniformly(tiny: TrainedRun) -> None:
    first = {text_of(tiny, "", length=1, seed=seed, temperature=1e-9) for seed in range(150)}
    assert first == {chr(byte) for byte in tiny.vocabulary}


@pytest.mark.parametrize(("temperature", "top_k"), [(1.0, 5), (0.5, 5), (2.0, 3)])
def test_draws_follow_the_softmax(temperature: float, top_k: int) -> None:
    logits_V = torch.tensor([0.3, 2.0, -1.0, 1.2, 0.0])
    generator = torch.Generator().manual_seed(0)
    counts = Counter(draw(logits_V, temperature, top_k, generator) for _ in range(20_000))
    kept_V = logits_V.where(logits_V >= logits_V.sort().values[-top_k], torch.tensor(-torch.inf))
    for symbol, probability in enumerate(torch.softmax(kept_V / temperature, 0).tolist()):
        sd = (probability * (1 - probability) / 20_000) ** 0.5
        assert abs(counts[symbol] / 20_000 - probability) <= 4 * sd


def test_characters_of_several_bytes_come_whole() -> None:
    pieces = [bytes([byte]) for byte in "aß私🙂".encode()]
    assert list(decoded(pieces)) == ["a", "ß", "私", "🙂", ""]
    broken = [b"a", b"\xff", b"\xe7", b"\xa7", b"b", b"\xe7"]
    assert "".join(decoded(broken)) == "a\ufffd\ufffdb\ufffd"


def test_no_control_character_is_harmless() -> None:
    every = "".join(map(chr, range(0x100))) + "私\u200d🙂"
    shown = harmless(every)
    assert {char for char in shown if not char.isprintable()} == set("\n\t\xa0\xad\u200d")
    assert harmless("\x1b[2J\x9b31m\r\n") == r"\x1b[2J\x9b31m" + "\n"


@pytest.mark.long
def test_a_terminal_gets_no_escape_sequence_and_a_pipe_exact_text(trained: Path) -> None:
    args = [f"results_dir={trained}", "run=mixed", "temperature=50", "length=400", "prime=\x1b[31m"]
    ours, theirs = pty.openpty()
    process = subprocess.Popen(command("sample", *args), stdout=theirs, stderr=subprocess.PIPE)
    os.close(theirs)
    shown = b""
    try:
        while piece := os.read(ours, 4096):
            shown += piece
    except OSError:  # the other end is closed
        pass
    os.close(ours)
    assert process.wait() == 0, process.stderr.read()
    process.stderr.close()
    assert shown.startswith(rb"\x1b[31m")
    assert b"\x1b" not in shown.decode().encode()
    assert not set(shown) & (set(range(0x20)) - set(b"\t\r\n"))  # the terminal adds \r itself

    piped, raw = (
        subprocess.run(command("sample", *args, *more), capture_output=True, check=True).stdout
        for more in ([], ["raw=true"])
    )
    assert len(raw) == 405
    assert set(raw) <= set(load_trained("mixed", str(trained)).vocabulary)
    assert piped == raw.decode(errors="replace").encode()
    assert "\ufffd" in piped.decode()


def test_in_a_terminal_an_error_begins_on_a_line_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    def symbols() -> Iterator[int]:
        yield 1
        raise UserError("overflowed")

    monkeypatch.setattr(sys, "stdout", terminal := Terminal())
    with pytest.raises(UserError):
        write(symbols(), b"ab", b"a", raw=False)
    assert terminal.getvalue() == "ab\n"


def test_it_streams(trained: Path) -> None:
    args = [f"results_dir={trained}", "run=tiny", "length=100000000", "prime=the "]
    process = subprocess.Popen(command("sample", *args), stdout=subprocess.PIPE)
    assert process.stdout.read(50).startswith(b"the ")
    process.terminate()
    process.wait()
    process.stdout.close()


def test_a_value_is_taken_as_typed() -> None:
    for text in ("a=b, [c] ${d} 'e", "null", "", "true"):
        assert parse(["run=x", f"prime={text}"], SampleOptions).prime == text
    assert parse(["run=x", "top_k=null", "raw=true"], SampleOptions) == SampleOptions("x", raw=True)


# Of sample and score, all told before torch is loaded.
BAD = {
    "no run": (["sample"], "sample needs a run"),
    "temperature 0": (["sample", "run=tiny", "temperature=0"], "temperature=0.0: must be positive"),
    "temperature below 0": (
        ["sample", "run=tiny", "temperature=-1"],
        "must be positive and finite",
    ),
    "temperature NaN": (["sample", "run=tiny", "temperature=nan"], "temperature=nan: must be"),
    "temperature inf": (["sample", "run=tiny", "temperature=inf"], "positive and finite"),
    "temperature word": (["sample", "run=tiny", "temperature=hot"], "hot: not a number"),
    "top_k 0": (["sample", "run=tiny", "top_k=0"], "top_k=0: must be at least 1"),
    "length 0": (["sample", "run=tiny", "length=0"], "length=0: must be at least 1"),
    "length half": (["sample", "run=tiny", "length=1.5"], "length=1.5: not a whole number"),
    "seed": (["sample", "run=tiny", "seed=-1"], "seed=-1: must be in [0, 2^63)"),
    "raw": (["sample", "run=tiny", "raw=1"], "raw=1: true or false"),
    "key": (["sample", "run=tiny", "temp=1"], "temp=1: not understood; charcmp sample --help"),
    "a file": (["sample", "run=tiny", "some.txt"], "some.txt: not understood"),
    "a flag": (["sample", "run=tiny", "--raw"], "--raw: not understood; did you mean raw?"),
    "twice": (["sample", "run=tiny", "seed=1", "seed=2"], "seed=2: seed is given twice"),
    "prime": (["sample", "run=tiny", "prime=the ß!"], "prime='the ß!': 0x21 0x9f 0xc3: not among"),
    "unknown run": (["sample", "run=wp-lstm"], "run=wp-lstm: no run id in"),
    "a folder above": (["sample", "run=.."], "run=..: .. is not a run's folder"),
    "score: no run": (["score", "some.txt"], "score needs a run"),
    "score: no file": (["score", "run=tiny"], "needs either a FILE or split=test"),
    "score: both": (
        ["score", "run=tiny", "a.txt", "split=test"],
        "needs either a FILE or split=test",
    ),
    "score: missing": (["score", "run=tiny", "no-such.txt"], "no-such.txt: no such file"),
    "score: a folder": (["score", "run=tiny", "/"], "/: a folder, not a file"),
    "score: empty": (["score", "run=tiny", "/dev/null"], "/dev/null: a device, not a regular file"),
    "score: a flag": (["score", "run=tiny", "--josn"], "--josn: not understood"),
    "score: a mistyped key": (["score", "run=tiny", "spilt=test"], "did you mean split?"),
    "score: split": (
        ["score", "run=tiny", "split=tst"],
        "one of train, val, test, or null; did you mean test?",
    ),
    "score: no effect": (
        ["score", "run=tiny", "split=val", "unknown_bytes=skip"],
        "no effect on a",
    ),
    "score: bytes": (["score", "run=tiny", __file__], "...: not among the 14 bytes of tiny-lstm"),
}


@pytest.fixture(scope="module")
def complaints(trained: Path) -> dict[str, Ended]:
    """What each bad command line ends in, all in one process."""
    lines = [[*args, f"results_dir={trained}"] for args, _ in BAD.values()]
    return dict(zip(BAD, in_turn(*lines, cwd=trained), strict=True))


@pytest.mark.parametrize("case", BAD)
def test_bad_command_lines(complaints: dict[str, Ended], case: str) -> None:
    done = complaints[case]
    assert done.returncode == 2
    assert BAD[case][1] in done.stderr
    assert done.stderr.startswith("charcmp: ")
    assert done.stderr.count("\n") == 1
    assert "torch" not in done.loaded


@pytest.fixture
def copied(trained: Path, tmp_path: Path) -> Path:
    """A run's folder to spoil, tmp_path/runs/tiny-..."""
    run = run_of(trained, "tiny")
    shutil.copytree(run, tmp_path / "runs" / run.name)
    return tmp_path / "runs" / run.name


def replaced(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


SPOILED = {
    "not finished": (lambda run: (run / "result.json").unlink(), "not finished; charcmp status"),
    "diverged": (
        lambda run: replaced(run / "result.json", '"done"', '"diverged"'),
        "diverged, so it has no weights",
    ),
    "corrupt result": (lambda run: (run / "result.json").write_text("{"), "not valid JSON"),
    "published": (lambda run: (run / "best.safetensors").unlink(), "only those in results/weights"),
    "corrupt weights": (
        lambda run: (run / "best.safetensors").write_bytes(b"\0" * 99),
        "best.safetensors: unreadable",
    ),
    "another cell": (
        lambda run: replaced(run / "config.yaml", "name: lstm", "name: gru"),
        "do not fit together (4,462 weights for 3,406 parameters)",
    ),
    "more layers": (
        lambda run: replaced(run / "result.json", '"layers": 2', '"layers": 1000000000000'),
        "result.json: layers: Expected int <= 1000",
    ),
    "code in the configuration": (
        lambda run: (run / "config.yaml").write_text("a: !!python/object/apply:os.abort []"),
        "config.yaml: unreadable (ConstructorError)",
    ),
    "a target in the configuration": (
        lambda run: replaced(run / "config.yaml", "name: lstm", "name: lstm\n  _target_: os.abort"),
        "unexpected keyword argument '_target_'",
    ),
    "no configuration": (
        lambda run: (run / "config.yaml").write_text("cell: lstm"),
        "not the configuration of a run",
    ),
}


@pytest.mark.parametrize(("spoil", "complaint"), SPOILED.values(), ids=list(SPOILED))
def test_runs_that_cannot_be_used(copied: Path, spoil, complaint: str) -> None:
    spoil(copied)
    with pytest.raises(UserError) as raised:
        load_trained("tiny", str(copied.parents[1])).model()
    assert complaint in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_run_by_id_by_its_beginning_or_by_path(copied: Path, monkeypatch) -> None:
    results = str(copied.parents[1])
    other = copied.with_name(copied.name + "-more")
    shutil.copytree(copied, other)
    assert load_trained(copied.name, results).folder.path == copied
    assert load_trained(other.name[:-1], results).folder.path == other
    assert load_trained(str(copied), "elsewhere").folder.path == copied
    monkeypatch.chdir(copied)
    assert load_trained(".", results).run_id == copied.name
    complaint = rf"2 finished runs begin with this: {copied.name}, {other.name}$"
    with pytest.raises(UserError, match=complaint):
        load_trained("tiny", results)


def test_a_run_needs_no_corpus(copied: Path) -> None:
    replaced(copied / "config.yaml", "tiny.txt", "gone.txt")
    run = load_trained("tiny", str(copied.parents[1]))
    assert run.vocabulary == b" acdeghmnorstu"
    with pytest.raises(UserError, match=r"its text was not found; looked for .*gone\.txt"):
        run.corpus()


def test_a_run_of_an_earlier_version_takes_its_vocabulary_from_the_corpus(copied: Path) -> None:
    save_file(load_file(copied / "best.safetensors"), copied / "best.safetensors")
    results = str(copied.parents[1])
    assert load_trained("tiny", results).vocabulary == b" acdeghmnorstu"
    other = copied / "other.txt"
    other.write_text("another text")
    before = (copied / "config.yaml").read_text()
    complaints = {other: "other.txt is not the run's text", "gone": "was not found; looked for"}
    for path, complaint in complaints.items():
        text = "".join(
            f"  path: {path}\n" if line.startswith("  path:") else line
            for line in before.splitlines(keepends=True)
        )
        (copied / "config.yaml").write_text(text)
        with pytest.raises(UserError, match=rf"stored no vocabulary; .*{complaint}"):
            load_trained("tiny", results)


def test_more_candidates_than_bytes(charcmp: Charcmp, trained: Path) -> None:
    args = [f"results_dir={trained}", "run=tiny", "length=5", "prime=the"]
    plain, wide = charcmp("sample", *args), charcmp("sample", *args, "top_k=14")
    assert plain.stdout == wide.stdout
    assert wide.stderr == "note: top_k=14 has no effect: the run's vocabulary has only 14 bytes\n"
    assert "temperature=1 " in charcmp("sample", "--help").stdout


def test_the_finished_one_of_several_runs_is_taken(trained: Path, tmp_path: Path) -> None:
    run = run_of(trained, "tiny")
    names = {"done": "tiny-a", "failed": "tiny-b", "interrupted": "tiny-c", "waiting": "tiny-d"}
    for name in names.values():
        shutil.copytree(run, tmp_path / "runs" / name)
    for state in ("failed", "interrupted", "waiting"):
        (tmp_path / "runs" / names[state] / "result.json").unlink()
        (tmp_path / "runs" / names[state] / "checkpoint.pt").unlink(missing_ok=True)
    (tmp_path / "runs/tiny-b/failure.json").write_text('{"reason": "out of memory"}')
    (tmp_path / "runs/tiny-c/checkpoint.pt").touch()
    results = str(tmp_path)
    assert find_run("tiny", results).name == "tiny-a"
    for name, complaint in {
        "tiny-b": "run=tiny-b: failed, so it has no weights: out of memory",
        "tiny-c": "run=tiny-c: interrupted, not finished; charcmp status shows",
        "tiny-d": "run=tiny-d: waiting, not finished; charcmp status shows",
    }.items():
        with pytest.raises(UserError, match=complaint):
            load_trained(name, results)
    shutil.rmtree(tmp_path / "runs/tiny-a")
    with pytest.raises(UserError) as raised:
        find_run("tiny", results)
    assert str(raised.value) == (
        "run=tiny: 3 runs, none of them finished, begin with this: tiny-b (failed), "
        "tiny-c (interrupted), tiny-d (waiting)"
    )


@pytest.mark.parametrize(
    "results_dir", ["x" * 5000, "/dev/null", "a\0b"], ids=["long", "file", "nul"]
)
def test_a_results_folder_that_cannot_be(results_dir: str) -> None:
    complaint = r"no run id in .* begins with this, and it is not a folder"
    with pytest.raises(UserError, match=complaint):
        find_run("t", results_dir)
