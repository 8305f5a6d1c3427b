"""Which runs a report covers: the overrides of `charcmp report`, one set of values per axis."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Set
from typing import TYPE_CHECKING, ClassVar

from charcmp.data.dataset import builtin_datasets, file_title, safe_name
from charcmp.errors import UserError
from charcmp.models.budget import canonical_budget
from charcmp.models.cells.registry import CELLS, MODULE

if TYPE_CHECKING:
    from charcmp.report.load import Run
    from charcmp.runs.status import RunStatus

MAX_SLUG = 100  # characters of a folder's name


def _whole(value: str) -> str:
    return str(int(value))


def _decimal(value: str) -> str:
    return f"{float(value):g}"


class Filters:
    """A choice of runs: one passes if, on every axis that is named, it has one of the values.

    Args:
        axes: values as on the command line, {"layers": {"1", "2"}}. `dataset=text` stands for every
            dataset that is not built in; `dataset.name`, or the stem of `dataset.path`, narrows it.

    Raises:
        UserError: if an axis cannot have one of its values.
    """

    AXES: ClassVar[dict[str, Callable[[str], str]]] = {  # axis -> the usual form of a value
        "task": str,
        "dataset": str,
        "dataset.name": str,
        "dataset.path": file_title,
        "dataset.layout": str,
        "cell": str,
        "cell.target": lambda target: target.replace(":", ".").rpartition(".")[2],
        "layers": _whole,
        "budget": canonical_budget,
        "hidden_size": _whole,
        "seed": _whole,
        "dropout": _decimal,
        "epochs": _whole,
    }

    def __init__(self, axes: Mapping[str, Set[str]] | None = None) -> None:
        self.axes: dict[str, set[str]] = {}
        for axis, values in (axes or {}).items():
            try:
                self.axes[axis] = {self.AXES[axis](value) for value in values}
            except UserError:
                raise
            except ValueError:
                raise UserError(f"{axis}={','.join(sorted(values))}: not a number") from None

    def __str__(self) -> str:
        return " ".join(f"{axis}={','.join(sorted(values))}" for axis, values in self.axes.items())

    @property
    def slug(self) -> str:
        """The filters as a folder's name: `dataset-wp_layers-1-2`; empty if no axis is named."""
        parts = [
            "-".join([axis, *map(safe_name, sorted(values))]) for axis, values in self.axes.items()
        ]
        slug = "_".join(sorted(parts))
        is_whole = all(  # and so no two choices have one name
            safe_name(value) == value and "-" not in value
            for values in self.axes.values()
            for value in values
        )
        if len(slug) <= MAX_SLUG and is_whole:
            return slug
        return f"{slug[:MAX_SLUG]}-{hashlib.sha256(str(self).encode()).hexdigest()[:8]}"

    def admits(self, run: Run) -> bool:
        """Returns whether a run passes every axis except `budget`, which is left to admits_row."""
        admitted = self._admits_dataset(run.dataset) and self._admits_cell(run.cell)
        return admitted and all(
            self._on(axis, value)
            for axis, value in {
                "task": run.task,
                "dataset.layout": run.layout,
                "layers": str(run.layers),
                "hidden_size": str(run.hidden_size),
                "seed": str(run.seed),
                "dropout": f"{run.dropout:g}",
                "epochs": str(run.epochs),
            }.items()
        )

    def admits_status(self, run: RunStatus) -> bool:
        """Returns whether a run, finished or not, passes every axis that its status records."""
        admitted = self._admits_dataset(str(run.dataset)) and self._admits_cell(str(run.cell))
        return admitted and all(
            self._on(axis, str(getattr(run, axis)))
            for axis in self.AXES
            if hasattr(run, axis) and not axis.startswith(("dataset", "cell"))
        )

    def admits_row(self, name: str, target: int) -> bool:
        """Returns whether a row passes, by its name or by its target, a number of parameters."""
        return self._on("budget", name) or self._on("budget", str(target))

    def admits_column(self, cell: str, layers: int) -> bool:
        return self._admits_cell(cell) and self._on("layers", str(layers))

    def _on(self, axis: str, value: str) -> bool:
        return axis not in self.axes or value in self.axes[axis]

    def _admits_cell(self, name: str) -> bool:
        """Returns whether a cell passes.

        `cell=module` stands for every class from outside charcmp; `cell.target` narrows it.
        """
        is_class = name not in CELLS
        if is_class and not self._on("cell.target", name):
            return False
        return self._on("cell", name) or (is_class and self._on("cell", MODULE))

    def _admits_dataset(self, name: str) -> bool:
        """Returns whether a dataset passes, by itself or as a user's own text (`dataset=text`)."""
        wanted = self.axes.get("dataset")
        if wanted is None:
            return self._admits_name(name)
        if name in wanted and name != "text":
            return True
        return "text" in wanted and name not in builtin_datasets() and self._admits_name(name)

    def _admits_name(self, name: str) -> bool:
        """Returns whether a text passes by its name, or else by that of its file."""
        if "dataset.name" in self.axes or "dataset.path" not in self.axes:
            return self._on("dataset.name", name)
        paths = self.axes["dataset.path"]
        # Runs of earlier commits have the dataset's name as it stands in a run id.
        return name in paths or name in map(safe_name, paths)
