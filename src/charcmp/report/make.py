"""`charcmp report`, in order: load, arrange, judge, print, draw, write."""

from __future__ import annotations

import stat
import sys
from collections.abc import Callable, Sequence
from pathlib import Path, PurePath

from charcmp.errors import UserError
from charcmp.files import is_there, make_folder, write_bytes
from charcmp.output import note
from charcmp.report.analysis.findings import Findings, find
from charcmp.report.filters import Filters
from charcmp.report.formats import FORMATS
from charcmp.report.load import Loaded, load_runs
from charcmp.report.tables import make_tables
from charcmp.report.writing import fill_in
from charcmp.report.writing.layout import MEASURES, Measure
from charcmp.report.writing.render import (
    baselines_csv,
    claims_csv,
    comparison_csv,
    differences_csv,
    entries_csv,
    latex,
    markdown,
    statistics_markdown,
    wide_csv,
)
from charcmp.report.writing.sections import sections
from charcmp.report.writing.terminal import terminal
from charcmp.runs.baselines import Baselines, load_baselines
from charcmp.runs.folder import runs_dir
from charcmp.runs.reading import read_file

# The published runs of the checkout that this module lies in; an installed wheel has none.
PUBLISHED = Path(__file__).resolve().parents[3] / "results" / "paper"
# What is published there, and beside it.
PUBLISHED_FOLDERS = ("paper", "fast", "own_rates", "variants", "example", "practice", "weights")
# Names what a report wrote into its own folder: another may be there that the user put there.
CONTENTS, MAX_CONTENTS = "files.txt", 1 << 20


def make_report(
    results_dir: str | Path,
    filters: Filters | None = None,
    out: str | Path | None = None,
    formats: Sequence[str] = FORMATS,
    published: bool = False,
    full: bool = False,
) -> None:
    """Writes a report of the finished runs to a folder; also prints what to take and the tables.

    Args:
        results_dir: the folder that holds runs/.
        filters: which runs; None for all.
        out: where to write; None for `<results_dir>/report`. A report of some of the runs goes into
            a folder of its own in there, so that it never replaces the full one.
        formats: which files, of FORMATS.
        published: whether to report the published runs instead, in a folder of its own in
            `<results_dir>/report`.
        full: whether to print statistics, claims and notes too.

    Raises:
        UserError: if there is no run to report, if the folder cannot be written or holds runs, or
            if results_dir is that of published runs and `out` is None.
    """
    usual = Path(results_dir) / "report"
    if out is None and any(
        usual.resolve().is_relative_to(PUBLISHED.parent / name) for name in PUBLISHED_FOLDERS
    ):
        raise UserError(
            f"results_dir={results_dir} holds published runs, where only scripts/publish.py "
            "writes a report; --output FOLDER writes one elsewhere"
        )
    filters = filters or Filters()
    if published:
        usual /= "published"
    path = Path(out) if out else usual / filters.slug
    source = PUBLISHED if published else Path(results_dir)
    _refuse_among_runs(path, source)
    loaded = load(runs_dir(source))
    tables = make_tables(loaded.runs, filters)
    fill_tables = make_tables(loaded.runs, filters, "fill")
    if not (tables or fill_tables):
        raise UserError(f"no finished run matches {filters}; there are {len(loaded.runs)}")
    make_folder(path)
    findings = find(tables, fill_tables, baselines_in(source))
    files = text_files(findings, formats)
    shown = [terminal(findings, full) if tables else "", fill_in.terminal(fill_tables, full)]
    print("\n\n".join(filter(None, shown)) + "\n", flush=True)
    if {"svg", "png", "html"} & set(formats):
        files |= picture_files(findings, with_png="png" in formats)
    written = _write(path, files, formats)
    if out is None:
        _remove_earlier(path, written, formats)
    if loaded.num_unfinished:
        print(f"runs without a result yet: {loaded.num_unfinished}")
    if loaded.complaints:
        print(f"corrupt files, each named on stderr: {len(loaded.complaints)}")
    print(_where(path, written, full))


def _where(folder: Path, written: Sequence[str], full: bool) -> str:
    """Returns where the files are, and which one to open first."""
    firsts = ("report.html", "statistics.md", "entries.csv", "fill_in.md", "fill_in.csv")
    first = next((f"; begin with {name}" for name in firsts if name in written), "")
    more = (
        ""
        if full
        else "\ncharcmp report --full prints statistics, baselines, claims and notes as well"
    )
    return f"written to {folder}: {len(written)} files{first}{more}"


def _write(folder: Path, files: dict[str, bytes], formats: Sequence[str]) -> list[str]:
    """Writes the files whose suffix is one of the formats; returns their names."""
    wanted = [name for name in files if Path(name).suffix[1:] in formats]
    for parent in {(folder / name).parent for name in wanted}:
        make_folder(parent)
    for name in wanted:
        write_bytes(folder / name, files[name])
    return wanted


def _remove_earlier(folder: Path, written: Sequence[str], formats: Sequence[str]) -> None:
    """Removes the files of an earlier report that this one, in the same formats, does not have.

    Notes what the folder has of both, so that a later report need not guess.
    """
    listed = (read_file(folder / CONTENTS, MAX_CONTENTS) or b"").decode(errors="replace")
    earlier = {name for name in listed.splitlines() if (folder / name).is_file()} - {*written}
    earlier -= {name for name in earlier if str(PurePath(name).parent) not in (".", "figures")}
    gone = {name for name in earlier if PurePath(name).suffix[1:] in formats}
    for name in gone:
        (folder / name).unlink()
    names = sorted({*written} | earlier - gone)
    write_bytes(folder / CONTENTS, "".join(f"{name}\n" for name in names).encode())


def picture_files(findings: Findings, with_png: bool) -> dict[str, bytes]:
    """Returns the figures and the page that shows them: name -> contents.

    Half of the time goes into the PNGs.
    """
    from charcmp.report.figures.pictures import pictures  # slow to import
    from charcmp.report.writing.page import page

    drawn = pictures(findings.analyses, note, with_png)
    files = {f"figures/{picture.name}.svg": picture.svg for picture in drawn}
    files |= {
        f"figures/{picture.name}.png": picture.png for picture in drawn if picture.png is not None
    }
    return files | {"report.html": page(findings, drawn).encode()}


def _refuse_among_runs(out: Path, results_dir: Path) -> None:
    """Raises UserError if a report's files would lie in or beside the folders of runs."""
    is_inside = out.resolve().is_relative_to(runs_dir(results_dir).resolve())
    files = ("progress.json", "result.json", "*/progress.json", "*/result.json")
    holds_runs = is_there(out, stat.S_ISDIR) and any(any(out.glob(file)) for file in files)
    if is_inside or holds_runs:
        raise UserError(f"--output {out}: it holds runs; name another folder for the report")


def load(folder: Path) -> Loaded:
    """Returns the runs of a folder; complaints go to stderr.

    Raises:
        UserError: if there is no finished run.
    """
    loaded = load_runs(folder)
    for complaint in loaded.complaints:
        print(f"charcmp: {complaint}", file=sys.stderr)
    if not loaded.runs:
        known = "; charcmp report --published shows the published runs" * PUBLISHED.is_dir()
        raise UserError(
            f"{folder}: no finished run; charcmp sweep experiment=demo trains some in minutes"
            + known
        )
    return loaded


def baselines_in(results_dir: Path) -> list[Baselines]:
    """Returns the baselines of a results folder; complaints go to stderr."""
    found, complaints = load_baselines(results_dir)
    for complaint in complaints:
        print(f"charcmp: {complaint}", file=sys.stderr)
    return found


def text_files(findings: Findings, formats: Sequence[str]) -> dict[str, bytes]:
    """Returns the report's tables and statistics in the text formats: name -> contents."""
    analyses = findings.analyses
    files = fill_in.files(findings.fill_tables)
    if analyses:
        makers: dict[str, Callable[[Measure], str]] = {
            "csv": lambda measure: wide_csv(analyses, measure),
            "md": lambda measure: markdown(findings, measure),
            "tex": lambda measure: latex(analyses, measure),
        }
        for measure in MEASURES:
            for suffix, make in makers.items():
                if suffix in formats:
                    files[f"table_{measure.name}.{suffix}"] = make(measure)
        if "csv" in formats:
            files["entries.csv"] = entries_csv(findings.tables)
            files["differences.csv"] = differences_csv(analyses)
            files["claims.csv"] = claims_csv(findings.claims)
            files["against_paper.csv"] = comparison_csv(findings.comparisons)
            if findings.baselines:
                files["baselines.csv"] = baselines_csv(findings.baselines)
        if "md" in formats:
            files["statistics.md"] = statistics_markdown(sections(findings))
    return {name: text.encode() for name, text in files.items()}
