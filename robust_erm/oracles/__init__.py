"""Exact answers: margins, risks."""
