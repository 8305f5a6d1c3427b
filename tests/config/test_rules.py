"""The table of what each key's value must be; what a user sees of it is in test_cli.py."""

from charcmp.config.rules import RULES
from charcmp.config.schema import OPTIMIZERS, Config, cell_schema, flatten
from charcmp.data.dataset import DatasetConfig
from charcmp.models.cells.registry import CELLS

# Any value of their type will do, or the module that uses it knows which.
WITHOUT_RULE = {
    *("cell.name", "cell.activation", "optimizer.name", "optimizer.nesterov", "budget"),
    *("dataset.source", "dataset.path", "dataset.url", "dataset.num_chars", "dataset.num_symbols"),
    *("dataset.stand_ins", "device", "data_dir", "progress"),
}


def test_every_key_has_a_rule_or_needs_none() -> None:
    keys = {
        key
        for cell in CELLS
        for optimizer, schema in OPTIMIZERS.items()
        for key in flatten(
            Config(
                cell=cell_schema(cell)(name=cell),
                dataset=DatasetConfig(source="file"),
                optimizer=schema(name=optimizer),
            )
        )
    }
    assert set(RULES) | WITHOUT_RULE == keys
    assert not set(RULES) & WITHOUT_RULE
