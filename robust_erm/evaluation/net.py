"""A module of a user's own, as attacks see it: what it must give, and what makes it doubtful."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robust_erm.attacks.attack import Victim
from robust_erm.core.errors import ConfigError, first_line, require
from robust_erm.core.margins import margin
from robust_erm.training.points import FEW

_LOOKED = 8  # points that a net is held against its contract at
_MUCH = 0.01  # share of points from which something is worth a warning


@dataclass(frozen=True)
class Net:
    """A callable on flat points.

    Args:
        module: x (n, *shape) -> (n,), (n, 1) or (n, C).
        shape: of one point.
        classes: C, or 1 for one logit.
    """

    module: Any
    shape: tuple[int, ...]
    classes: int = 1

    def __call__(self, flat: Tensor) -> Tensor:
        """X (n, d) -> (n,) or (n, C)."""
        found: Tensor = self.module(flat.reshape(-1, *self.shape))
        return found.squeeze(-1) if found.ndim == 2 and found.shape[-1] == 1 else found

    @property
    def name(self) -> str:
        """Its class, for messages."""
        return type(self.module).__name__


def opened(module: Any, x: Any, y: Any) -> tuple[Net, Tensor, Tensor]:
    """The module on flat points; these, (n, d); labels (n,) as margins take them.

    In the precision of the module's parameters; of a function, which has none, in that of a tensor x, else float32.

    Raises:
        ConfigError: shapes, labels or outputs that do not fit.
    """
    parameters = module.parameters() if isinstance(module, torch.nn.Module) else ()
    like = next((q for q in parameters if q.is_floating_point()), None)
    points = x.detach() if isinstance(x, Tensor) else torch.as_tensor(np.asarray(x)).to(torch.get_default_dtype())
    require(points.ndim >= 2 and len(points) > 0, "x", f"shape {tuple(points.shape)}", "must be (n, d) or (n, ...)")
    if like is not None:
        points = points.to(like.device, like.dtype)
    elif not points.is_floating_point():
        points = points.to(torch.get_default_dtype())
    require(bool(points.isfinite().all()), "x", "points", "hold numbers that are not finite")
    net, flat = Net(module, tuple(points.shape[1:])), points.flatten(1)
    few = flat[:_LOOKED]
    try:
        with torch.no_grad():
            found = net(few)
    except Exception as error:  # whatever a module of somebody's raises
        fixed = "; export it with dynamic_shapes for the batch" if "Guard failed" in str(error) else ""
        says = f"fails on points of shape {(len(few), *net.shape)}: {first_line(error)}{fixed}"
        raise ConfigError("module", net.name, says) from error
    shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
    fits = isinstance(found, Tensor) and found.ndim in (1, 2) and len(found) == len(few)
    require(fits, "module", net.name, f"gives {shape} for {len(few)} points, must give (n,), (n, 1) or (n, C)")
    require(bool(found.isfinite().all()), "module", net.name, "gives outputs that are not finite")
    classes = 1 if found.ndim == 1 else found.shape[1]
    return Net(module, net.shape, classes), flat, _labels(y, len(points), classes).to(flat)


def _labels(y: Any, n: int, classes: int) -> Tensor:
    given = y.detach().cpu().numpy() if isinstance(y, Tensor) else np.asarray(y)
    require(given.shape == (n,), "y", f"shape {given.shape}", f"must be ({n},), a label for each point")
    require(given.dtype.kind in "iufb", "y", f"type {given.dtype}", "must be numbers")
    values = set(np.unique(given).astype(float).tolist())
    if classes > 1:
        says = f"must be 0 to {classes - 1}, for {classes} logits"
        require(values <= set(map(float, range(classes))), "y", sorted(values)[:5], says)
        return torch.from_numpy(given.astype(np.float64))
    signs = values <= {-1.0, 1.0} or values <= {0.0, 1.0}
    require(signs, "y", sorted(values)[:5], "must be -1 and +1, or 0 and 1, for one logit")
    return torch.from_numpy(np.where(given > 0, 1.0, -1.0))


def doubts_about(net: Net, x: Tensor, y: Tensor) -> list[str]:
    """What makes numbers about ``net`` doubtful, in words.

    Raises:
        ConfigError: outputs change from call to call or with the rest of a batch, or gradients cannot be used.
    """
    few, advice = x[:_LOOKED], "call module.eval() first"
    with torch.no_grad():
        once, again = net(few), net(few)
        try:
            alone = torch.cat([net(few[i : i + 1]) for i in range(len(few))])
        except Exception as error:  # whatever a module of somebody's raises
            raise ConfigError("module", net.name, f"fails on a single point ({first_line(error)}); {advice}") from error
    coarse = max(torch.finfo(x.dtype).eps, torch.finfo(torch.float32).eps)  # a net may compute in less than its input
    near = math.sqrt(coarse) * float(once.abs().max())
    says = f"change from one call to the next (dropout? noise?); {advice}"
    require(float((once - again).abs().max()) <= near, "module", "its outputs", says)
    says = f"of a point change with the others of its batch (batch normalisation?); {advice}"
    require(float((once - alone).abs().max()) <= near, "module", "its outputs", says)
    victim = Victim(net, x[:FEW], y[:FEW], None, None)
    try:
        slopes = victim.margin_gradient(victim.x)
    except Exception as error:  # whatever a module of somebody's raises
        says = f"cannot be differentiated in its inputs: {first_line(error)}"
        raise ConfigError("module", net.name, says) from error
    require(bool(slopes.isfinite().all()), "module", "its gradients", "hold numbers that are not finite")
    flat = float((slopes == 0).all(-1).double().mean())
    says = "are 0 at every point looked at: attacks see nothing (is something rounded, or detached?)"
    require(flat < 1, "module", "its gradients", says)
    with torch.no_grad():
        tied = float((margin(net(victim.x), victim.y) == 0).double().mean())
    found = [
        f"gradients are 0 at {100 * flat:.0f} % of the points: attacks by gradients see nothing there, and robust "
        "accuracy is an upper bound (does the net end in a softmax? Give its logits)"
    ]
    ties = [f"margins are exactly 0 at {100 * tied:.0f} % of the points: these count as wrong"]
    return (found if flat > _MUCH else []) + (ties if tied > _MUCH else [])
