"""Imports all that trains a run, then reads the commit that this is of, when it is imported.

For a process that runs are forked from, or that they share. All of them then execute one state of
the code, and record that one, whatever is edited or committed before the last of them starts.
"""

import importlib

from charcmp.models.cells.registry import CELLS
from charcmp.training.environment import git_state

# The last two are for cell=module.
for module in (
    "charcmp.training.attempt",
    "charcmp.training.train",
    *(info.module for info in CELLS.values()),
    *("charcmp.models.cells.module", "charcmp.models.cells.checks"),
):
    importlib.import_module(module)

git_state()
