"""Least margins, as they are and over norms."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.func import vmap

from robust_erm.core.margins import by_layers, normalised
from robust_erm.measures.measure import CLEAN, WORST, Look
from robust_erm.measures.norms import sizes


@dataclass(frozen=True)
class Margins:
    """``margin_{clean,robust}``: the least margins over the training set, clean and at the worst of all attacks.

    ``margin_*_l2`` divides by ``||theta||_2^L``, ``margin_*_layers`` by ``prod_l ||W_l||_F`` (lyu2022 eq. 4),
    ``w_margin_*_l2`` (models linear in their input) by ``||w||_2`` of the predictor w, and so on for l_1, l_inf and the
    optimizer's own norm, such as ``margin_*_spectral``; see :mod:`robust_erm.core.margins`.
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
    layered = degree == len(layout.shapes) and all(len(shape) > 1 for _, shape in layout.shapes)
    of_theta, of_predictor = sizes(look)
    found = {name: least}
    if degree is not None:
        found |= normalised(least, of_theta, degree, name)
    if layered:
        found[f"{name}_layers"] = vmap(by_layers)(least, look.params)
    if w is not None and w.ndim == 2:
        found |= normalised(least, of_predictor, 1, f"w_{name}")
    return found
