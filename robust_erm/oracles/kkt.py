"""How far a direction is from a KKT point of ``min ||theta||_2^2 / 2  s.t.  q_i(theta) >= 1``.

q_i are margins of a model homogeneous of degree L: ``y_i f(x_i; theta)``, or the true less the best other
logit. Under an attack x_i are the attacked points; several for one sample may be given, as further samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import lsq_linear, nnls
from torch import Tensor
from torch.func import grad, vmap

from robust_erm.core.errors import require
from robust_erm.core.fields import unchanged
from robust_erm.core.margins import margin
from robust_erm.core.params import Layout, Params
from robust_erm.core.stack import Stack
from robust_erm.models.mlp import MLP, one_hidden_relu
from robust_erm.models.model import Model

Array = npt.NDArray[np.float64]

_BYTES = 2**30  # of gradients held at once
_TURNS = 4  # of multipliers and slopes; more change nothing that is measured


@dataclass(frozen=True)
class KKT:
    """Residuals of the best multipliers; none depends on the length of theta.

    Args:
        stationarity: ``min over lam >= 0 of ||theta - sum_i lam_i grad q_i|| / ||theta||``; 0 at a KKT point,
            1 where no gradient points along theta.
        complementarity: ``sum_i lam_i (q_i - q_min) / sum_i lam_i |q_i|``, in [0, 1] where feasible; 0 where
            only samples of least margin have multipliers.
        feasible: whether the least margin is positive, so that theta can be scaled to margins of 1 or more.
        lam: (n,).
        stationarity_kinks: the same where slopes at kinks are free in [0, 1], see :func:`kkt`; nan unless asked for.
        kink_share: of pre-activations that are at their kink.
        blocks: of each parameter B alone, ``||B - sum_i lam_i d q_i / d B||_F / ||B||_F``; nan of zeros.
    """

    stationarity: float
    complementarity: float
    feasible: bool
    lam: Array
    stationarity_kinks: float = math.nan
    kink_share: float = math.nan
    blocks: Mapping[str, float] = field(default_factory=dict)


def kkt(model: Model, params: Params, x: Tensor, y: Tensor, slack: float | None = None, kinks: float = 0.0) -> KKT:
    """Residuals at ``params``, by non-negative least squares on the Gram matrix of the gradients.

    ``<theta, grad q_i> = L q_i`` (Euler), so with ``K_ij = <grad q_i, grad q_j>`` the multipliers minimise
    ``lam' K lam - 2 L lam' q``. The residual is then taken from theta and the gradient of
    ``sum_i lam_i q_i`` itself.

    Args:
        model: homogeneous.
        params: of the model.
        x: (n, d), the points as attacked.
        y: (n,).
        slack: multipliers only for samples with ``q_i <= (1 + slack) q_min``; None: for all.
        kinks: tau; above 0, also the residual where ``sigma'`` is free in [0, 1] for pairs with ``|w_j x_i + b_j| <=
            tau ||(w_j, b_j)|| ||(x_i, 1)||``: Clarke's subdifferential at what training only approaches. Multipliers
            and slopes are found in turns, so that it is an upper bound of the least. One hidden layer, one logit.

    Raises:
        ConfigError: the model is not homogeneous, a slack below 0, or kinks of another model.

    Reference:
        lyu2022 Thm 5; Lyu & Li 2020, App. C (approximate KKT points).
    """
    require(model.degree is not None, "model", type(model).__name__.lower(), "has no KKT problem: not homogeneous")
    require(slack is None or slack >= 0, "slack", slack, "must be 0 or more")
    assert model.degree is not None
    params, x, y = {k: v.double() for k, v in params.items()}, x.double(), y.double()
    theta = Layout.of(params).flatten(params)
    q = _margins(model, params, x, y).cpu().numpy()
    least = float(q.min())
    used = np.flatnonzero(q <= least + abs(least) * slack) if slack is not None else np.arange(len(q))
    rows = torch.from_numpy(used)
    matrix = gram(model, params, x[rows], y[rows]).cpu().numpy()
    lam = np.zeros(len(q))
    lam[used] = _multipliers(matrix, model.degree * q[used])
    weights = torch.from_numpy(lam).to(x)
    pulled = grad(lambda p: (weights * _margins(model, p, x, y)).sum())(params)
    rest = theta - Layout.of(params).flatten(pulled)
    total = float(np.abs(lam * q).sum())
    hard = float(rest.norm() / theta.norm())
    soft = at_kinks(model, params, x[rows], y[rows], lam[used], kinks) if kinks else None
    return KKT(
        hard,
        float((lam * (q - least)).sum() / total) if total > 0 else 0.0,
        least > 0,
        lam,
        math.nan if soft is None else min(hard, soft.stationarity),
        math.nan if soft is None else soft.share,
        {name: _relative(value - pulled[name], value) for name, value in params.items()},
    )


def pooled(model: Model, iterates: Sequence[tuple[Params, Tensor]], y: Tensor) -> float:
    """``min over lam >= 0 of ||theta_T - sum_{t, i} lam_ti grad q_i(theta_t; x_ti)|| / ||theta_T||``.

    Under an iterative attack the attacked points, and with them the gradients, jump to and fro across kinks while the
    direction of theta hardly moves. In the limit their cone is what counts: so constraints of several iterates, each
    with its gradient at its own parameters and points, are taken together.

    Args:
        model: homogeneous.
        iterates: parameters theta_t and attacked points x_t (n, d), the last one that which is asked about.
        y: (n,).

    Raises:
        ConfigError: the model is not homogeneous, or the gradients of all iterates need more than a GiB.

    Reference:
        lyu2022 Thm 5, whose limit is one of a sequence of iterates.
    """
    require(model.degree is not None, "model", type(model).__name__.lower(), "has no KKT problem: not homogeneous")
    layout = Layout.of(iterates[-1][0])
    needs = 8 * len(iterates) * len(y) * layout.size
    says = f"need {needs / 2**30:.1f} GiB of gradients, {_BYTES >> 30} at most: take fewer"
    require(needs <= _BYTES, "iterates", len(iterates), says)

    rows = []
    for params, x in iterates:
        rows.append(_gradients(model, {k: v.double() for k, v in params.items()}, x.double(), y.double()))
    gradients = torch.cat(rows)
    theta = layout.flatten({k: v.double() for k, v in iterates[-1][0].items()})
    lam = _multipliers((gradients @ gradients.T).cpu().numpy(), (gradients @ theta).cpu().numpy())
    return float((theta - torch.from_numpy(lam).to(theta) @ gradients).norm() / theta.norm())


@dataclass(frozen=True)
class AtKinks:
    """Multipliers lam (n,) and slopes sigma' (n, k), free in [0, 1] at kinks; their residual, and how many are."""

    stationarity: float
    share: float
    lam: Array
    slopes: Array


def one_hidden(model: Model) -> bool:
    """Whether this is a net with one hidden layer of ReLUs, both layers trained, no output bias."""
    return one_hidden_relu(model) and model.trained == "all" and model.bias != "all"


def at_kinks(model: Model, params: Params, x: Tensor, y: Tensor, lam: Array, tau: float) -> AtKinks:
    """The best multipliers and slopes found in turns; ``lam`` are multipliers for slopes of 0 and 1, to begin with.

    See :func:`kkt` for what is a kink, and for which models.
    """
    one_layer = one_hidden(model) and len(params["W2"]) == 1
    require(one_layer, "kinks", tau, "are known of nets with one hidden layer of ReLUs and one logit")
    points, w = x.cpu().numpy(), params["W1"].cpu().numpy()
    if "b1" in params:
        points = np.column_stack([points, np.ones(len(points))])
        w = np.column_stack([w, params["b1"].cpu().numpy()])
    v, labels = params["W2"].cpu().numpy()[0], y.cpu().numpy()
    z = points @ w.T
    free = np.abs(z) <= tau * np.linalg.norm(w, axis=1) * np.linalg.norm(points, axis=1)[:, None]
    slopes, active = (z > 0).astype(float), np.maximum(z, 0)
    size = math.sqrt(float((w**2).sum() + (v**2).sum()))
    inner, best = (points @ points.T) * np.outer(labels, labels), None
    anything = bool(free.any())  # else lam is the answer
    for _ in range(_TURNS if anything else 1):
        for j in np.flatnonzero(free.any(0) & (v != 0)):
            at, pushes = free[:, j], (v[j] * lam * labels)[:, None] * points
            target = w[j] - ((slopes[:, j] * ~at)[:, None] * pushes).sum(0)
            pushed = pushes[at & (lam > 0)]
            if len(pushed):
                slopes[at & (lam > 0), j] = lsq_linear(pushed.T, target, bounds=(0.0, 1.0)).x
        back = slopes * v
        if anything:
            matrix = inner * (back @ back.T) + np.outer(labels, labels) * (active @ active.T)
            lam = _multipliers(matrix, labels * ((back * z).sum(1) + active @ v))
        weights = lam * labels
        rest_w, rest_v = w - back.T @ (weights[:, None] * points), v - weights @ active
        rest = math.sqrt(float((rest_w**2).sum() + (rest_v**2).sum())) / size
        if best is None or rest < best.stationarity:
            best = AtKinks(rest, float(free.mean()), lam, slopes.copy())
    assert best is not None, "there is one turn at least"
    return best


def _relative(rest: Tensor, whole: Tensor) -> float:
    size = float(whole.norm())
    return float(rest.norm()) / size if size > 0 else math.nan


def _margins(model: Model, params: Params, x: Tensor, y: Tensor) -> Tensor:
    return margin(model.apply(params, x), y)


def _gradients(model: Model, params: Params, x: Tensor, y: Tensor) -> Tensor:
    """The gradients (n, P) of the margins."""

    def one(p: Params, point: Tensor, label: Tensor) -> Tensor:
        return _margins(model, p, point.unsqueeze(0), label.unsqueeze(0))[0]

    each: Callable[..., Params] = vmap(grad(one), in_dims=(None, 0, 0))
    return Layout.of(params).flatten(each(params, x, y))


def _multipliers(matrix: Array, target: Array) -> Array:
    """Argmin over lam >= 0 of ``lam' K lam - 2 lam' b``, from a root of K; directions K does not have are left out.

    K is that of gradients of unit length: else long ones would make rounding of short ones. Points without a gradient,
    at which all units are off, have the multiplier 0.
    """
    alive = np.diag(matrix) > 0
    if not alive.all():
        spread = np.zeros(len(target))
        spread[alive] = _multipliers(matrix[np.ix_(alive, alive)], target[alive]) if alive.any() else 0.0
        return spread
    lengths = np.sqrt(np.diag(matrix))
    values, vectors = np.linalg.eigh(matrix / lengths / lengths[:, None])
    kept = values > 1e-13 * max(float(values[-1]), 1e-300)
    root, pull = np.sqrt(values[kept])[:, None] * vectors[:, kept].T, vectors[:, kept].T @ (target / lengths)
    found: Array = nnls(root, pull / np.sqrt(values[kept]), maxiter=30 * len(target) + 300)[0]
    return found / lengths


def gram(model: Model, params: Params, x: Tensor, y: Tensor) -> Tensor:
    """``K_ij = <grad q_i, grad q_j>`` (n, n) with respect to all parameters.

    Of fully connected nets in closed form, ``sum over trained layers of (H H') * (B B')`` with H what goes into a
    layer and B the gradients at what comes out, without any gradient of the size of the parameters; of
    other models, and of nets with ``activation=power`` (W also counts through its length), from blocks of gradients.

    Args:
        model: any.
        params: of the model.
        x: (n, d).
        y: (n,).
    """
    if fully_connected(model):
        return _stack_gram(model.stack, params, x, y)

    size = sum(p.numel() for p in params.values())
    block = max(1, min(len(y), _BYTES // (2 * x.element_size() * size)))

    def gradients(start: int) -> Tensor:
        return _gradients(model, params, x[start : start + block], y[start : start + block])

    matrix = x.new_zeros(len(y), len(y))
    for i in range(0, len(y), block):
        left = gradients(i)
        for j in range(0, i + 1, block):
            right = left if i == j else gradients(j)
            part = left @ right.T
            matrix[i : i + block, j : j + block], matrix[j : j + block, i : i + block] = part, part.T
    return matrix


def fully_connected(model: Model) -> TypeGuard[Any]:
    """Whether points and first weights meet in ``W x`` alone, layer by layer, as ``model.stack`` says."""
    return unchanged(model, MLP, "init") and model.activation != "power"


def in_span(model: Model, params: Params, x: Tensor) -> tuple[Params, float]:
    """``params`` with the rows of the first weight projected onto the span of the points, and what that leaves out.

    No output at any of the points changes, and no gradient has a part off their span.

    Args:
        model: fully connected.
        params: of the model.
        x: (n, d).

    Returns:
        Parameters, float64, and ``||W - P W||_F / ||theta||_2``.
    """
    name = model.stack.layers[0][0]  # type: ignore[attr-defined]
    params = {k: v.double() for k, v in params.items()}
    tiny = torch.finfo(torch.float64).tiny
    points = torch.nn.functional.normalize(x.double(), eps=tiny)  # short ones span as much as long ones
    _, size, basis = torch.linalg.svd(points, full_matrices=False)
    basis = basis[size > 1e-10 * size[0]]
    inside = params[name] @ basis.T @ basis
    off = (params[name] - inside).norm() / Layout.of(params).flatten(params).norm()
    return {**params, name: inside}, float(off)


def _stack_gram(stack: Stack, params: Params, x: Tensor, y: Tensor) -> Tensor:
    params = {name: p.unsqueeze(0) for name, p in params.items()}
    trace = stack.forward(params, x.unsqueeze(0))
    logits = trace.outputs[0].detach().requires_grad_()
    value = margin(logits.squeeze(-1) if logits.shape[-1] == 1 else logits, y)
    (slope,) = torch.autograd.grad(value.sum(), logits)
    matrix = torch.zeros(len(y), len(y), dtype=x.dtype, device=x.device)
    for k, _, before in stack.backward(params, trace, slope.unsqueeze(0)):
        h, b = trace.inputs[k][0], before[0]
        weight, bias = stack.layers[k]
        if weight is not None:
            matrix += (h @ h.T + (bias is not None)) * (b @ b.T)
    return matrix
