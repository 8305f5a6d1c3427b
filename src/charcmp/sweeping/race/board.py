"""The leaderboard: every model of a race, the best first, redrawn in place in a terminal."""

from __future__ import annotations

import math
import shutil
import sys
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence

from tabulate import tabulate

from charcmp.output import duration, epochs_text, length_text
from charcmp.sweeping.race.arms import Arm, Model, label
from charcmp.sweeping.race.decide import Failed, Outcome, best_arms, mean_nats, text_component
from charcmp.sweeping.race.race import PlannedRun

SECONDS_BETWEEN = 1.0  # at least so many between two drawings of the table
Z_95 = 1.96  # standard errors that a 95 % interval reaches to either side
COLUMNS = ("", "model", "rate", "epochs", "seeds", "validation", "behind ± text", "state")


class Board:
    """A display of a race: in a terminal a table that is redrawn, elsewhere a line for each run.

    Args:
        models: all models of the race.
        updates_per_epoch: of all the training text.
        until: when the race ends, by time.monotonic().
    """

    def __init__(self, models: Sequence[Model], updates_per_epoch: int, until: float) -> None:
        self.models, self.updates_per_epoch, self.until = models, updates_per_epoch, until
        # By model and updates: the outcomes of each arm, one for each seed, the first seed first.
        self.outcomes: dict[Model, dict[int, dict[Arm, list[Outcome]]]] = {}
        self.state: dict[Model, str] = {}
        self.compared_at: dict[Model, int] = {}  # updates, of models that were in to the end
        self.seen: set[PlannedRun] = set()
        self.is_table = sys.stdout.isatty()
        self.lines_shown = 0
        self.shown_at = 0.0

    def ran(self, planned: PlannedRun, outcome: Outcome) -> None:
        """Shows a run that has ended."""
        if planned in self.seen:  # two rungs of the same length have the same runs
            return
        self.seen.add(planned)
        model = planned.arm.model
        of_length = self.outcomes.setdefault(model, {}).setdefault(
            planned.updates, defaultdict(list)
        )
        of_length[planned.arm].append(outcome)
        if self.is_table:
            self.show()
        else:
            print(
                f"{label(model)}, rate {planned.arm.rate:g}, {self.length(planned.updates)}, seed "
                f"{planned.seed}: validation {_nats([outcome])}  ({self._left()})",
                flush=True,
            )

    def note(self, line: str) -> None:
        """Prints a line about a decision above the table."""
        self._clear()
        print(line, flush=True)
        self.shown_at = -math.inf  # the table is gone, however short a time ago it was drawn
        self.show()

    def out(self, models: Sequence[Model], updates: int) -> None:
        """Marks models that were eliminated after so many updates, and says so."""
        self.state |= dict.fromkeys(models, "out")
        self.note(f"eliminated after {self.length(updates)}: {', '.join(map(label, models))}")

    def longer_was_worse(self, longer: int, shorter: int) -> None:
        """Says that the race ends at a shorter length, in updates, since a longer one did worse."""
        self.note(
            f"longer training did worse: {self.length(longer)}; further seeds have "
            f"{self.length(shorter)}"
        )

    def ended(self, states: Mapping[Model, str], updates: int) -> None:
        """Marks the models that were in the race to its end, and from now on shows these at the
        length at which they are compared.

        Args:
            states: see Finish.states.
            updates: that length.
        """
        other = {model: "behind" if model in self.outcomes else "not run" for model in self.models}
        self.state = other | dict(states) | self.state
        self.compared_at |= {
            model: updates for model in states if updates in self.outcomes.get(model, ())
        }

    def show(self, finally_: bool = False) -> None:
        """Prints the table: during the race only in a terminal, at the end always."""
        now = time.monotonic()
        if not finally_ and (not self.is_table or now - self.shown_at < SECONDS_BETWEEN):
            return
        self.shown_at = now
        text = self.table() + ("" if finally_ else f"\n{self._left()}")
        self._clear()
        print(text, flush=True)
        self.lines_shown = 0 if finally_ else _num_lines(text)

    def _clear(self) -> None:
        if self.is_table and self.lines_shown:
            sys.stdout.write(f"\x1b[{self.lines_shown}F\x1b[J")
        self.lines_shown = 0

    def epochs(self, updates: int) -> float:
        return updates / self.updates_per_epoch

    def length(self, updates: int) -> str:
        return length_text(self.epochs(updates))

    def _left(self) -> str:
        return f"{duration(max(0.0, self.until - time.monotonic()))} left"

    def ranked(self) -> list[Model]:
        """Returns the models that have run, those that are compared at the end first, then the
        longest trained, then the best."""

        def rank(model: Model) -> tuple[bool, int, float]:
            updates = self._shown_at(model)
            nats = mean_nats(self.best_arm(model, updates)[1])
            return model not in self.compared_at, -updates, nats

        return sorted(self.outcomes, key=rank)

    def _shown_at(self, model: Model) -> int:
        return self.compared_at.get(model) or max(self.outcomes[model])

    def best_arm(self, model: Model, updates: int) -> tuple[Arm, list[Outcome]]:
        """Returns a model's best arm at a length, by its first seed as in the race, and the
        outcomes of that arm's seeds."""
        arms = self.outcomes[model][updates]
        arm = best_arms({arm: outcomes[0] for arm, outcomes in arms.items()})[model]
        return arm, arms[arm]

    def losses_by_epochs(self, model: Model) -> dict[float, float]:
        """Returns the loss of a model's best arm at each length of its trainings, the mean over
        that arm's seeds; the shortest first, without those at which one diverged or failed."""
        means = {
            self.epochs(updates): mean_nats(self.best_arm(model, updates)[1])
            for updates in sorted(self.outcomes[model])
        }
        return {epochs: nats for epochs, nats in means.items() if math.isfinite(nats)}

    def table(self) -> str:
        return tabulate(self.rows(), headers="keys", disable_numparse=True)

    def rows(self) -> list[dict[str, str | int]]:
        """Returns a row for each model, by column; its loss is the mean over its seeds."""
        ranked = self.ranked()
        rows: list[dict[str, str | int]] = []
        for place, model in enumerate(ranked, start=1):
            updates = self._shown_at(model)
            arm, outcomes = self.best_arm(model, updates)
            behind = ""
            if model != ranked[0] and updates == self._shown_at(ranked[0]):
                behind = _behind(outcomes, self.best_arm(ranked[0], updates)[1])
            rows.append(
                {
                    "": place,
                    "model": label(model),
                    "rate": f"{arm.rate:g}",
                    "epochs": epochs_text(self.epochs(updates)),
                    "seeds": len(outcomes),
                    "validation": _nats(outcomes),
                    "behind ± text": behind,
                    "state": self.state.get(model, "racing"),
                }
            )
        for model in self.models:
            if model not in self.outcomes:
                state = self.state.get(model, "waiting")
                rows.append({**dict.fromkeys(COLUMNS, ""), "model": label(model), "state": state})
        return rows


def _num_lines(text: str) -> int:
    """Returns how many lines a text takes in the terminal, where long lines wrap."""
    columns = shutil.get_terminal_size().columns
    return sum(max(1, math.ceil(len(line) / columns)) for line in text.split("\n"))


def _nats(outcomes: Sequence[Outcome]) -> str:
    """Returns the mean loss as text, or why there is none."""
    if all(outcome.is_usable for outcome in outcomes):
        return f"{mean_nats(outcomes):.4f}"
    return "failed" if any(isinstance(outcome, Failed) for outcome in outcomes) else "diverged"


def _behind(a: Sequence[Outcome], b: Sequence[Outcome]) -> str:
    difference = mean_nats(a) - mean_nats(b)
    if not math.isfinite(difference):
        return ""  # the column of losses says why
    text = text_component(a, b)
    margin = f" ± {Z_95 * math.sqrt(text.variance):.4f}" if text else ""
    return f"{difference:+.4f}{margin}"
