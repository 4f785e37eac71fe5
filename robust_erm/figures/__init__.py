"""Figures: tables in, matplotlib figures out; nothing here trains."""
