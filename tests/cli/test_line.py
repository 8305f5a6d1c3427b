"""A text on a command's line: which words name one, and what they come to."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers.console import TINY, Charcmp
from helpers.runs import write_run

from charcmp.cli.commands import COMMANDS
from charcmp.cli.line import read_line

TAKE_A_TEXT = [command.name for command in COMMANDS.values() if command.is_composed]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with files whose names look like other words of a line."""
    for name in ("my.txt", "a=b.txt", "cell=gru", "no ending", "null", "a,b.txt", "~odd.txt"):
        (tmp_path / name).write_text("text")
    (tmp_path / "more").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def text(path: str) -> list[str]:
    return ["dataset=text", f"dataset.path={path}"]


# The words of a line, and what Hydra is given.
READ = {
    "a text": (["my.txt"], text("my.txt")),
    "after and before keys": (
        ["layers=2", "my.txt", "budget=50k"],
        ["layers=2", "budget=50k", *text("my.txt")],
    ),
    "an equals sign in its name": (["a=b.txt"], text("'a=b.txt'")),
    "a key comes first": (["cell=gru"], ["cell=gru"]),
    "an added key, too": (["+cell=gru"], ["+cell=gru"]),
    "its path": (["./cell=gru"], text("'./cell=gru'")),
    "no ending": (["no ending"], text("'no ending'")),
    "what Hydra would read as nothing": (["null"], text("'null'")),
    "a comma in its name": (["a,b.txt"], text("'a,b.txt'")),
    "two files in one word": (["my.txt,no.txt"], text("my.txt,no.txt")),
    "deletion of a key": (["~epochs"], ["~epochs"]),
    "deletion of a key in a group": (["~cell.forget_bias"], ["~cell.forget_bias"]),
    "deletion of what is no key": (["~layer"], ["~layer"]),
    "a tilde in its name": (["~odd.txt"], text("'~odd.txt'")),
    "not there": (["no-such.txt"], text("no-such.txt")),
    "not there, in a folder": (["more/such"], text("more/such")),
    "a flag's value": (["--cfg", "job", "my.txt"], [*text("my.txt"), "--cfg", "job"]),
    "a flag's folder": (
        ["my.txt", "--config-dir", "more"],
        [*text("my.txt"), "--config-dir", "more"],
    ),
    "a key that is not known": (["a=c.txt"], ["a=c.txt"]),
}


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(("words", "overrides"), READ.values(), ids=list(READ))
def test_which_words_are_a_text(words: list[str], overrides: list[str]) -> None:
    assert read_line("train", words).hydra == overrides


BAD = {
    "neither file nor key": (["my"], "my: no such file; keys are set by key=value"),
    "a key without a value": (["layers"], "layers: no such file; keys are set by key=value"),
    "... of a group": (["optimizer.lr"], "optimizer.lr: no such file; keys are set by key=value"),
    "a folder": (["more"], "more: a folder, not a file"),
    "a folder with a slash": (["./more/"], "./more/: a folder, not a file"),
    "two": (["my.txt", "a=b.txt"], "train takes one text, not 2: my.txt a=b.txt"),
    "and a dataset": (["my.txt", "dataset=wp"], "one text, not both my.txt and dataset=wp"),
    "and a path": (["+dataset.path=b", "my.txt"], "not both my.txt and +dataset.path=b"),
}


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(("words", "complaint"), BAD.values(), ids=list(BAD))
def test_words_that_cannot_be_a_text(
    capsys: pytest.CaptureFixture[str], words: list[str], complaint: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        read_line("train", words)
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert complaint in line


@pytest.mark.usefixtures("folder")
def test_the_value_of_a_commands_own_flag_is_no_text() -> None:
    for words in (["--format", "csv"], ["--output", "my.txt"]):
        line = read_line("report", [*words, "a=b.txt"])
        assert line.hydra == text("'a=b.txt'")
        assert line.options == {words[0]: words[1]}


@pytest.mark.parametrize("command", TAKE_A_TEXT)
def test_every_command_that_hydra_composes_takes_one(charcmp: Charcmp, command: str) -> None:
    done = charcmp(command, "no-such.txt", "--cfg", "job")
    assert done.returncode == 0, done.stderr
    assert "\n  source: file\n  path: no-such.txt\n" in done.stdout


def test_a_text_that_is_not_there(charcmp: Charcmp) -> None:
    for command in ("train", "params", "baselines", "recommend"):
        done = charcmp(command, "no-such.txt")
        assert done.returncode == 2
        (line,) = done.stderr.splitlines()
        assert line.endswith("no-such.txt: no such file")


def test_a_grid_on_a_text(charcmp: Charcmp, tiny_text: Path) -> None:
    args = [str(tiny_text), *TINY, "cell=rnn,gru", "layers=1"]
    planned = charcmp("sweep", "--dry-run", "--no-cost", *args)
    assert planned.returncode == 0, planned.stderr
    assert "tiny-rnn-1x8-" in planned.stdout
    rows = json.loads(charcmp("params", str(tiny_text), *args[1:], "--json").stdout)
    assert [(row["dataset"], row["cell"]) for row in rows] == [("tiny", "rnn"), ("tiny", "gru")]


def test_a_text_narrows_a_status_and_a_report(charcmp: Charcmp, tmp_path: Path) -> None:
    """To the runs on a text of that name, whether or not the file is still there."""
    work = tmp_path / "work"
    for name in ("wp", "my"):
        write_run(work / "results", 1.5, dataset=name)
    (work / "my.txt").write_text("text")
    for word in ("my.txt", "gone/my.txt"):
        (run,) = json.loads(charcmp("status", word, "--json").stdout)
        assert run["run_id"].startswith("my-lstm-")
        done = charcmp("report", word, "--format", "csv")
        assert done.returncode == 0, done.stderr
        assert "my" in done.stdout
        assert "wp" not in done.stdout
    done = charcmp("status", "other.txt")
    assert done.returncode == 2
    assert "no run matches dataset=text dataset.path=other; there are 2" in done.stderr
