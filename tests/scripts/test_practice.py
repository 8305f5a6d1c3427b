"""Variants of an experiment, the practice experiment, and the table made of its runs."""

import csv
import json
import math
import shutil
import statistics
import sys
from pathlib import Path

import pytest
from helpers.console import CHECKOUT, TINY, Charcmp
from helpers.runs import write_run
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from scipy import stats

from charcmp.errors import UserError
from charcmp.files import config_dir
from charcmp.runs.folder import RunFolder
from charcmp.runs.result import Epoch
from charcmp.sweeping.grid import Grid
from charcmp.training.train import train

sys.path.insert(0, str(CHECKOUT / "scripts"))
import practice_table

from charcmp.training.session import Session


def points(given: list[str]) -> list[tuple[str, str]]:
    parse = OverridesParser.create().parse_overrides
    variants = {"base": [], "wide": ["budget=130k", "layers=2,3"], "other": ["clip=null"]}
    grid = Grid(
        parse(given),
        parse(["budget=50k", "seed=0,1"]),
        compose=OmegaConf.create,  # not asked here
        variants={name: parse(lines) for name, lines in variants.items()},
    )
    return [(name, " ".join(overrides)) for name, overrides in grid.points()]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (
            ["seed=7"],
            [
                ("base", "budget=50k seed=7"),
                ("wide", "budget=130k layers=2 seed=7"),
                ("wide", "budget=130k layers=3 seed=7"),
                ("other", "budget=50k clip=null seed=7"),
            ],
        ),
        (
            ["hidden_size=8", "layers=1", "seed=7"],
            [
                ("base", "hidden_size=8 layers=1 seed=7"),
                ("wide", "hidden_size=8 layers=1 seed=7"),
                ("other", "clip=null hidden_size=8 layers=1 seed=7"),
            ],
        ),
        (
            ["clip=1", "layers=1"],
            [
                *(("base", f"budget=50k seed={seed} clip=1 layers=1") for seed in (0, 1)),
                *(("wide", f"seed={seed} budget=130k clip=1 layers=1") for seed in (0, 1)),
                *(("other", f"budget=50k seed={seed} clip=1 layers=1") for seed in (0, 1)),
            ],
        ),
    ],
)
def test_the_command_line_wins_over_a_variant_and_a_variant_over_the_axes(
    given: list[str], expected: list[tuple[str, str]]
) -> None:
    assert points(given) == expected


MINI = """\
# @package _global_
epochs: 2
hydra:
  sweeper:
    params: {cell: rnn, layers: "1"}
    variants:
      baseline: []
      higher: [optimizer.lr=0.01]
      the same: [clip_mode=value]
      two seeds: ["seed=0,1", optimizer=sgd]
"""


@pytest.mark.long
def test_a_sweep_of_variants(charcmp: Charcmp, tiny_text: Path, tmp_path: Path) -> None:
    folder = tmp_path / "conf" / "experiment"
    folder.mkdir(parents=True)
    (folder / "mini.yaml").write_text(MINI)
    tiny = [line for line in TINY if not line.startswith("epochs")]
    args = [f"--config-dir={folder.parent}", "experiment=mini", "dataset=text"]
    args += [f"dataset.path={tiny_text}", *tiny]
    plan = charcmp("sweep", "--dry-run", "--no-cost", *args).stdout
    assert "4 runs: 0 finished, 4 to do" in plan  # "the same" is the baseline
    rows = [line.split() for line in plan.splitlines() if line.startswith("tiny-")]
    variants = sorted(row[1] for row in rows)
    assert variants == ["baseline", "higher", "two", "two"]
    done = charcmp("sweep", *args)
    assert "4 of 4 runs finished" in done.stdout
    assert "4 finished before, 0 to do" in charcmp("sweep", *args).stdout
    identities = [
        json.loads(file.read_text())["identity"]
        for file in (tmp_path / "work" / "results" / "runs").glob("*/result.json")
    ]
    assert {i["optimizer.name"] for i in identities if "optimizer.name" in i} == {"sgd"}
    assert [i["optimizer.lr"] for i in identities if "optimizer.lr" in i] == [0.01]


def test_every_variant_of_practice_is_in_its_table() -> None:
    experiment = OmegaConf.load(config_dir() / "experiment" / "practice.yaml")
    named = {name for item in practice_table.ITEMS for name in (item.baseline, *item.variants)}
    assert set(experiment.hydra.sweeper.variants) == named


def test_the_experiment_of_the_gate_variants(charcmp: Charcmp, tiny_text: Path) -> None:
    text = ["dataset=text", f"dataset.path={tiny_text}"]
    done = charcmp("sweep", "experiment=variants", *text, "--dry-run", "--no-cost")
    assert "42 runs: 0 finished, 42 to do" in done.stdout  # seven cells, two depths, three seeds
    assert done.stdout.count("cascaded gate, open ") == 6


@pytest.mark.long
def test_the_practice_table(
    tiny_text: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    overrides = ["dataset=text", f"dataset.path={tiny_text}", f"results_dir={tmp_path}", *TINY]
    overrides += ["hidden_size=32", "epochs=1", "seed=0,1", "progress=false"]
    jobs = practice_table.practice_jobs(overrides)
    for variant in ("baseline", "2 layers", "rmsprop 1"):
        for job in jobs[variant]:
            job.folder.create()
            train(job.spec, job.folder, Session(say=lambda line: None))

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["practice_table.py", *overrides])

    def table() -> tuple[dict[tuple[str, str], dict[str, str]], str]:
        capsys.readouterr()
        practice_table.main()
        done = capsys.readouterr()
        with (tmp_path / "report" / "practice.csv").open() as file:
            rows = {(row["item"], row["variant"]): row for row in csv.DictReader(file)}
        assert (tmp_path / "report" / "practice.md").read_text().strip() in done.out
        return rows, done.err

    rows, complaints = table()
    assert " runs; charcmp sweep experiment=practice dataset=text" in complaints
    assert len(rows) == sum(1 + len(item.variants) for item in practice_table.ITEMS)

    def tests(variant: str) -> list[float]:
        results = [job.folder.read_result() for job in jobs[variant]]
        return [result.test_nats_per_char for result in results]

    row = rows["more layers at equal parameters", "2 layers"]
    differences = [b - a for a, b in zip(tests("baseline"), tests("2 layers"), strict=True)]
    assert float(row["test"]) == pytest.approx(statistics.fmean(tests("2 layers")))
    assert float(row["difference"]) == pytest.approx(statistics.fmean(differences))
    assert float(row["SD"]) == pytest.approx(statistics.stdev(differences))
    p_value = stats.ttest_rel(tests("2 layers"), tests("baseline")).pvalue
    assert float(row["Holm's p"]) == pytest.approx(min(1, 2 * p_value))  # of two: 3 layers not run
    assert row["seeds"] == "2"
    assert rows["more layers at equal parameters", "baseline"]["difference"] == ""
    row = rows["a high learning rate diverges", "rmsprop 1"]
    assert (row["diverged"], row["test"], row["difference"]) == ("2", "", "")

    shutil.rmtree(jobs["2 layers"][1].folder.path)
    row = table()[0]["more layers at equal parameters", "2 layers"]
    assert (row["seeds"], row["SD"], row["Holm's p"]) == ("1", "", "")
    assert float(row["difference"]) == pytest.approx(differences[0])


def test_the_practice_table_is_of_language_models(tiny_text: Path) -> None:
    overrides = ["dataset=text", f"dataset.path={tiny_text}", *TINY, "task=lm,fill"]
    with pytest.raises(UserError, match="the sources' advice is on language models"):
        practice_table.practice_jobs(overrides)


def finished(folder: Path, *nats: float | None) -> dict[int, practice_table.Finished]:
    """Runs with these test losses, by seed; None: diverged."""
    runs = {}
    for seed, test_nats in enumerate(nats):
        result = RunFolder(write_run(folder, test_nats, seed=seed)).read_result()
        assert result is not None
        epoch = Epoch(epoch=1, train_nats_per_char=1.0, val_nats_per_char=1.0)
        runs[seed] = practice_table.Finished(result, [epoch])
    return runs


def test_an_identity_has_no_p_value(tmp_path: Path) -> None:
    """Early stopping keeps the weights of the same epoch: the same losses, which no test judges."""
    alike = finished(tmp_path, 1.90, 1.91, 1.92)
    item = practice_table.ITEMS[-1]
    assert item.advice == "early stopping"
    results = dict.fromkeys((item.baseline, *item.variants), alike)
    _, stopped = practice_table.make_rows(item, results)
    assert (stopped["difference"], stopped["SD"]) == (0.0, 0.0)
    assert math.isnan(stopped["Holm's p"])


def test_a_variant_that_diverged_still_counts_among_the_comparisons(tmp_path: Path) -> None:
    item = practice_table.ITEMS[0]
    good, fair, worst = item.variants
    base, better = [1.65, 1.66, 1.64], [1.44, 1.46, 1.42]
    results = {
        item.baseline: finished(tmp_path / "base", *base),
        good: finished(tmp_path / "good", *better),
        fair: finished(tmp_path / "fair", 1.60, 1.70, 1.62),
        worst: finished(tmp_path / "worst", None, None, None),
    }
    rows = {row["variant"]: row for row in practice_table.make_rows(item, results)}
    p_value = stats.ttest_rel(better, base).pvalue
    assert rows[good]["Holm's p"] == pytest.approx(3 * p_value)
    assert math.isnan(rows[worst]["Holm's p"])
