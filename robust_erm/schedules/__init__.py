"""Step sizes: the log of eta_t, from the step, the loss and what it remembers; one file and one yaml each.

They belong to optimizers, which only carry them (``conf/optimizer/schedule``). May import core only. Start with
:mod:`robust_erm.schedules.schedule`, what each states, then :mod:`robust_erm.schedules.constant`.
"""
