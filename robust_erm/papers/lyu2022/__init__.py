"""Lyu & Zhu 2022, "Implicit bias of adversarial training for deep neural networks": an experiment a module.

Start with :mod:`robust_erm.papers.lyu2022.margins` (images), ``layers`` (deep linear networks) or ``flow`` (Thms 3-5).
"""
