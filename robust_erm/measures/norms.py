"""Norms of the parameters, of each layer, and of the predictor."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.func import vmap

from robust_erm.core.margins import divisors, layer_norms
from robust_erm.measures.measure import Look


@dataclass(frozen=True)
class Norms:
    """``norm_<norm>`` of theta, ``w_norm_<norm>`` of the predictor, ``norm_layer_<name>`` of each tensor in l_2."""

    run_axis = True

    def measure(self, look: Look) -> dict[str, Tensor]:
        """As above."""
        norms, w = divisors(getattr(look.optimizer, "r", None)), look.predictor
        found = {f"norm_{name}": norm.value(look.theta) for name, norm in norms.items()}
        if w is not None:
            found |= {f"w_norm_{name}": norm.value(w.flatten(1)) for name, norm in norms.items()}
        if len(look.layout.shapes) > 1:
            layers: dict[str, Tensor] = vmap(layer_norms)(look.params)
            found |= {f"norm_layer_{name}": size for name, size in layers.items()}
        return found
