"""`charcmp recommend my.txt`: finds out within minutes which model to use for a text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from charcmp.cli.commands import COMMANDS, RACE_DECIDES, RACE_MINUTES
from charcmp.cli.line import read_line, run_composed
from charcmp.config.compose import Composer
from charcmp.errors import UserError
from charcmp.output import fail


def recommend(args: list[str]) -> None:
    """Runs `charcmp recommend`."""
    minutes = RACE_MINUTES
    overrides: list[str] = []
    for word in args:
        if word.startswith("minutes="):
            minutes = _minutes(word.removeprefix("minutes="))
        else:
            overrides.append(word)
    line = read_line("recommend", ["experiment=fast", *overrides])
    # To Hydra these are options of one cell; in a race they go with the classes alone.
    class_options = [] if line.only_prints else [word for word in line.hydra if _is_of_class(word)]
    line = replace(line, hydra=[word for word in line.hydra if word not in class_options])
    run_composed(line, lambda composer: _race(composer, minutes, class_options))


def _is_of_class(word: str) -> bool:
    from charcmp.sweeping.race.requests import CLASS_OPTIONS

    return word.partition("=")[0].lstrip("+") in CLASS_OPTIONS


def _minutes(value: str) -> float:
    (rule,) = (key.rule for key in COMMANDS["recommend"].own_keys if key.name == "minutes")
    try:
        minutes = float(value)
    except ValueError:
        fail(f"minutes={value}: must be a number of minutes, such as 30")
    if not rule.holds(minutes):
        fail(f"minutes={value}: {rule.wanted}")
    return minutes


def _race(composer: Composer, minutes: float, class_options: Sequence[str]) -> None:
    from charcmp.sweeping.race.recommend import recommend
    from charcmp.sweeping.race.requests import requests

    given = {override.key_or_group: override for override in composer.given}
    for key in RACE_DECIDES:
        if key in given and given[key].input_line != "experiment=fast":
            raise UserError(f"{given[key].input_line}: a race decides {key} itself")
    asked, slots = requests(composer, class_options)
    recommend(asked, minutes, slots)
