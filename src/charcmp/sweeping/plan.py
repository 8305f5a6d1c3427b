"""Shows what a grid would train: hidden sizes, parameter counts, states, costs."""

from __future__ import annotations

from collections.abc import Sequence

from tabulate import tabulate

from charcmp.config.schema import NOT_SCIENTIFIC, flatten
from charcmp.config.spec import notes_on, split_of
from charcmp.output import counted, duration, note
from charcmp.runs.status import run_status
from charcmp.sweeping.cost import TimeEstimate, estimate_times, longest_first, makespan
from charcmp.sweeping.grid import Grid, Job
from charcmp.sweeping.slots import Slot, make_slots
from charcmp.training.memory import require_memory, training_bytes

IN_THE_ID = (
    *("task", "cell.name", "cell.target", "layers", "seed"),
    *("dataset.layout", "dataset.split"),  # each text has its own
)


def print_plan(grid: Grid, with_cost: bool = True, retry_failed: bool = False) -> None:
    """Prints the runs in the order of their launch and what they will cost: `sweep --dry-run`.

    Raises:
        UserError: if a text is too short for a run, or a model to be measured exceeds the memory.
    """
    jobs = grid.jobs()
    states = {job: _plan_state(job) for job in jobs}
    unfinished = [job for job in jobs if states[job] not in ("done", "diverged")]
    left, held = without_held(unfinished, retry_failed)
    look_ahead(left)
    estimates: dict[Job, TimeEstimate] = {}
    if left:
        if with_cost:  # builds the models of which no speed is known
            for job in left:
                require_memory(job.spec)
        run_bytes = max(training_bytes(job.spec) for job in left)
        slots = make_slots(left[0].spec.config, run_bytes)
        estimates = estimate_times(left, slots, measure=with_cost)
        left = longest_first(left, estimates)
    ordered = [*left, *(job for job in jobs if job not in estimates)]
    keys = differing_keys(jobs)
    rows = [_plan_row(job, states[job], keys) for job in ordered]
    if with_cost:
        for row, job in zip(rows, ordered, strict=True):
            cost = estimates.get(job)
            row |= {"left": duration(cost.seconds_left), "from": cost.source} if cost else {}
    print(tabulate(rows, headers="keys", disable_numparse=True))
    finished = f"{len(jobs) - len(unfinished)} finished"
    print(f"{counted(len(jobs), 'run')}: {finished}, {to_do(left, held)}")
    if left and with_cost:
        print_costs(left, estimates, slots)


def without_held(unfinished: Sequence[Job], retry_failed: bool) -> tuple[list[Job], list[Job]]:
    """Returns the runs that a sweep trains, and those that it holds back since they failed before.

    A run whose failure allows a retry is not held back; with `retry_failed` none is.
    """
    held = [] if retry_failed else [job for job in unfinished if _failed_for_good(job)]
    return [job for job in unfinished if job not in held], held


def _failed_for_good(job: Job) -> bool:
    failure = job.folder.read_failure()
    return failure is not None and not failure.retry


def to_do(left: Sequence[Job], held: Sequence[Job]) -> str:
    """Returns in words how many runs are to do and how many are held back."""
    failed = f", {len(held)} failed before (--retry-failed tries again)" if held else ""
    return f"{len(left)} to do{failed}"


def look_ahead(jobs: Sequence[Job]) -> None:
    """Prints each note on the runs to come once.

    Raises:
        UserError: if a text is too short for one of them, before any run is started.
    """
    for job in jobs:
        split_of(job.spec)
    for text in sorted({text for job in jobs for text in notes_on(job.spec)}):
        note(text)


def _plan_state(job: Job) -> str:
    state = run_status(job.folder).state
    return "new" if state == "waiting" else state


def differing_keys(jobs: Sequence[Job]) -> list[str]:
    """Returns the scientific keys in which runs differ and which their ids do not show.

    None of them if the grid has variants, whose names show the difference.
    """
    if any(job.variant for job in jobs):
        return []
    values: dict[str, set[str]] = {}
    for job in jobs:
        for key, value in flatten(job.spec.config).items():
            values.setdefault(key, set()).add(str(value))
    shown = (*NOT_SCIENTIFIC, *IN_THE_ID)
    # An option that is not set counts like one that the cell does not have.
    return [key for key, found in values.items() if len(found - {"None"}) > 1 and key not in shown]


def _plan_row(job: Job, state: str, keys: Sequence[str]) -> dict[str, str]:
    spec = job.spec
    values = flatten(spec.config)
    return {
        "run": spec.run_id,
        **({"variant": job.variant} if job.variant else {}),
        "state": state,
        "params": f"{spec.num_params:,}",
        "off %": f"{spec.deviation_percent:+.2f}",
        **{key.rpartition(".")[2]: str(values.get(key, "")) for key in keys},
    }


def print_costs(left: list[Job], estimates: dict[Job, TimeEstimate], slots: list[Slot]) -> None:
    """Prints the time that each row of the tables takes, and that of all runs in these slots."""
    by_row: dict[str, list[float]] = {}
    for job in left:
        task = "" if job.spec.config.task == "lm" else f" {job.spec.config.task}"
        row = f"{job.spec.corpus.name}{task} {job.spec.budget}"
        by_row.setdefault(row, []).append(estimates[job].seconds_left)
    for row, seconds in by_row.items():
        print(f"{row}: {counted(len(seconds), 'run')}, {duration(sum(seconds))} one after another")
    whole = makespan((estimates[job].seconds_left for job in left), len(slots))
    share = f", threads={slots[0].threads}" if slots[0].threads else ""
    print(f"in all: {duration(whole)} with {len(slots)} at once on {slots[0].machine}{share}")
