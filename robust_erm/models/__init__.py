"""Models: frozen hyperparameters with pure ``init`` and ``apply``; one file and one yaml (``conf/model``) each.

A model that is linear in its input also has ``weight``: exact attacks and exact risks follow from it. May import
core only. Start with :mod:`robust_erm.models.model`, what each states, then :mod:`robust_erm.models.linear`.
"""
