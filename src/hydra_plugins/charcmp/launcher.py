"""Hydra's side of the process launcher: one OS process per run, several at once."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

if TYPE_CHECKING:
    from charcmp.sweeping.grid import Job


class ProcessLauncher(Launcher):
    """A launcher that runs jobs in child processes; see charcmp.sweeping.pool."""

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        self.config = config
        self.hydra_context = hydra_context

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        from charcmp.sweeping.grid import make_job

        loader = self.hydra_context.config_loader
        jobs = [
            make_job(list(overrides), loader.load_sweep_config(self.config, list(overrides)))
            for overrides in job_overrides
        ]
        self.launch_jobs(jobs)
        return [
            JobReturn(overrides=job.overrides, status=JobStatus.COMPLETED)
            if job.folder.result.exists()
            else JobReturn(overrides=job.overrides, status=JobStatus.FAILED)
            for job in jobs
        ]

    def launch_jobs(self, jobs: "list[Job]", fail_fast: bool = False) -> None:
        """Runs jobs whose configuration is already composed."""
        from charcmp.sweeping.pool import run_processes

        sources = self.config.hydra.runtime.config_sources
        folders = [source.path for source in sources if source.provider == "command-line"]
        run_processes(jobs, [f"--config-dir={folder}" for folder in folders], fail_fast)
