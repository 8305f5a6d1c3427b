"""A grid of runs: expanded from overrides, without what is done, launched, summed up."""

from __future__ import annotations

import itertools
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from functools import partial
from typing import Any

from hydra.core.override_parser.types import Override
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig
from tabulate import tabulate

from charcmp.budget import num_params
from charcmp.config import NOT_SCIENTIFIC, Config, typed
from charcmp.cost import Estimate, estimate, longest_first, makespan
from charcmp.errors import UserError
from charcmp.runs import RunFolder, runs_dir
from charcmp.slots import Slot, make_slots
from charcmp.sources import find, load_corpus
from charcmp.spec import RunSpec, deviation_warning, resolve, resolve_size
from charcmp.status import WATCH_SECONDS, duration, print_status, run_status, watch_status

EXIT_FAILED = 1


@dataclass(frozen=True, eq=False)
class Job:
    """One cell of the grid: the overrides that name it, what they resolve to, where it lives."""

    overrides: list[str]
    spec: RunSpec
    folder: RunFolder

    def fraction_done(self) -> float:
        """How much of the run its attempts so far have done, 0 to 1."""
        fraction = self.folder.read_progress().get("fraction")
        return min(max(fraction, 0.0), 1.0) if isinstance(fraction, int | float) else 0.0


def make_job(overrides: list[str], cfg: DictConfig) -> Job:
    spec = resolve(typed(cfg))
    path = runs_dir(spec.config.results_dir) / spec.run_id
    return Job(overrides, spec, RunFolder(path, spec.config.lease_seconds))


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


def run_command(
    command: str,
    grid: Grid,
    flags: Set[str],
    launcher: Launcher,
    formats: str = "",
    output: str = "",
) -> None:
    """A command of the console over a grid; its flags without dashes (cli.FLAGS).

    `formats` and `output` are options of a report; empty for the usual.
    """
    match command:
        case "sweep" if "dry-run" in flags:
            print_plan(grid, with_cost="no-cost" not in flags)
        case "sweep":
            launch = partial(launch_jobs, launcher, fail_fast="fail-fast" in flags)
            run(grid, launch, retry_failed="retry-failed" in flags)
        case "params":
            print_params(grid, as_json="json" in flags)
        case "status":
            status(grid, as_json="json" in flags, watch="watch" in flags)
        case "report":
            report(grid, formats, output)
        case _:
            raise AssertionError(command)


def launch_jobs(launcher: Launcher, jobs: list[Job], fail_fast: bool) -> None:
    """Runs jobs by our launcher, or by another, which composes each from its overrides."""
    if (run_jobs := getattr(launcher, "launch_jobs", None)) is not None:
        run_jobs(jobs, fail_fast)
        return
    if fail_fast:
        print(f"note: --fail-fast has no effect with {type(launcher).__name__}")
    try:
        launcher.launch([job.overrides for job in jobs], 0)
    except Exception as error:  # some launchers stop watching when the first job fails
        reason = " ".join(str(error).split())[:200]
        print(f"note: {type(launcher).__name__} has stopped watching: {reason}")
        print("note: jobs may go on: charcmp status --watch; later, the same command runs the rest")
    record_deaths(jobs)


def record_deaths(jobs: Sequence[Job]) -> None:
    """Notes what ended without a word, killed or out of memory: it has no result and holds its
    lease, but its heart has stopped."""
    silent = {
        job: job.folder.lease.stamp()
        for job in jobs
        if not job.folder.result.exists() and job.folder.lease.owner() is not None
    }
    deadline = time.monotonic() + max((job.folder.lease.seconds for job in silent), default=0) + 1
    while silent and time.monotonic() < deadline:
        for job, stamp in list(silent.items()):
            if job.folder.lease.is_free():
                job.folder.record_death("ended without a word; the launcher's own logs may say why")
                del silent[job]
            elif job.folder.lease.stamp() != stamp:
                del silent[job]  # it lives
        time.sleep(WATCH_SECONDS)


def run(grid: Grid, launch: Callable[[list[Job]], Any], retry_failed: bool = False) -> None:
    """`charcmp sweep`: launches what is not done; exit status 1 if something is not in the end.

    Args:
        grid: the runs.
        launch: runs jobs and returns when none of them is running.
        retry_failed: whether to try again what failed in an earlier sweep.
    """
    jobs = grid.jobs()
    unfinished = [job for job in jobs if job.folder.usable_result() is None]
    left = [job for job in unfinished if retry_failed or not _failed_for_good(job)]
    for warning in sorted({w for job in left if (w := deviation_warning(job.spec))}):
        print(f"note: {warning}")
    for note in sorted({f"{job.spec.corpus.name} is a {job.spec.corpus.note}"
                        for job in jobs if job.spec.corpus.note}):  # fmt: skip
        print(f"note: {note}")
    num_held = len(unfinished) - len(left)
    held = f", {num_held} failed before (--retry-failed tries again)" if num_held else ""
    print(
        f"{len(jobs)} runs: {len(jobs) - len(unfinished)} finished before, {len(left)} to do{held}"
    )
    if left:
        queue(left)
        launch(left)
    print_outcome(jobs)


def _failed_for_good(job: Job) -> bool:
    failure = job.folder.read_failure()
    return failure is not None and not failure["retry"]


def queue(jobs: Sequence[Job]) -> None:
    """Leaves a note in the folder of each run that is to come, for whoever asks for the status.

    Raises:
        UserError: if the results folder cannot be written.
    """
    for job in jobs:
        job.folder.create()
        if not job.folder.progress.exists():
            note = {"epoch": 0, "epochs": job.spec.config.epochs, "fraction": 0.0}
            job.folder.write_progress(job.spec.row() | note)


def print_outcome(jobs: Sequence[Job]) -> None:
    """How a sweep ended; exit status 1 if a run has no result."""
    counts: Counter[str] = Counter()
    for job in jobs:
        state = run_status(job.folder)["state"]
        counts[state] += 1
        if state == "failed":
            print(f"failed: {job.spec.run_id}: {job.folder.failure_reason()}")
        elif state != "done":
            print(f"{state}: {job.spec.run_id}")
    num_finished = counts["done"] + counts["diverged"]
    others = [f"{counts['diverged']} of them diverged"] if counts["diverged"] else []
    others += [f"{n} {state}" for state, n in counts.items() if state not in ("done", "diverged")]
    print(
        ", ".join([f"{num_finished} of {len(jobs)} runs finished", *others])
        + "; charcmp report makes the tables"
    )
    if num_finished < len(jobs):
        sys.exit(EXIT_FAILED)


def print_plan(grid: Grid, with_cost: bool = True) -> None:
    """`charcmp sweep --dry-run`: the runs in the order of their launch, and what they will cost."""
    jobs = grid.jobs()
    states = {job: _plan_state(job) for job in jobs}
    left = [job for job in jobs if states[job] not in ("done", "diverged")]
    estimates: dict[Job, Estimate] = {}
    if left:
        slots = make_slots(left[0].spec.config)
        estimates = estimate(left, slots, measure=with_cost)
        left = longest_first(left, estimates)
    ordered = [*left, *(job for job in jobs if job not in estimates)]
    rows = [_plan_row(job, states[job]) for job in ordered]
    if with_cost:
        for row, job in zip(rows, ordered, strict=True):
            cost = estimates.get(job)
            row |= {"left": duration(cost.seconds_left), "from": cost.source} if cost else {}
    print(tabulate(rows, headers="keys", disable_numparse=True))
    print(f"{len(jobs)} runs: {len(jobs) - len(left)} finished, {len(left)} to do")
    if left and with_cost:
        print_costs(left, estimates, slots)


def _plan_state(job: Job) -> str:
    state = str(run_status(job.folder)["state"])
    return "new" if state == "waiting" else state


def _plan_row(job: Job, state: str) -> dict[str, str]:
    spec, config = job.spec, job.spec.config
    return {
        "run": spec.run_id,
        "state": state,
        "dataset": spec.corpus.name,
        "cell": config.cell.name,
        "layers": str(config.layers),
        "budget": spec.budget,
        "hidden": str(spec.hidden_size),
        "params": f"{spec.num_params:,}",
        "off %": f"{spec.deviation_percent:+.2f}",
        "seed": str(config.seed),
        "dropout": f"{config.dropout:g}",
        "epochs": str(config.epochs),
    }


def print_costs(left: list[Job], estimates: dict[Job, Estimate], slots: list[Slot]) -> None:
    """Time by row of the tables, and in all for these slots."""
    by_row: dict[str, list[float]] = {}
    for job in left:
        row = f"{job.spec.corpus.name} {job.spec.budget}"
        by_row.setdefault(row, []).append(estimates[job].seconds_left)
    for row, seconds in by_row.items():
        print(f"{row}: {len(seconds)} runs, {duration(sum(seconds))} of one slot")
    whole = makespan((estimates[job].seconds_left for job in left), len(slots))
    share = f", threads={slots[0].threads}" if slots[0].threads else ""
    print(f"in all: {duration(whole)} with {len(slots)} at once on {slots[0].machine}{share}")


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


def status(grid: Grid, as_json: bool, watch: bool) -> None:
    """`charcmp status`: of the results folder that the overrides name."""
    overrides = [override.input_line or "" for override in grid.given]
    config = typed(grid.compose(overrides))
    if watch:
        watch_status(config.results_dir, config.lease_seconds)
    else:
        print_status(config.results_dir, config.lease_seconds, as_json)


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
