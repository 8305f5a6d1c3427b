"""Every key that a command line can set, as help, tab completion and docs/options.md show it.

They are read from where the keys are declared: the dataclasses of the schema, the registries of
cells and optimisers, and the files of conf/.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import MISSING as NO_DEFAULT
from dataclasses import Field, dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Any

from charcmp.config.optimizers import OPTIMIZERS
from charcmp.config.schema import NOT_SCIENTIFIC, Config
from charcmp.data.dataset import DatasetConfig
from charcmp.files import config_dir
from charcmp.models.cells.registry import cell_options, cell_rules
from charcmp.values import ANY, MISSING, Rule, any_value

SECTIONS = ("Model and training", "Text", "Optimiser", "Machine")
EXPERIMENT = "a grid and its training, from conf/experiment"


@dataclass(frozen=True)
class Key:
    """A key, and what a user can learn about it without running anything."""

    name: str
    default: str  # as typed; empty if there is none or a file sets it (see default_of)
    meaning: str
    rule: Rule = ANY
    owners: tuple[str, ...] = ()  # for cell.x, the cells that have it; for optimizer.x likewise
    other_defaults: tuple[tuple[str, str], ...] = ()  # (owner, its default) where that differs

    @property
    def choices(self) -> tuple[str, ...]:
        return self.rule.choices or (("true", "false") if self.default in ("true", "false") else ())

    @property
    def section(self) -> str:
        """One of SECTIONS."""
        part = self.name.partition(".")[0]
        if part in ("dataset", "optimizer"):
            return "Text" if part == "dataset" else "Optimiser"
        is_science = self.name not in NOT_SCIENTIFIC or self.name in ("budget", "hidden_size")
        return "Model and training" if is_science else "Machine"


@cache
def all_keys() -> tuple[Key, ...]:
    """Returns the keys of a run's configuration and of its groups, in the order of the schema."""
    return tuple(_all_keys())


def _all_keys() -> Iterator[Key]:
    options: dict[str, dict[str, Any]] = {
        "cell": cell_options(),
        "dataset": {"": DatasetConfig},
        "optimizer": OPTIMIZERS,
    }
    yield Key("experiment", "", EXPERIMENT, Rule(any_value, "", choices_of("experiment")))
    for key in keys_of(Config):
        if key.name in options:
            yield replace(key, rule=Rule(any_value, "", choices_of(key.name)))
            yield from _keys_of_group(key.name, options[key.name])
        else:
            yield key


def keys_of(schema: Any, prefix: str = "") -> list[Key]:
    """Returns a dataclass's options that declare a meaning."""
    return [
        Key(prefix + f.name, as_typed(_default(f)), f.metadata["meaning"], f.metadata["rule"])
        for f in fields(schema)
        if "meaning" in f.metadata
    ]


def _keys_of_group(group: str, schemas: dict[str, Any]) -> Iterator[Key]:
    """Yields each option of a group's choices once, with the choices that have it."""
    found: dict[str, dict[str, Key]] = {}
    for choice, schema in schemas.items():
        for key in keys_of(schema, f"{group}."):
            found.setdefault(key.name, {})[choice] = key
    for name, of_choice in found.items():
        first = next(iter(of_choice.values()))
        others = tuple(
            (choice, key.default)
            for choice, key in of_choice.items()
            if key.default != first.default
        )
        owners = tuple(of_choice) if len(of_choice) < len(schemas) else ()
        rule = first.rule
        if group == "cell" and rule is ANY:
            rule = _rule_of_cells(name.removeprefix("cell."), of_choice)
        yield Key(name, first.default, first.meaning, rule, owners, others)


def _rule_of_cells(option: str, cells: Iterable[str]) -> Rule:
    """Returns the rule of an option whose values depend on the cell: all that any cell allows."""
    choices = {choice: None for cell in cells for choice in cell_rules(cell)[option].choices}
    return Rule(any_value, "as the cell has", tuple(choices))


def choices_of(group: str, folders: Sequence[str] = ()) -> tuple[str, ...]:
    """Returns what `group=` can choose: registered cells, files of conf/ and of further folders."""
    found = set(cell_options()) if group == "cell" else set()
    for folder in (config_dir(), *map(Path, folders)):
        found |= {file.stem for file in (folder / group).glob("*.yaml")}
    return tuple(sorted(found))


def default_of(key: Key) -> str:
    """Returns a key's default; a group's is read from conf/config.yaml."""
    groups = [entry for entry in _yaml("", "config")["defaults"] if isinstance(entry, dict)]
    return key.default or next((group[key.name] for group in groups if key.name in group), "")


def other_defaults_of(key: Key) -> tuple[tuple[str, str], ...]:
    """Returns the choices of the key's group that have another default, and that default.

    Those of texts are read from conf/dataset.
    """
    group, _, option = key.name.partition(".")
    if group != "dataset" or key.default in ("", "null", "{}"):
        return key.other_defaults
    files = {name: _yaml("dataset", name) for name in choices_of("dataset")}
    own = {name: as_typed(keys[option]) for name, keys in files.items() if option in keys}
    return tuple((name, value) for name, value in own.items() if value != key.default)


@cache
def _yaml(group: str, name: str) -> dict[str, Any]:
    import yaml

    keys: dict[str, Any] = yaml.safe_load((config_dir() / group / f"{name}.yaml").read_bytes())
    return keys


def _default(f: Field[Any]) -> Any:
    return f.default if f.default_factory is NO_DEFAULT else f.default_factory()


def as_typed(value: Any) -> str:
    """Returns a value as written on a command line."""
    if value == MISSING:
        return ""
    if isinstance(value, list):
        return f"[{','.join(map(as_typed, value))}]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)
