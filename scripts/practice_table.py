"""Tests the sources' advice on training: makes a table of losses from experiment=practice.

    charcmp sweep experiment=practice [key=value ...]
    python scripts/practice_table.py [key=value ...] [--to results/report]

Takes the same overrides as the sweep. Writes practice.csv and practice.md from the runs on disk:
each item's baseline and variants, with means over the seeds. A difference is between runs with the
same seeds, and below 0 if the variant is better. Its spread is the sample standard deviation over
the seeds; its p is that of a paired t test over them, adjusted by Holm's method among all
variants of the item, those that diverged included.
"""

from __future__ import annotations

import argparse
import math
import shlex
import statistics
import sys
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from charcmp.config.compose import compose_line
from charcmp.errors import UserError
from charcmp.files import write_bytes
from charcmp.output import counted
from charcmp.report.writing.sections import p_text
from charcmp.runs.reading import CorruptFileError
from charcmp.runs.result import Epoch, Result, read_history
from charcmp.sweeping.grid import Job, make_grid, make_job
from charcmp.uncertainty.intervals import Estimate, estimate, judge, seed_component


@dataclass(frozen=True)
class Item:
    """A piece of advice, the variant that it starts from, and the variants that follow it."""

    advice: str
    variants: tuple[str, ...]
    baseline: str = "baseline"
    is_tested: bool = True


# In the order of the table. The names are those of conf/experiment/practice.yaml.
ITEMS = (
    Item("a high learning rate diverges", ("rmsprop 0.02", "rmsprop 0.1", "rmsprop 1")),
    Item("softsign for tanh", ("softsign",)),
    Item("more layers at equal parameters", ("2 layers", "3 layers")),
    Item(
        "RMSProp and AdaGrad against SGD and Adam",
        ("adagrad 0.1", "sgd 0.03", "adam 0.02"),
        "rmsprop 0.02",
    ),
    Item("Xavier against uniform initialisation", ("xavier",)),
    Item("clipping by norm", ("clip norm 5", "clip norm 25", "no clip")),
    Item("more parameters than characters", ("short 50k", "short 130k"), "short 10k"),
    # Not tested: the best epoch comes before the stop, so both variants have the same weights.
    # Their losses are equal by identity, not as the outcome of a test.
    Item("early stopping", ("short 130k, patience 20",), "short 130k", is_tested=False),
)
NOTE = (
    "Adam's rate, 0.02, is the highest that was tried; a higher one may do better. Early stopping "
    "keeps the weights of the same epoch, so its difference of 0 is an identity: no test."
)
NATS = ("test", "train", "test - train", "last val")
FORMATS: dict[str, Callable[[float], str]] = dict.fromkeys(NATS, "{:.3f}".format) | {
    "difference": "{:+.3f}".format,
    "SD": "{:.3f}".format,
    "Holm's p": p_text,
    "best epoch": "{:.0f}".format,
    "epochs": "{:.0f}".format,
}


def practice_jobs(overrides: list[str]) -> dict[str, list[Job]]:
    """Returns the runs of `charcmp sweep experiment=practice` with the same overrides, by variant.

    Raises:
        UserError: if they are not all language models.
    """
    grid = make_grid(compose_line(["experiment=practice", *overrides]))
    jobs = defaultdict(list)
    for variant, lines in grid.points():
        job = make_job(lines, grid.compose(lines), variant)
        if job.spec.config.task != "lm":
            raise UserError("task: the sources' advice is on language models")
        jobs[variant].append(job)
    return dict(jobs)


class Finished(NamedTuple):
    """A finished run."""

    result: Result
    history: list[Epoch]

    @property
    def test_nats(self) -> float:
        assert self.result.test_nats_per_char is not None  # it did not diverge
        return self.result.test_nats_per_char

    @property
    def train_nats(self) -> float:
        assert self.result.train_nats_per_char is not None
        return self.result.train_nats_per_char


def read_variant(jobs: list[Job]) -> dict[int, Finished]:
    """Returns a variant's finished runs by seed."""
    results = {}
    for job in jobs:
        try:
            if (result := job.folder.read_result()) is not None:
                results[result.seed] = Finished(result, read_history(job.folder.history))
        except CorruptFileError as error:
            print(f"{error}; left out", file=sys.stderr)
    return results


def mean_over(runs: list[Finished], value: Callable[[Finished], float | None]) -> float:
    values = [number for run in runs if (number := value(run)) is not None]
    return statistics.fmean(values) if values else math.nan


def make_rows(item: Item, results: dict[str, dict[int, Finished]]) -> list[dict[str, Any]]:
    """Returns the lines of an item: its baseline, then its variants."""
    rows: list[dict[str, Any]] = []
    family: dict[int, Estimate] = {}  # of the rows with enough seeds, by the row's number
    for variant in (item.baseline, *item.variants):
        runs = results[variant]
        done = {seed: run for seed, run in runs.items() if run.result.status == "done"}
        mean = partial(mean_over, list(done.values()))
        row: dict[str, Any] = {
            "item": item.advice,
            "variant": variant,
            "parameters": f"{next(iter(runs.values())).result.num_params:,}" if runs else "",
            "seeds": len(runs),
            "diverged": len(runs) - len(done),
            "test": mean(lambda run: run.test_nats),
            "difference": math.nan,
            "SD": math.nan,
            "Holm's p": math.nan,
            "train": mean(lambda run: run.train_nats),
            "test - train": mean(lambda run: run.test_nats - run.train_nats),
            "last val": mean(lambda run: run.history[-1].val_nats_per_char),
            "best epoch": mean(lambda run: run.result.best_epoch),
            "epochs": mean(lambda run: run.result.epochs_trained),
        }
        if variant != item.baseline:
            base = results[item.baseline]
            differences = [
                run.test_nats - base[seed].test_nats
                for seed, run in done.items()
                if seed in base and base[seed].result.status == "done"
            ]
            if differences:
                row["difference"] = statistics.fmean(differences)
            if spread := seed_component(differences):
                row["SD"] = statistics.stdev(differences)
            if spread and item.is_tested:
                family[len(rows)] = estimate(row["difference"], [spread])
        rows.append(row)
    # Variants that diverged, or have too few seeds, count as planned: see judge.
    planned = judge(list(family.values()), family_size=len(item.variants))
    for number, judged in zip(family, planned, strict=True):
        rows[number]["Holm's p"] = judged.p_holm
    return rows


def write_table(overrides: list[str], to: Path | None) -> None:
    """Writes practice.csv and practice.md, and prints the table.

    Raises:
        UserError: if no run of the sweep is finished, or the folder cannot be written.
    """
    jobs = practice_jobs(overrides)
    results = {variant: read_variant(of_variant) for variant, of_variant in jobs.items()}
    num_missing = sum(len(jobs[name]) - len(results[name]) for name in jobs)
    if num_missing:
        command = shlex.join(["charcmp", "sweep", "experiment=practice", *overrides])
        print(f"not finished: {counted(num_missing, 'run')}; {command}", file=sys.stderr)
    if not any(results.values()):
        raise UserError("no finished run: nothing to show")
    table = pd.DataFrame([row for item in ITEMS for row in make_rows(item, results)])
    shown = table.assign(
        **{
            column: [as_text(value) if math.isfinite(value) else "" for value in table[column]]
            for column, as_text in FORMATS.items()
        }
    )
    shown["item"] = table["item"].where(~table["item"].duplicated(), "")
    markdown = shown.to_markdown(index=False, disable_numparse=True) + f"\n\n{NOTE}"
    folder = to or next(iter(jobs.values()))[0].folder.path.parents[1] / "report"
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in {"practice.csv": table.to_csv(index=False), "practice.md": markdown}.items():
        write_bytes(folder / name, f"{text}\n".encode())
    print(markdown)
    print(f"wrote {folder / 'practice.csv'} and practice.md: test losses in nats per character, "
          "of the best epoch by validation; last val: of the last epoch")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("overrides", nargs="*", help="as the sweep had them")
    parser.add_argument("--to", type=Path, help="default: report/ of the results folder")
    options = parser.parse_args()
    try:
        write_table(options.overrides, options.to)
    except UserError as error:
        sys.exit(f"practice_table: {error}")


if __name__ == "__main__":
    main()
