"""What a terminal, a pipe and a shell do to the command line: real subprocesses throughout."""

import json
import os
import re
import signal
import subprocess
from pathlib import Path

import pytest
from helpers.console import TINY, Charcmp, command, in_turn, run_of, write_tiny_text

from charcmp.cli.options import SampleOptions, parse
from charcmp.config.literal import literal_path

RNN = [*TINY, "epochs=1", "cell=rnn", "layers=1"]


def shell(line: str, folder: Path, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
    """A line of bash in which "$@" is the command; the exit status is the command's own."""
    return run(
        ["bash", "-c", f"{line}; exit ${{PIPESTATUS[0]}}", "bash", *command(*args)], folder, env
    )


def run(line: list[str], folder: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        line,
        cwd=folder,
        env={**os.environ, "COLUMNS": "100", **env},
        capture_output=True,
        text=True,
        errors="replace",
        timeout=300,
    )


def results_of(folder: Path) -> list[dict]:
    return [json.loads(file.read_text()) for file in folder.glob("results/runs/*/result.json")]


@pytest.mark.long
@pytest.mark.parametrize("name", ["train", "sweep"])
@pytest.mark.parametrize(
    "line",
    [
        '"$@" | head -1',
        '"$@" 2>&1 | head -1',
        '"$@" | true',
        '"$@" > /dev/full',
        '"$@" >&-',
        '"$@" <&- >&- 2>&-',
    ],
)
def test_training_goes_on_when_nobody_listens(
    tmp_path: Path, tiny_text: Path, name: str, line: str
) -> None:
    text = ["dataset=text", f"dataset.path={tiny_text}"]
    seeds = "seed=0,1" if name == "sweep" else "seed=0"
    done = shell(line, tmp_path, name, *text, *RNN, "epochs=5", seeds, "jobs=1", "progress=true")
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    finished = results_of(tmp_path)
    assert [run["epochs_trained"] for run in finished] == [5] * (2 if name == "sweep" else 1)
    assert not list(tmp_path.glob("results/runs/*/failure.json"))
    told = "charcmp: standard output: No space left on device"
    assert (told in done.stderr) == ("full" in line)


@pytest.mark.long
@pytest.mark.parametrize("wanted", [True, False])
def test_progress_in_lines_where_there_is_no_terminal(
    charcmp: Charcmp, tiny_text: Path, monkeypatch: pytest.MonkeyPatch, wanted: bool
) -> None:
    monkeypatch.setattr("charcmp.training.progress.PROGRESS_SECONDS", 0.0)
    monkeypatch.setattr("charcmp.training.progress.TICK_SECONDS", 0.0)
    monkeypatch.setattr("charcmp.sweeping.progress.PROGRESS_SECONDS", 0.0)
    text = ["dataset=text", f"dataset.path={tiny_text}", *RNN, f"progress={str(wanted).lower()}"]
    of_train = r"epoch 1/1  loss \d\.\d{4} nats/char so far, \d+ % of the run, \d+ s left"
    of_sweep = r"\d+ %, \d/2 runs done, \d running, time left: (\d+ s|unknown)"
    for line, args in ((of_train, ["train"]), (of_sweep, ["sweep", "seed=1,2", "jobs=1"])):
        done = charcmp(*args, *text)
        assert done.returncode == 0, done.stderr
        lines = done.stdout.splitlines()
        assert any(re.fullmatch(line, printed) for printed in lines) == wanted


PRINTING = {
    "help": ["--help"],
    "train --help": ["train", "--help"],
    "params": ["params", "dataset=wp"],
    "sweep --help": ["sweep", "--help"],
    "config": ["train", "--cfg", "job"],
}


@pytest.mark.long
@pytest.mark.parametrize("args", PRINTING.values(), ids=list(PRINTING))
def test_a_reader_that_has_enough(tmp_path: Path, args: list[str]) -> None:
    done = shell('"$@" | head -1', tmp_path, *args)
    assert done.returncode in (0, 128 + signal.SIGPIPE)
    assert done.stderr == ""
    assert done.stdout.count("\n") == 1


@pytest.mark.long
@pytest.mark.parametrize(
    "args",
    [["--help"], ["params", "dataset=wp"], ["status"], ["report", "--format", "csv"], ["sample"]],
    ids=lambda args: args[0],
)
def test_a_full_disk_is_told_of_in_one_line(trained: Path, tmp_path: Path, args: list[str]) -> None:
    if args[0] in ("status", "report"):
        args = [*args, f"results_dir={trained}"]
    if args[0] == "sample":
        args = [*args, f"run={run_of(trained, 'tiny')}", "length=50"]
    if args[0] == "report":
        args = [*args, "--output", str(tmp_path / "report")]
    done = shell('"$@" > /dev/full', tmp_path, *args)
    assert done.stderr == "charcmp: standard output: No space left on device\n"
    assert done.returncode == 5


@pytest.mark.long
@pytest.mark.parametrize(
    "env",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "latin-1"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
    ids=["ascii", "latin-1", "C locale"],
)
def test_a_terminal_without_unicode(trained: Path, tmp_path: Path, env: dict[str, str]) -> None:
    mixed = str(run_of(trained, "mixed"))  # has Japanese, and what is no UTF-8
    results = f"results_dir={trained}"
    # A locale is also that of files. Figures take seconds, and a PNG has no text.
    formats = "csv,md,tex,svg,html" if "LC_ALL" in env else "csv,md,tex"
    for done in in_turn(
        ["report", results, "--output", str(tmp_path / "report"), "--format", formats],
        ["status", results],
        ["sample", f"run={mixed}", "length=300"],
        ["sample", f"run={mixed}", "length=3", "prime=私"],
        ["score", f"run={mixed}", "split=test"],
        ["data"],
        ["train", "--help"],
        cwd=tmp_path,
        env=env,
    ):
        assert done.stderr == ""
        assert done.returncode == 0


def test_names_that_the_locale_cannot_have_are_refused_in_one_line(tmp_path: Path) -> None:
    locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = shell('"$@"', tmp_path, "train", "dataset=text", "dataset.path=私.txt", **locale)
    assert done.returncode == 2
    said = "charcmp: the command line has bytes that are not text in this terminal's encoding"
    assert done.stderr.startswith(said)
    assert done.stderr.count("\n") == 1


NAMES = [
    *("私は.txt", "[draft] {2}.txt", "a,b.txt", "x=1.txt", "it's.txt", 'say "hi".txt', "~old.txt"),
    *("${cell}.txt", "back\\slash.txt", "'quoted'", "1e5", "null", "true", "(1).txt", "a b.txt"),
    *("end\\", "#1.txt", "*.txt", "a;b&c.txt", "new\nline.txt", "range(1,3)", "@x:y%z.txt"),
]


@pytest.mark.long
@pytest.mark.parametrize("name", NAMES)
def test_a_files_name_is_taken_as_typed(charcmp: Charcmp, tmp_path: Path, name: str) -> None:
    """By `params`, which reads the text: it has a vocabulary that no other text here has."""
    (tmp_path / "work" / name).write_bytes(bytes(range(40)) * 10)
    args = ["dataset=text", f"dataset.path={name}", "layers=1", "cell=rnn", "hidden_size=8"]
    done = charcmp("params", *args, "--json")
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)
    assert row["num_params"] == 8 * (40 + 8 + 2) + 40 * (8 + 1)
    missing = charcmp("train", "dataset=text", f"dataset.path=no-{name}", *RNN)
    assert missing.returncode == 2
    assert "Traceback" not in missing.stderr


@pytest.mark.long
@pytest.mark.parametrize("name", ['私,[x]=${y}\'~ "z"', "plain"])
def test_from_training_to_report_in_folders_of_any_name(
    charcmp: Charcmp, tmp_path: Path, name: str
) -> None:
    work = tmp_path / "work"
    write_tiny_text(work / f"{name}.txt")
    (work / f"{name} out").mkdir()
    results = f"results_dir={name} out"
    text = ["dataset=text", f"dataset.path={name}.txt", results]
    assert charcmp("train", *text, *RNN, "seed=0").returncode == 0
    swept = charcmp("sweep", *text, *RNN, "seed=0,1", "jobs=1")
    assert "2 runs: 1 finished before, 1 to do" in swept.stdout, swept.stderr
    assert swept.returncode == 0
    (run, _) = sorted((work / f"{name} out" / "runs").iterdir())
    assert len(json.loads(charcmp("status", results, "--json").stdout)) == 2
    scored = charcmp("score", f"run={run}", "split=test", results)
    assert scored.returncode == 0, scored.stderr
    out = f"{name} report"
    reported = charcmp("report", *text, "--format", "csv", "--output", out)
    assert reported.returncode == 0, reported.stderr
    assert (work / out / "entries.csv").is_file()


def test_two_files_are_a_sweep(charcmp: Charcmp, tmp_path: Path) -> None:
    work = tmp_path / "work"
    for name in ("a.txt", "私.txt"):
        write_tiny_text(work / name)
    text = ["dataset=text", "dataset.path=a.txt,私.txt", *RNN]
    assert "2 runs: 0 finished" in charcmp("sweep", "--dry-run", "--no-cost", *text).stdout
    single = charcmp("train", *text)
    assert single.returncode == 2
    assert "is several runs: charcmp sweep dataset.path=" in single.stderr
    write_tiny_text(work / "a.txt,私.txt")  # one file, then
    assert "1 run: 0 finished" in charcmp("sweep", "--dry-run", "--no-cost", *text).stdout


def test_what_hydras_grammar_means_where_no_such_file_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    for unchanged in ("data_dir=null", "dataset.path='a b.txt'", "dataset.path=choice(a,b)", "x=~"):
        assert literal_path(unchanged) == unchanged
    assert literal_path("results_dir=runs-${cell.name}") == "results_dir='runs-${cell.name}'"
    assert literal_path("results_dir=~/runs") == "results_dir=/home/me/runs"
    options = parse(["run=~/a", "results_dir=~/b", "target=~/c.py:C", "prime=~/d"], SampleOptions)
    assert (options.run, options.results_dir) == ("/home/me/a", "/home/me/b")
    assert (options.target, options.prime) == ("/home/me/c.py:C", "~/d")
    assert literal_path("results_dir=a,b") == "results_dir='a,b'"
