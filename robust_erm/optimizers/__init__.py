"""Optimizers: frozen hyperparameters with pure ``init`` and ``update``; one file each."""
