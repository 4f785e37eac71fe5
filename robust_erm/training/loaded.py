"""Imported last by the server that workers are forked from: they say what was loaded, whatever is edited later."""

from __future__ import annotations

from robust_erm.store.fingerprint import remember
from robust_erm.training.provenance import provenance

remember()
provenance()
