"""`charcmp recommend my.txt`: which model to take for a text, within minutes."""

from __future__ import annotations

import math
from pathlib import Path

from charcmp.cli.line import read_line, run_composed
from charcmp.config.compose import Composer
from charcmp.errors import UserError

USAGE = """\
charcmp recommend my.txt                 which cell, depth and rate to take for this text
charcmp recommend dataset=wp budget=50k  the same for a corpus that charcmp knows

  minutes=30        the time that it has; the same command with more goes on with the race
  budget=50k,130k   parameters; several budgets share the minutes by what they cost
  cell=lstm,gru,rnn layers=1,2,3   the models that race
  seed=0            of the first run of each; further seeds count up from it
  results_dir=results jobs=2 device=cpu ...   any other key of `charcmp train --help`

It trains every model at several learning rates for a short time, goes on with the good ones for
longer, and gives the last ones more seeds. It decides by validation loss alone, tells at the end
what to take and how sure that is, and leaves the model ready for charcmp sample and charcmp score.
"""
# What a race decides itself.
ITS_OWN = (
    *("optimizer.lr", "epochs", "updates_per_epoch", "hidden_size"),
    *("experiment", "task", "patience"),
)
DEFAULT_MINUTES = 30.0


def recommend(args: list[str]) -> None:
    """`charcmp recommend`."""
    if "--help" in args or "-h" in args:
        print(USAGE, end="")
        return
    overrides, minutes = [], DEFAULT_MINUTES
    for arg in args:
        key, equals, value = arg.partition("=")
        if key == "minutes" and equals:
            minutes = _minutes(value)
        elif not arg.startswith("-") and (not equals or Path(arg).is_file()):
            overrides += ["dataset=text", f"dataset.path={arg}"]
        else:
            overrides.append(arg)
    line = read_line("recommend", ["experiment=fast", *overrides])
    run_composed(line, lambda composer: _race(composer, minutes))


def _minutes(value: str) -> float:
    from charcmp.output import fail

    try:
        minutes = float(value)
    except ValueError:
        minutes = math.nan
    if not 0 < minutes < math.inf:
        fail(f"minutes={value}: a number of minutes, such as 30")
    return minutes


def _race(composer: Composer, minutes: float) -> None:
    from charcmp.sweeping.race.recommend import recommend, requests

    given = {override.key_or_group: override for override in composer.given}
    for key in ITS_OWN:
        if key in given and given[key].input_line != "experiment=fast":
            raise UserError(f"{given[key].input_line}: a race decides {key} itself")
    asked, slots = requests(composer, minutes)
    recommend(asked, slots)
