"""scripts/publish.py: small files that lead to the same report."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from helpers.console import Charcmp, load_script, run_of
from helpers.runs import DRAWN_ONCE, TEXTS, add_records, losses, report_files, write_run

from charcmp.errors import UserError
from charcmp.report import make
from charcmp.report.filters import Filters
from charcmp.report.make import make_report
from charcmp.runs.baselines import (
    VERSION,
    Baselines,
    TestText,
    baselines_file,
    write_baselines,
)


@pytest.fixture(scope="module")
def publish() -> ModuleType:
    return load_script("publish")


COMMAND = (
    "charcmp train cell=lstm results_dir=/home/someone/r 'data_dir=/home/some one/d' "
    "dataset=wp dataset.path=/home/someone/wp.txt epochs=50"
)


def complete(folder: Path) -> None:
    """The other files that a training leaves in a run's folder."""
    (folder / "config.yaml").write_text(
        "# the-id\ndataset:\n  name: wp\n  path: /home/someone/wp.txt\nlayers: 1\n"
        "threads: 3\njobs: 2\nresults_dir: /home/someone/r\ndata_dir: /home/someone/d\n"
    )
    add_records(folder)
    environment = json.loads((folder / "environment.json").read_text())
    environment |= {"command": COMMAND, "earlier_starts": [{"command": COMMAND}]}
    (folder / "environment.json").write_text(json.dumps(environment))
    (folder / "checkpoint.pt").write_bytes(b"large")


def all_files(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


def test_publish_round_trip(publish: ModuleType, tmp_path: Path) -> None:
    results, to = tmp_path / "results", tmp_path / "paper"
    for cell in ("lstm", "gru"):
        for seed in (0, 1):
            nll = losses(1.5, seed=seed, num_chars=330_000)
            complete(write_run(results, 1.5, cell=cell, seed=seed, nll=nll, num_test_chars=330_000))
    (results / "runs" / "unfinished").mkdir()
    make_report(
        results, Filters({"cell": {"lstm", "gru"}}), out=results / "report", formats=DRAWN_ONCE
    )
    assert publish.publish(results, to, formats=DRAWN_ONCE) == 0
    first = all_files(to)
    wanted = report_files(results)
    assert report_files(to).keys() == wanted.keys()
    same = {name for name, contents in wanted.items() if report_files(to)[name] == contents}
    # The tables have columns for the grid's missing cells; the page has commands without paths.
    assert {name for name in wanted if name.startswith("figures/")} < same
    assert {"entries.csv", "differences.csv", "claims.csv", "against_paper.csv"} < same
    assert b"0.00" in wanted["entries.csv"]  # with SDs
    runs = sorted((to / "runs").iterdir())
    assert len(runs) == 4
    for run in runs:
        assert {file.name for file in run.iterdir()} == {
            *("result.json", "config.yaml", "environment.json", "history.json", "test_blocks.npz")
        }
        assert sum(file.stat().st_size for file in run.iterdir()) < 100_000
        assert not any(b"someone" in file.read_bytes() for file in run.iterdir())
        assert (run / "config.yaml").read_text() == "# the-id\ndataset:\n  name: wp\nlayers: 1\n"
        environment = json.loads((run / "environment.json").read_text())
        left = "charcmp train cell=lstm dataset=wp epochs=50"
        assert environment["command"] == environment["earlier_starts"][0]["command"] == left
    assert publish.publish(results, to, formats=DRAWN_ONCE) == 0
    assert all_files(to) == first
    # What is published stays, whatever the next results folder holds.
    complete(write_run(tmp_path / "more", 1.3, layers=2, nll=losses(1.3)))
    assert publish.publish(tmp_path / "more", to, formats=TEXTS) == 0
    assert {name for name in first if name.startswith("runs")} < set(all_files(to))


OWN_CELL = "cell:\n  name: module\n  target: {}\n  kwargs: {}\n"


def test_a_class_of_ones_own_is_published_by_the_name_of_its_file(
    publish: ModuleType, tmp_path: Path
) -> None:
    run = write_run(tmp_path, 1.5, nll=losses())
    complete(run)
    target = "/home/someone/cells/mine.py:MyCell"
    with (run / "config.yaml").open("a") as config:
        config.write(OWN_CELL.format(target, "{}"))
    environment = json.loads((run / "environment.json").read_text())
    flags = "--config-dir=/home/someone/conf -cd /home/someone/conf"
    environment["command"] = (
        f"charcmp train /home/someone/a.txt {flags} cell=module cell.target={target} layers=1"
    )
    earlier = "charcmp train -cp=/home/someone cell.target=torch.nn.GRU"
    earlier += " \"cell.target='/a b/c.py:D'\""
    environment["earlier_starts"] = [{"command": earlier}]
    (run / "environment.json").write_text(json.dumps(environment))
    assert publish.publish(tmp_path, tmp_path / "paper", formats=TEXTS) == 0
    (to,) = (tmp_path / "paper" / "runs").iterdir()
    assert "target: mine.py:MyCell\n" in (to / "config.yaml").read_text()
    environment = json.loads((to / "environment.json").read_text())
    left = "charcmp train a.txt cell=module cell.target=mine.py:MyCell layers=1"
    assert environment["command"] == left
    left = "charcmp train cell.target=torch.nn.GRU cell.target=c.py:D"
    assert environment["earlier_starts"] == [{"command": left}]


def test_a_path_that_is_left_over_is_refused(
    publish: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    in_config, in_command, hidden = (
        write_run(tmp_path, 1.5, cell=cell, nll=losses()) for cell in ("lstm", "gru", "rnn")
    )
    for run in (in_config, in_command, hidden):
        complete(run)
    with (in_config / "config.yaml").open("a") as config:
        config.write(OWN_CELL.format("torch.nn.GRU", "{table: /home/someone/t.npy}"))
    environment = json.loads((in_command / "environment.json").read_text())
    environment["command"] += " 'cell.kwargs={table:/home/someone/t.npy}'"
    (in_command / "environment.json").write_text(json.dumps(environment))
    hidden.rename(hidden.with_name(".ipynb_checkpoints"))
    assert publish.publish(tmp_path, tmp_path / "paper", with_losses=False) == 2
    said = capsys.readouterr().out
    for run, name in ((in_config, "config.yaml"), (in_command, "environment.json")):
        assert f"refused: {run.name}: {name} names a folder of this machine: " in said
    assert "0 runs published, 0 unchanged, 2 refused, 0 not finished" in said


def test_a_diverged_run_is_published_as_such(publish: ModuleType, tmp_path: Path) -> None:
    complete(write_run(tmp_path, 1.5, nll=losses()))
    diverged = write_run(tmp_path, 1.5, layers=2)
    complete(diverged)
    result = json.loads((diverged / "result.json").read_text())
    nats = dict.fromkeys(key for key in result if key.endswith("nats_per_char"))
    (diverged / "result.json").write_text(json.dumps(result | {"status": "diverged"} | nats))
    assert publish.publish(tmp_path, tmp_path / "paper", formats=TEXTS) == 0
    published = {file.name for file in (tmp_path / "paper" / "runs" / diverged.name).iterdir()}
    assert published == {"result.json", "config.yaml", "environment.json", "history.json"}
    assert "diverged" in (tmp_path / "paper" / "report" / "table_nats.md").read_text()


def test_publish_without_losses(publish: ModuleType, tmp_path: Path) -> None:
    run = write_run(tmp_path, 1.5, nll=losses())
    complete(run)
    to = tmp_path / "practice"
    assert publish.publish(tmp_path, to, with_losses=False) == 0
    assert {str(file.relative_to(to)) for file in to.rglob("*") if file.is_file()} == {
        f"runs/{run.name}/{name}"
        for name in ("result.json", "config.yaml", "environment.json", "history.json")
    }


def test_baselines_are_published_too(
    publish: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    complete(write_run(tmp_path, 1.5, nll=losses()))
    text = {"corpus_sha256": "0" * 64, "layout": "columns", "split": [80.0, 10.0, 10.0]}
    test_text = TestText.from_settings(**text, num_chars=1000, batch_size=10, unroll_steps=10)
    found = Baselines(version=VERSION, dataset="wp", test_text=test_text, budgets=[], baselines=[])
    file = baselines_file(tmp_path, "wp", test_text)
    file.parent.mkdir()
    write_baselines(file, found)
    (file.parent / "torn.json").write_text("{")
    assert publish.publish(tmp_path, tmp_path / "paper", formats=TEXTS) == 0
    assert "torn.json: not valid JSON" in capsys.readouterr().out
    assert [one.name for one in (tmp_path / "paper" / "baselines").iterdir()] == [file.name]


@pytest.mark.parametrize(
    "changed",
    [{"git_dirty": True}, {"git_dirty": None}, {"git_commit": None, "git_dirty": None}],
    ids=str,
)
def test_publish_refuses_what_no_commit_made(
    publish: ModuleType, tmp_path: Path, changed: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    complete(write_run(tmp_path, 1.5, nll=losses()))
    dirty = write_run(tmp_path, 1.4, cell="gru", nll=losses(), **changed)
    complete(dirty)
    to = tmp_path / "paper"
    assert publish.publish(tmp_path, to, formats=TEXTS) == 1
    assert f"refused: {dirty.name}" in capsys.readouterr().out
    assert not (to / "runs" / dirty.name).exists()
    assert publish.publish(tmp_path, to, allow_dirty=True, formats=TEXTS) == 0
    assert (to / "runs" / dirty.name / "result.json").exists()


def test_published_runs_are_shown_when_asked_for_and_never_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = tmp_path / "results" / "paper"
    monkeypatch.setattr(make, "PUBLISHED", published)
    fast = write_run(published.parent / "fast", 1.4).parents[1]
    write_run(published, 1.333)
    before = all_files(published.parent)
    with pytest.raises(UserError, match=r"no finished run; .*report --published shows"):
        make_report(tmp_path / "results")
    assert not (tmp_path / "results" / "report").exists()
    make_report(tmp_path / "results", formats=["csv"], published=True)
    assert (tmp_path / "results" / "report" / "published" / "entries.csv").is_file()
    for inside in (published, published / "runs", fast):
        with pytest.raises(UserError, match="published"):
            make_report(inside)
    shutil.rmtree(tmp_path / "results" / "report")
    assert all_files(published.parent) == before
    make_report(fast, out=tmp_path / "elsewhere", formats=["csv"])


def test_a_run_published_with_its_weights_is_a_run_to_use(
    charcmp: Charcmp, publish: ModuleType, trained: Path, tmp_path: Path
) -> None:
    """By sample and score, with nothing else of the run's own folder; its text in data_dir."""
    to = tmp_path / "weights"
    assert publish.publish(
        trained, to, allow_dirty=True, with_losses=False, with_weights=True
    ) == 0  # fmt: skip
    published, run = run_of(to, "tiny"), run_of(trained, "tiny")
    assert {file.name for file in published.iterdir()} == {
        *("result.json", "config.yaml", "environment.json", "history.json", "best.safetensors")
    }
    assert not any(str(trained).encode() in file.read_bytes() for file in published.iterdir())
    assert "working_dir" in json.loads((run / "environment.json").read_text())
    assert "working_dir" not in (published / "environment.json").read_text()
    ways = {run: [f"results_dir={trained}"], published: [f"data_dir={trained}"]}
    for arguments in (["sample", "length=50"], ["score", "split=test"]):
        shown = [charcmp(*arguments, f"run={folder}", *options) for folder, options in ways.items()]
        assert [(done.returncode, done.stderr) for done in shown] == [(0, "")] * 2
        assert shown[0].stdout == shown[1].stdout != ""
    done = charcmp("score", f"run={published}", "split=test", CHARCMP_DATA="")
    assert done.returncode == 2
    assert "its text was not found; looked for" in done.stderr
