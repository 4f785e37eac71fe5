"""Whether a sweep's agent of W&B has started this process (``wandb agent``)."""

from __future__ import annotations

import os


def agents_run() -> str | None:
    """The id of the W&B run that the agent waits for; None where there is no agent."""
    return os.environ.get("WANDB_RUN_ID") if os.environ.get("WANDB_SWEEP_ID") else None


def go_online() -> None:
    """The agent's run is sent as it goes, unless WANDB_MODE says otherwise: the sweep waits for its metric."""
    if agents_run() is not None:
        os.environ.setdefault("WANDB_MODE", "online")
