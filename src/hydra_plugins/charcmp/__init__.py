"""charcmp's Hydra plugins: a sweeper that skips what is done, a launcher with a process per run."""
