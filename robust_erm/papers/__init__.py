"""What papers claim, measured: one folder for each paper, one module for each figure, table or theorem.

A module gives ``table``, ``figure`` and ``claims`` from runs that ``conf/reproduce/<paper>/<name>.yaml`` trains;
``claims`` holds the rules of verdicts, ``experiments`` and ``reproduce`` run them, ``gallery`` makes the page. May
import everything below. Start with :mod:`robust_erm.papers.claims`, then ``tsilivis2024/thm43.py``.
"""
