"""Many runs: from a command line to packs on worker processes, and to a table at the end.

``lines`` and ``compose`` turn overrides into configs, ``check`` refuses bad ones before anything is trained, ``plan``
cuts packs, ``sweep`` trains them on ``workers``. May import training and reports. Start with
:mod:`robust_erm.sweeps.run`, what the commands call.
"""
