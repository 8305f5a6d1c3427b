"""Hydra's side of a sweep: hands its overrides and its launcher to charcmp.sweeping.sweep."""

from functools import partial

from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class GridSweeper(Sweeper):
    """`charcmp sweep`; its configuration is charcmp.config.schema.SweeperConfig.

    Of its keys, `params` and `variants` are for the grid, which reads them from the configuration.
    """

    def __init__(self, retry_failed: bool, fail_fast: bool, **grid: object) -> None:
        self.retry_failed, self.fail_fast = retry_failed, fail_fast

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
        from charcmp.config.compose import Composer
        from charcmp.sweeping.grid import make_grid
        from charcmp.sweeping.sweep import launch_jobs, run

        assert self.hydra_context is not None
        assert self.config is not None
        assert self.launcher is not None
        launch = partial(launch_jobs, self.launcher, fail_fast=self.fail_fast)
        with one_line_errors():
            grid = make_grid(Composer(self.hydra_context.config_loader, self.config))
            run(grid, launch, self.retry_failed)
