"""The resolved configuration of one run: typed, checked, and with an identity.

Every component in ``conf/<group>/<name>.yaml`` names its class by ``_target_``; the class, a frozen
dataclass, is its schema: values are converted to the types of its fields (so ``eps=0`` and
``eps=0.0`` are the same run) and unknown keys are refused.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from omegaconf import MISSING, DictConfig

from robust_erm.core.errors import at_most, one_of, require
from robust_erm.core.fields import later
from robust_erm.store.fits import check_fits
from robust_erm.store.identity import COMPONENTS, Section, as_data, word
from robust_erm.store.typed import component, contained, section, typed

# the names of final metrics
METRIC = re.compile(
    r"log_loss(_\w+)?|step|epoch|(train|test)_(clean|robust)_acc(_\w+)?|gap_(clean|robust)|(w_)?(margin|norm)_\w+"
    r"|(on_margin|alignment|concentration|kkt|universal|nearest)_\w+"
)
_RUNTIME: dict[str, Any] = {"identity": False}
UNKNOWN = 10_000  # points of a data set that does not say


@dataclass(frozen=True)
class Stop(Section):
    """When a run ends: at ``steps``, or once the training loss is at most ``loss`` (null: never).

    ``log_loss``, where given, counts instead of ``loss``: its natural logarithm, for losses below 1e-308.
    ``epochs``, where given, counts instead of ``steps``: times that every training point is seen.
    """

    steps: int = MISSING
    loss: float | None = MISSING
    log_loss: float | None = later(None)
    epochs: int | None = later(None)

    def __post_init__(self) -> None:
        at_most("steps", self.steps, 10**12, least=0)
        ok = self.loss is None or 0 < self.loss < math.inf
        require(ok, "loss", self.loss, "must be positive and finite, or null for no target")
        ok = self.log_loss is None or math.isfinite(self.log_loss)
        require(ok, "log_loss", self.log_loss, "must be finite, or null: stop.loss counts")
        if self.epochs is not None:
            at_most("epochs", self.epochs, 10**9, least=0)

    @property
    def target(self) -> float:
        """The log loss at which a run has converged; -inf for never."""
        if self.log_loss is not None:
            return self.log_loss
        return -math.inf if self.loss is None else math.log(self.loss)


@dataclass(frozen=True)
class Batches(Section):
    """Training points that a step sees: ``size`` of them, or all (null, or a size of at least all).

    Every point comes once an epoch, in an order named by the seed and the epoch. The last batch of an epoch is short
    where the size does not divide the set; ``drop_last`` leaves it out.
    """

    size: int | None = None
    drop_last: bool = False

    def __post_init__(self) -> None:
        if self.size is not None:
            at_most("size", self.size, 10**12)

    def whole(self, n: int) -> bool:
        """Whether a step sees all n points."""
        return self.size is None or self.size >= n

    def steps(self, n: int) -> int:
        """Steps of an epoch over n points."""
        if self.size is None or self.size >= n:
            return 1
        return n // self.size if self.drop_last else -(-n // self.size)


@dataclass(frozen=True)
class Trainer(Section):
    """How runs are computed: no effect on their results beyond rounding."""

    device: str = MISSING
    inner_steps: int = MISSING
    checkpoint_seconds: float = MISSING
    threads: int | None = MISSING
    progress: bool = MISSING
    graphs: bool = MISSING
    points: int | None = MISSING

    def __post_init__(self) -> None:
        at_most("inner_steps", self.inner_steps, 10**9)
        require(
            self.points is None or self.points >= 1, "points", self.points, "must be 1 or more, or null: all at once"
        )
        require(self.checkpoint_seconds >= 0, "checkpoint_seconds", self.checkpoint_seconds, "must be 0 or more")
        ok = self.threads is None or 1 <= self.threads <= 1024
        require(ok, "threads", self.threads, "must be between 1 and 1,024, or null")
        valid = re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", self.device) is not None
        require(valid, "device", self.device, "must be auto, cpu, cuda, cuda:<index> or mps")

    def check(self) -> None:
        """Raise :class:`ConfigError` where this machine lacks the device."""
        device = self.device
        if device.startswith("cuda"):
            index, found = int(device.partition(":")[2] or 0), torch.cuda.device_count()
            advice = f"this machine has {found} CUDA devices; use trainer.device=cpu"
            require(index < found, "trainer.device", device, advice)
        if device == "mps":
            advice = "is not here; use trainer.device=cpu"
            require(torch.backends.mps.is_available(), "trainer.device", device, advice)

    @property
    def torch_device(self) -> torch.device:
        """The device, with ``auto`` resolved to CUDA where there is one; asked without opening it."""
        if self.device == "auto":
            return torch.device("cuda" if torch.cuda.device_count() else "cpu")
        return torch.device(self.device)


@dataclass(frozen=True)
class Wandb(Section):
    """The mirror in Weights & Biases."""

    enabled: bool = MISSING
    mode: str = MISSING
    project: str = MISSING
    entity: str | None = MISSING
    group: str | None = MISSING
    tags: tuple[str, ...] = MISSING

    def __post_init__(self) -> None:
        one_of("mode", self.mode, ("offline", "online", "shared", "disabled", "dryrun", "run"))


@dataclass(frozen=True)
class Run(Section):
    """Everything that a run is. See ``conf/train.yaml`` for what each key means."""

    seed: int = MISSING
    eps: float = MISSING
    eps_unit: str = MISSING
    p: float = MISSING
    eval_eps: float | None = MISSING
    dtype: str = MISSING
    data: Any = MISSING
    model: Any = MISSING
    objective: Any = MISSING
    optimizer: Any = MISSING
    attack: Any = MISSING
    eval_attacks: Any = MISSING
    measure: Any = field(default_factory=dict, metadata={"later": True})
    stop: Stop = MISSING
    batch: Batches = field(default=Batches(), metadata={"later": True})
    measure_per_decade: int = MISSING
    measure_every: int | None = later(None)
    snapshots: bool = later(False)
    trainer: Trainer = field(default=MISSING, metadata=_RUNTIME)
    logger: Wandb = field(default=MISSING, metadata=_RUNTIME)
    output_dir: str = field(default=MISSING, metadata=_RUNTIME)
    run_dir: str | None = field(default=MISSING, metadata=_RUNTIME)
    fresh: bool = field(default=MISSING, metadata=_RUNTIME)
    stale: str = field(default="refuse", metadata=_RUNTIME)
    returns: str = field(default=MISSING, metadata=_RUNTIME)
    report: bool = field(default=MISSING, metadata=_RUNTIME)

    def __post_init__(self) -> None:
        require(self.seed >= 0, "seed", self.seed, "must be 0 or more")
        require(self.eps >= 0 and math.isfinite(self.eps), "eps", self.eps, "must be finite and 0 or more")
        eval_eps = self.eval_eps
        ok = eval_eps is None or (eval_eps >= 0 and math.isfinite(eval_eps))
        require(ok, "eval_eps", eval_eps, "must be finite and 0 or more, or null for eps")
        one_of("eps_unit", self.eps_unit, ("absolute", "margin"))
        require(self.p >= 1, "p", self.p, "the threat needs a norm: 1 <= p <= inf")
        one_of("dtype", self.dtype, ("float64", "float32"))
        one_of("stale", self.stale, ("refuse", "keep", "retrain"))
        single = self.trainer.device != "mps" or self.dtype == "float32"
        require(single, "dtype", self.dtype, "trainer.device=mps has no float64; use dtype=float32")
        known = METRIC.fullmatch(self.returns) is not None or bool(self.measure)  # whose names are looked at later
        require(known, "returns", self.returns, "must be a final metric, such as test_robust_acc or margin_robust_l2")
        for key, path in (("output_dir", self.output_dir), ("run_dir", self.run_dir)):
            full = "is a folder of that name: shells expand ~ only where a word begins; write $HOME instead"
            require(path is None or not str(path).startswith("~"), key, path, full)
        at_most("measure_per_decade", self.measure_per_decade, 100_000)
        if self.measure_every is not None:
            at_most("measure_every", self.measure_every, 10**12)
            many = f"would measure {self.steps / self.measure_every:,.0f} times, at most 100,000"
            require(self.steps <= 100_000 * self.measure_every, "measure_every", self.measure_every, many)
        check_fits(self)

    @property
    def outputs(self) -> int:
        """Logits: 1 for two classes."""
        classes: int = self.data.n_classes
        return 1 if classes == 2 else classes

    @property
    def steps(self) -> int:
        """The last step, as far as it is known before the data are drawn."""
        return self.steps_on(self.points or UNKNOWN)

    @property
    def points(self) -> int | None:
        """Training points, where the data set says."""
        m = getattr(self.data, "m", None)
        return None if m is None else int(m)

    def steps_on(self, n: int) -> int:
        """The last step, on n training points."""
        return self.stop.steps if self.stop.epochs is None else self.stop.epochs * self.batch.steps(n)

    @property
    def torch_dtype(self) -> torch.dtype:
        """float64 or float32."""
        return torch.float64 if self.dtype == "float64" else torch.float32

    @cached_property
    def id(self) -> str:
        """Ten hex digits of everything that may change the result."""
        canonical = json.dumps(as_data(self, "identity"), sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()[:10]

    @cached_property
    def name(self) -> str:
        """The run's folder: readable parts, then :attr:`id`."""
        unit = "margin" if self.eps_unit == "margin" else ""
        parts = [word(self.data), word(self.model), word(self.optimizer), f"eps{self.eps:g}{unit}", f"s{self.seed}"]
        return "-".join([*parts, self.id])


@dataclass(frozen=True)
class Named(Run):
    """A run that has its id and is not checked: what it needs, such as its data, may lie elsewhere."""

    def __post_init__(self) -> None:
        pass


def resolve(cfg: DictConfig | dict[str, Any], kind: type[Run] = Run) -> Run:
    """The checked run that a config describes, as Hydra composed it or :func:`robust_erm.store.typed.contained`.

    Args:
        cfg: composed, or plain.
        kind: :class:`Named` for one that is not checked.

    Raises:
        ConfigError: naming the key, its value and what would be right.
    """
    given = dict(cfg) if isinstance(cfg, dict) else contained(cfg)
    for key in COMPONENTS:
        given[key] = component(given.get(key), key)
    for key in ("batch", "measure"):  # which older configs do not have
        given.setdefault(key, {})
    examples = {"eval_attacks": "+attack@eval_attacks.pgd=pgd", "measure": "'measure=[kkt,alignment]'"}
    for key in ("eval_attacks", "measure", "stop", "batch", "trainer", "logger"):
        example = examples.get(key, f"{key}.<option>=<value>")
        require(isinstance(given.get(key), dict), key, given.get(key), f"is a group of options; write {example}")
    place = "its yaml must begin with # @package measure.<name>"
    require("_target_" not in given["measure"], "measure", given["measure"].get("_target_"), place)
    for key in ("eval_attacks", "measure"):
        given[key] = {k: component(v, f"{key}.{k}") for k, v in given[key].items()}
    for key, part in (("stop", Stop), ("batch", Batches), ("trainer", Trainer), ("logger", Wandb)):
        given[key] = section(part, json.dumps(given[key]), key)
    run: Run = typed(kind, given, "")
    return run
