"""Norms of the parameters, of each layer, and of the predictor."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from torch import Tensor
from torch.func import vmap

from robust_erm.core.fields import takes_runs
from robust_erm.core.margins import layer_norms
from robust_erm.geometries.geometry import Geometry
from robust_erm.geometries.lp import Lp
from robust_erm.measures.measure import Look

STANDARD: dict[str, Lp] = {norm.name: norm for norm in (Lp(1.0), Lp(2.0), Lp(math.inf))}


@dataclass(frozen=True)
class Norms:
    """``norm_<norm>`` of theta, ``w_norm_<norm>`` of the predictor, ``norm_layer_<name>`` of each tensor in l_2.

    The norms are l_1, l_2, l_inf and the optimizer's own; of the predictor those that are l_r. Dots in names of tensors
    become underscores.
    """

    run_axis = True

    def measure(self, look: Look) -> dict[str, Tensor]:
        """As above."""
        of_theta, of_predictor = sizes(look)
        found = {f"norm_{name}": size for name, size in of_theta.items()}
        found |= {f"w_norm_{name}": size for name, size in of_predictor.items()}
        if len(look.layout.shapes) > 1:
            layers: dict[str, Tensor] = vmap(layer_norms)(look.params)
            found |= {f"norm_layer_{_word(name)}": size for name, size in layers.items()}
        return found


def _word(name: str) -> str:
    """Modules call theirs 0.weight."""
    return re.sub(r"\W", "_", name)


def sizes(look: Look) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Norms (R,) of theta, and of the predictor where there is one, by name."""
    own, layout, w = getattr(look.optimizer, "norm", None), look.layout, look.predictor
    norms: dict[str, Geometry] = {**STANDARD, **({} if own is None else {own.name: own})}

    def size(norm: Geometry, of: Tensor) -> Tensor:
        if takes_runs(norm):
            return norm.value(of, layout)
        found: Tensor = vmap(lambda one: norm.value(one, layout))(of)
        return found

    of_theta = {name: size(norm, look.theta) for name, norm in norms.items()}
    some = {} if w is None else {name: norm for name, norm in norms.items() if isinstance(norm, Lp)}
    return of_theta, {name: size(norm, w.flatten(1)) for name, norm in some.items() if w is not None}
