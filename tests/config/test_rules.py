"""The rules of what each key's value must be; what a user sees of them is in test_main.py."""

from typing import Any

import pytest

from charcmp.config.keys import all_keys
from charcmp.config.optimizers import RMSpropConfig
from charcmp.config.rules import check, without_effect
from charcmp.config.schema import Config
from charcmp.data.dataset import DatasetConfig
from charcmp.errors import UserError
from charcmp.models.cells.options import CellConfig
from charcmp.models.cells.registry import cell_config
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
        Config(cell=CellConfig("rnn"), dataset=DatasetConfig(source="file"), optimizer=optimizer)
    )
    why = f"schedule={without} changes no rate within an epoch, and warmup_updates is 0"
    assert notes == ([f"no effect: optimizer.rate_per=update: {why}"] if without else [])


def on(**dataset: Any) -> Config:
    optimizer = RMSpropConfig("rmsprop")
    return Config(cell=cell_config("rnn"), dataset=DatasetConfig(**dataset), optimizer=optimizer)


@pytest.mark.parametrize(
    ("dataset", "complaint"),
    [
        ({"source": "file", "name": "wp", "path": "my.txt"}, "the name of a built-in text"),
        ({"source": "pysrc", "name": "pydocs"}, "the name of a built-in text"),
        ({"source": "pydocs", "path": "my.txt"}, "path=my.txt: pydocs comes with Python"),
    ],
)
def test_no_text_is_taken_for_another(dataset: dict[str, str], complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        check(on(**dataset))


def test_what_only_a_download_has() -> None:
    check(on(source="download", name="wp", path="my.txt"))  # by its size, it is the corpus or not
    notes = without_effect(on(source="file", path="my.txt", num_chars=5))
    assert notes == ["no effect: dataset.num_chars=5: only a download has it"]
