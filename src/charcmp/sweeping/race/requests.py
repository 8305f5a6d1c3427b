"""The races that a command line asks for: their models, and the job of each planned run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeVar

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

AXES = ("budget", "cell", "layers")  # the keys that may have several values
# Options of cell=module, which the other cells of a race do not have.
CLASS_OPTIONS = {f"cell.{field.name}" for field in fields(ModuleConfig)} - {"cell.name"}
TARGET = "cell.target"
EXAMPLE = f"{TARGET}=my_cell.py:MyCell"
Value = TypeVar("Value", str, int)


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
        UserError: for several values of a key that takes one, a value given twice, an option of
            classes without a class, or a model that cannot race or exceeds the memory.
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
    budgets = _values(given.get("budget"), (DEFAULT_BUDGET,), str)
    cells = _values(given.get("cell"), (*CELLS, MODULE) if targets else CELLS, str)
    depths = _values(given.get("layers"), DEPTHS, _depth)
    _check_cells(cells, targets)
    options = [str(override.input_line) for override in of_classes.values()]
    if options and not targets:
        raise UserError(f"{options[0]}: an option of classes; name one, as in {EXAMPLE}")
    racing = [name for cell in cells for name in (targets if cell == MODULE else [cell])]
    others = [
        str(override.input_line) for key, override in given.items() if key not in (*AXES, "seed")
    ]
    seeds = [str(given["seed"].input_line)] if "seed" in given else []

    def make(model: Model, *settings: str) -> Job:
        chosen = [*model.overrides, *(options if model.is_class else [])]
        overrides = [*others, *chosen, *settings]
        return make_job(overrides, composer.compose(overrides))

    def request(budget: str) -> Request:
        models = [Model(budget, cell, layers) for cell in racing for layers in depths]
        probe = make(models[0], "epochs=1", *seeds)
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

        return Request(models, probe.spec.config.seed, job_of, probe, classes)

    found = [request(budget) for budget in budgets]
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


def _check_cells(cells: Sequence[str], targets: Sequence[str]) -> None:
    """Raises UserError for cells that cannot race, before their speed is measured."""
    known = [*CELL_ROWS, MODULE]
    for cell in cells:
        require(cell in known, f"cell={cell}: one of {', '.join(known)}{did_you_mean(cell, known)}")
    if MODULE in cells:
        require(bool(targets), f"cell={MODULE}: name the class, as in {EXAMPLE}")
    elif targets:
        raise UserError(f"{TARGET}={targets[0]}: add {MODULE} to cell=, or leave cell= out, "
                        f"and {', '.join(CELLS)} race too")  # fmt: skip


def _depth(layers: str) -> int:
    require(layers.isdecimal(), f"layers={layers}: must be a whole number, at least 1")
    return int(layers)


def length_settings(updates: int, updates_per_epoch: int) -> list[str]:
    """Returns the overrides that give a run this length (see `nearest_length`)."""
    if updates < updates_per_epoch:
        return ["epochs=1", f"updates_per_epoch={updates}"]
    return [f"epochs={updates // updates_per_epoch}"]


def _values(
    override: Override | None, default: Sequence[Value], typed: Callable[[str], Value]
) -> list[Value]:
    """Returns the values of a key of AXES; raises UserError if one is given twice."""
    if override is None:
        return list(default)
    values = [typed(single.partition("=")[2]) for single in single_values(override)]
    for place, value in enumerate(values):
        require(value not in values[:place], f"{override.input_line}: has {value} twice")
    return values
