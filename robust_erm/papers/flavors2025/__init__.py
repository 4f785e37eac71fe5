"""Tsilivis, Vardi & Kempe 2025, "Flavors of margin: implicit bias of steepest descent in homogeneous neural networks".

Start with :mod:`robust_erm.papers.flavors2025.margins`; what is measured is in :mod:`robust_erm.papers.homogeneous`.
"""
