"""What a run of a pack keeps to go on from, whatever pack and device it goes on in."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from torch.utils import _pytree as pytree

from robust_erm.training.runs import Runs
from robust_erm.training.status import RUNNING

_NAMES = ("theta", "best_theta", "best_log_loss", "status", "stopped_at", "state")


def on_host(runs: Runs) -> SimpleNamespace:
    """What :func:`export` reads, on the CPU: of all runs at once, whatever their number."""
    return SimpleNamespace(**{k: pytree.tree_map(lambda a: a.cpu(), getattr(runs, k)) for k in _NAMES})


def export(runs: Runs, i: int, host: SimpleNamespace | None = None) -> dict[str, Any]:
    """Run i as plain tensors and numbers: all that is needed to go on. Ended runs keep less."""
    host = host or on_host(runs)
    kept: dict[str, Any] = {
        "t": int(host.stopped_at[i]) if int(host.status[i]) != RUNNING else runs.t,
        "status": int(host.status[i]),
        "theta": host.theta[i].clone(),
        "best_log_loss": host.best_log_loss[i].clone(),
    }
    if kept["status"] == RUNNING:
        kept["best_theta"] = host.best_theta[i].clone()
        kept["generator"] = runs.drawn[i].clone()
        kept["state"] = pytree.tree_map(lambda a: a[i].clone(), host.state)
    return kept


def load(runs: Runs, kept: Mapping[int, dict[str, Any]]) -> None:
    """Put runs back to where :func:`export` found them, on this device or another: a copy for all of them."""
    host = on_host(runs)  # on a CPU their own tensors
    for i, one in kept.items():
        host.theta[i] = one["theta"].to(host.theta)
        host.best_log_loss[i] = one["best_log_loss"]
        host.status[i] = one["status"]
        if one["status"] == RUNNING:
            host.best_theta[i] = one["best_theta"].to(host.theta)
            runs.generators[i].set_state(one["generator"])
            runs.drawn[i] = runs.generators[i].get_state()
            state = _state_of(runs, i, one["state"])
            pytree.tree_map(lambda whole, part, i=i: whole[i].copy_(part), host.state, state)
        else:
            host.stopped_at[i] = one["t"]
    for name, moved in vars(host).items():
        pytree.tree_map(lambda own, new: own if own is new else own.copy_(new), getattr(runs, name), moved)


def _state_of(runs: Runs, i: int, kept: dict[str, Any]) -> dict[str, Any]:
    """The state that run i has left, with the compiled step's own where that takes it from here, else without."""
    own = {name: part for name, part in kept.items() if name != "kernel"}
    if runs.kernel is None:
        return own
    row = slice(i, i + 1)
    anew = runs.kernel.init(runs.theta[row], runs.train.of_run[row].tolist())
    return own | {"kernel": kept.get("kernel", {name: part[0] for name, part in anew.items()})}
