"""The races that a command line asks for: their models, and the job of each planned run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from hydra.core.override_parser.types import Override

from charcmp.config.compose import Composer
from charcmp.config.schema import SEED
from charcmp.errors import UserError, require
from charcmp.files import canonical_json
from charcmp.models.budget import DEFAULT_BUDGET
from charcmp.models.cells.options import ModuleConfig
from charcmp.models.cells.registry import CELLS as CELL_ROWS
from charcmp.models.cells.registry import MODULE
from charcmp.sweeping.examine import examined_slots
from charcmp.sweeping.grid import Job, make_job, single_values
from charcmp.sweeping.race.arms import CELLS, DEPTHS, Model
from charcmp.sweeping.race.decide import FEWEST_SEEDS
from charcmp.sweeping.race.race import MOST_LOOKS, PlannedRun
from charcmp.sweeping.slots import Slot
from charcmp.training.memory import require_memory, training_bytes
from charcmp.values import did_you_mean

AXES = {"budget": (DEFAULT_BUDGET,), "cell": CELLS, "layers": DEPTHS}
# Options of cell=module, which the other cells of a race do not have.
CLASS_OPTIONS = {f"cell.{field.name}" for field in fields(ModuleConfig)} - {"cell.name"}
TARGET = "cell.target"


@dataclass(frozen=True)
class Request:
    """A race that was asked for."""

    models: list[Model]  # of one budget
    seed: int
    make_job: Callable[[PlannedRun], Job]  # makes the job of a planned run
    probe: Job  # a run of one epoch, for the settings that all runs share
    classes: dict[str, dict[str, Any]]  # by target: the identity of each class that races

    @property
    def budget(self) -> str:
        return self.probe.spec.budget

    @property
    def num_params(self) -> int:
        return self.probe.spec.num_params


def requests(
    composer: Composer, class_options: Sequence[str] = ()
) -> tuple[list[Request], list[Slot]]:
    """Returns the races that a command line asks for, and the slots that their runs have.

    Args:
        composer: of the command line, less its class options.
        class_options: overrides of CLASS_OPTIONS; cell.target may have several values.

    Raises:
        UserError: for several values of a key that takes one, or a model that cannot race, or that
            exceeds the memory.
    """
    given = {override.key_or_group: override for override in composer.given}
    for key, override in given.items():
        require(
            key in AXES or not override.is_sweep_override(),
            f"{override.input_line}: a race takes one value of {key}; only "
            f"{', '.join(AXES)} may have several",
        )
    of_classes = {override.key_or_group: override for override in composer.parse(class_options)}
    targets = _targets(composer, of_classes.pop(TARGET, None))
    default_cells = (*CELLS, MODULE) if targets else CELLS
    axes = {key: _values(given.get(key), default)
            for key, default in (AXES | {"cell": default_cells}).items()}  # fmt: skip
    _check_axes(axes, targets)
    cells = [name for cell in axes["cell"] for name in (targets if cell == MODULE else [cell])]
    (seed,) = _values(given.get("seed"), (0,))
    others = [
        str(override.input_line) for key, override in given.items() if key not in (*AXES, "seed")
    ]

    options = [str(override.input_line) for override in of_classes.values()]

    def make(model: Model, *settings: str) -> Job:
        chosen = [*model.overrides, *(options if model.is_class else [])]
        overrides = [*others, *chosen, *settings]
        return make_job(overrides, composer.compose(overrides))

    def request(budget: str) -> Request:
        models = [Model(budget, str(cell), int(layers))
                  for cell in cells for layers in axes["layers"]]  # fmt: skip
        probe = make(models[0], "epochs=1", f"seed={seed}")
        classes = {
            model.cell: make(model, "epochs=1").spec.cell_identity
            for model in models
            if model.is_class and model.layers == models[0].layers
        }
        _check_distinct(classes)

        def job_of(planned: PlannedRun) -> Job:
            model, rate = planned.arm
            length = length_settings(planned.updates, probe.spec.updates_per_epoch)
            return make(model, f"optimizer.lr={rate:g}", f"seed={planned.seed}", *length)

        return Request(models, int(seed), job_of, probe, classes)

    found = [request(str(budget)) for budget in axes["budget"]]
    require_seeds(found[0].seed, FEWEST_SEEDS + MOST_LOOKS - 2, "race")
    jobs = [make(model, "epochs=1") for request in found for model in request.models]
    for job in jobs:
        require_memory(job.spec)
    run_bytes = max(training_bytes(job.spec) for job in jobs)
    return found, examined_slots(found[0].probe.spec.config, run_bytes)


def require_seeds(first: int, num_further: int, what: str) -> None:
    """Raises UserError if a race or the like cannot count up so far from its first seed."""
    last = first + num_further
    counted_to = f"seed={first}: a {what} counts up from it to {last}, which {SEED.wanted}"
    require(bool(SEED.holds(last)), counted_to)


def _check_distinct(classes: Mapping[str, dict[str, Any]]) -> None:
    """Raises UserError for a class that is named twice: its runs would be the same."""
    first: dict[str, str] = {}
    for target, identity in classes.items():
        same = first.setdefault(canonical_json(identity), target)
        require(same == target, f"{TARGET}={target}: the same class as {same}")


def _targets(composer: Composer, given: Override | None) -> list[str]:
    """Returns the classes that race, as `cell.target=` names them."""
    if given is None:
        return []
    return [str(override.value()) for override in composer.parse(single_values(given))]


def _check_axes(axes: Mapping[str, Sequence[Any]], targets: Sequence[str]) -> None:
    """Raises UserError for models that cannot race, before their speed is measured."""
    known = [*CELL_ROWS, MODULE]
    for cell in axes["cell"]:
        require(cell in known, f"cell={cell}: one of {', '.join(known)}{did_you_mean(cell, known)}")
    if MODULE in axes["cell"]:
        require(
            bool(targets),
            f"cell={MODULE}: name the class, as in {TARGET}=my_cell.py:MyCell",
        )
    elif targets:
        raise UserError(f"{TARGET}={targets[0]}: add {MODULE} to cell=, or leave cell= out, "
                        f"and {', '.join(CELLS)} race too")  # fmt: skip
    for layers in axes["layers"]:
        require(str(layers).isdecimal(), f"layers={layers}: must be a whole number, at least 1")


def length_settings(updates: int, updates_per_epoch: int) -> list[str]:
    """Returns the overrides that give a run this length (see `nearest_length`)."""
    if updates < updates_per_epoch:
        return ["epochs=1", f"updates_per_epoch={updates}"]
    return [f"epochs={updates // updates_per_epoch}"]


def _values(override: Override | None, default: Sequence[Any]) -> list[Any]:
    if override is None:
        return list(default)
    return [single.partition("=")[2] for single in single_values(override)]
