"""The rules of what each key's value must be; what a user sees of them is in test_main.py."""

from typing import Any

import pytest

from charcmp.config.keys import all_keys
from charcmp.config.optimizers import RMSpropConfig
from charcmp.config.rules import without_effect
from charcmp.config.schema import Config
from charcmp.data.dataset import DatasetConfig
from charcmp.models.cells.options import CellConfig
from charcmp.values import ANY

# Any value of their type will do, or the module that uses it knows which.
WITHOUT_RULE = {
    *("optimizer.nesterov", "dataset.path", "dataset.url", "dataset.num_chars"),
    *("dataset.num_symbols", "dataset.stand_ins", "data_dir", "progress"),
}


def test_every_key_has_a_rule_or_needs_none() -> None:
    assert {key.name for key in all_keys() if key.rule is ANY} == WITHOUT_RULE


@pytest.mark.parametrize(
    ("options", "without"),
    [
        ({"rate_per": "update"}, "exponential"),
        ({"rate_per": "update", "schedule": "constant"}, "constant"),
        ({"rate_per": "update", "schedule": "constant", "warmup_updates": 5}, None),
        ({"rate_per": "update", "schedule": "cosine"}, None),
        ({"schedule": "constant"}, None),
    ],
)
def test_a_rate_per_update_without_effect(options: dict[str, Any], without: str | None) -> None:
    optimizer = RMSpropConfig("rmsprop", **options)
    notes = without_effect(
        Config(cell=CellConfig("rnn"), dataset=DatasetConfig(), optimizer=optimizer)
    )
    why = f"schedule={without} changes no rate within an epoch, and warmup_updates is 0"
    assert notes == ([f"no effect: optimizer.rate_per=update: {why}"] if without else [])
