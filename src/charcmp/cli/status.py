"""`charcmp status`: shows what every run of a results folder is doing, once or repeatedly."""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict

from tabulate import tabulate

from charcmp.cli.line import Line, read_line, run_composed
from charcmp.cli.narrow import narrow
from charcmp.config.compose import Composer
from charcmp.errors import UserError
from charcmp.models.cells.registry import cell_label
from charcmp.output import counted, duration
from charcmp.report.filters import Filters
from charcmp.runs.folder import RunFolder, run_folders, runs_dir
from charcmp.runs.status import STATES, RunStatus, run_status

WATCH_SECONDS = 2.0
MAX_REASON = 80  # characters
UNLIMITED = 1_000_000  # columns
# After so long without a running run, --watch takes the sweep to be over. On a busy machine or a
# slow disk it can take many seconds until the process of the next run has started. The shorter time
# applies when no run is left to start.
QUIET_SECONDS, QUIET_SECONDS_AT_THE_END = 120.0, 5.0


def status(args: list[str]) -> None:
    """Runs `charcmp status`, for all runs of the results folder or those that overrides name."""
    line = read_line("status", args)
    run_composed(line, lambda composer: show(composer, line))


def show(composer: Composer, line: Line) -> None:
    axes, config = narrow(composer, "status")
    show_runs = watch_status if "--watch" in line.flags else print_status
    show_runs(config.results_dir, config.lease_seconds, "--json" in line.flags, Filters(axes))


class Runs:
    """The runs of a results folder, or some of them, to be looked at once or repeatedly."""

    def __init__(
        self, results_dir: str, lease_seconds: float, filters: Filters | None = None
    ) -> None:
        self.path = runs_dir(results_dir)
        self.filters = filters
        self.lease_seconds = lease_seconds
        # Kept from look to look: the age of a lease is only known by watching it.
        self.folders: dict[str, RunFolder] = {}

    def look(self) -> list[RunStatus]:
        """Returns the state of every run, in the order of STATES.

        Raises:
            UserError: if there is no run, or none of those that were asked for.
        """
        for path in run_folders(self.path):
            self.folders.setdefault(path.name, RunFolder(path, self.lease_seconds))
        if not self.folders:
            raise UserError(f"{self.path}: no runs; charcmp sweep or charcmp train starts some")
        runs = [run_status(folder) for folder in self.folders.values()]
        if self.filters is not None:
            runs = [run for run in runs if self.filters.admits_status(run)]
            if not runs:
                raise UserError(f"no run matches {self.filters}; there are {len(self.folders)}")
        return sorted(runs, key=lambda run: (STATES.index(run.state), run.run_id))


def print_status(
    results_dir: str, lease_seconds: float, as_json: bool, filters: Filters | None = None
) -> None:
    """Prints a line for each run that matches, the best of each row, and the time that is left."""
    runs = Runs(results_dir, lease_seconds, filters).look()
    print(json.dumps([asdict(run) for run in runs], indent=2) if as_json else overview(runs))


def watch_status(
    results_dir: str,
    lease_seconds: float,
    as_json: bool = False,
    filters: Filters | None = None,
) -> None:
    """Shows the status until nothing has been running for a while.

    In a terminal this is a table that is redrawn; elsewhere, and as JSON, a line for each run whose
    state has changed.
    """
    folder = Runs(results_dir, lease_seconds, filters)
    is_table = sys.stdout.isatty() and not as_json
    shown: dict[str, str] = {}
    last_running = time.monotonic()
    quiet = QUIET_SECONDS
    while time.monotonic() - last_running < quiet:
        runs = folder.look()
        if is_table:
            print("\033[H\033[2J" + overview(runs), flush=True)
        for run in runs:
            if not is_table and shown.get(run.run_id) != run.state:
                parts = [*_printed(run).values(), (run.reason or "")[:MAX_REASON]]
                words = " ".join(filter(None, parts))
                line = f"{time.strftime('%H:%M:%S')} {words}"
                print(json.dumps(asdict(run)) if as_json else line, flush=True)
            shown[run.run_id] = run.state
        if any(run.state == "running" for run in runs):
            last_running = time.monotonic()
        is_left = any(run.state in ("running", "waiting") for run in runs)
        quiet = QUIET_SECONDS if is_left else QUIET_SECONDS_AT_THE_END
        time.sleep(WATCH_SECONDS)


def overview(runs: Sequence[RunStatus]) -> str:
    """Returns the whole status as text."""
    counts = Counter(run.state for run in runs)
    lines = [
        *(f"{run.run_id}: {run.reason[:MAX_REASON]}" for run in runs if run.reason),
        *_best_of_rows(runs),
        f"{counted(len(runs), 'run')}: "
        + ", ".join(f"{counts[s]} {s}" for s in STATES if counts[s]),
    ]
    left = [run.seconds_left for run in runs if run.state in ("running", "waiting")]
    known = [seconds for seconds in left if seconds is not None]
    if counts["running"] and len(known) == len(left):
        seconds = sum(known) / counts["running"]
        lines.append(f"about {duration(seconds)} left, {counts['running']} at once")
    # A pipe has no width, and its reader wants one line for each run.
    width = shutil.get_terminal_size((UNLIMITED, 0)).columns
    wrapped = [textwrap.fill(line, width, break_on_hyphens=False) for line in lines]
    return "\n".join([_table(runs, width), *wrapped])


def _table(runs: Sequence[RunStatus], width: int) -> str:
    """Returns a table of the runs, without columns that would be empty.

    If it is too wide, each run gets two lines instead.
    """
    rows = [_printed(run) for run in runs]
    for column in [key for key in rows[0] if not any(row[key] for row in rows)]:
        for row in rows:
            del row[column]
    table = tabulate(rows, headers="keys", disable_numparse=True)
    if max(map(len, table.splitlines())) <= width:
        return table
    lines = []
    for row in rows:
        lines.append(row.pop("run"))
        parts = [row.pop("state"), *(f"{key} {value}" for key, value in row.items() if value)]
        lines.append(textwrap.fill(", ".join(parts), width, initial_indent="  ",
                                   subsequent_indent="  "))  # fmt: skip
    return "\n".join(lines)


def _best_of_rows(runs: Sequence[RunStatus]) -> list[str]:
    """Returns a line for each row of the tables: its best model by validation loss so far.

    A model that diverged has no result, however low its loss was before.
    """
    best: dict[tuple[str, ...], tuple[float, RunStatus]] = {}
    for run in runs:
        what = "fill-in" if run.task == "fill" else ""  # notes of earlier commits have no task
        row = (str(run.dataset), str(run.budget), what)
        val = run.val_nats_per_char
        if val is not None and run.dataset is not None and run.state != "diverged":
            best[row] = min(best.get(row, (val, run)), (val, run), key=lambda pair: pair[0])
    return [
        f"best so far, {' '.join(filter(None, row))}: {cell_label(run.cell or '')} {run.layers}, "
        f"validation {val:.3f}" + (f" after epoch {run.epoch}" if run.state == "running" else "")
        for row, (val, run) in sorted(best.items(), key=lambda item: item[0])
    ]


def _printed(run: RunStatus) -> dict[str, str]:
    def number(value: float | None, form: str) -> str:
        return "" if value is None else format(value, form)

    left = run.seconds_left if run.state == "running" else None
    return {
        "run": run.run_id,
        "state": run.state,
        "epoch": f"{run.epoch}/{run.epochs}" if run.epoch is not None else "",
        "chars/s": number(run.chars_per_second, ","),
        "left": "" if left is None else duration(left),
        "val": number(run.val_nats_per_char, ".3f"),
        "test": number(run.test_nats_per_char, ".3f"),
    }
