"""robust-erm: the implicit bias of optimisation in adversarially robust training, measured.

Users type the modules at this level: train, evaluate, reproduce, results, page, gallery, workspace, and slurm.
The science: data, models, objectives, optimizers, schedules, attacks (one folder for each group of conf/), oracles,
and core, the mathematics that they share. The machinery: training, sweeps, slurm, evaluation. What lies on disk:
store. What people see: reports. What papers claim: papers. Imports go one way; see robust_erm/README.md.
"""
