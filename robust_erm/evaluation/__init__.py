"""Trained runs under strong attacks, with certificates and a look for masked gradients.

``options`` says what is asked for, ``strong``, ``certificates``, ``distances`` and ``masking`` answer it for a pack,
``packs`` and ``folders`` do so for run folders, ``table`` shows it. May import sweeps and below. Start with
:mod:`robust_erm.evaluation.strong`.
"""
