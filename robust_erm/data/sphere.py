"""Points of equal length with labels that say nothing of them (vardi2022 Sec. 6)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from robust_erm.core.errors import at_most, one_of, require
from robust_erm.core.fields import later
from robust_erm.core.streams import numpy_stream
from robust_erm.data.dataset import Array, Dataset, Synthetic


@dataclass(frozen=True)
class Sphere(Synthetic):
    """x on or near ``sqrt(d) S^{d-1}``, y independent of x.

    Nothing can be learned: the test accuracy is 1/2 in expectation. The data set is for questions
    about the training points.

    Args:
        d: dimension.
        m: training points; null where ``alpha`` is given.
        m_test: test points.
        alpha: ``m = floor(d^alpha)``; null: m counts.
        kind: uniform on the sphere; gaussian, N(0, I / d), of length near 1; or orthogonal, training points of length
            sqrt(d) that are orthogonal to one another, m <= d (test points are uniform).
        labels: uniform, +-1 by chance; or balanced: +1, -1, +1, ...
        copies: of the m training points all but ``m / (1 + copies)`` are ``s x_i`` of those, with s uniform in [1.5, 3]
            and the label of x_i: points that are not on the margin (vardi2022 Cor. 4.1).
        subspace: x in the span of the first so many coordinates, on or near their sphere, of radius sqrt(subspace)
            where that of all has sqrt(d); null: of all d.
    """

    d: int = 1000
    m: int | None = 1000  # type: ignore[assignment]
    m_test: int = 1000
    alpha: float | None = later(None)
    kind: str = later("uniform")
    labels: str = later("uniform")
    copies: int = later(0)
    subspace: int | None = later(None)

    def __post_init__(self) -> None:
        if self.alpha is not None:
            says = "must be positive, with d^alpha at most a billion, or null: m counts"
            require(self.alpha > 0 and self.alpha * math.log(self.d) < math.log(1e9), "alpha", self.alpha, says)
            m = math.floor(self.d**self.alpha + 1e-9)
            require(self.m in (None, m), "m", self.m, f"alpha says {m}: leave one of them out, data.m=null")
            object.__setattr__(self, "m", m)
        require(self.m is not None, "m", "null", "must be given, or alpha")
        self._check_sizes()
        one_of("kind", self.kind, ("uniform", "gaussian", "orthogonal"))
        one_of("labels", self.labels, ("uniform", "balanced"))
        require(self.copies >= 0, "copies", self.copies, "must be 0 or more")
        whole = f"must be a multiple of 1 + copies = {1 + self.copies}: each point has so many copies"
        require(self._size % (1 + self.copies) == 0, "m", self.m, whole)
        if self.subspace is not None:
            at_most("subspace", self.subspace, self.d)
        name = "d" if self.subspace is None else "subspace"
        few = f"at most {name} = {self._span} points are orthogonal to one another"
        require(self.kind != "orthogonal" or self._size <= self._span * (1 + self.copies), "m", self.m, few)

    @property
    def _size(self) -> int:
        return int(self.m or 0)

    @property
    def _span(self) -> int:
        return self.d if self.subspace is None else self.subspace

    def draw(self, seed: int) -> Dataset:
        """The data set of ``seed``."""

        def points(stream: str, n: int, kind: str) -> tuple[Array, Array]:
            rng = numpy_stream(seed, stream)
            x = rng.standard_normal((n, self._span))
            if kind == "orthogonal":
                x = np.linalg.qr(x.T)[0].T
            if kind == "gaussian":
                x /= math.sqrt(self._span)
            else:
                x *= math.sqrt(self._span) / np.linalg.norm(x, axis=1, keepdims=True)
            x = np.pad(x, ((0, 0), (0, self.d - self._span)))
            alternating = np.where(np.arange(n) % 2 == 0, 1.0, -1.0)
            return x, rng.choice([-1.0, 1.0], size=n) if self.labels == "uniform" else alternating

        own = self._size // (1 + self.copies)
        x, y = points("train", own, self.kind)
        if self.copies:
            stretch = numpy_stream(seed, "copies").uniform(1.5, 3.0, (self.copies, own, 1))
            x = np.concatenate([x, (stretch * x).reshape(-1, self.d)])
            y = np.tile(y, 1 + self.copies)
        test = "uniform" if self.kind == "orthogonal" else self.kind
        return Dataset(x, y, lambda: points("test", self.m_test, test))
