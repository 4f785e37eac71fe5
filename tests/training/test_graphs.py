"""Steps as graphs: the form, with a recorder that calls instead of recording. Bits on CUDA: tests/gpu_check.py."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from recipes import in_the_form_of_a_device

from robust_erm.attacks.fgm import FGM
from robust_erm.store.config import Run
from robust_erm.training import graphs
from robust_erm.training import runs as runs_
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
    "random start, mini-batches": [
        *("model=mlp", "model.width=6", "batch.size=5", "optimizer/schedule=constant", "attack.random_start=true")
    ],
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

    def called(work: Callable[[], Any], keep: Callable[[Any], None], device: torch.device) -> Callable[[], None]:
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


class Cuda:
    """A pretended torch.cuda: what it was asked, in order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, empty: bool = False) -> None:
        self.asked: list[Any] = []
        self.mode = 0
        graphs._side.cache_clear()
        own = {
            "Stream": lambda device: SimpleNamespace(name=f"side of {device}", wait_stream=lambda _: None),
            "current_stream": lambda device: SimpleNamespace(name="before", wait_stream=lambda _: None),
            "CUDAGraph": lambda: SimpleNamespace(replay=lambda: self.asked.append("replayed")),
            "device": lambda device: nullcontext(),
            "stream": lambda stream: nullcontext(),
            "set_stream": lambda stream: self.asked.append(f"back to {stream.name}"),
            "get_sync_debug_mode": lambda: self.mode,
            "set_sync_debug_mode": self.set_mode,
        }
        for name, what in own.items():
            monkeypatch.setattr(torch.cuda, name, what)

        @contextmanager
        def graph(graph: Any, stream: Any) -> Iterator[None]:
            self.asked.append(f"recorded on {stream.name}")
            yield
            if empty:
                warnings.warn("The CUDA Graph is empty. This usually means ...", UserWarning, stacklevel=2)

        monkeypatch.setattr(torch.cuda, "graph", graph)

    def set_mode(self, mode: Any) -> None:
        self.mode = mode
        warnings.warn("Synchronization debug mode is a prototype feature and does not ...", UserWarning, stacklevel=2)


SECOND = torch.device("cuda", 1)


def test_recorded_on_one_stream_of_its_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the device of the runs: torch's own stream for it is that of whichever device was first."""
    cuda, ran = Cuda(monkeypatch), []
    for _ in range(2):
        replay = graphs.recorded(lambda: ran.append(cuda.mode), cuda.asked.append, SECOND)  # type: ignore[arg-type]
    replay()
    once = ["recorded on side of cuda:1", None, "back to before"]
    assert cuda.asked == [*once, *once, "replayed"]
    assert ran.count("error") == 2
    assert cuda.mode == 0
    assert graphs._side.cache_info().misses == 1


def test_what_waits_is_never_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """On an H200 torch's eigendecomposition failed for good after a recording that it had broken."""
    cuda = Cuda(monkeypatch)

    def waits() -> Any:
        if cuda.mode == "error":
            raise RuntimeError("called a synchronizing CUDA operation")

    with pytest.raises(RuntimeError, match="synchronizing"):
        graphs.recorded(waits, cuda.asked.append, SECOND)
    assert cuda.mode == 0
    assert cuda.asked == ["back to before"]


def test_a_graph_of_nothing_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replayed it would change nothing, and steps would be counted."""
    cuda = Cuda(monkeypatch, empty=True)
    with pytest.raises(RuntimeError, match="is empty"):
        graphs.recorded(lambda: None, cuda.asked.append, SECOND)  # type: ignore[arg-type, return-value]
    assert cuda.asked[-1] == "back to before"


def test_what_fails_leaves_no_other_graph(resolved: Callable[..., Run], monkeypatch: pytest.MonkeyPatch) -> None:
    """Here that of an epoch's last batch."""
    sizes: list[int] = []

    class Once:
        def __init__(self, step: Any, now: Any, inputs: Any) -> None:
            sizes.append(inputs[1].shape[-2])
            if len(sizes) == 2:
                raise RuntimeError("out of memory")
            self.step = step

        def run(self, now: Any, given: Any) -> Any:
            for inputs in given:
                now = self.step(now, *inputs)
            return now

    monkeypatch.setattr(runs_, "Graph", Once)
    runs = [resolved(*CASES["mini-batches"], "data.m=12", "stop.steps=9")]
    plain, replayed = pack(runs, False), pack(runs, True)
    plain.advance(9)
    replayed.advance(9)
    assert sizes == [5, 2]
    assert not replayed.graphs
    assert replayed.made == ([], {})
    assert torch.equal(plain.theta, replayed.theta)


@dataclass(frozen=True)
class Few(FGM):
    """Its noise (k, n) is one number for each point."""

    def draw(self, n: int, d: int, generator: torch.Generator) -> torch.Tensor:
        return torch.rand(1, n, generator=generator, dtype=torch.float64)

    def perturb(self, victim: Any, eps: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        return super().perturb(victim, eps * noise[0].reshape(-1, 1), noise)


def test_noise_may_have_any_shape(resolved: Callable[..., Run], monkeypatch: pytest.MonkeyPatch) -> None:
    """With batches of two sizes: a graph is of one."""
    monkeypatch.setattr(graphs, "recorded", lambda work, keep, device: lambda: keep(work()))
    runs = [resolved(*CASES["mini-batches"], "data.m=11", "stop.steps=9", f"seed={seed}") for seed in range(2)]
    plain, replayed = (pack([replace(run, attack=Few(math.inf)) for run in runs], graphs) for graphs in (False, True))
    for one in (plain, replayed):
        one.advance(4)
        one.advance(5)
    assert torch.equal(plain.theta, replayed.theta)
    assert len(replayed.made[1]) == 2


def test_graphs_are_for_cuda(resolved: Callable[..., Run]) -> None:
    made, *_ = build([resolved("trainer.graphs=true")], torch.device("cpu"))
    assert not made.graphs
