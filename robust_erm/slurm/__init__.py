"""Sweeps on a SLURM cluster: each task of a job array trains its share of the runs as a packed sweep of its own."""
