"""Lower bounds on the margins of modules whose layers are known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from robust_erm.core.norms import Box
from robust_erm.evaluation.certificates import affine, hidden, rounding
from robust_erm.oracles.certified import Region, certified_margin


@dataclass(frozen=True)
class Known:
    """A net of one affine layer, or of two with ReLUs between: its weights by name, float64."""

    params: dict[str, Tensor]

    def certified(self, x: Tensor, y: Tensor, p: float, eps: float, box: Box) -> tuple[Tensor, Tensor]:
        """Lower bounds (n,) on the worst-case margins of x (n, d), and the size (n,) that rounding is in proportion to.

        One layer: exact where p = inf or there is no box. Two: CROWN and alpha-CROWN.
        """
        x, y = x.double(), y.double()
        region = Region(x, eps, p, box)
        if "W2" in self.params:
            net = hidden(self.params, y)
            bound, size = certified_margin(net, region), net.size(x)
        else:
            bound, size = affine(self.params["W1"], self.params["b1"], region, y)
        return bound - rounding(size), size


def known(module: Any, d: int) -> Known | None:
    """The weights of an ``nn.Linear``, or of an ``nn.Sequential`` of one or two with a ReLU between, on d numbers.

    ``nn.Flatten`` and ``nn.Identity`` before, between and after are looked through. None: something else, also layers
    with hooks, which may compute anything.
    """
    if isinstance(module, nn.Module) and any(_hooked(each) for each in module.modules()):
        return None
    layers = list(module) if type(module) is nn.Sequential else [module]
    kinds = (nn.Flatten, nn.Identity)
    layers = [layer for layer in layers if type(layer) not in kinds]
    dense = [layer for layer in layers if type(layer) is nn.Linear]
    if [type(layer) for layer in layers] not in ([nn.Linear], [nn.Linear, nn.ReLU, nn.Linear]):
        return None
    if dense[0].in_features != d:
        return None
    params: dict[str, Tensor] = {}
    for k, layer in enumerate(dense, start=1):
        weight = layer.weight.detach().double()
        bias = torch.zeros(len(weight)).to(weight) if layer.bias is None else layer.bias.detach().double()
        params |= {f"W{k}": weight, f"b{k}": bias}
    return Known(params)


def _hooked(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module))
