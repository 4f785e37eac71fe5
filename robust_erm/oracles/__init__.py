"""Exact answers, each with a certificate that is evaluated in our own arithmetic.

Max-margin separators, clean and robust, in any norm; risks in closed form; bounds on nets and whether a point can be
broken at all; short ways to another label; KKT residuals. May import core, models and attacks. Start with
:mod:`robust_erm.oracles.margin`: a margin and its dual bound.
"""
