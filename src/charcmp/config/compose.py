"""Composes configurations from overrides: once by Hydra, then quickly for every point of a grid.

All commands but `train` compose here, without hydra.main and Hydra's plugins; the sweeper does for
the points of a grid.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from functools import cache

from hydra import version
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_search_path_impl import ConfigSearchPathImpl
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra._internal.core_plugins.importlib_resources_config_source import (
    ImportlibResourcesConfigSource,
)
from hydra._internal.core_plugins.structured_config_source import StructuredConfigSource
from hydra._internal.sources_registry import SourcesRegistry
from hydra._internal.utils import create_config_search_path
from hydra.core.config_loader import ConfigLoader
from hydra.core.config_search_path import ConfigSearchPath, SearchPathQuery
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.utils import setup_globals
from hydra.errors import MissingConfigException
from hydra.types import RunMode
from omegaconf import DictConfig, ListConfig, OmegaConf, flag_override

from charcmp.config.schema import register_schemas
from charcmp.files import config_dir

VERSION_BASE = "1.3"  # the Hydra version whose behaviour we rely on
SCHEMAS = "structured://"  # where Hydra finds what register_schemas has registered


class Composer:
    """The configuration of a command line, and those of the points of its grid.

    Hydra takes 90 ms to compose a configuration, nearly all of it to find and merge the files that
    the choices name (cell=gru, experiment=paper). The points of a grid share a few choices and
    differ in their values. So Hydra composes each set of choices once; each point then gets a copy,
    on which Hydra's own function sets the values, with Hydra's checks and messages.

    Args:
        loader: Hydra's loader, which knows the folders to search.
        line: the composed command line: keys with one value are set, those with several values are
            left for the points.
    """

    def __init__(self, loader: ConfigLoader, line: DictConfig) -> None:
        assert isinstance(loader, ConfigLoaderImpl)
        self.loader = loader
        self.line = line
        self._parser = OverridesParser.create(config_loader=loader)
        # The folders of hydra.searchpath may have groups of their own.
        name, for_hydra = line.hydra.job.config_name, _lines(line.hydra.overrides.hydra)
        _, self._repository = loader._parse_overrides_and_create_caching_repo(name, for_hydra)
        self._read = cache(self._read_once)
        self._load = cache(self._load_once)

    @property
    def given(self) -> list[Override]:
        """The line's overrides, without those of Hydra's own configuration."""
        return self.parse(_lines(self.line.hydra.overrides.task))

    def parse(self, overrides: Iterable[str]) -> list[Override]:
        return self._parser.parse_overrides(list(overrides))

    def compose(self, overrides: Sequence[str]) -> DictConfig:
        """Composes one point's configuration as Hydra would, without the node `hydra`.

        Raises:
            HydraException: where Hydra raises one, with its message.
        """
        read = [self._read(override) for override in overrides]
        parsed = [override for override, _ in read]
        self.loader.validate_sweep_overrides_legal(parsed, RunMode.RUN, from_shell=True)
        choices = tuple(str(override.input_line) for override, is_choice in read if is_choice)
        cfg = copy.deepcopy(self._load(choices))
        values = [override for override, is_choice in read if not is_choice]
        self.loader._apply_overrides_to_config(values, cfg)
        return cfg

    def _read_once(self, line: str) -> tuple[Override, bool]:
        """Parses an override; tells whether Hydra needs it when it loads files.

        It does if the override chooses files (cell=gru) or is meant for Hydra itself.
        """
        (override,) = self.parse([line])
        is_group = self._repository.group_exists(override.key_or_group)
        is_choice = is_group and not isinstance(override.value(), dict)
        return override, is_choice or override.is_hydra_override()

    def _load_once(self, choices: tuple[str, ...]) -> DictConfig:
        cfg = self.loader.load_sweep_config(self.line, list(choices))
        with flag_override(cfg, "struct", False):
            del cfg["hydra"]  # half of the nodes to copy, and not part of a run
        return cfg


def _lines(overrides: ListConfig) -> list[str]:
    """Returns the overrides as typed: a `${x}` in one is left for the override to resolve."""
    lines = OmegaConf.to_container(overrides, resolve=False)
    assert isinstance(lines, list)
    return lines


def compose_line(
    overrides: Sequence[str],
    config_path: str | None = None,
    config_name: str = "config",
    extra_path: str | None = None,
) -> Composer:
    """Composes a command line as hydra.main does with --multirun.

    Args:
        overrides: in Hydra's grammar.
        config_path: folder of the configuration; None: charcmp's own.
        config_name: name of the file in it.
        extra_path: another folder to search.

    Raises:
        HydraException: where Hydra raises one, with its message.
    """
    register_schemas()
    version.setbase(VERSION_BASE)
    setup_globals()
    # Register only those of Hydra's plugins that read configuration files. Searching for all
    # plugins would also import those of other packages, such as Ray's, and our own.
    for source in (FileConfigSource, ImportlibResourcesConfigSource, StructuredConfigSource):
        SourcesRegistry.instance().register(source)
    main = config_path or str(config_dir())

    def composed(search_path: ConfigSearchPath) -> Composer:
        if extra_path is not None:
            schemas = SearchPathQuery(provider="schema")  # insert before the schemas, which go last
            search_path.prepend("command-line", f"file://{extra_path}", schemas)
        loader = ConfigLoaderImpl(search_path)
        line = loader.load_configuration(config_name, list(overrides), RunMode.MULTIRUN)
        return Composer(loader, line)

    search_path = ConfigSearchPathImpl()
    for provider, path in (("hydra", "pkg://hydra.conf"), ("main", main), ("schema", SCHEMAS)):
        search_path.append(provider, path)
    try:
        return composed(search_path)
    except MissingConfigException as error:
        if not (error.missing_cfg_file or "").startswith("hydra/"):
            raise
    # Try again with all plugins loaded: the missing file may belong to one of them.
    return composed(create_config_search_path(main))
