"""Accumulators: what an optimizer remembers of the gradients, and what it takes the direction of in their place.

They belong to optimizers (``conf/optimizer/accumulator``). May import core only. Start with
:mod:`robust_erm.accumulators.accumulator`, then :mod:`robust_erm.accumulators.momentum`.
"""
