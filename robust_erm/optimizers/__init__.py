"""Optimizers: frozen hyperparameters with pure ``init`` and ``update``; a file and a yaml (``conf/optimizer``) each.

An update turns the gradient of log L into a direction and a scale, so that nothing under- or overflows. May import
core and schedules. Start with :mod:`robust_erm.optimizers.optimizer`, then :mod:`robust_erm.optimizers.steepest`.
"""
