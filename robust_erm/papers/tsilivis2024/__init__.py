"""The figures, tables and theorems of tsilivis2024; each module gives ``table``, ``figure`` and ``claims``.

``table(runs)`` takes the runs of ``conf/reproduce/tsilivis2024/<name>.yaml``, one row each, with the column
``sweep``; ``figure(table, runs)`` and ``claims(table, runs)`` what it gave. Nothing here trains.
"""
