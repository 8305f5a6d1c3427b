"""Narrows a status or a report to the runs that the overrides of its line name."""

from __future__ import annotations

import sys

from hydra.core.override_parser.types import Override, QuotedString

from charcmp.cli.commands import COMMANDS
from charcmp.config.compose import Composer
from charcmp.config.literal import unescaped
from charcmp.config.rules import typed
from charcmp.config.schema import NOT_SCIENTIFIC, Config
from charcmp.errors import UserError
from charcmp.output import note


def narrow(composer: Composer, command: str) -> tuple[dict[str, set[str]], Config]:
    """Returns the axes that narrow a report or a status, and the configuration of the other keys.

    Prints a note on stderr for overrides that have no effect.
    """
    known = COMMANDS[command].narrowed_by
    axes: dict[str, set[str]] = {}
    others = []
    for override in composer.given:
        key = override.key_or_group
        if key in known:
            axes[key] = set(values_as_text(override))
            continue
        if key in NOT_SCIENTIFIC:
            others.append(override.input_line or "")
        else:
            note(
                f"{override.input_line} does not narrow a {command}: charcmp {command} --help "
                "lists the keys that do",
                sys.stderr,
            )
    return axes, typed(composer.compose(others))


def values_as_text(override: Override) -> list[str]:
    """Returns the values that an override gives to its key, without Hydra's quotes."""
    if override.is_sweep_override() and not override.is_discrete_sweep():
        raise UserError(f"{override.input_line}: must be a value, or a list of values as in 1,2")
    values = override.sweep_iterator() if override.is_sweep_override() else [override.value()]
    texts = [value.text if isinstance(value, QuotedString) else str(value) for value in values]
    return [unescaped(text) for text in texts]
