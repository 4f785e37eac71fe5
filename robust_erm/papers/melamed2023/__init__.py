"""Melamed, Yehudai & Vardi 2023: networks of two layers trained on points of a linear subspace."""
