"""The report, made from the runs on disk alone: no torch, nothing trained.

filters.py       which runs a report speaks of
load.py          the runs of a folder, checked
losses.py        losses of the single test characters: their standard errors, their packed form
cells.py         runs to blocks, rows and cells
statistics.py    intervals over text, over seeds, over both; Holm; power
comparisons.py   what is compared with what: families fixed beforehand
distances.py     how alike two cells predict
verdicts.py      the paper's claims as verdicts
recommend.py     what to take for one's own text
wording.py       how cells and differences are named
paper.py         the paper's figures, and ours against them
findings.py      all that a report says
layout.py sections.py   what stands in the tables, whatever the file format
render.py        CSV, Markdown, LaTeX, terminal
fill_in.py       the fill-in models' tables, apart from all of these
figures/         SVG and PNG, a file for each kind
page.py          one HTML page (template/)
make.py          all of it, in order
"""

from charcmp.report.filters import Filters
from charcmp.report.make import FORMATS, make_report

__all__ = ["FORMATS", "Filters", "make_report"]
