"""Attacks: frozen hyperparameters with a pure ``perturb``; one file each."""
