"""Vilucchio, Tsilivis, Loureiro & Kempe 2024, "On the geometry of regularization in adversarial training"."""
