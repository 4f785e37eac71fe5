"""The MNIST network of Madry et al. 2018, for images of one channel or three."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from robust_erm.core.errors import ConfigError, positive, require
from robust_erm.core.fields import per_run
from robust_erm.core.linalg import linear
from robust_erm.core.margins import squeeze_logit
from robust_erm.core.params import Params
from robust_erm.models.model import uniform


@dataclass(frozen=True)
class CNN:
    """conv 5x5 (32) - pool 2 - conv 5x5 (64) - pool 2 - fc 1024 - fc C, ReLU, same padding.

    Takes square images of one channel (n, side^2) or of three, channel first, (n, 3 side^2); side a multiple of 4.

    Args:
        channels: of the two convolutions.
        hidden: units of the fully connected layer.
        bias: biases in every layer (the paper's net); without them it is homogeneous of degree 4.
        init_scale: factor on PyTorch's default uniform initialisation.

    Reference:
        Madry et al. 2018, "Towards deep learning models resistant to adversarial attacks", Sec. 5;
        tsilivis2024 App. F.2.
    """

    fills_device: ClassVar[bool] = True  # one run does: mapped over runs, convolutions become slow grouped ones there

    channels: tuple[int, int] = (32, 64)
    hidden: int = 1024
    bias: bool = True
    init_scale: float = per_run(1.0)

    def __post_init__(self) -> None:
        require(min(*self.channels, self.hidden) >= 1, "channels", self.channels, "must be 1 or more")
        positive("init_scale", self.init_scale)

    @property
    def degree(self) -> int | None:
        """4 without biases."""
        return None if self.bias else 4

    def init(self, d: int, outputs: int, generator: torch.Generator) -> Params:
        """W1, W2 convolutions; W3, W4 fully connected; b1..b4 where ``bias``."""
        colours, side = _image(d)
        if colours * side * side != d or side % 4:
            says = f"model=cnn needs square images of one channel or three, side a multiple of 4; d = {d}"
            raise ConfigError("channels", self.channels, says)
        one, two = self.channels
        shapes = [(one, colours, 5, 5), (two, one, 5, 5), (self.hidden, two * (side // 4) ** 2), (outputs, self.hidden)]
        params: Params = {}
        for k, shape in enumerate(shapes, start=1):
            fan_in = math.prod(shape[1:])
            params[f"W{k}"] = uniform(shape, fan_in, self.init_scale, generator)
            if self.bias:
                params[f"b{k}"] = uniform(shape[:1], fan_in, self.init_scale, generator)
        return params

    def apply(self, params: Params, x: Tensor) -> Tensor:
        """X (n, side^2) or (n, 3 side^2) -> (n,) or (n, C)."""
        colours, side = _image(x.shape[-1])
        h = x.reshape(-1, colours, side, side)
        for k in (1, 2):
            h = F.max_pool2d(F.conv2d(h, params[f"W{k}"], params.get(f"b{k}"), padding=2).relu(), 2)
        h = (linear(h.flatten(1), params["W3"]) + params.get("b3", 0)).relu()
        return squeeze_logit(linear(h, params["W4"]) + params.get("b4", 0))


def _image(d: int) -> tuple[int, int]:
    """Channels and side of a square image of d numbers; no d is both a square and three of one."""
    colours = 1 if math.isqrt(d) ** 2 == d else 3
    return colours, math.isqrt(d // colours)
