"""From resolved configs to run folders: one pack of runs, trained over the run axis.

:mod:`robust_erm.training.step` is one step of one run, :mod:`robust_erm.training.runs` maps it over R runs (compiled
forms: ``kernels``), ``module`` and ``callbacks`` wrap that for Lightning, ``measure`` says what is measured, ``pack``
puts all together. May import the components, oracles and store. Start with ``step``, then ``pack``.
"""
