"""Compiles the compiled forms, or loads them, when it is imported: for a process that others fork.

multiprocessing's server imports modules by name, and no failure of Numba may end it.
"""

from charcmp.models.cells.compiled.dispatch import why_not

why_not()
