"""A run as a plain torch module: the same outputs to rounding, torch's own layers, weights that travel."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnx.reference import ReferenceEvaluator
from pyarrow import parquet
from torch import nn

from robust_erm.evaluation.as_module import Applied, as_module
from robust_erm.models.cnn import CNN
from robust_erm.models.deep_linear import DeepLinear
from robust_erm.models.diagonal import Diagonal
from robust_erm.models.linear import Linear
from robust_erm.models.mlp import MLP
from robust_erm.store.run_folder import folder_of
from robust_erm.training import contracts
from robust_erm.training.pack import train_pack

MODELS = {
    "linear": (Linear(init_scale=1.0), 1, 6),
    "linear, 3 classes": (Linear(init_scale=1.0), 3, 6),
    "deep linear": (DeepLinear(depth=3, width=5), 1, 6),
    "mlp": (MLP(depth=3, width=5, bias="all"), 4, 6),
    "mlp, first bias": (MLP(width=5, bias="first"), 1, 6),
    "widths, leaky": (MLP(widths=(7, 4), activation="leaky", slope=0.2), 1, 6),
    "identity": (MLP(width=5, activation="identity"), 2, 6),
    "leaky of slope 0": (MLP(width=5, activation="leaky", slope=0.0), 2, 6),
    "fixed second layer": (MLP(width=4, trained="first", bias="first"), 1, 6),
    "cnn": (CNN(channels=(2, 3), hidden=5), 10, 64),
    "cnn, three channels": (CNN(channels=(2, 3), hidden=5), 10, 192),
    "cnn without biases": (CNN(channels=(2, 3), hidden=5, bias=False), 1, 64),
    "power": (MLP(width=4, activation="power"), 1, 6),
    "diagonal": (Diagonal(alpha=1.0), 1, 6),
}
OTHERS = ("power", "diagonal")


class Doubled(MLP):
    """Inherits, and computes something else."""

    def apply(self, params: Any, x: torch.Tensor) -> torch.Tensor:
        return 2 * super().apply(params, x)


@dataclasses.dataclass(frozen=True)
class Dotted:
    """Names its tensors as torch's modules do."""

    degree = 1

    def init(self, d: int, outputs: int, generator: torch.Generator) -> Any:
        return {name: torch.randn(d, generator=generator, dtype=torch.float64) for name in ("0.weight", "1.weight")}

    def apply(self, params: Any, x: torch.Tensor) -> torch.Tensor:
        return (x @ params["0.weight"]).relu() - (x @ params["1.weight"]).relu()


@pytest.mark.parametrize("name", MODELS)
def test_outputs_are_those_of_the_model(name: str) -> None:
    model, outputs, d = MODELS[name]
    params = model.init(d, outputs, torch.Generator().manual_seed(0))
    if name == "diagonal":
        params["u_plus"] = torch.rand(d, dtype=torch.float64)
    x = torch.rand(9, d, dtype=torch.float64)
    module, right = as_module(model, params), model.apply(params, x)
    torch.testing.assert_close(module(x), right, rtol=0, atol=1e-12)
    assert right.abs().max() > 1e-3
    assert module(x[:1]).shape == right[:1].shape, "one point is a batch too"
    assert isinstance(module, Applied) == (name in OTHERS)
    if name not in OTHERS:
        own = {type(layer).__module__.split(".")[0] for layer in module.modules()}
        assert own == {"torch"}, "nothing of ours is needed to load it"
    buffer = io.BytesIO()
    torch.save(module.state_dict(), buffer)
    buffer.seek(0)
    fresh = as_module(model, {k: torch.zeros_like(v) for k, v in params.items()})
    if name == "fixed second layer":
        fresh[2].load_state_dict(module[2].state_dict())  # type: ignore[index, arg-type]
    fresh.load_state_dict(torch.load(buffer, weights_only=True))
    torch.testing.assert_close(fresh(x), right, rtol=0, atol=1e-12)


@pytest.mark.filterwarnings("ignore")  # of torch's exporter, about itself
@pytest.mark.parametrize("name", ["mlp", "cnn, three channels"])
def test_it_is_exported_to_onnx(name: str, tmp_path: Path) -> None:
    """With the same outputs by ONNX's own evaluator."""
    model, outputs, d = MODELS[name]
    params, x = model.init(d, outputs, torch.Generator().manual_seed(0)), torch.rand(1, d, dtype=torch.float64)
    module = as_module(model, params).eval()
    torch.onnx.export(module, (x,), tmp_path / "net.onnx", verbose=False)
    read = ReferenceEvaluator(str(tmp_path / "net.onnx"))
    (found,) = read.run(None, {read.input_names[0]: x.numpy()})
    assert np.allclose(found, module(x).detach().numpy(), rtol=1e-9, atol=1e-12)


def test_what_inherits_is_applied_as_it_is() -> None:
    model = Doubled(width=4)
    params = model.init(3, 1, torch.Generator().manual_seed(0))
    x = torch.rand(5, 3, dtype=torch.float64)
    torch.testing.assert_close(as_module(model, params)(x), 2 * MLP.apply(model, params, x))


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_a_script_of_it_computes_the_same() -> None:
    model, outputs, d = MODELS["cnn"]
    module = as_module(model, model.init(d, outputs, torch.Generator().manual_seed(0)))
    x = torch.rand(3, d, dtype=torch.float64)
    torch.testing.assert_close(torch.jit.script(module)(x), module(x))
    assert isinstance(module, nn.Sequential)


def test_tensors_may_be_called_as_those_of_modules_are(resolved: Any) -> None:
    """Which have dots: the plain module computes the same, and their norms are columns."""
    model = Dotted()
    params = model.init(6, 1, torch.Generator().manual_seed(0))
    x = torch.rand(5, 6, dtype=torch.float64)
    assert torch.equal(as_module(model, params)(x), model.apply(params, x))
    run = dataclasses.replace(resolved("data=gaussian", "data.d=6", "data.m=5", "stop.steps=2"), model=model)
    contracts.check(run)
    train_pack([run])
    kept = parquet.read_table(folder_of(run) / "metrics.parquet").column_names
    assert {"norm_layer_0_weight", "norm_layer_1_weight"} <= set(kept)
