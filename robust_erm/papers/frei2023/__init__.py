"""Frei, Vardi, Bartlett & Srebro 2023, "The double-edged sword of implicit bias": an experiment a module.

Start with :mod:`robust_erm.papers.frei2023.sec2`, what all of them measure.
"""
