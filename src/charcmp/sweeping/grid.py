"""Expands overrides into a grid of runs: one job for each of its points."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig

from charcmp.config.compose import Composer
from charcmp.config.rules import typed
from charcmp.config.schema import Config
from charcmp.config.spec import RunSpec, resolve
from charcmp.errors import UserError
from charcmp.runs.folder import RunFolder, runs_dir


@dataclass(frozen=True, eq=False)
class Job:
    """One point of the grid: its overrides, the run that they resolve to, and its folder."""

    overrides: list[str]
    spec: RunSpec
    folder: RunFolder
    variant: str = ""  # name of its variant, if the experiment has variants

    def fraction_done(self) -> float:
        """Returns how much of the run its attempts so far have done, 0 to 1."""
        return self.folder.read_progress().fraction or 0.0


def make_job(overrides: list[str], cfg: DictConfig, variant: str = "") -> Job:
    spec = resolve(typed(cfg))
    path = runs_dir(spec.config.results_dir) / spec.run_id
    return Job(overrides, spec, RunFolder(path, spec.config.lease_seconds), variant)


class Grid:
    """The cross product of overrides; axes that they do not name come from the experiment.

    If the experiment has variants, the grid has one such product for each of them. A variant
    replaces those of the experiment's axes that it names, and the command line those of both.
    """

    def __init__(
        self,
        given: Sequence[Override],
        default_axes: Sequence[Override],
        compose: Callable[[list[str]], DictConfig],
        variants: Mapping[str, Sequence[Override]] | None = None,
    ) -> None:
        self.given = given
        self.default_axes = default_axes
        self.compose = compose
        self.variants = variants or {"": []}

    def points(self) -> list[tuple[str, list[str]]]:
        """Returns the variant and the overrides of every point."""
        points = []
        for name, overrides in self.variants.items():
            variant = _without(overrides, self.given)
            rest = _without(self.default_axes, [*self.given, *variant])
            axes = [*rest, *variant, *self.given]
            points += [
                (name, list(point)) for point in itertools.product(*map(single_values, axes))
            ]
        return points

    def configs(self) -> list[Config]:
        return [typed(self.compose(overrides)) for _, overrides in self.points()]

    def jobs(self) -> list[Job]:
        """Returns the runs of the grid, each once even if several points lead to it."""
        jobs: dict[str, Job] = {}
        for variant, overrides in self.points():
            job = make_job(overrides, self.compose(overrides), variant)
            jobs.setdefault(job.spec.run_id, job)
        return list(jobs.values())


def make_grid(composer: Composer) -> Grid:
    """Returns the grid of a command line, with the axes and variants of its experiment."""
    experiment = composer.line.hydra.sweeper
    return Grid(
        composer.given,
        composer.parse(f"{key}={value}" for key, value in experiment.params.items()),
        composer.compose,
        {name: composer.parse(lines) for name, lines in experiment.variants.items()},
    )


def _without(axes: Sequence[Override], named: Sequence[Override]) -> list[Override]:
    """Returns the axes that `named` does not replace; a hidden size replaces the budget, too.

    If `named` chooses another cell, say, the options of the first (cell.activation) go with it.
    """
    keys = {override.key_or_group for override in named}
    if "hidden_size" in keys:
        keys.add("budget")
    replaced = {axis.key_or_group for axis in axes} & keys
    return [
        axis
        for axis in axes
        if axis.key_or_group not in keys and axis.key_or_group.partition(".")[0] not in replaced
    ]


def single_values(override: Override) -> list[str]:
    """Returns the single overrides that a sweep over one key stands for."""
    key = override.get_key_element()
    if not override.is_sweep_override():
        return [override.input_line or ""]
    if not override.is_discrete_sweep():
        raise UserError(f"{override.input_line}: a grid needs values, as in {key}=1,2")
    return [f"{key}={value}" for value in override.sweep_string_iterator()]
