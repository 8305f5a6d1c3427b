"""`charcmp status`: every state that a run can be in, from real runs."""

import json
from pathlib import Path

import pytest
from helpers.console import TINY, Charcmp, wait_for
from helpers.runs import write_run

from charcmp.cli.status import Runs, overview


@pytest.mark.long
def test_every_state(charcmp: Charcmp, start, tiny_text: Path, tmp_path: Path) -> None:
    none = charcmp("status")
    assert none.returncode == 2
    assert "no runs; charcmp sweep" in none.stderr

    text = ["dataset=text", f"dataset.path={tiny_text}", *TINY, "cell=rnn"]
    charcmp("train", *text, "seed=1")
    diverged = charcmp("train", *text, "seed=2", "optimizer.lr=1e38", "clip=null")
    assert diverged.returncode == 3
    runs = tmp_path / "work" / "results" / "runs"
    sweep = start("sweep", *text, "seed=3,4", "layers=1", "epochs=5000", "jobs=2")
    wait_for(lambda: len(list(runs.glob("*-s[34]-*/environment.json"))) == 2)

    def states() -> dict[str, dict]:
        listed = json.loads(charcmp("status", "--json").stdout)
        return {run["run_id"].split("-")[4]: run for run in listed}

    running = states()
    assert running["s1"]["state"] == "done"
    assert running["s1"]["test_nats_per_char"] > 0
    assert running["s2"]["state"] == "diverged"
    assert running["s3"]["state"] == running["s4"]["state"] == "running"
    assert running["s3"]["epochs"] == 5000
    assert running["s3"]["seconds_left"] > 0

    sweep.terminate()
    sweep.wait(120)
    (run_3,) = runs.glob("*-s3-*")
    steering = {"reason": "killed by SIGKILL \x1b[2J\x1b]0;owned\x07"}
    (run_3 / "failure.json").write_text(json.dumps(steering))
    (run_1,) = runs.glob("*-s1-*")
    (run_1 / "result.json").write_text("{")
    stopped = states()
    assert stopped["s1"]["state"] == "corrupt"
    assert stopped["s3"]["state"] == "failed"
    assert stopped["s4"]["state"] == "interrupted"
    printed = charcmp("status").stdout
    assert "4 runs: 1 failed, 1 interrupted, 1 corrupt, 1 diverged" in printed
    assert "killed by SIGKILL" in printed
    assert printed.replace("\n", "").isprintable()  # a stranger's file does not steer the terminal


@pytest.mark.parametrize(
    "change",
    [
        {"run_id": "../../elsewhere"},
        {"dataset": "a/b"},
        {"corpus_note": "\x1b]0;owned\x07"},
        {"identity": {"\x1b[2J": 1}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_strangers_result_leads_nowhere(charcmp: Charcmp, tmp_path: Path, change: dict) -> None:
    run = write_run(tmp_path / "work" / "results")
    result = json.loads((run / "result.json").read_text())
    (run / "result.json").write_text(json.dumps(result | change))
    for command in ("status", "report"):
        done = charcmp(command)
        assert (done.stdout + done.stderr).replace("\n", "").isprintable()
    assert "1 run: 1 corrupt" in charcmp("status").stdout
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize(("columns", "lines_of_a_run"), [("80", 1), ("40", 2)])
def test_the_width_of_the_terminal(
    charcmp: Charcmp, tmp_path: Path, columns: str, lines_of_a_run: int
) -> None:
    for seed in range(3):
        run = write_run(tmp_path / "work" / "results", seed=seed)
    (run / "result.json").unlink()
    (run / "failure.json").write_text(json.dumps({"reason": "killed by SIGKILL (out of memory?)"}))
    lines = charcmp("status", COLUMNS=columns).stdout.splitlines()
    assert max(map(len, lines)) <= int(columns)
    first = next(i for i, line in enumerate(lines) if line.startswith("wp-"))
    assert lines[first].startswith(run.name)  # what went wrong is first
    assert "failed" in lines[first + lines_of_a_run - 1]
    assert lines[first + lines_of_a_run].startswith("wp-")
    assert lines[-1] == "3 runs: 1 failed, 2 done"
    assert "killed by SIGKILL" in " ".join(lines)


@pytest.fixture
def short_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has --watch look often, and end soon after the last run."""
    monkeypatch.setattr("charcmp.cli.status.WATCH_SECONDS", 0.05)
    monkeypatch.setattr("charcmp.cli.status.QUIET_SECONDS_AT_THE_END", 0.5)


@pytest.mark.long
def test_watching_from_another_shell(
    charcmp: Charcmp, short_watch: None, start, tiny_text: Path, tmp_path: Path
) -> None:
    text = ["dataset=text", f"dataset.path={tiny_text}", *TINY, "cell=rnn", "layers=1", "jobs=1"]
    sweep = start("sweep", *text, "seed=0,1", "epochs=20")
    wait_for(lambda: list((tmp_path / "work" / "results" / "runs").glob("*/owner")))
    first = json.loads(charcmp("status", "--json").stdout)
    assert {run["state"] for run in first} <= {"running", "waiting", "done"}
    assert {run["seed"] for run in first} == {0, 1}  # also of the run that has not begun
    watched = charcmp("status", "--watch")
    assert sweep.wait(120) == 0
    assert watched.returncode == 0
    for seed in (0, 1):
        lines = [line for line in watched.stdout.splitlines() if f"-s{seed}-" in line]
        assert " done 20/20" in lines[-1]


def test_a_hidden_folder_is_no_run(charcmp: Charcmp, small_grid: Path) -> None:
    (small_grid / "runs" / ".ipynb_checkpoints").mkdir()
    runs = json.loads(charcmp("status", "--json", f"results_dir={small_grid}").stdout)
    assert {run["state"] for run in runs} == {"done"}


@pytest.mark.long
def test_filters_and_lines_of_json(charcmp: Charcmp, short_watch: None, tiny_text: Path) -> None:
    text = ["dataset=text", f"dataset.path={tiny_text}", *TINY, "epochs=1"]
    charcmp("sweep", *text, "cell=rnn,gru", "layers=1", "seed=0,1", "jobs=2")

    def shown(*filters: str) -> list[tuple[str, int]]:
        runs = json.loads(charcmp("status", "--json", *filters).stdout)
        return [(run["cell"], run["seed"]) for run in runs]

    assert len(shown()) == 4
    assert shown("cell=gru") == [("gru", 0), ("gru", 1)]
    assert shown("cell=gru,rnn", "seed=1") == [("gru", 1), ("rnn", 1)]
    assert shown(f"dataset.path={tiny_text}", "hidden_size=8", "seed=0", "cell=rnn") == [("rnn", 0)]
    none = charcmp("status", "cell=lstm")
    assert none.returncode == 2
    assert none.stderr == "charcmp: no run matches cell=lstm; there are 4\n"
    for override in ("dropout=0.5", "dropout=0,0.1", "optimizer=adam,sgd", "init=xavier"):
        unnarrowed = charcmp("status", override)
        assert unnarrowed.returncode == 0
        assert f"{override} does not narrow a status" in unnarrowed.stderr

    lines = charcmp("status", "--watch", "--json", "seed=1").stdout.splitlines()
    assert [(json.loads(line)["cell"], json.loads(line)["state"]) for line in lines] == [
        ("gru", "done"),
        ("rnn", "done"),
    ]


def test_the_best_so_far_did_not_diverge(tmp_path: Path) -> None:
    write_run(tmp_path, 1.5)
    write_run(tmp_path, None, cell="gru", val_nats_per_char=1.2)
    shown = overview(Runs(str(tmp_path), lease_seconds=60).look())
    assert "best so far, wp 50k: LSTM 1, validation 1.510" in shown
