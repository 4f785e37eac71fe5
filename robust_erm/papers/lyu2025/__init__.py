"""Lyu & Zhu 2025: linear networks of several architectures under l_p threats."""
