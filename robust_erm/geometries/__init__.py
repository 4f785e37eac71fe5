"""Geometries: norms of all parameters of a model, in which descent is steepest and margins are divided.

They belong to optimizers (``conf/optimizer/geometry``), and measures ask them too. May import core only. Start with
:mod:`robust_erm.geometries.geometry`, then :mod:`robust_erm.geometries.lp`.
"""
