"""Models: frozen hyperparameters with pure ``init`` and ``apply``; one file each."""
