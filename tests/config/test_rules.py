"""The rules of what each key's value must be; what a user sees of them is in test_main.py."""

from charcmp.config.keys import all_keys
from charcmp.values import ANY

# Any value of their type will do, or the module that uses it knows which.
WITHOUT_RULE = {
    *("optimizer.nesterov", "dataset.path", "dataset.url", "dataset.num_chars"),
    *("dataset.num_symbols", "dataset.stand_ins", "data_dir", "progress"),
}


def test_every_key_has_a_rule_or_needs_none() -> None:
    assert {key.name for key in all_keys() if key.rule is ANY} == WITHOUT_RULE
