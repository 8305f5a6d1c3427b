"""The tables, made from the runs on disk alone: no torch, nothing trained.

filters.py   which runs a report speaks of
load.py      the runs of a folder, checked
losses.py    losses of the single test characters: their standard errors, their packed form
cells.py     runs to blocks, rows and cells
paper.py     the paper's figures, and ours against them
render.py    CSV, Markdown, LaTeX, terminal
make.py      all of it, in order
"""

from charcmp.report.filters import Filters
from charcmp.report.make import make_report

__all__ = ["Filters", "make_report"]
