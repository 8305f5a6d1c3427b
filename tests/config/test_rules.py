"""The rules of what each key's value must be; what a user sees of them is in test_main.py."""

from charcmp.config.optimizers import OPTIMIZERS
from charcmp.config.rules import RULES
from charcmp.config.schema import Config, flatten
from charcmp.data.dataset import DatasetConfig
from charcmp.models.cells.registry import CELLS, cell_config, cell_rules
from charcmp.values import rules_of

# Any value of their type will do, or the module that uses it knows which.
WITHOUT_RULE = {
    *("cell.name", "optimizer.name", "optimizer.nesterov", "budget"),
    *("dataset.source", "dataset.path", "dataset.url", "dataset.num_chars", "dataset.num_symbols"),
    *("dataset.stand_ins", "device", "data_dir", "progress"),
}


def test_every_key_has_a_rule_or_needs_none() -> None:
    keys, with_rule = set(), set(RULES)
    for cell in CELLS:
        for optimizer, schema in OPTIMIZERS.items():
            keys |= set(
                flatten(
                    Config(
                        cell=cell_config(cell),
                        dataset=DatasetConfig(source="file"),
                        optimizer=schema(name=optimizer),
                    )
                )
            )
            with_rule |= {f"cell.{key}" for key in cell_rules(cell)}
            with_rule |= {f"optimizer.{key}" for key in rules_of(schema)}
    assert with_rule | WITHOUT_RULE == keys
    assert not with_rule & WITHOUT_RULE
