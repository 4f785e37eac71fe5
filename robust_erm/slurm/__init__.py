"""Sweeps on a SLURM cluster: each task of a job array trains its share of the runs as a packed sweep of its own.

``launch`` submits (``settings``, ``submit``, ``sbatch``), ``task`` runs on the node, ``folder`` and ``watch`` say how
it stands, ``__main__`` is the command. May import sweeps. Start with :mod:`robust_erm.slurm.folder`.
"""
