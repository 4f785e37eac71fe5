"""Attacks: frozen hyperparameters with a pure ``perturb``; one file and one yaml (``conf/attack``) each.

A threat (p) and a way to look for a point of the ball with a small margin. May import core only, and not one
another. Start with :mod:`robust_erm.attacks.attack`, what each states, then :mod:`robust_erm.attacks.pgd`.
"""
