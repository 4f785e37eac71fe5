"""What workers are forked with: they say what was loaded here, whatever is edited later."""

from __future__ import annotations

from contextlib import suppress

import robust_erm.training.pack
from robust_erm.store.fingerprint import remember
from robust_erm.training.provenance import provenance

with suppress(ImportError, RuntimeError):  # without numba, or a folder for its cache, there are none
    import robust_erm.training.kernels.dense
    import robust_erm.training.kernels.sparse  # noqa: F401

remember()
provenance()
