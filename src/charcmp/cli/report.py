"""`charcmp report`: reports on all runs of the results folder, or on those that overrides name."""

from __future__ import annotations

from charcmp.cli.line import Line, read_line, run_composed
from charcmp.cli.narrow import narrow
from charcmp.config.compose import Composer
from charcmp.config.literal import expanded
from charcmp.report.filters import Filters
from charcmp.report.formats import FORMATS


def report(args: list[str]) -> None:
    """Runs `charcmp report`."""
    line = read_line("report", args)
    run_composed(line, lambda composer: make(composer, line))


def make(composer: Composer, line: Line) -> None:
    from charcmp.report.make import make_report  # slow to import

    axes, config = narrow(composer, "report")
    out = line.options.get("--output")
    formats = line.options["--format"].split(",") if "--format" in line.options else FORMATS
    make_report(
        config.results_dir,
        Filters(axes),
        None if out is None else expanded(out),
        formats=formats,
        published="--published" in line.flags,
        full="--full" in line.flags,
    )
