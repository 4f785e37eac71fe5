"""Mathematics and plumbing without a run axis: pure functions of tensors for one run, and the one error.

Norms, margins, matrix products whose rounding is under control, parameters as one vector, random streams, fields of
components that may differ within a pack. Imports nothing of this package. Start with :mod:`robust_erm.core.norms`:
optimizers, attacks, margins and oracles are written against it.
"""
