"""`charcmp report`, in order: load, arrange, write, print."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import IO

from charcmp.errors import UserError
from charcmp.report.cells import Table, make_tables
from charcmp.report.filters import Filters
from charcmp.report.layout import MEASURES
from charcmp.report.load import Loaded, load_runs
from charcmp.report.paper import Comparison, compare
from charcmp.report.render import (
    cells_csv,
    comparison_csv,
    latex,
    markdown,
    terminal,
    wide_csv,
)
from charcmp.runs import RunFolder, runs_dir, write_atomically

# The published runs of the checkout that this module lies in; an installed wheel has none.
PUBLISHED = Path(__file__).resolve().parents[3] / "results" / "paper"


def make_report(
    results_dir: str | Path, filters: Filters | None = None, out: str | Path | None = None
) -> None:
    """Tables of the finished runs: written to a folder, the nats also printed.

    Args:
        results_dir: holds runs/; where that has no finished run, the published ones are shown.
        filters: which runs; None for all.
        out: where to write, `<results_dir>/report` unless given.

    Raises:
        UserError: if there is no run to report of, or the folder cannot be written.
    """
    if out is None and Path(results_dir).resolve().is_relative_to(PUBLISHED):
        raise UserError(
            f"results_dir={results_dir}: the place of the published runs; scripts/publish.py alone "
            "writes a report there"
        )
    filters = filters or Filters()
    loaded = load(runs_dir(results_dir), or_published=out is None)
    tables = make_tables(loaded.runs, filters)
    if not tables:
        raise UserError(f"none of the {len(loaded.runs)} finished runs is one of {filters}")
    comparisons = compare(tables)
    files = report_files(tables, comparisons)
    folder = RunFolder(Path(out or Path(results_dir) / "report"))
    folder.create()
    for name, text in files.items():
        write_atomically(folder.path / name, partial(_write_text, text))
    print(terminal(tables, comparisons) + "\n")
    if loaded.num_unfinished:
        print(f"runs without a result yet: {loaded.num_unfinished}")
    if loaded.complaints:
        print(f"corrupt files, each named on stderr: {len(loaded.complaints)}")
    print(
        f"written to {folder.path}: cells.csv, against_paper.csv, and table_nats, "
        "table_perplexity, table_bits as .csv, .md and .tex"
    )


def _write_text(text: str, file: IO[bytes]) -> None:
    file.write(text.encode())


def load(folder: Path, or_published: bool) -> Loaded:
    """The runs of a folder, or if wanted the published ones; complaints go to stderr.

    Raises:
        UserError: if there is none.
    """
    loaded = load_runs(folder)
    if or_published and not loaded.runs and not loaded.complaints and PUBLISHED.is_dir():
        print(f"note: no finished run in {folder}: these are the published ones of {PUBLISHED}")
        loaded = load_runs(PUBLISHED / "runs")
    for complaint in loaded.complaints:
        print(f"charcmp: {complaint}", file=sys.stderr)
    if not loaded.runs:
        raise UserError(
            f"{folder}: no finished run; charcmp sweep experiment=demo trains some in minutes"
        )
    return loaded


def report_files(tables: list[Table], comparisons: list[Comparison]) -> dict[str, str]:
    """The report's files: name -> contents."""
    files = {}
    for measure in MEASURES:
        name = f"table_{measure.name}"
        files[f"{name}.csv"] = wide_csv(tables, measure)
        files[f"{name}.md"] = markdown(tables, measure, comparisons)
        files[f"{name}.tex"] = latex(tables, measure)
    files["cells.csv"] = cells_csv(tables)
    files["against_paper.csv"] = comparison_csv(comparisons)
    return files
