"""`charcmp recommend`: runs a race at each budget within the minutes given, and gives advice."""

from __future__ import annotations

import hashlib
import math
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override

from charcmp.config.compose import Composer
from charcmp.config.spec import RunSpec
from charcmp.errors import Interrupted, UserError, require
from charcmp.files import canonical_json, write_bytes, write_json
from charcmp.models.budget import DEFAULT_BUDGET
from charcmp.models.cells.options import ModuleConfig
from charcmp.models.cells.registry import CELLS as CELL_ROWS
from charcmp.models.cells.registry import MODULE
from charcmp.runs.baselines import Baseline
from charcmp.runs.folder import RunFolder
from charcmp.sweeping.examine import examined_slots
from charcmp.sweeping.grid import Job, make_job, single_values
from charcmp.sweeping.race.advice import Advice, make_advice
from charcmp.sweeping.race.arms import CELLS, DEPTHS, Model, label
from charcmp.sweeping.race.board import Board
from charcmp.sweeping.race.decide import Outcome
from charcmp.sweeping.race.live import LiveRunner
from charcmp.sweeping.race.page import race_page
from charcmp.sweeping.race.plan import TooLittleTimeError
from charcmp.sweeping.race.race import Entry, NoWinnerError, Race
from charcmp.sweeping.race.state import StateFile
from charcmp.sweeping.slots import Slot
from charcmp.training.baselines import MAX_CHARS, baselines_of
from charcmp.training.memory import training_bytes
from charcmp.values import did_you_mean

RACES = "races"  # folder in results_dir


@dataclass(frozen=True)
class Request:
    """A race that was asked for."""

    models: list[Model]  # of one budget
    seed: int
    make_job: Callable[[Entry], Job]  # makes the run of an entry
    probe: Job  # a run of one epoch, for the settings that all runs share
    classes: dict[str, dict[str, Any]]  # by target: the identity of each class that races

    @property
    def budget(self) -> str:
        return self.probe.spec.budget

    @property
    def num_params(self) -> int:
        return self.probe.spec.num_params


def recommend(requests: Sequence[Request], minutes: float, slots: Sequence[Slot]) -> list[Advice]:
    """Runs a race for each budget, one after the other, and prints the advice of each.

    The races share the minutes in proportion to their parameters, which is about what their updates
    cost. What a race leaves over, the later ones share.

    Args:
        requests: of one command line, at least one.
        minutes: for all of the races.
        slots: shares of the machine.

    Raises:
        UserError: if there is too little text, or the text changes in the meantime; if a race has
            too little time or no winner, but only when the others are over.
        Interrupted: if asked to stop; the same command goes on with the race.
        BusyError: if another process is working on the same race.
    """
    found, failed = [], []
    total = params_left = sum(one.num_params for one in requests)
    seconds_left = 60 * minutes
    for request in requests:
        try:
            seconds = seconds_left * request.num_params / params_left
            advice = race_at_budget(request, seconds, slots)
        except TooLittleTimeError as error:
            share = request.num_params / total
            needed = math.ceil(error.seconds / (60 * share) * 10) / 10
            failed.append(
                f"too little time: a race of {len(request.models)} models at {request.budget} "
                f"needs about minutes={needed:g} on this machine"
                + (f", of which {share:.0%} would be its share" if share < 1 else "")
                + "; or race fewer models (cell=, layers=)"
            )
        except NoWinnerError as error:
            failed.append(f"{request.budget}: {error}" if len(requests) > 1 else str(error))
            seconds_left -= seconds
        else:
            found.append(advice)
            seconds_left -= 60 * advice.minutes
        params_left -= request.num_params
    require(not failed, "; ".join(failed))
    return found


def race_at_budget(request: Request, seconds: float, slots: Sequence[Slot]) -> Advice:
    """Runs the race at one budget.

    Args:
        request: what was asked for.
        seconds: that the race has in all, those before an interruption included.
        slots: shares of the machine.

    Raises:
        TooLittleTimeError: names the seconds with which the same command would do.
    """
    make_job = cache(request.make_job)
    probe = request.probe.spec
    settings = race_settings(request, probe)
    folder = race_folder(probe, settings)
    folder.create()
    with folder.leased():
        state = StateFile(folder.path / "race.json", probe.corpus.sha256, settings)
        return _race(request, seconds, slots, make_job, probe, folder.path, state)


def _race(
    request: Request,
    seconds: float,
    slots: Sequence[Slot],
    make_job: Callable[[Entry], Job],
    probe: RunSpec,
    folder: Path,
    state: StateFile,
) -> Advice:
    begun = time.monotonic()
    until = begun + seconds - state.state.seconds_spent
    board = Board(request.models, probe.updates_per_epoch, until)
    before = f"; continues after {state.state.seconds_spent / 60:.1f} minutes"
    print(
        f"{probe.corpus.name}, {probe.budget}: {len(request.models)} models, "
        f"{seconds / 60:.3g} minutes, {len(slots)} runs at once{'' if state.is_new else before}"
    )

    def ran(entry: Entry, outcome: Outcome) -> None:
        state.note_time()  # now, as a race that is killed cannot
        board.ran(entry, outcome)

    runner = LiveRunner(make_job, slots, until, ran, probe.updates_per_epoch)
    track = _Track(state, board)
    try:
        baselines = _baselines(probe)
        runner.measure(request.models)
        finish = Race(request.models, runner, track, request.seed).run()
    except TooLittleTimeError as error:  # what this attempt took does not count, but it takes that
        spent = time.monotonic() - begun + state.state.seconds_spent
        raise TooLittleTimeError(spent + error.seconds) from None
    except Interrupted as stop:
        board.show(finally_=True)
        state.note_time()
        raise Interrupted(f"{stop}; this is the leaderboard so far") from None
    except BaseException:
        state.note_time()
        raise
    state.note_time()
    board.ended(finish.states)
    board.show(finally_=True)
    spent = state.state.seconds_spent
    advice = make_advice(finish, make_job, request.seed, spent, probe.updates_per_epoch, baselines)
    print(f"\n{advice.text()}")
    write_json(folder / "recommendation.json", advice.record())
    page = race_page(advice, board)
    write_bytes(folder / "race.html", page.encode())
    print(f"\nTo generate text from it: charcmp sample {shlex.join(advice.run_arguments)}")
    again = shlex.join(advice.train_overrides)
    print(f"To train it again, or longer (epochs=): charcmp train {again}")
    print(f"The race as a picture: {folder / 'race.html'}")
    return advice


def _baselines(spec: RunSpec) -> list[Baseline]:
    """Returns the losses of n-grams and compressors on the test text; none if it is too long."""
    if spec.corpus.num_chars > MAX_CHARS:
        print(
            "note: baselines (n-grams, compressors) are skipped for texts of more than "
            f"{MAX_CHARS:,} characters"
        )
        return []
    found = baselines_of(spec, [spec.target_params]).baselines
    return [one for one in found if one.budget in (None, spec.target_params)]


class _Track:
    def __init__(self, state: StateFile, board: Board) -> None:
        self.state, self.board = state, board

    def length_of(self, rung: int, plan: Callable[[], int | None]) -> int | None:
        return self.state.length_of(rung, plan)

    def is_over(self, rung: int) -> bool:
        return self.state.is_over(rung)

    def seeds_begin(self) -> None:
        self.state.seeds_begin()

    def out(self, models: Sequence[Model], updates: int) -> None:
        self.board.out(models)
        self.board.note(
            f"eliminated after {self.board.length(updates)}: {', '.join(map(label, models))}"
        )


def race_settings(request: Request, probe: RunSpec) -> dict[str, Any]:
    """Returns what identifies a race. The minutes do not: with more of them, the race goes on."""
    identity = probe.identity()
    given = (
        "cell.name",
        "layers",
        "hidden_size",
        "seed",
        "epochs",
        "updates_per_epoch",
        "optimizer.lr",
        "corpus_sha256",
    )
    classes = {"classes": request.classes} if request.classes else {}
    return classes | {
        "models": [list(model) for model in request.models],
        "seed": request.seed,
        **{key: value for key, value in identity.items() if key not in given},
    }


def race_folder(probe: RunSpec, settings: dict[str, Any]) -> RunFolder:
    """Returns where a race keeps its files: `races/<text>-<budget>-<hash of its settings>`."""
    config = probe.config
    number = hashlib.sha256(canonical_json(settings).encode()).hexdigest()[:8]
    path = Path(config.results_dir) / RACES / f"{probe.text_name}-{probe.budget}-{number}"
    return RunFolder(path, config.lease_seconds)


AXES = {"budget": (DEFAULT_BUDGET,), "cell": CELLS, "layers": DEPTHS}


# Options of cell=module, which the other cells of a race do not have.
CLASS_OPTIONS = {f"cell.{field.name}" for field in fields(ModuleConfig)} - {"cell.name"}
TARGET = "cell.target"


def requests(
    composer: Composer, class_options: Sequence[str] = ()
) -> tuple[list[Request], list[Slot]]:
    """Returns the races that a command line asks for, and the slots that their runs have.

    Args:
        composer: of the command line, less its class options.
        class_options: overrides of CLASS_OPTIONS; cell.target may have several values.

    Raises:
        UserError: for several values of a key that takes one, or a model that cannot race.
    """
    given = {override.key_or_group: override for override in composer.given}
    for key, override in given.items():
        require(
            key in AXES or not override.is_sweep_override(),
            f"{override.input_line}: a race takes one value of {key}; only "
            f"{', '.join(AXES)} may have several",
        )
    of_classes = {one.key_or_group: one for one in composer.parse(class_options)}
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

        def job_of(entry: Entry) -> Job:
            model, rate = entry.arm
            length = length_settings(entry.updates, probe.spec.updates_per_epoch)
            return make(model, f"optimizer.lr={rate:g}", f"seed={entry.seed}", *length)

        return Request(models, int(seed), job_of, probe, classes)

    found = [request(str(budget)) for budget in axes["budget"]]
    probes = [one.probe.spec for one in found]
    return found, examined_slots(probes[0].config, max(map(training_bytes, probes)))


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
    return [str(one.value()) for one in composer.parse(single_values(given))]


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
