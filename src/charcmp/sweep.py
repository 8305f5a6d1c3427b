"""A grid of runs: expanded from overrides, without what is done, launched, summed up."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig
from tabulate import tabulate

from charcmp.budget import num_params
from charcmp.config import NOT_SCIENTIFIC, Config, typed
from charcmp.errors import UserError
from charcmp.runs import CorruptFileError, RunFolder, runs_dir
from charcmp.sources import find, load_corpus
from charcmp.spec import RunSpec, deviation_warning, resolve, resolve_size

EXIT_FAILED = 1


@dataclass(frozen=True, eq=False)
class Job:
    """One cell of the grid: the overrides that name it, what they resolve to, where it lives."""

    overrides: list[str]
    spec: RunSpec
    folder: RunFolder

    @property
    def cost(self) -> float:
        """Arithmetic of the run, up to a factor: parameters times characters read."""
        return self.spec.num_params * self.spec.corpus.num_chars * self.spec.config.epochs


def make_job(overrides: list[str], cfg: DictConfig) -> Job:
    spec = resolve(typed(cfg))
    return Job(overrides, spec, RunFolder(runs_dir(spec.config.results_dir) / spec.run_id))


class Grid:
    """The cross product that overrides span; axes they do not name come from the experiment."""

    def __init__(
        self,
        given: Sequence[Override],
        default_axes: Sequence[Override],
        compose: Callable[[list[str]], DictConfig],
    ) -> None:
        self.given = given
        self.compose = compose
        named = {override.key_or_group for override in given}
        if "hidden_size" in named:
            named.add("budget")
        self.default_axes = [axis for axis in default_axes if axis.key_or_group not in named]

    def points(self) -> list[list[str]]:
        """The overrides of every cell."""
        axes = [*self.default_axes, *self.given]
        return [list(point) for point in itertools.product(*map(_values, axes))]

    def configs(self) -> list[Config]:
        return [typed(self.compose(point)) for point in self.points()]

    def jobs(self) -> list[Job]:
        """The runs of the grid, each once, however many of its cells lead to it."""
        jobs: dict[str, Job] = {}
        for point in self.points():
            job = make_job(point, self.compose(point))
            jobs.setdefault(job.spec.run_id, job)
        return list(jobs.values())


def _values(override: Override) -> list[str]:
    """The single overrides that a sweep over one key stands for."""
    key = override.get_key_element()
    if not override.is_sweep_override():
        return [override.input_line or ""]
    if not override.is_discrete_sweep():
        raise UserError(f"{override.input_line}: a grid needs values, as in {key}=1,2")
    return [f"{key}={value}" for value in override.sweep_string_iterator()]


def run(grid: Grid, launch: Callable[[list[Job]], Any]) -> None:
    """`charcmp sweep`: launches what is not done; exit status 1 if something failed."""
    jobs = grid.jobs()
    left = [job for job in jobs if not _is_finished(job)]
    for warning in sorted({w for job in left if (w := deviation_warning(job.spec))}):
        print(f"note: {warning}")
    for note in sorted({f"{job.spec.corpus.name} is a {job.spec.corpus.note}"
                        for job in jobs if job.spec.corpus.note}):  # fmt: skip
        print(f"note: {note}")
    print(f"{len(jobs)} runs: {len(jobs) - len(left)} finished before, {len(left)} to do")
    if left:
        left[0].folder.create()  # a folder that cannot be written is one line, not one per run
        # Longest first: the last runs to end are then short ones, and no slot idles for long.
        launch(sorted(left, key=lambda job: -job.cost))
    failed = [job for job in left if _status(job) is None]
    diverged = [job for job in jobs if _status(job) == "diverged"]
    for job in diverged:
        print(f"diverged: {job.spec.run_id}")
    for job in failed:
        print(f"failed: {job.spec.run_id}: {job.folder.failure_reason()}")
    print(
        f"{len(jobs) - len(failed)} of {len(jobs)} runs finished"
        + (f", {len(diverged)} of them diverged" if diverged else "")
        + (f", {len(failed)} failed" if failed else "")
        + "; charcmp report makes the tables"
    )
    if failed:
        sys.exit(EXIT_FAILED)


def _status(job: Job) -> str | None:
    try:
        result = job.folder.read_result()
    except CorruptFileError:
        return None
    return result["status"] if result else None


def _is_finished(job: Job) -> bool:
    """Whether the run has a result. A corrupt one is told of and set aside."""
    try:
        return job.folder.read_result() is not None
    except CorruptFileError as error:
        aside = job.folder.set_aside(job.folder.result)
        print(f"{error}; kept as {aside.name}, the run is finished again")
        return False


def print_plan(grid: Grid) -> None:
    """`charcmp sweep --dry-run`."""
    jobs = grid.jobs()
    rows = []
    for job in jobs:
        spec, config = job.spec, job.spec.config
        state = _status(job) or ("resume" if job.folder.checkpoint.exists() else "new")
        rows.append(
            {
                "run": spec.run_id,
                "state": state,
                "dataset": spec.corpus.name,
                "cell": config.cell.name,
                "layers": config.layers,
                "budget": spec.budget,
                "hidden": spec.hidden_size,
                "params": f"{spec.num_params:,}",
                "off %": f"{spec.deviation_percent:+.2f}",
                "seed": config.seed,
                "dropout": f"{config.dropout:g}",
                "epochs": config.epochs,
            }
        )
    print(tabulate(rows, headers="keys", disable_numparse=True))
    left = sum(row["state"] not in ("done", "diverged") for row in rows)
    print(f"{len(rows)} runs: {len(rows) - left} finished, {left} to do")


def print_params(grid: Grid, as_json: bool) -> None:
    """`charcmp params`: the solver's table. Where a corpus is not here, by its known vocabulary."""
    rows: list[dict[str, Any]] = []
    for config in grid.configs():
        dataset, cell, layers = config.dataset, config.cell.name, config.layers
        if (
            dataset.source == "paper"
            and not dataset.path
            and not find(str(dataset.name), config.data_dir)
        ):
            name, num_symbols = dataset.name, dataset.num_symbols
        else:
            corpus = load_corpus(dataset, config.data_dir)
            name, num_symbols = corpus.name, corpus.num_symbols
        assert num_symbols is not None
        size = resolve_size(config, num_symbols)
        count = num_params(cell, layers, size.hidden_size, num_symbols)
        row = {
            "dataset": name,
            "cell": cell,
            "layers": layers,
            "budget": size.budget,
            "hidden_size": size.hidden_size,
            "num_params": count,
            "target_params": size.target_params,
            "deviation_percent": round(100 * (count / size.target_params - 1), 3),
        }
        if row not in rows:  # seeds do not matter here
            rows.append(row)
    if as_json:
        print(json.dumps(rows, indent=2))
    else:
        print(tabulate(rows, headers="keys", intfmt=",", floatfmt="+.2f"))


def status(grid: Grid, as_json: bool) -> None:
    """`charcmp status`: of the results folder that the overrides name."""
    from charcmp.status import print_status

    overrides = [override.input_line or "" for override in grid.given]
    print_status(typed(grid.compose(overrides)).results_dir, as_json)


def report(grid: Grid, formats: str = "", output: str = "") -> None:
    """`charcmp report`: of everything in the results folder, or of the part that overrides name."""
    from charcmp.report import FORMATS, Filters, make_report

    axes: dict[str, set[str]] = {}
    others = []
    for override in grid.given:
        key = override.key_or_group
        if key in Filters.AXES:
            axes[key] = {value.split("=", 1)[1].strip("'\"") for value in _values(override)}
            continue
        if not key.startswith("dataset."):
            others.append(override.input_line or "")
        if key not in NOT_SCIENTIFIC and key != "experiment" and not key.startswith("hydra"):
            print(f"note: {override.input_line} does not narrow a report; what narrows it is "
                  + ", ".join(Filters.AXES), file=sys.stderr)  # fmt: skip
    results_dir = typed(grid.compose(others)).results_dir
    wanted = formats.split(",") if formats else FORMATS
    make_report(results_dir, Filters(axes), out=output or None, formats=wanted)
