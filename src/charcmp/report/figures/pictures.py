"""The figures: SVG and PNG, the same bytes for the same runs and library versions."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import matplotlib as mpl
from matplotlib.figure import Figure

from charcmp.report.analysis.comparisons import Analysis
from charcmp.report.figures.forest import forest_figures
from charcmp.report.figures.gap import gap_figures
from charcmp.report.figures.learning import learning_figures
from charcmp.report.figures.loss import loss_figures
from charcmp.report.figures.models import models_figures
from charcmp.report.figures.ranking import ranking_figures
from charcmp.report.figures.style import STYLE, Draw

# Every kind of figure, in the order of the page. A new one needs its file and its entry here.
FIGURES: list[Draw] = [
    *(loss_figures, ranking_figures, learning_figures, forest_figures, gap_figures),
    models_figures,
]
PNG_DPI = 130
MAX_SLUG = 80  # a row and a kind of figure follow; file systems allow 255 bytes


@dataclass(frozen=True)
class Picture:
    """A drawn figure."""

    name: str  # of its files, without suffix
    caption: str
    heading: str  # of its block
    dataset: str
    row: str | None  # the budget that it shows; None: the whole block
    svg: bytes
    png: bytes | None  # if asked for


def pictures(
    analyses: Sequence[Analysis], say: Callable[[str], None], with_png: bool
) -> list[Picture]:
    """Returns all figures that the runs allow; `say` is told what is left out, and why."""
    found = []
    names = figure_names([analysis.table.heading for analysis in analyses])
    with mpl.rc_context(STYLE):
        for analysis in analyses:
            table = analysis.table
            if not table.done():
                continue
            for drawn in (drawn for draw in FIGURES for drawn in draw(analysis, say)):
                found.append(
                    Picture(
                        name=f"{names[table.heading]}-{drawn.name}",
                        caption=f"{table.heading}: {drawn.caption}",
                        heading=table.heading,
                        dataset=table.dataset,
                        row=drawn.row,
                        svg=saved(drawn.figure, "svg"),
                        png=saved(drawn.figure, "png") if with_png else None,
                    )
                )
    return found


def figure_names(headings: Sequence[str]) -> dict[str, str]:
    """Returns by heading what the names of a block's files begin with, different for each."""
    slugs = [re.sub(r"[^a-z0-9]+", "-", heading.lower()).strip("-") for heading in headings]
    names = {}
    for heading, slug in zip(headings, slugs, strict=True):
        is_clear = heading.isascii() and slugs.count(slug) == 1  # other letters are dropped above
        number = hashlib.sha256(heading.encode()).hexdigest()[:6]
        is_whole = is_clear and len(slug) <= MAX_SLUG
        names[heading] = slug if is_whole else f"{slug[:MAX_SLUG]}-{number}"
    return names


def saved(figure: Figure, kind: Literal["svg", "png"]) -> bytes:
    """Returns a figure as a file, in the report's style: the same bytes at every call."""
    buffer = io.BytesIO()
    metadata = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
    with mpl.rc_context(STYLE):
        figure.savefig(buffer, format=kind, dpi=PNG_DPI, metadata=metadata)
    return buffer.getvalue()
