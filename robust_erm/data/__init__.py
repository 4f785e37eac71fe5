"""Data sets: arrays, and what is known of the law that made them; one file and one yaml (``conf/data``) each.

A frozen dataclass with ``check`` (called before any training) and ``draw(seed)``. May import core only. Start with
:mod:`robust_erm.data.dataset`, what each gives, then :mod:`robust_erm.data.sphere`, the shortest.
"""
