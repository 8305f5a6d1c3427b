"""`charcmp recommend my.txt`: finds out within minutes which model to take for a text."""

from __future__ import annotations

import math
import stat
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from charcmp.cli.commands import RACE_DECIDES, RACE_MINUTES
from charcmp.cli.line import is_flags_value, read_line, run_composed
from charcmp.config.compose import Composer
from charcmp.errors import UserError
from charcmp.files import is_there
from charcmp.output import fail


def recommend(args: list[str]) -> None:
    """Runs `charcmp recommend`."""
    overrides: list[str] = []
    texts: list[str] = []
    minutes = RACE_MINUTES
    for before, arg in zip(["", *args], args, strict=False):
        key, equals, value = arg.partition("=")
        if key == "minutes" and equals:
            minutes = _minutes(value)
        elif arg.startswith("-") or is_flags_value(before, arg):
            overrides.append(arg)
        elif not equals or is_there(Path(arg), stat.S_ISREG):
            texts.append(arg)
        else:
            overrides.append(arg)
    if len(texts) > 1:
        fail(f"recommend takes one text, not {len(texts)}: {' '.join(texts)}")
    others = [word for word in overrides if word.startswith(("dataset=", "dataset.path="))]
    if texts and others:
        fail(f"recommend takes one text, not both {texts[0]} and {others[0]}")
    overrides += [word for text in texts for word in ("dataset=text", f"dataset.path={text}")]
    line = read_line("recommend", ["experiment=fast", *overrides])
    # To Hydra these are options of one cell; in a race they go with the classes alone.
    class_options = [] if line.only_prints else [word for word in line.hydra if _is_of_class(word)]
    line = replace(line, hydra=[word for word in line.hydra if word not in class_options])
    run_composed(line, lambda composer: _race(composer, minutes, class_options))


def _is_of_class(word: str) -> bool:
    from charcmp.sweeping.race.recommend import CLASS_OPTIONS

    return word.partition("=")[0].lstrip("+") in CLASS_OPTIONS


def _minutes(value: str) -> float:
    try:
        minutes = float(value)
    except ValueError:
        minutes = math.nan
    if not 0 < minutes < math.inf:
        fail(f"minutes={value}: must be a number of minutes, such as 30")
    return minutes


def _race(composer: Composer, minutes: float, class_options: Sequence[str]) -> None:
    from charcmp.sweeping.race.recommend import recommend, requests

    given = {override.key_or_group: override for override in composer.given}
    for key in RACE_DECIDES:
        if key in given and given[key].input_line != "experiment=fast":
            raise UserError(f"{given[key].input_line}: a race decides {key} itself")
    asked, slots = requests(composer, class_options)
    recommend(asked, minutes, slots)
