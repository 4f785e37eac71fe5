"""What the experiments of lyu2022 measure, against closed forms."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from shell import command

from robust_erm import reproduce
from robust_erm.papers.claims import FAILS, UNDECIDED
from robust_erm.papers.lyu2022 import layers, thm4
from robust_erm.papers.lyu2022.flow import path_of


def test_layers_of_rank_one_that_are_aligned() -> None:
    """``W_k = s_k u_{k+1} u_k'``: all quotients are 1, and the product is ``s_1 s_2 s_3`` along the first direction."""
    rng = np.random.default_rng(0)
    u = [vector / np.linalg.norm(vector) for vector in (rng.standard_normal(5), rng.standard_normal(4), np.eye(3)[0])]
    z = rng.standard_normal((6, 5))
    z *= np.sign(z @ u[0])[:, None]
    now = [2 * np.outer(u[1], u[0]), 3 * np.outer(u[2], u[1]), 0.5 * u[2][None]]
    found = layers.of(now, now, 0.0, z, u[0])
    assert [found[f"norm_{k}"] for k in (1, 2, 3)] == pytest.approx([2, 3, 0.5])
    for name in ("ratio_1", "ratio_2", "ratio_3", "aligned", "cosine", "outset", "tight", "margin"):
        assert found[name] == pytest.approx(1), name
    assert found["spread"] == pytest.approx(0, abs=1e-12)
    assert found["slack_6"] == pytest.approx(0, abs=1e-12), "no loss, and nothing has moved"


def test_the_inequalities_of_the_appendix_see_what_breaks_them() -> None:
    """Layers that no gradient descent from ``first`` has led to: far from rank one, and not aligned."""
    rng = np.random.default_rng(1)
    first = [0.1 * rng.standard_normal(shape) for shape in ((4, 5), (4, 4), (1, 4))]
    now = [10 * np.eye(4, 5), 10 * np.eye(4), np.array([[0.0, 0.0, 0.0, 30.0]])]
    now[0][0, 0], now[1][1, 1] = 20.0, 20.0
    found = layers.of(now, first, 0.1, rng.standard_normal((6, 5)), np.eye(5)[0])
    assert found["slack_6"] < 0
    assert found["slack_48"] < 0
    assert found["slack_51"] < 0
    assert found["aligned"] == pytest.approx(0)
    assert found["spread"] == pytest.approx(300)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of one: gradient descent with steps of 0.05, every one kept; FGM."""
    place = tmp_path_factory.mktemp("flow")
    line = "data=sphere data.d=4 data.m=5 data.m_test=5 model.width=6 model.init_scale=1 objective.reduction=mean"
    line += (
        " optimizer/schedule=constant optimizer.schedule.lr=0.05 attack=fgm p=2 eps=0.1 stop.steps=30 stop.loss=null"
    )
    done = command(*line.split(), "measure_every=1", "snapshots=true", "logger=none", cwd=place)
    assert done.returncode == 0, done.stderr
    (folder,) = (p.parent for p in place.glob("outputs/*/checkpoint.pt"))
    return str(folder)


def test_a_path_knows_time_losses_and_margins(run: str) -> None:
    path = path_of(run)
    assert path.steps.tolist() == list(range(31))
    assert np.exp(path.log_time[1:]) == pytest.approx(0.05 * np.arange(1, 31), rel=1e-9)
    x, y, eps = path.batch.x, path.batch.y, path.batch.eps
    for k in (0, 17):
        params = path.params(k)
        at = x.clone().requires_grad_()
        (slope,) = torch.autograd.grad((y * path.run.model.apply(params, at)).sum(), at)
        size = slope.norm(dim=1, keepdim=True)
        moved = x - eps * slope / torch.where(size > 0, size, 1.0)
        gamma = y * path.run.model.apply(params, moved)
        assert path.attacked(path.theta[k]).numpy() == pytest.approx(moved.numpy(), abs=1e-12)
        assert path.margins[k].numpy() == pytest.approx(gamma.numpy(), rel=1e-9)
        loss = (-gamma).exp().mean()
        rho = math.prod(float(p.norm()) for p in params.values())
        assert float(path.loss_and_grad[0][k]) == pytest.approx(float(loss.log()))
        assert float(path.rho[k]) == pytest.approx(rho)
        assert float(path.smoothed[k]) == pytest.approx(-math.log(5 * float(loss)) / rho)
    assert path.onset == next((k for k in range(31) if float(path.loss_and_grad[0][k]) < -math.log(5)), 31)


def test_the_rate_of_normalised_margins_is_what_the_identity_says(run: str) -> None:
    """(121) at a smooth point; with another sign of the gradient it would be off by far."""
    look = thm4._look(path_of(run), 20)
    assert look["rate"] > 0
    assert look["identity"] < 0.2, "FGM moves with the parameters, which (121) leaves out"
    assert look["strong"] <= float(path_of(run).margins[20].min() / path_of(run).rho[20]) + 1e-12


def test_falls_of_a_margin() -> None:
    assert thm4.falls(np.array([1.0, 2.0, 4.0])) == {"largest": 0, "share": 0, "kept": 1}
    assert thm4.falls(np.array([1.0, 4.0, 3.0])) == {"largest": 0.25, "share": 0.5, "kept": 0.75}
    assert thm4.falls(np.array([2.0])) == {"largest": 0, "share": 0, "kept": 1}


def test_runs_that_have_not_fitted_are_undecided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two steps: no claim about what comes after L < 1 / n holds, and none ends in an error."""
    monkeypatch.chdir(tmp_path)
    few = ["scale=smoke", "hydra.launcher.workers=0", "trainer.progress=false", "stop.steps=2", "sweeps=fgm,exact"]
    assert reproduce.main(["lyu2022/thm4", *few]) == 0
    page = json.loads((tmp_path / "outputs" / "reproduced" / "lyu2022" / "thm4-smoke" / "claims.json").read_text())
    verdicts = [claim["verdict"] for claim in page["claims"]]
    assert verdicts[0] == FAILS, "adversarial examples become separable"
    assert set(verdicts[1:]) == {UNDECIDED}
