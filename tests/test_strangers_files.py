"""Run folders of strangers: whatever a file in one is, every command ends with a line, not a
traceback, and shows the good run beside it."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import random
import shutil
import signal
import socket
import zipfile
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.console import Charcmp, write_tiny_text
from helpers.runs import TEXTS, losses, report_texts, write_run
from helpers.training import tiny_spec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from charcmp.cli.status import print_status
from charcmp.config.spec import RunSpec
from charcmp.errors import Interrupted, UserError
from charcmp.files import canonical_json
from charcmp.inference.score import score_file
from charcmp.inference.trained import load_trained
from charcmp.models import sampling
from charcmp.models.sampling import generate
from charcmp.report.load import load_runs
from charcmp.report.make import make_report
from charcmp.runs.folder import RunFolder
from charcmp.runs.reading import MAX_MESSAGE, CorruptFileError
from charcmp.runs.result import Progress
from charcmp.training.attempt import train_one
from charcmp.training.session import Session
from charcmp.uncertainty.losses import pack

LEASE_SECONDS = 0.3
TINY = {"epochs": 2, "batch_size": 16, "lease_seconds": LEASE_SECONDS}
SECONDS = 60  # that a case may take; a command that opens a pipe would wait for ever


class Folders:
    """A finished run, the same one interrupted, and a good one of a stranger to both."""

    def __init__(self, path: Path) -> None:
        self.path = path
        text = write_tiny_text(path / "tiny.txt")
        self.spec: RunSpec = tiny_spec(text, "rnn", results_dir=str(path), **TINY)
        folder = RunFolder(path / "runs" / self.spec.run_id)
        # It stops in its second epoch: each asks 20 times in training and 41 times in validation.
        # By then there are RMSProp's averages and the best weights.
        steps = iter(range(70))
        with pytest.raises(Interrupted):
            train_one(self.spec.config, Session(lambda: next(steps, None) is None, quiet))
        self.interrupted = path / "interrupted"
        shutil.copytree(folder.path, self.interrupted)
        self.whole = train_one(self.spec.config, Session(lambda: False, quiet))
        self.finished = folder.path
        nll = np.load(folder.test_nll)
        (self.finished / "test_blocks.npz").write_bytes(
            pack(nll, self.spec.batch_size, self.spec.unroll_steps)
        )
        (self.finished / "log.txt").write_text("a log\n")
        folder.write_progress(Progress(**self.spec.row(), epoch=2, epochs=2, fraction=1.0))
        folder.write_failure("killed")
        self.good = write_run(path / "good", 1.5, nll=losses())

    def copy(self, to: Path, run: Path) -> Path:
        """A results folder with the run and the good one; returns the run's folder."""
        shutil.copytree(self.good, to / "runs" / self.good.name)
        shutil.copytree(run, to / "runs" / self.spec.run_id)
        return to / "runs" / self.spec.run_id


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    return Folders(tmp_path_factory.mktemp("strangers"))


@pytest.fixture(autouse=True)
def _in_time(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(sampling, "SPEED_CHARS", 5)  # drawn after each of some 300 trainings
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)


def quiet(line: str) -> None:
    assert line.isprintable()


def replaced_by(make: Callable[[Path], Any]) -> Callable[[Path], Any]:
    def spoil(file: Path) -> None:
        file.unlink(missing_ok=True)
        make(file)

    return spoil


def sparse(file: Path) -> None:
    with file.open("wb") as opened:
        opened.truncate(1 << 40)


def bind(file: Path) -> None:
    here = Path.cwd()
    os.chdir(file.parent)  # a socket's name is short
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(file.name)
    os.chdir(here)


def link_out(file: Path) -> None:
    outside = file.parents[2] / f"outside-{file.name}"
    shutil.copy(file, outside)  # as good a file as there can be
    file.unlink()
    file.symlink_to(outside)


def recoded(file: Path) -> None:
    file.write_bytes(file.read_bytes().decode("latin-1").encode("utf-16"))


def writes(contents: bytes) -> Callable[[Path], Any]:
    return replaced_by(lambda file: file.write_bytes(contents))


KINDS: dict[str, Callable[[Path], Any]] = {
    "empty": writes(b""),
    "truncated": lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2]),
    "random": writes(random.Random(0).randbytes(5000)),
    "null": writes(b"null"),
    "number": writes(b"1" + b"0" * 400),
    "list": writes(b'["\\u001b[2J", {}]'),
    "object": writes(b'{"\\u001b[2J": null, "cell": {"name": []}, "reason": {}, "epoch": "x"}'),
    "deep": writes(b"[" * 100_000 + b"]" * 100_000),
    "deep objects": writes(b'{"a":' * 100_000),
    "recoded": recoded,
    "huge": replaced_by(sparse),
    "folder": replaced_by(lambda file: (file.mkdir(), (file / "x").touch())),
    "pipe": replaced_by(os.mkfifo),
    "socket": replaced_by(bind),
    "link out of the folder": link_out,
    "link to nothing": replaced_by(lambda file: file.symlink_to("nothing")),
    "link to itself": replaced_by(lambda file: file.symlink_to(file.name)),
    "device": replaced_by(lambda file: file.symlink_to("/dev/zero")),
}
FILES = (
    *("result.json", "history.json", "environment.json", "config.yaml", "progress.json"),
    *("failure.json", "checkpoint.pt", "best.safetensors", "test_nll.npy", "test_blocks.npz"),
    *("owner", "log.txt"),
)
JSON_KINDS = {"null", "number", "list", "object", "deep", "deep objects"}
# To what reads these, JSON is as far from a good file as random bytes are.
NO_JSON = {"checkpoint.pt", "best.safetensors", "test_nll.npy", "test_blocks.npz", "log.txt"}
CASES = [
    (name, kind)
    for name, kind in product(FILES, KINDS)
    if not (name in NO_JSON and kind in JSON_KINDS)
]


def in_one_line(command: Callable[[], Any]) -> None:
    """The command ends well, or with one line that no terminal obeys."""
    said = ""
    try:
        command()
    except UserError as error:
        said = str(error)
    assert said.isprintable()


def use(run: Path, text: Path) -> None:
    """`charcmp sample` and `charcmp score`, from the loading on."""

    def sample() -> None:
        trained = load_trained(run.name, str(run.parents[1]))
        assert len(list(generate(trained.model(), trained.encode(b"the"), 3, 1.0))) == 3

    in_one_line(sample)
    in_one_line(lambda: score_file(load_trained(run.name, str(run.parents[1])), text))


def look(
    results: Path,
    good: str,
    capsys: pytest.CaptureFixture[str],
    formats: Sequence[str] = TEXTS,
) -> str:
    """`charcmp status` and `charcmp report`; returns what the report says on stderr."""
    capsys.readouterr()
    print_status(str(results), LEASE_SECONDS, as_json=False)
    printed = capsys.readouterr().out
    assert printed.replace("\n", "").isprintable()
    assert good in printed
    make_report(results, formats=formats)
    out, err = capsys.readouterr()
    assert (out + err).replace("\n", "").isprintable()
    with (results / "report" / "entries.csv").open() as file:
        assert good in [row["run_ids"] for row in csv.DictReader(file)]
    return err


def resumed(folders: Folders, results: Path) -> None:
    """The run is trained to its end, to the bit, whatever was in its folder."""
    text = folders.path / "tiny.txt"
    config = tiny_spec(text, "rnn", results_dir=str(results), **TINY).config
    result = train_one(config, Session(lambda: False, quiet))
    assert result.test_nats_per_char == folders.whole.test_nats_per_char
    assert RunFolder(results / "runs" / result.run_id).read_result() == result


@pytest.mark.long
@pytest.mark.parametrize(("name", "kind"), CASES)
def test_every_file_of_every_kind(
    folders: Folders,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    kind: str,
) -> None:
    run = folders.copy(tmp_path, folders.finished)
    if not (run / name).exists():
        (run / name).write_text("1\nhost\n")  # the lease of a run that is finished
    if name == "test_blocks.npz":
        (run / "test_nll.npy").unlink()
    KINDS[kind](run / name)
    said = look(tmp_path, folders.good.name, capsys, formats=["csv"])  # nothing of it is shown
    for line in said.splitlines():
        assert f"{run / name}: " in line
    use(run, folders.path / "tiny.txt")
    if name != "result.json":
        (run / "result.json").unlink()
    outside = tmp_path / f"outside-{name}"
    before = outside.read_bytes() if outside.exists() else None
    resumed(folders, tmp_path)
    assert before is None or outside.read_bytes() == before


def test_a_good_folder_is_read_in_all_its_files(
    folders: Folders, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The table's cases fail by what is bad in them, not by the folder that they start from."""
    run = folders.copy(tmp_path, folders.finished)
    assert look(tmp_path, folders.good.name, capsys) == ""
    use(run, folders.path / "tiny.txt")
    (loaded,) = [one for one in load_runs(tmp_path / "runs").runs if one.run_id == run.name]
    assert loaded.losses is not None
    assert len(loaded.history) == 2
    assert loaded.environment.corpus.num_chars == folders.spec.corpus.num_chars
    shutil.rmtree(run)
    shutil.copytree(folders.interrupted, run)
    resumed(folders, tmp_path)


# Results that parse.

WRONG = (
    *(None, [], {}, "", "\x1b]0;owned\x07", "\u202egnp", "<script>", 10**400, -1, 1.5, True),
    *([[]], {"a": {}}, "x" * 5000),
)
NUMBERS = {
    *("schema_version", "protocol_version", "num_symbols", "layers", "hidden_size", "num_params"),
    *("target_params", "seed", "dropout", "epochs", "batch_size", "unroll_steps"),
    *("num_test_chars", "seconds_train", "chars_per_second"),
}


@settings(max_examples=60, deadline=None, derandomize=True, database=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
@given(data=st.data())
def test_a_result_is_refused_or_can_be_shown(
    folders: Folders, tmp_path: Path, capsys: pytest.CaptureFixture[str], data: st.DataObject
) -> None:
    """One to three keys of a result, or of its identity, changed to whatever JSON can hold."""
    results = tmp_path / str(len(list(tmp_path.iterdir())))
    run = folders.copy(results, folders.finished)
    result = json.loads((run / "result.json").read_text())
    wrong = st.sampled_from(WRONG) | st.integers() | st.floats() | st.text(max_size=20)
    for _ in range(data.draw(st.integers(1, 3))):
        of = data.draw(st.sampled_from([result, result, result.get("identity")]))
        if isinstance(of, dict) and of:
            key = data.draw(st.sampled_from(sorted(of)))
            if data.draw(st.booleans()):
                of[key] = data.draw(wrong)
            else:
                del of[key]
    (run / "result.json").write_text(json.dumps(result))
    look(results, folders.good.name, capsys)
    use(run, folders.path / "tiny.txt")


@pytest.mark.parametrize("key", sorted(NUMBERS))
@pytest.mark.parametrize("value", [None, [], {}, "1", -1, 10**400, 1e300])
def test_numbers_of_a_result(folders: Folders, tmp_path: Path, key: str, value: Any) -> None:
    result = json.loads((folders.finished / "result.json").read_text())
    (tmp_path / "result.json").write_text(json.dumps(result | {key: value}))
    if (key, value) in (("seconds_train", 1e300), ("chars_per_second", 1e300)):
        return  # absurd, but a number
    with pytest.raises(CorruptFileError, match=key.replace("_", "[_ ]")):
        RunFolder(tmp_path).read_result()


@pytest.mark.parametrize("key", ["cell.name", "layers", "hidden_size", "seed", "dataset.split"])
def test_an_identity_without_a_key(folders: Folders, tmp_path: Path, key: str) -> None:
    result = json.loads((folders.finished / "result.json").read_text())
    del result["identity"][key]
    (tmp_path / "result.json").write_text(json.dumps(result))
    with pytest.raises(CorruptFileError, match=f"identity: {key} is None"):
        RunFolder(tmp_path).read_result()


# Losses.


def npy(array: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def header(text: str) -> bytes:
    contents = text.encode() + b"\n"
    return b"\x93NUMPY\x02\x00" + len(contents).to_bytes(4, "little") + contents


def npz(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


NLL = {
    "strings": npy(np.array(["1.5"] * 400)),
    "complex": npy(np.ones(400, complex)),
    "float64": npy(np.ones(400)),
    "objects": b"\x93NUMPY\x01\x00\x76\x00{'descr': '|O', 'fortran_order': False, 'shape': (1,), }",
    "an npz": npz(a=np.ones(400, np.float32)),
    "two dimensions": npy(np.ones((20, 20), np.float32)),
    "shorter": npy(np.ones(399, np.float32)),
    "NaN": npy(np.full(400, math.nan, np.float32)),
    "4 TB": header("{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776,), }"),
    "nested": header("(" * 7000),
    "nested type": header("{'descr': " + "[('a', " * 900 + "'<f4'" + ")]" * 900 + ", 'shape': ()}"),
    "negative": header("{'descr': '<f4', 'fortran_order': False, 'shape': (-400,), }"),
    "a long header": b"\x93NUMPY\x02\x00\xff\xff\xff\xff{",
}


@pytest.mark.parametrize("contents", NLL.values(), ids=list(NLL))
def test_losses_that_are_none(
    folders: Folders, tmp_path: Path, capsys: pytest.CaptureFixture[str], contents: bytes
) -> None:
    run = folders.copy(tmp_path, folders.finished)
    (run / "test_nll.npy").write_bytes(contents)
    said = look(tmp_path, folders.good.name, capsys)
    assert said.count("\n") == 1
    assert f"{run / 'test_nll.npy'}: " in said
    assert "shown without standard deviations" in said


def changed_blocks(contents: bytes, **changed: Any) -> bytes:
    with np.load(io.BytesIO(contents)) as packed:
        return npz(**{key: value for key, value in (dict(packed) | changed).items()
                      if value is not None})  # fmt: skip


def bomb(contents: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("block_sums.npy", npy(np.zeros(1 << 25, np.float32)))
    return buffer.getvalue()


BLOCKS: dict[str, Callable[[bytes], bytes]] = {
    "a bomb": bomb,
    "without positions": lambda contents: changed_blocks(contents, positions=None),
    "strings": lambda contents: changed_blocks(contents, block_sums=np.array(["x"])),
    "NaN": lambda contents: changed_blocks(contents, sum_of_squares=np.float64(math.nan)),
    "blocks of 0": lambda contents: changed_blocks(contents, block_length=np.int64(0)),
    "blocks of -10": lambda contents: changed_blocks(contents, block_length=np.int64(-10)),
    "a row of lengths": lambda contents: changed_blocks(contents, block_length=np.ones(2, int)),
    "one number": lambda contents: changed_blocks(contents, block_sums=np.float32(1)),
    "damaged inside": lambda contents: contents[:300] + b"\xff" * 50 + contents[350:],
}


@pytest.mark.parametrize("change", BLOCKS.values(), ids=list(BLOCKS))
def test_published_sums_that_are_none(
    folders: Folders, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: Any
) -> None:
    run = folders.copy(tmp_path, folders.finished)
    (run / "test_nll.npy").unlink()
    file = run / "test_blocks.npz"
    file.write_bytes(change(file.read_bytes()))
    said = look(tmp_path, folders.good.name, capsys)
    assert said.count("\n") == 1
    assert f"{file}: " in said


# Weights and checkpoints.

WEIGHTS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "NaN": lambda weights: {key: value * math.nan for key, value in weights.items()},
    "float64": lambda weights: {key: value.astype(float) for key, value in weights.items()},
    "flat": lambda weights: {key: value.ravel() for key, value in weights.items()},
    "none": lambda weights: {},
    "other names": lambda weights: {f"\x1b{key}": value for key, value in weights.items()},
}


@pytest.mark.parametrize("change", WEIGHTS.values(), ids=list(WEIGHTS))
def test_weights_that_are_none(folders: Folders, tmp_path: Path, change: Any) -> None:
    run = folders.copy(tmp_path, folders.finished)
    file = run / "best.safetensors"
    metadata = {"vocabulary": folders.spec.corpus.vocabulary.hex()}
    save_file(change(load_file(file)), file, metadata)
    with pytest.raises(UserError, match=r"best\.safetensors: ") as raised:
        load_trained(run.name, str(tmp_path)).model()
    assert str(raised.value).isprintable()


PARTS = ("format", "identity", "model", "optimizer", "state", "loss_sum", "best", "rng", "place")


def placed(**changed: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda checkpoint: (
        checkpoint | {"place": json.dumps(json.loads(checkpoint["place"]) | changed)}
    )


CHECKPOINTS: dict[str, Callable[[dict[str, Any]], Any]] = {
    **{
        f"without {part}": lambda checkpoint, part=part: {
            key: value for key, value in checkpoint.items() if key != part
        }
        for part in PARTS
    },
    **{
        f"{part}: {value!r}": lambda checkpoint, part=part, value=value: checkpoint | {part: value}
        for part in PARTS
        for value in (None, [], {}, "x", 10**400)
    },
    "a list": lambda checkpoint: [checkpoint],
    "a tensor": lambda checkpoint: torch.zeros(3),
    "NaN": lambda checkpoint: checkpoint
    | {"model": {key: value * math.nan for key, value in checkpoint["model"].items()}},
    "another shape": lambda checkpoint: checkpoint | {"state": torch.zeros(2, 2)},
    "integers": lambda checkpoint: checkpoint | {"state": checkpoint["state"].int()},
    "sparse": lambda checkpoint: checkpoint | {"state": checkpoint["state"].to_sparse()},
    "no best": lambda checkpoint: checkpoint | {"best": {}},
    "averages of another": lambda checkpoint: checkpoint
    | {"optimizer": checkpoint["optimizer"] | {"state": {0: {"step": torch.zeros(())}}}},
    "averages gone": lambda checkpoint: checkpoint
    | {"optimizer": checkpoint["optimizer"]
       | {"state": {key: {"step": value["step"]}
                    for key, value in checkpoint["optimizer"]["state"].items()}}},
    "before its beginning": placed(epoch=0),
    "after its end": placed(epoch=9),
    "beyond the text": placed(chunk=10**9),
    "a place in words": placed(epoch="two"),
    "no history": placed(history=[]),
    "a history of nothing": placed(history=[{}]),
    "another key": placed(more=1),
    "nested": lambda checkpoint: checkpoint | {"place": "[" * 100_000},
}  # fmt: skip


@pytest.mark.long
@pytest.mark.parametrize("change", CHECKPOINTS.values(), ids=list(CHECKPOINTS))
def test_a_checkpoint_that_is_none_is_kept_and_the_run_redone(
    folders: Folders, tmp_path: Path, change: Any
) -> None:
    run = folders.copy(tmp_path, folders.interrupted)
    checkpoint = torch.load(run / "checkpoint.pt", weights_only=True)
    assert json.loads(checkpoint["place"])["best_epoch"] == 1
    assert checkpoint["optimizer"]["state"]
    torch.save(change(checkpoint), run / "checkpoint.pt")
    spoiled = (run / "checkpoint.pt").read_bytes()
    resumed(folders, tmp_path)
    assert (run / "checkpoint.pt.bad-1").read_bytes() == spoiled


def test_a_checkpoints_options_are_not_taken_over(folders: Folders, tmp_path: Path) -> None:
    run = folders.copy(tmp_path, folders.interrupted)
    checkpoint = torch.load(run / "checkpoint.pt", weights_only=True)
    checkpoint["optimizer"]["param_groups"][0] |= {"alpha": "x", "maximize": True, "params": []}
    torch.save(checkpoint, run / "checkpoint.pt")
    resumed(folders, tmp_path)
    assert not list(run.glob("*.bad-*"))


@pytest.mark.parametrize("how", ["compressed", "of torch's older format"])
def test_a_checkpoint_of_another_format(folders: Folders, tmp_path: Path, how: str) -> None:
    """Both could unpack to more than the file has."""
    run = folders.copy(tmp_path, folders.interrupted)
    file = run / "checkpoint.pt"
    checkpoint = torch.load(file, weights_only=True)
    if how == "compressed":
        with zipfile.ZipFile(file) as stored:
            entries = {name: stored.read(name) for name in stored.namelist()}
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, contents in entries.items():
                archive.writestr(name, contents)
    else:
        torch.save(checkpoint, file, _use_new_zipfile_serialization=False)
    resumed(folders, tmp_path)
    assert (run / "checkpoint.pt.bad-1").exists()


# What is shown.


def test_a_strangers_texts_are_escaped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    note = r"<script>alert(1)</script> ![x](http://a.b) | \input{/etc/passwd} $x$"
    extra = {"init": "<img src=x>|[a](b)", "cell.activation": r"=cmd|\input{x}<b>"}
    run = write_run(tmp_path, 1.5, nll=losses(), corpus_note=note, extra=extra)
    report_texts(tmp_path)
    report = tmp_path / "report"
    markdown = "".join(file.read_text() for file in report.glob("*.md"))
    assert r"\<script>" in markdown
    assert markdown.count("<script>") == markdown.count(r"\<script>")
    assert markdown.count("<img") == markdown.count(r"\<img") > 0
    assert markdown.count("[a](b)") == markdown.count(r"\[a](b)") > 0
    assert markdown.count("|[a]") == 0  # each entry's | has a backslash before it
    latex = "".join(file.read_text() for file in report.glob("*.tex"))
    assert r"\textbackslash{}input\{" in latex
    assert r"\input" not in latex
    assert run.name in (report / "entries.csv").read_text()
    capsys.readouterr()


def test_a_spreadsheet_takes_no_text_for_a_formula() -> None:
    from charcmp.report.writing import escape

    texts = ["=1+1", "+cmd", "-1+2", "@x", "\t=1", "-0.05", "+0.05", "1e-5", "a=b", -0.5, None]
    assert [escape.csv(text) for text in texts] == [
        *("'=1+1", "'+cmd", "'-1+2", "'@x", "'\t=1", "-0.05", "+0.05", "1e-5", "a=b", -0.5, None)
    ]


@pytest.mark.parametrize("key", ["device", "layout", "precision", "status", "git_commit"])
def test_words_that_only_have_some_values(tmp_path: Path, key: str) -> None:
    run = write_run(tmp_path, 1.5)
    result = json.loads((run / "result.json").read_text())
    (run / "result.json").write_text(json.dumps(result | {key: r"\input{x}<script>" + "\x1b[2J"}))
    with pytest.raises(CorruptFileError, match=key) as raised:
        RunFolder(run).read_result()
    assert str(raised.value).isprintable()


def test_a_message_is_short_and_steers_no_terminal() -> None:
    error = CorruptFileError("\x1b[2J\n" + "x" * 10_000)
    assert str(error).isprintable()
    assert len(str(error)) <= MAX_MESSAGE + 3


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("name", ["result.json", "history.json", "test_nll.npy"])
def test_a_file_without_permission(
    folders: Folders, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    run = folders.copy(tmp_path, folders.finished)
    (run / name).chmod(0)
    assert "Permission denied" in look(tmp_path, folders.good.name, capsys)


def test_the_commands_themselves(folders: Folders, tmp_path: Path, charcmp: Charcmp) -> None:
    """A results folder in which every run but one is bad, each in another way."""
    run = folders.copy(tmp_path, folders.finished)
    bad = 0
    for name, kind in (
        *(("result.json", "deep"), ("result.json", "pipe"), ("result.json", "number")),
        *(("environment.json", "deep"), ("history.json", "object"), ("test_nll.npy", "huge")),
    ):
        bad += 1
        spoiled = run.with_name(f"bad-{bad}")
        shutil.copytree(run, spoiled)
        result = json.loads((spoiled / "result.json").read_text())
        (spoiled / "result.json").write_text(json.dumps(result | {"run_id": spoiled.name}))
        KINDS[kind](spoiled / name)
    shutil.rmtree(run)
    args = [f"results_dir={tmp_path}"]
    done = charcmp("report", "--format", "csv", *args)
    assert done.returncode == 0
    assert len(done.stderr.splitlines()) == bad
    assert all("/bad-" in line for line in done.stderr.splitlines())
    assert folders.good.name in (tmp_path / "report" / "entries.csv").read_text()
    done = charcmp("status", *args)
    assert done.returncode == 0
    assert folders.good.name in done.stdout
    for command in (["sample", "length=3"], ["score", str(folders.path / "tiny.txt")]):
        done = charcmp(*command, "run=bad-2", *args)
        assert done.returncode == 2
        assert len(done.stderr.splitlines()) == 1


def test_a_strangers_configuration_moves_no_corpus(
    folders: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a run expects of the corpus is no reason to set this machine's copy aside."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("CHARCMP_DATA", raising=False)
    from charcmp.files import cache_dir

    cache_dir().mkdir(parents=True)
    corpus = cache_dir() / "tiny.txt"  # by the name of the run's dataset
    corpus.write_text("the user's own text")
    run = folders.copy(tmp_path, folders.finished)
    config = "cell: {name: rnn}\ndataset: {name: tiny, source: paper, path: null, num_chars: 1}\n"
    (run / "config.yaml").write_text(config)
    trained = load_trained(run.name, str(tmp_path))
    with pytest.raises(UserError, match=r"tiny\.txt is not the run's text"):
        trained.corpus()
    assert corpus.read_text() == "the user's own text"


def test_identities_are_what_ids_are_made_of(folders: Folders) -> None:
    """The record keeps an identity as it is: its hash is in the run's id."""
    result = RunFolder(folders.finished).read_result()
    assert result is not None
    assert canonical_json(result.identity) == canonical_json(folders.spec.identity())
