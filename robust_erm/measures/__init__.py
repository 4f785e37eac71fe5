"""What is measured of a run: named numbers from its parameters and points; one file and one yaml each.

Loss, accuracies, margins, norms and the epoch of mini-batches are always taken: tables and pages rest on them. May
import core, models and oracles. Start with :mod:`robust_erm.measures.measure`, what each states and may look at, then
:mod:`robust_erm.measures.on_margin`.
"""
