"""What people see of runs: tables, curves, the live view, the end of a sweep, the HTML page, the W&B workspace.

All of it is made from run folders or plain numbers; nothing here trains. May import core and store. Start with
:mod:`robust_erm.reports.tables`: run folders as one table.
"""
