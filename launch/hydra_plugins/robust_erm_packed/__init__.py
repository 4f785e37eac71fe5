"""Hydra finds this package by its namespace, hydra_plugins."""
