"""Hydra's side of the commands over a grid: hands the overrides to charcmp.sweeping.sweep."""

# No postponed annotations here: Hydra loads plugins in a way that dataclasses cannot resolve them.
from dataclasses import dataclass, field

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


@dataclass
class GridSweeperConfig:
    _target_: str = "hydra_plugins.charcmp.sweeper.GridSweeper"
    params: dict[str, str] = field(default_factory=dict)  # axes of the grid that stand by default
    variants: dict[str, list[str]] = field(default_factory=dict)  # name -> overrides of the axes
    command: str = "sweep"  # sweep | params | report | status
    flags: list[str] = field(default_factory=list)  # of the command, without dashes: cli.FLAGS
    formats: str = ""  # of a report's files, by commas; empty for all
    output: str = ""  # folder for a report; empty for its usual place


ConfigStore.instance().store(
    group="hydra/sweeper", name="charcmp", node=GridSweeperConfig, provider="charcmp"
)


class GridSweeper(Sweeper):
    """Expands the grid; what happens to it is charcmp.sweeping.sweep's business."""

    def __init__(
        self,
        params: dict[str, str],
        variants: dict[str, list[str]],
        command: str,
        flags: list[str],
        formats: str,
        output: str,
    ) -> None:
        self.params, self.variants = params, variants
        self.command, self.flags = command, set(flags)
        self.report_options = (formats, output)

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        self.config = config
        self.hydra_context = hydra_context
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        from charcmp.cli.one_line import one_line_errors
        from charcmp.sweeping.grid import Grid
        from charcmp.sweeping.sweep import run_command

        config = self.config
        assert self.hydra_context is not None
        assert config is not None
        assert self.launcher is not None
        loader = self.hydra_context.config_loader
        parser = OverridesParser.create(config_loader=loader)

        def compose(overrides: list[str]) -> DictConfig:
            return loader.load_sweep_config(config, overrides)

        with one_line_errors():
            grid = Grid(
                parser.parse_overrides(arguments),
                parser.parse_overrides([f"{key}={value}" for key, value in self.params.items()]),
                compose,
                {
                    name: parser.parse_overrides(list(overrides))
                    for name, overrides in self.variants.items()
                },
            )
            run_command(self.command, grid, self.flags, self.launcher, *self.report_options)
