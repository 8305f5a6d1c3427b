"""`charcmp recommend`: runs a race at each budget within the minutes given, and gives advice."""

from __future__ import annotations

import hashlib
import math
import shlex
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from charcmp.config.spec import RunSpec
from charcmp.errors import Interrupted, require
from charcmp.files import canonical_json
from charcmp.output import counted, note
from charcmp.runs.baselines import Baseline
from charcmp.runs.folder import RunFolder
from charcmp.sweeping.grid import Job
from charcmp.sweeping.race.advice import Advice, make_advice
from charcmp.sweeping.race.board import Board
from charcmp.sweeping.race.decide import Outcome
from charcmp.sweeping.race.live import LiveRunner
from charcmp.sweeping.race.page import race_page
from charcmp.sweeping.race.plan import TooLittleTimeError
from charcmp.sweeping.race.race import NoWinnerError, PlannedRun, Race
from charcmp.sweeping.race.record import recommendation
from charcmp.sweeping.race.requests import Request
from charcmp.sweeping.race.state import StateFile
from charcmp.sweeping.race.wording import advice_text
from charcmp.sweeping.slots import Slot
from charcmp.training.baselines import MAX_CHARS, baselines_of

RACES = "races"  # folder in results_dir


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
    time_left = SharedTime(minutes, [request.num_params for request in requests])
    for request in requests:
        spent = 0.0
        try:
            advice = race_at_budget(request, time_left.share(), slots)
        except TooLittleTimeError as error:
            needed = math.ceil(10 * time_left.minutes_needed(error.seconds)) / 10
            failed.append(
                f"too little time: a race of {counted(len(request.models), 'model')} at "
                f"{request.budget} needs about minutes={needed:g} on this machine"
                + (", those of the other budgets included" if len(requests) > 1 else "")
                + "; or race fewer models (cell=, layers=)"
            )
        except NoWinnerError as error:
            failed.append(f"{request.budget}: {error}" if len(requests) > 1 else str(error))
            spent = error.seconds_spent
        else:
            found.append(advice)
            spent = 60 * advice.minutes
        time_left.ended(spent)
    require(not failed, "; ".join(failed))
    return found


class SharedTime:
    """The time of a command line's races, which run one after the other.

    Each race has a share of what is left, in proportion to its parameters among those of the races
    that are left.

    Args:
        minutes: for all of them.
        num_params: of each race.
    """

    def __init__(self, minutes: float, num_params: Sequence[int]) -> None:
        self.seconds, self.spent = 60 * minutes, 0.0
        self.num_params = deque(num_params)
        self.total = sum(num_params)

    def share(self) -> float:
        """Returns the seconds that the next race has."""
        left = self.seconds - self.spent  # less than 0 if an earlier command was given more
        return max(0.0, left) * self.num_params[0] / sum(self.num_params)

    def minutes_needed(self, seconds: float) -> float:
        """Returns the minutes= with which the next race would have so many seconds, even if the
        earlier races used up their larger shares."""
        params = self.num_params[0]
        with_shares = seconds * self.total / params
        return max(with_shares, self.spent + seconds * sum(self.num_params) / params) / 60

    def ended(self, spent: float) -> None:
        """Notes that the next race has ended, and how many seconds it took."""
        self.spent += spent
        self.num_params.popleft()


def race_at_budget(request: Request, seconds: float, slots: Sequence[Slot]) -> Advice:
    """Runs the race at one budget.

    Args:
        request: what was asked for.
        seconds: that the race has in all, those before an interruption included.
        slots: shares of the machine.

    Raises:
        TooLittleTimeError: names the seconds with which the same command would do.
        NoWinnerError: names the seconds that the race has taken.
    """
    make_job = cache(request.make_job)
    probe = request.probe.spec
    settings = race_settings(request)
    folder = race_folder(probe, settings)
    folder.create()
    with folder.leased():
        state = StateFile(folder, probe.corpus.sha256, settings)
        return _race(request, seconds, slots, make_job, folder, state)


def _race(
    request: Request,
    seconds: float,
    slots: Sequence[Slot],
    make_job: Callable[[PlannedRun], Job],
    folder: RunFolder,
    state: StateFile,
) -> Advice:
    probe = request.probe.spec
    begun = time.monotonic()
    until = begun + seconds - state.state.seconds_spent
    board = Board(request.models, probe.updates_per_epoch, until)
    before = f"; continues after {state.state.seconds_spent / 60:.1f} minutes"
    print(
        f"{probe.corpus.name}, {probe.budget}: {counted(len(request.models), 'model')}, "
        f"{seconds / 60:.3g} minutes, {counted(len(slots), 'run')} at once"
        f"{'' if state.is_new else before}"
    )

    def ran(planned: PlannedRun, outcome: Outcome) -> None:
        state.note_time()  # now, as a race that is killed cannot
        board.ran(planned, outcome)

    runner = LiveRunner(make_job, slots, until, ran, probe.updates_per_epoch)
    try:
        baselines = _baselines(probe)
        runner.measure(request.models)
        race = Race(
            request.models,
            runner,
            state,
            request.seed,
            on_out=board.out,
            on_worse=board.longer_was_worse,
        )
        finish = race.run()
    except TooLittleTimeError as error:  # what this attempt took does not count, but it takes that
        spent = time.monotonic() - begun + state.state.seconds_spent
        raise TooLittleTimeError(spent + error.seconds) from None
    except NoWinnerError as error:
        state.note_time()
        error.seconds_spent = state.state.seconds_spent
        raise
    except Interrupted as stop:
        board.show(finally_=True)
        state.note_time()
        raise Interrupted(f"{stop}; this is the leaderboard so far") from None
    except BaseException:
        state.note_time()
        raise
    finally:
        runner.close()
    state.note_time()
    board.ended(finish.states, finish.updates)
    board.show(finally_=True)
    spent = state.state.seconds_spent
    advice = make_advice(finish, make_job, request.seed, spent, probe.updates_per_epoch, baselines)
    print(f"\n{advice_text(advice)}")
    data, page = folder.path / "recommendation.json", folder.path / "race.html"
    folder.write_json(data, msgspec.to_builtins(recommendation(advice)))
    folder.write_bytes(page, race_page(advice, board).encode())
    print(f"\nTo generate text from it: charcmp sample {shlex.join(advice.run_arguments)}")
    again = shlex.join(advice.train_overrides)
    print(f"To train it again, or longer (epochs=): charcmp train {again}")
    print(f"The race as a picture: {page}")
    return advice


def _baselines(spec: RunSpec) -> list[Baseline]:
    """Returns the losses of n-grams and compressors on the test text; none if it is too long."""
    if spec.corpus.num_chars > MAX_CHARS:
        note(
            "baselines (n-grams, compressors) are skipped for texts of more than "
            f"{MAX_CHARS:,} characters"
        )
        return []
    found = baselines_of(spec, [spec.target_params]).baselines
    return [baseline for baseline in found if baseline.budget in (None, spec.target_params)]


def race_settings(request: Request) -> dict[str, Any]:
    """Returns what identifies a race. The minutes do not: with more of them, the race goes on."""
    identity = request.probe.spec.identity()
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
