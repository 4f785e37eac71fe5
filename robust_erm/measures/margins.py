"""Least margins, as they are and over norms."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.func import vmap

from robust_erm.core.margins import by_layers, divisors, normalised, over_power, spectral
from robust_erm.measures.measure import CLEAN, WORST, Look
from robust_erm.optimizers.spectral import Spectral


@dataclass(frozen=True)
class Margins:
    """``margin_{clean,robust}``: the least margins over the training set, clean and at the worst of all attacks.

    ``margin_*_l2`` divides by ``||theta||_2^L``, ``margin_*_layers`` by ``prod_l ||W_l||_F`` (lyu2022 eq. 4),
    ``w_margin_*_l2`` (models linear in their input) by ``||w||_2`` of the predictor w, and so on for l_1, l_inf and the
    optimizer's own norm; see :mod:`robust_erm.core.margins`.
    """

    run_axis = True

    def measure(self, look: Look) -> dict[str, Tensor]:
        """As above."""
        found: dict[str, Tensor] = {}
        for kind, attack in (("clean", CLEAN), ("robust", WORST)):
            found |= over_norms(look, f"margin_{kind}", look.margins(attack).amin(-1))
        return found


def over_norms(look: Look, name: str, least: Tensor) -> dict[str, Tensor]:
    """``name``, and ``name_<norm>``: least margins (R,) over norms of the parameters and of the predictor."""
    degree, layout, w = look.model.degree, look.layout, look.predictor
    norms = divisors(getattr(look.optimizer, "r", None))
    layered = degree == len(layout.shapes) and all(len(shape) > 1 for _, shape in layout.shapes)

    def one(least: Tensor, theta: Tensor, w: Tensor | None) -> dict[str, Tensor]:
        params, found = layout.unflatten(theta), {name: least}
        if degree is not None:
            found |= normalised(least, theta, degree, name, norms)
            if isinstance(look.optimizer, Spectral):
                found[f"{name}_spectral"] = over_power(least, spectral(params), degree)
        if layered:
            found[f"{name}_layers"] = by_layers(least, params)
        if w is not None and w.ndim == 1:
            found |= normalised(least, w, 1, f"w_{name}", norms)
        return found

    result: dict[str, Tensor] = vmap(one, in_dims=(0, 0, None if w is None else 0))(least, look.theta, w)
    return result
