"""`charcmp recommend` as a user runs it: a race of small models, what it leaves, how it goes on.

A race of two models takes a minute of two cores: those are slow, and run by `pytest -m slow`.
"""

import json
import random
import re
import shlex
import shutil
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.console import Charcmp, command, wait_for, write_tiny_text

from charcmp.config.compose import compose_line
from charcmp.errors import UserError
from charcmp.sweeping.race.arms import Arm, label
from charcmp.sweeping.race.race import PlannedRun
from charcmp.sweeping.race.recommend import SharedTime, race_folder, race_settings
from charcmp.sweeping.race.requests import Request, requests

pytestmark = pytest.mark.long
MY_CELL = """
import torch

class MyCell(torch.nn.Module):
    def __init__(self, input_size, hidden_size):
        super().__init__()
        self.x = torch.nn.Linear(input_size, hidden_size)
        self.h = torch.nn.Linear(hidden_size, hidden_size)

    def forward(self, x, h):
        return torch.tanh(self.x(x) + self.h(h))
"""
SMALL = ["cell=rnn,gru", "layers=1", "budget=1500", "train_unroll_steps=10"]
SMALL += ["device=cpu", "threads=1", "jobs=2"]
MINUTES = "minutes=2.5"  # it needs half a minute on two quiet cores


def place(folder: Path) -> list[str]:
    return [str(folder / "tiny.txt"), *SMALL, f"results_dir={folder / 'results'}"]


def advice_of(folder: Path) -> dict:
    (file,) = (folder / "results" / "races").glob("*/recommendation.json")
    return json.loads(file.read_text())


@pytest.fixture(scope="module")
def raced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("raced")
    write_tiny_text(folder / "tiny.txt")
    done = subprocess.run(
        command("recommend", *place(folder), MINUTES), capture_output=True, text=True, cwd=folder
    )
    assert done.returncode == 0, done.stderr
    (folder / "said.txt").write_text(done.stdout)
    return folder


@pytest.mark.slow
def test_it_hands_over_a_model(raced: Path, charcmp: Charcmp) -> None:
    said, advice = (raced / "said.txt").read_text(), advice_of(raced)
    assert f"For tiny at 1,500 parameters, use {advice['cell'].upper()}, 1 layer" in said
    assert advice["text"] in said
    result = json.loads((raced / "results" / "runs" / advice["run_id"] / "result.json").read_text())
    assert (result["cell"], result["budget"]) == (advice["cell"], "1500")
    assert result["identity"]["optimizer.lr"] == advice["optimizer_lr"]
    assert advice["num_runs"] >= 8
    where = f"results_dir={raced / 'results'}"
    sampled = charcmp("sample", f"run={advice['run_id']}", where, "length=20")
    assert sampled.returncode == 0
    assert len(sampled.stdout) >= 20
    # The command that trains it again names the very same run, which is finished.
    again = said.partition("(epochs=): charcmp train ")[2].splitlines()[0]
    num_runs = len(list((raced / "results" / "runs").iterdir()))
    trained = charcmp("train", *shlex.split(again))
    assert trained.returncode == 0, trained.stderr
    assert advice["run_id"] in trained.stdout + trained.stderr
    assert len(list((raced / "results" / "runs").iterdir())) == num_runs
    # Any report reads the race's runs: they are ordinary ones.
    report = charcmp("report", where, "--format", "csv")
    assert report.returncode == 0, report.stderr


@pytest.mark.slow
def test_classes_race_beside_charcmps_own_cells(tmp_path: Path, charcmp: Charcmp) -> None:
    (tmp_path / "my_cell.py").write_text(MY_CELL)
    write_tiny_text(tmp_path / "tiny.txt")
    rest = [word for word in place(tmp_path) if not word.startswith("cell=")]
    mine = f"{tmp_path / 'my_cell.py'}:MyCell"
    targets = f"cell.target={mine},torch.nn.GRU"
    done = charcmp("recommend", *rest, "cell=rnn,module", targets, MINUTES)
    assert done.returncode == 0, done.stderr
    for name in ("RNN 1", "torch.nn.GRU 1", f"{mine} 1"):
        assert f"{name}, rate 0.012" in done.stdout
    advice = advice_of(tmp_path)
    assert advice["cell"] in ("rnn", "torch.nn.GRU", mine)
    sample = done.stdout.partition("To generate text from it: charcmp ")[2].splitlines()[0]
    sampled = charcmp(*shlex.split(sample), "length=20")
    assert sampled.returncode == 0, sampled.stderr
    assert ("target=" in sample) == (advice["cell"] != "rnn")
    again = done.stdout.partition("(epochs=): charcmp train ")[2].splitlines()[0]
    trained = charcmp("train", *shlex.split(again))
    assert advice["run_id"] in trained.stdout + trained.stderr


def requested(folder: Path, *class_options: str) -> tuple[list[Request], list[Path]]:
    """The races of a line with these options of classes, and where they keep their files."""
    composer = compose_line(
        ["experiment=fast", "dataset=text", f"dataset.path={folder / 'tiny.txt'}", "budget=1500",
         "layers=1", "device=cpu", f"results_dir={folder / 'results'}"]
    )  # fmt: skip
    found, _ = requests(composer, class_options)
    probes = [request.probe.spec for request in found]
    settings = map(race_settings, found)
    return found, [race_folder(*each).path for each in zip(probes, settings, strict=True)]


def test_later_races_share_what_the_earlier_ones_leave_over() -> None:
    early = SharedTime(10, [100, 300])
    assert early.share() == 150
    early.ended(30)
    assert early.share() == 570
    finished = SharedTime(30, [100, 300])  # the first one by an earlier command
    finished.ended(31 * 60)
    assert finished.share() == 0
    assert finished.minutes_needed(300) == 36


def test_the_minutes_needed_suffice_though_earlier_races_take_their_share() -> None:
    time_left = SharedTime(10, [100, 300])
    time_left.ended(150)
    minutes = time_left.minutes_needed(600)
    more = SharedTime(minutes, [100, 300])
    more.ended(more.share())
    assert more.share() == pytest.approx(600)


def test_a_seed_from_which_a_race_could_not_count_up(tmp_path: Path) -> None:
    write_tiny_text(tmp_path / "tiny.txt")
    line = ["experiment=fast", "dataset=text", f"dataset.path={tmp_path / 'tiny.txt'}"]
    line += ["budget=1500", "cell=rnn", "layers=1", "device=cpu"]
    requests(compose_line([*line, f"seed={2**32 - 5}"]))
    with pytest.raises(UserError, match=r"^seed=\d+: a race counts up from it to 4294967296"):
        requests(compose_line([*line, f"seed={2**32 - 4}"]))


def test_a_model_that_exceeds_the_memory(tmp_path: Path) -> None:
    write_tiny_text(tmp_path / "tiny.txt")
    line = ["experiment=fast", "dataset=text", f"dataset.path={tmp_path / 'tiny.txt'}"]
    line += ["budget=400000000000", "cell=gru", "layers=1", "device=cpu"]
    with pytest.raises(UserError, match="weights and gradients alone take"):
        requests(compose_line(line))


@pytest.mark.parametrize(
    ("words", "class_options", "said"),
    [
        (["cell=gru,rnn,gru"], [], "cell=gru,rnn,gru: has gru twice"),
        (["layers=1,2,01"], [], "layers=1,2,01: has 1 twice"),
        ([], ["cell.init=charcmp"], "cell.init=charcmp: an option of classes; name one, as in"),
        (["cell=gru"], ["cell.kind=step"], "cell.kind=step: an option of classes; name one, as in"),
    ],
)
def test_what_would_be_of_no_effect_is_refused(
    words: list[str], class_options: list[str], said: str
) -> None:
    line = ["experiment=fast", "dataset=text", "dataset.path=gone.txt", *words]
    with pytest.raises(UserError, match=re.escape(said)):
        requests(compose_line(line), class_options)


def test_a_class_is_a_model_of_its_own(tmp_path: Path) -> None:
    """Options of classes go with these alone; the others stay what they are without any class."""
    write_tiny_text(tmp_path / "tiny.txt")
    (request,), _ = requested(tmp_path, "cell.target=torch.nn.GRU", "cell.init=charcmp")
    assert [label(model) for model in request.models] == [
        "LSTM 1", "GRU 1", "RNN 1", "torch.nn.GRU 1"
    ]  # fmt: skip
    (without,), _ = requested(tmp_path)
    assert request.models[:3] == without.models
    planned_runs = [PlannedRun(Arm(model, 0.006), 40, 1) for model in request.models]
    specs = [request.make_job(planned).spec for planned in planned_runs]
    assert [spec.cell_name for spec in specs] == ["lstm", "gru", "rnn", "GRU"]
    assert specs[3].cell_identity["cell.init"] == "charcmp"
    for planned, spec in zip(planned_runs[:3], specs[:3], strict=True):
        assert spec.run_id == without.make_job(planned).spec.run_id


def test_a_class_that_was_edited_begins_another_race(tmp_path: Path) -> None:
    write_tiny_text(tmp_path / "tiny.txt")
    (tmp_path / "my_cell.py").write_text(MY_CELL)
    target = f"{tmp_path / 'my_cell.py'}:MyCell"
    (request,), (place,) = requested(tmp_path, f"cell.target={target}")
    assert request.classes[target]["cell.origin"].startswith("sha256 ")
    edited = {target: request.classes[target] | {"cell.origin": "sha256 of another"}}
    probe = request.probe.spec
    settings = race_settings(replace(request, classes=edited))
    assert race_folder(probe, settings).path != place


@pytest.mark.slow
def test_the_page_holds_everything_itself(raced: Path) -> None:
    (page,) = (raced / "results" / "races").glob("*/race.html")
    text = page.read_text()
    assert "<svg" in text
    assert advice_of(raced)["run_id"] in text
    assert "src=" not in text.replace("img-src", "")
    assert "http" not in text.replace("http://www.w3.org", "").replace("http-equiv", "").replace(
        "http://purl.org", ""
    ).replace("http://creativecommons.org", "")


@pytest.mark.slow
def test_losers_keep_no_checkpoint(raced: Path) -> None:
    """Of the rates that a model had at one length the best may have one, if the model went on."""
    keep: dict[tuple, list[bool]] = {}
    for file in (raced / "results" / "runs").glob("*/result.json"):
        result = json.loads(file.read_text())
        length = result["epochs"], result["identity"].get("updates_per_epoch")
        at = result["cell"], *length, result["seed"]
        keep.setdefault(at, []).append((file.parent / "checkpoint.pt").exists())
    assert max(map(len, keep.values())) >= 3  # rates
    assert max(map(sum, keep.values())) == 1
    best = raced / "results" / "runs" / advice_of(raced)["run_id"] / "best.safetensors"
    assert best.is_file()


@pytest.mark.slow
def test_decisions_do_not_see_test_losses(raced: Path, tmp_path: Path, charcmp: Charcmp) -> None:
    """With every test loss replaced by noise the same model is chosen."""
    shutil.copytree(raced, tmp_path / "copy")
    rng = random.Random(0)
    for file in (tmp_path / "copy" / "results" / "runs").glob("*/result.json"):
        result = json.loads(file.read_text())
        if result["status"] == "done":
            result["test_nats_per_char"] = rng.uniform(0.5, 3.0)
            file.write_text(json.dumps(result))
    done = charcmp("recommend", *place(tmp_path / "copy"), MINUTES)
    assert done.returncode == 0, done.stderr
    before, after = advice_of(raced), advice_of(tmp_path / "copy")
    assert before["run_id"] == after["run_id"]
    assert before["test_nats_per_char"] != after["test_nats_per_char"]


@pytest.mark.slow
def test_interrupted_it_shows_the_board_and_goes_on(tmp_path: Path, charcmp: Charcmp) -> None:
    write_tiny_text(tmp_path / "tiny.txt")
    arguments = [*place(tmp_path), "minutes=9"]
    process = subprocess.Popen(
        command("recommend", *arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    )
    runs = tmp_path / "results" / "runs"
    wait_for(lambda: any(runs.glob("*/result.json")), 110)
    busy = charcmp("recommend", *arguments)
    assert busy.returncode == 4, busy.stderr
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same command continues from there" in err
    assert "racing" in out
    finished = {file: file.stat().st_mtime_ns for file in runs.glob("*/result.json")}
    (state,) = (tmp_path / "results" / "races").glob("*/race.json")
    spent = json.loads(state.read_text())["seconds_spent"]
    assert spent > 0
    begun = time.monotonic()
    again = charcmp("recommend", *place(tmp_path), f"minutes={spent / 60 + 0.5}")
    assert again.returncode == 0, again.stderr
    assert time.monotonic() - begun < 60 * 0.5 * 1.1 + 20
    assert "continues after" in again.stdout
    assert all(file.stat().st_mtime_ns == old for file, old in finished.items())


def test_a_race_that_is_killed_goes_on_to_its_advice(
    tmp_path: Path, charcmp: Charcmp, charcmp_process: Charcmp
) -> None:
    """Of one model, which is quick. Once the text is another, so is the race."""
    text = write_tiny_text(tmp_path / "tiny.txt")
    rest = [word for word in place(tmp_path) if not word.startswith("cell=")]
    line = ["recommend", *rest, "cell=rnn", MINUTES]
    with subprocess.Popen(
        command(*line), stdout=subprocess.PIPE, text=True, cwd=tmp_path
    ) as process:
        assert process.stdout is not None
        assert any("validation" in line for line in process.stdout)  # a run has ended
        process.kill()
    (state,) = (tmp_path / "results" / "races").glob("*/race.json")
    assert json.loads(state.read_text())["seconds_spent"] > 0
    finished = [*(tmp_path / "results" / "runs").glob("*/result.json")]
    before = {file: file.stat().st_mtime_ns for file in finished}

    done = charcmp(*line)
    assert done.returncode == 0, done.stderr
    assert "1 model, 2.5 minutes, 2 runs at once; continues after " in done.stdout
    assert before == {file: file.stat().st_mtime_ns for file in finished}
    advice = advice_of(tmp_path)
    assert advice["text"] in done.stdout
    assert advice["run_id"] in state.with_name("race.html").read_text()
    sample = done.stdout.partition("To generate text from it: charcmp ")[2].splitlines()[0]
    sampled = charcmp(*shlex.split(sample), "length=20")
    assert sampled.returncode == 0, sampled.stderr
    assert len(sampled.stdout) >= 20

    text.write_text(text.read_text() + "more")
    changed = charcmp_process(*line)  # a process reads a text once
    assert changed.returncode == 2
    assert "the text has changed since this race began" in changed.stderr
    assert len(changed.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["minutes=never"], "minutes=never: must be a number of minutes, such as 30"),
        (["minutes=-1"], "minutes=-1: must be positive and finite"),
        (["minutes=nan"], "minutes=nan: must be positive and finite"),
        (["minutes=0.001"], "too little time: a race of 2 models at 1500 needs about minutes="),
        (["epochs=3"], "epochs=3: a race decides epochs itself"),
        (["optimizer.lr=0.1"], "optimizer.lr=0.1: a race decides optimizer.lr itself"),
        (["updates_per_epoch=9"], "updates_per_epoch=9: a race decides updates_per_epoch itself"),
        (["patience=2"], "patience=2: a race decides patience itself"),
        (["hidden_size=8"], "hidden_size=8: a race decides hidden_size itself"),
        (["experiment=paper"], "experiment=paper: a race decides experiment itself"),
        (["task=fill"], "task=fill: a race decides task itself"),
        (["cell=elman"], "cell=elman: one of"),
        (["cell=gru,module"], "cell=module: name the class, as in cell.target=my_cell.py:MyCell"),
        (["cell.target=torch.nn.GRU"], "cell.target=torch.nn.GRU: add module to cell="),
        (["cell=module", "cell.target=gone.py:Cell"], "gone.py"),
        (
            ["cell=module", "cell.target=torch.nn.GRU,torch.nn.modules.rnn.GRU"],
            "cell.target=torch.nn.modules.rnn.GRU: the same class as torch.nn.GRU",
        ),
        (["cell=module", "cell.target=torch.nn.GRU", "cell.kind=neither"], "cell.kind=neither"),
        (["layers=1,x"], "layers=x: must be a whole number"),
        (["seed=0,1"], "seed=0,1: a race takes one value of seed"),
        (["dropout=0,0.1"], "dropout=0,0.1: a race takes one value of dropout"),
        (["optimizer=adam,sgd"], "optimizer=adam,sgd: a race takes one value of optimizer"),
        (["--watch"], "recommend has no --watch"),
        (["other.txt"], "recommend takes one text, not 2: "),
        (["dataset=pydocs"], "recommend takes one text, not both "),
        (["budget=500,1500", "minutes=0.001"], "a race of 2 models at 500 needs about minutes="),
        (["budget=500,1500", "minutes=0.001"], "a race of 2 models at 1500 needs about minutes="),
    ],
)
def test_bad_lines(tmp_path: Path, charcmp: Charcmp, arguments: list[str], said: str) -> None:
    write_tiny_text(tmp_path / "tiny.txt")
    given = {argument.partition("=")[0] for argument in arguments}
    rest = [word for word in place(tmp_path) if word.partition("=")[0] not in given]
    done = charcmp("recommend", *rest, *arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_text_that_is_too_short_or_not_there(tmp_path: Path, charcmp: Charcmp) -> None:
    (tmp_path / "tiny.txt").write_text("abc" * 100)
    done = charcmp("recommend", *place(tmp_path), MINUTES)
    assert done.returncode == 2
    assert "at least 1,000 are needed" in done.stderr
    (tmp_path / "other").mkdir()
    done = charcmp("recommend", *place(tmp_path / "other"), MINUTES)
    assert done.returncode == 2
    assert "tiny.txt" in done.stderr
    assert len(done.stderr.splitlines()) == 1
