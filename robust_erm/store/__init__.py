"""What lies on disk and who holds it: configs, run folders, locks, files, the code itself, SLURM's words.

What a run is and what it is the same as is said in :mod:`robust_erm.store.config` and
:mod:`robust_erm.store.identity`; how values get their types in :mod:`robust_erm.store.typed`. May import core only:
components are built from their ``_target_``. Start with :mod:`robust_erm.store.run_folder`.
"""
