"""Steps as graphs: the form, with a recorder that calls instead of recording. Bits on CUDA: tests/gpu_check.py."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from recipes import in_the_form_of_a_device

from robust_erm.store.config import Run
from robust_erm.training import graphs
from robust_erm.training.problem import build
from robust_erm.training.runs import Runs
from robust_erm.training.status import RUNNING

CASES = {
    "net": ["model=mlp", "model.width=6", "model.init_scale=1", "stop.loss=12.3"],
    "random start": ["model=mlp", "model.width=6", "attack.random_start=true"],
    "adam": ["model=mlp", "model.width=6", "optimizer=adam"],
    "float32": ["model=mlp", "model.width=6", "dtype=float32"],
    "cd": ["model=linear", "attack=exact", "optimizer=cd", "stop.loss=8"],
    "mini-batches": ["model=mlp", "model.width=6", "batch.size=5", "optimizer/schedule=constant"],
    "one order": ["model=mlp", "model.width=6", "batch.size=5", "optimizer/schedule=constant"],
}


def pack(runs: list[Run], with_graphs: bool) -> Runs:
    made, _ = in_the_form_of_a_device(runs, "cpu")
    made.graphs = with_graphs
    return made


@pytest.mark.parametrize("case", CASES)
def test_a_replayed_step_is_the_step(case: str, resolved: Callable[..., Run], monkeypatch: pytest.MonkeyPatch) -> None:
    """Over several calls, with runs that end on the way and the last step."""
    recorded = 0

    def called(work: Callable[[], Any], keep: Callable[[Any], None]) -> Callable[[], None]:
        nonlocal recorded
        recorded += 1
        return lambda: keep(work())

    monkeypatch.setattr(graphs, "recorded", called)
    own = [f"seed=0 eps=0.0{k}" if case == "one order" else f"seed={k}" for k in range(3)]
    runs = [resolved(*CASES[case], "data.m=12", "stop.steps=60", *line.split()) for line in own]
    plain, replayed = pack(runs, False), pack(runs, True)
    for n in (1, 20, 7, 40):
        plain.advance(n)
        replayed.advance(n)
        for name in ("theta", "best_theta", "best_log_loss", "status", "stopped_at"):
            assert torch.equal(getattr(plain, name), getattr(replayed, name)), name
    assert not (plain.status == RUNNING).any()
    ended_early = len(set(plain.stopped_at.tolist())) > 1
    assert ended_early == (case in ("net", "cd"))
    sizes = 2 if "batch.size=5" in CASES[case] else 1  # the last batch of an epoch has two points
    assert recorded == (2 if ended_early else sizes)


def test_what_cannot_be_a_graph_is_taken_eagerly(
    resolved: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(*_: Any) -> Any:
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr(graphs, "recorded", refused)
    runs = [resolved(*CASES["random start"], "data.m=12", "stop.steps=9")]
    plain, replayed = pack(runs, False), pack(runs, True)
    with caplog.at_level(logging.WARNING, "robust_erm"):
        for one in (plain, replayed):
            one.advance(4)
            one.advance(5)
    assert torch.equal(plain.theta, replayed.theta)
    assert [record.message for record in caplog.records] == [
        "a step of this pack cannot be a CUDA graph, and is taken eagerly: RuntimeError: "
        "operation not permitted when stream is capturing"
    ]


def test_what_waits_is_never_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """On an H200 torch's eigendecomposition failed for good after a recording that it had broken."""
    modes, ran = [0], 0

    def waits() -> Any:
        nonlocal ran
        ran += 1
        if modes[-1] == "error":
            raise RuntimeError("called a synchronizing CUDA operation")

    def never(*_: Any) -> Any:
        raise AssertionError("recorded")

    stream = SimpleNamespace(wait_stream=lambda _: None)
    for name, what in {"Stream": lambda: stream, "current_stream": lambda: stream, "CUDAGraph": never}.items():
        monkeypatch.setattr(torch.cuda, name, what)
    monkeypatch.setattr(torch.cuda, "stream", lambda _: nullcontext())
    monkeypatch.setattr(torch.cuda, "get_sync_debug_mode", lambda: modes[-1])
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)
    with pytest.raises(RuntimeError, match="synchronizing"):
        graphs.recorded(waits, never)
    assert ran > 1
    assert modes == [0, "error", 0]


def test_graphs_are_for_cuda(resolved: Callable[..., Run]) -> None:
    made, *_ = build([resolved("trainer.graphs=true")], torch.device("cpu"))
    assert not made.graphs
