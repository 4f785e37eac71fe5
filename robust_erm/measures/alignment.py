"""How layers and gradient line up."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robust_erm.core.norms import Norm
from robust_erm.measures.measure import Look


@dataclass(frozen=True)
class Alignment:
    """Directions of the parameters and of the layers.

    ``alignment_gradient``: cosine of theta and ``-grad log L``, 1 in the limit of the flow where it is smooth;
    ``alignment_gradient_<name>`` of each tensor alone. Of every matrix W_k of a net, ``concentration_<name>`` =
    ``||W_k||_2 / ||W_k||_F``, 1 where it has rank one; ``alignment_<name>_<next>`` = ``|<u_k, v_{k+1}>|`` of the first
    left singular vector and the next layer's first right one.

    Reference:
        lyu2022 Thm 2, Figs 6 and 7; Ji & Telgarsky 2019, "Gradient descent aligns the layers of deep linear networks".
    """

    run_axis = True

    def measure(self, look: Look) -> dict[str, Tensor]:
        """As above."""
        found = {"alignment_gradient": _cosine(look.theta, -look.gradient)}
        params, slopes = look.params, look.layout.unflatten(-look.gradient)
        if len(params) > 1:
            for name, p in params.items():
                found[f"alignment_gradient_{name}"] = _cosine(p.flatten(1), slopes[name].flatten(1))
        matrices = {name: p for name, p in params.items() if p.ndim == 3}
        before: tuple[str, Tensor] | None = None
        for name, w in matrices.items():
            u, s, vh = torch.linalg.svd(w, full_matrices=False)
            found[f"concentration_{name}"] = s[:, 0] / Norm(2.0).value(w.flatten(1))
            if before is not None and before[1].shape == vh[:, 0].shape:
                found[f"alignment_{before[0]}_{name}"] = (before[1] * vh[:, 0]).sum(-1).abs()
            before = name, u[:, :, 0]
        return found


def _cosine(a: Tensor, b: Tensor) -> Tensor:
    """Of vectors (R, k) and (R, k); nan where one is zero."""
    norm = Norm(2.0)
    return ((a / norm.value(a).unsqueeze(-1)) * (b / norm.value(b).unsqueeze(-1))).sum(-1)
