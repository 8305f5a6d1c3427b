"""charcmp's Hydra plugins: a sweeper that skips finished runs, a launcher of a process per run."""
