"""Vardi, Yehudai & Shamir 2022, "Gradient methods provably converge to non-robust networks": an experiment a module.

Start with :mod:`robust_erm.papers.vardi2022.thm41`.
"""
