"""Gronich & Vardi 2026, "The implicit bias of Adam and Muon on smooth homogeneous neural networks".

What is measured is in :mod:`robust_erm.papers.homogeneous`.
"""
