"""A network in a file of its own, on data of conf/data, from the command line."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from robust_erm.core.errors import ConfigError, first_line, require
from robust_erm.core.streams import numpy_stream
from robust_erm.evaluation.modules import Judged, evaluate
from robust_erm.evaluation.net import opened
from robust_erm.evaluation.options import Options, parsed
from robust_erm.reports.live import ticker
from robust_erm.reports.terminal import console, say
from robust_erm.store.typed import component
from robust_erm.sweeps.compose import composed
from robust_erm.sweeps.lines import points
from robust_erm.training.problem import draw

_OF_RUNS = ("measure", "exact", "checks", "fresh", "stale", "trust", "device")  # options that a file cannot have
KINDS = (".pt", ".pt2", ".pth")  # of files that may hold a network
_SAVE = "save it by torch.export.save(torch.export.export(...), 'net.pt2') or torch.jit.script(net).save('net.pt')"


def is_network(argument: str) -> bool:
    """Whether an argument of the command names a file with a network."""
    return "=" not in argument and Path(argument).suffix in KINDS


def read(path: str) -> Any:
    """The network of a file, as TorchScript or as an exported program; weights alone, and pickles, are refused."""
    require(
        Path(path).is_file(), "file", path, "is no file" + ("" if Path(path).exists() else ": there is nothing there")
    )
    if path.endswith(".pt2"):
        try:
            return torch.export.load(path).module()
        except Exception as error:  # of torch's many kinds
            raise ConfigError("file", path, f"is no exported program ({first_line(error)}); {_SAVE}") from error
    try:
        return torch.jit.load(path, map_location="cpu").eval()  # type: ignore[no-untyped-call]
    except Exception as error:  # of torch's many kinds
        says = f"is no TorchScript ({_SAVE}): weights alone are no network, and a pickle would run code"
        raise ConfigError("file", path, says) from error


def evaluate_file(arguments: Sequence[str]) -> None:
    """``evaluate net.pt data=digits eps=0.1,0.2``: print what the attacks leave of the network in the file.

    Raises:
        ConfigError: as :func:`robust_erm.evaluation.modules.evaluate`, and for options that are none.
    """
    files = [a for a in arguments if is_network(a)]
    require(len(files) == 1, "file", " ".join(files), "must be one network at a time")
    of_data = [a for a in arguments if a.startswith(("data=", "data.", "seed=", "p="))]
    shapes = [a.partition("=")[2] for a in arguments if a.startswith("shape=")]
    rest = [a for a in arguments if a not in (*files, *of_data) and not a.startswith("shape=")]
    says = "must say on which points, as in training: data=digits, data=arrays data.file=mine.csv"
    require(any(a.startswith("data=") for a in of_data), "data", "null", says)
    others = [a for a in rest if "=" not in a]
    require(not others, "folder", " ".join(others), "is no network: name a file, or folders of runs")
    _, options = parsed(rest)
    unused = [key for key in _OF_RUNS if getattr(options, key) != getattr(Options(), key)]
    says = "is an option for runs; a network in a file has none of it"
    require(not unused, unused[0] if unused else "", getattr(options, unused[0]) if unused else "", says)
    given = bool(options.eps) != bool(options.threats)
    require(given, "eps", "null", "must be given: the radius, or several with commas; or threats=inf:0.1,2:0.5")
    require(all(eps > 0 for eps in options.eps), "eps", options.eps, "must be positive: clean accuracy is shown anyway")
    module, (data, seed, p) = read(files[0]), _points(of_data)
    dataset = draw(data, seed)
    shape = _shape(shapes[-1], data.dimension) if shapes else (data.dimension,)
    for part in options.parts:
        x, y = getattr(dataset, f"x_{part}"), getattr(dataset, f"y_{part}")
        rows = np.arange(len(x))
        if options.points < len(x):
            rows = np.sort(numpy_stream(seed, f"evaluated {part}").choice(len(x), options.points, replace=False))
        inputs = x[rows].reshape(-1, *shape)
        labels = _labels(module, inputs[:1], y[rows], data.n_classes)
        kept: dict[str, Any] = {"domain": dataset.domain, "attacks": options.attack, "certify": options.certify}
        kept |= {"distance": options.distance, "seed": seed, **options.of_attacks}
        with console.status("") as status:
            tick = ticker(status, files[0])
            norms, radii = zip(*options.threats, strict=True) if options.threats else (p, options.eps)
            judged = evaluate(module, inputs, labels, radii, norms, tick=tick, **kept)
        _show(files[0], part, judged)
        if data.n_classes == 2 and judged.table["clean"].iloc[0] < 0.5:
            say("note: fewer than half are right: are the classes in another order? data.classes=[b,a]")


def _points(overrides: Sequence[str]) -> tuple[Any, int, float]:
    """The data set, seed and norm that a training line with these overrides would have."""
    loader, master, found = points([*overrides, "logger=none"])
    require(len(found) == 1, "data", " ".join(overrides), "must be one data set and seed; several are a sweep")
    (config,) = composed(loader, master, found)
    if isinstance(config, ConfigError):
        raise config
    data = component(config["data"], "data")
    try:
        data.check()
    except ConfigError as error:
        raise error.under("data") from None
    return data, int(config["seed"]), float(config["p"])


def _shape(text: str, d: int) -> tuple[int, ...]:
    value = yaml.safe_load(text)
    fits = isinstance(value, list) and all(isinstance(n, int) and n > 0 for n in value) and math.prod(value) == d
    require(fits, "shape", text, f"must be whole numbers with product {d}, as in [1,28,28]")
    return tuple(value)


def _labels(module: Any, x: Any, y: Any, classes: int) -> Any:
    """Labels as the network's logits count: the first of two classes is +1, or logit 0 of two."""
    if classes > 2:
        return y
    net, *_ = opened(module, x, np.zeros(len(x)))
    return (y < 0).astype(int) if net.classes == 2 else y


def _show(name: str, part: str, judged: Judged) -> None:
    shown = judged.table.copy()
    for column in shown.columns[3:]:
        shown[column] = shown[column].map(lambda v: "-" if math.isnan(v) else f"{100 * v:.1f}")
    say(f"{name}, {part} points, accuracies in %")
    for line in shown.to_string(index=False).splitlines():
        say(line)
    if judged.distances is not None:
        low, middle = np.quantile(judged.distances, [0.05, 0.5])
        say(f"least perturbation that changes the label: 5th percentile {low:.3g}, median {middle:.3g}")
    say(
        "; ".join(
            f"{row['attack']}: {row['queries']:,} queries, {row['gradients']:,} gradients"
            for row in judged.spent.to_dict("records")
        )
    )
    for line in judged.warnings:
        say(f"note: {line}")
