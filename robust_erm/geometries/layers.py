"""Norms of each layer's matrix, combined over the layers: spectral, nuclear, largest, sums."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from robust_erm.core.errors import one_of, require
from robust_erm.core.linalg import newton_schulz
from robust_erm.core.margins import name_of
from robust_erm.core.norms import Norm
from robust_erm.core.params import Layout
from robust_erm.core.schatten import Schatten

_STEPS = 5  # of Newton-Schulz, as published
_KINDS, _POLAR = ("schatten", "entries"), ("exact", "newton_schulz")


@dataclass(frozen=True)
class Layers:
    """``||theta|| = ||(||W_1||, ..., ||W_L||)||_across``, a norm of norms.

    With n_l the dual norms of the layers, the dual is that of ``across`` of n, and the steepest direction ``c_l
    steepest(G_l)``, c the steepest direction of n: across = inf moves all layers by the same, 1 the one of largest n_l
    alone, 2 each in proportion to n_l. With r = across = inf this is Muon's geometry, whose dual is the sum of the
    nuclear norms. A convolution is a matrix (out, in * height * width), a parameter of one axis a vector.

    Args:
        r: exponent of a matrix's norm, in [1, inf].
        across: exponent over the layers, in [1, inf]: inf the largest, 1 the sum.
        kind: ``schatten``, ||W||_r of the singular values; or ``entries``, l_r of all entries.
        vectors: exponent of a vector's l_r norm, in [1, inf]; 2 is Schatten's of one column, whatever r.
        polar: ``exact``; or ``newton_schulz``, five steps of it in place of U V', which is then not quite steepest.

    Raises:
        ConfigError: an exponent below 1, or Newton-Schulz where no polar factor is asked for.

    Reference:
        Bernstein & Newhouse 2024, "Old optimizer, new norm"; Jordan et al. 2024 (Muon).
    """

    run_axis = True

    r: float = math.inf
    across: float = math.inf
    kind: str = "schatten"
    vectors: float = 2.0
    polar: str = "exact"

    def __post_init__(self) -> None:
        for key, value in (("r", self.r), ("across", self.across), ("vectors", self.vectors)):
            require(value >= 1, key, value, "needs a norm's exponent, 1 to inf")
        one_of("kind", self.kind, _KINDS)
        one_of("polar", self.polar, _POLAR)
        factor = self.kind == "schatten" and self.r == math.inf
        says = "is a way to the polar factor, which kind=schatten and r=inf alone take; use polar=exact"
        require(factor or self.polar == "exact", "polar", self.polar, says)

    @property
    def name(self) -> str:
        """``spectral``; else the norm of a layer, that over layers, that of vectors: ``s1_linf``, ``l2_l1_v1``."""
        other = "" if self.vectors == 2 else f"_v{name_of(self.vectors)[1:]}"
        if (self.kind, self.r, self.across) == ("schatten", math.inf, math.inf):
            return f"spectral{other}"
        return f"{self.kind[0] if self.kind == 'schatten' else 'l'}{name_of(self.r)[1:]}_{name_of(self.across)}{other}"

    @property
    def exact(self) -> Layers:
        """The norm with the directions that are steepest in it."""
        return replace(self, polar="exact")

    @property
    def nickname(self) -> str:
        """The same, with ``_ns`` where steps are Newton-Schulz's: for names of folders."""
        return f"{self.name}_ns" if self.polar == "newton_schulz" else self.name

    def value(self, theta: Tensor, layout: Layout) -> Tensor:
        """As above."""
        return Norm(self.across).value(torch.stack([norm.value(w) for norm, w in self._layers(theta, layout)], -1))

    def dual_value(self, g: Tensor, layout: Layout) -> Tensor:
        """As above."""
        return Norm(self.across).dual.value(
            torch.stack([norm.dual.value(w) for norm, w in self._layers(g, layout)], -1)
        )

    def steepest(self, g: Tensor, layout: Layout) -> Tensor:
        """As above."""
        return self._both(g, layout)[0]

    def sharp(self, g: Tensor, layout: Layout) -> Tensor:
        """As above."""
        direction, size = self._both(g, layout)
        return direction * size.unsqueeze(-1)

    def _both(self, g: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
        """The steepest direction and the dual norm."""
        each = [self._of_layer(norm, w) for norm, w in self._layers(g, layout)]
        duals, lead = torch.stack([dual for _, dual in each], -1), g.shape[:-1]
        shares = Norm(self.across).steepest(duals)
        parts = [u.reshape(*lead, -1) * shares[..., k, None] for k, (u, _) in enumerate(each)]
        return torch.cat(parts, -1), Norm(self.across).dual.value(duals)

    def _of_layer(self, norm: Norm | Schatten, w: Tensor) -> tuple[Tensor, Tensor]:
        """The same of one layer."""
        if isinstance(norm, Norm):
            return norm.steepest(w), norm.dual.value(w)
        if self.polar == "exact":
            return norm.steepest(w)
        factor = newton_schulz(w, _STEPS)
        return factor, (factor * w).sum((-2, -1))

    def _layers(self, theta: Tensor, layout: Layout) -> Iterator[tuple[Norm | Schatten, Tensor]]:
        """Each parameter's norm, and the parameter as that takes it: (..., a, b) for singular values, else (..., k)."""
        for p, (_, shape) in zip(layout.unflatten(theta).values(), layout.shapes, strict=True):
            matrix = p.reshape(*theta.shape[:-1], shape[0], -1)
            if len(shape) < 2:
                yield Norm(self.vectors), p
            elif self.kind == "entries":
                yield Norm(self.r), matrix.flatten(-2)
            else:
                yield Schatten(self.r), matrix
