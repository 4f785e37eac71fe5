"""Optimizers: a geometry, an accumulator and a schedule, under a name of their own or as :mod:`descent` has them.

An update turns the gradient of log L into a direction and a scale, so that nothing under- or overflows. May import
core and the three factors. Start with :mod:`robust_erm.optimizers.optimizer`, then
:mod:`robust_erm.optimizers.descent`.
"""
