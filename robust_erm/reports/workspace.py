"""The project's W&B workspace, as a spec that is checked offline."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from importlib import import_module
from typing import Any

from robust_erm.core.errors import ConfigError, require

NORMS = ("l1", "l2", "linf")
GROUPING = ("optimizer.name", "eps", "data.m")  # what is left within a group are the seeds


def build(entity: str, project: str) -> Any:
    """The workspace: runs grouped by optimizer, eps and m; a curve or a point is the mean of a group.

    Raises:
        ConfigError: wandb-workspaces is not installed.
    """
    try:
        expr = import_module("wandb_workspaces.expr")
        wr, ws = (import_module(f"wandb_workspaces.{part}") for part in ("reports.v2", "workspaces"))
    except ModuleNotFoundError as error:
        advice = "is missing; pip install 'robust-erm[workspace]'"
        raise ConfigError("package", error.name, advice) from None

    def curve(title: str, metric: str, **options: Any) -> Any:
        spread: dict[str, Any] = {"groupby_aggfunc": "mean", "groupby_rangefunc": "minmax"}
        return wr.LinePlot(title=title, x="Step", y=[metric], log_x=True, **spread, **options)

    def against_m(kind: str) -> Any:
        x, y = wr.Config("data.m"), wr.SummaryMetric(f"final/gap_{kind}")
        return wr.ScatterPlot(title=f"final {kind} generalization gap against m", x=x, y=y, log_x=True)

    parts, kinds = ("train", "test"), ("robust", "clean")
    accuracies = [curve(f"{part} {kind} accuracy", f"{part}_{kind}_acc") for kind in kinds for part in parts]
    margins = [curve(f"robust margin over the {norm} norm", f"margin_robust_{norm}") for norm in NORMS]
    margins.append(curve("log training loss", "log_loss"))
    reached = wr.BarPlot(title="steps", metrics=["final/step"])
    sections = {
        "robust accuracy": accuracies,
        "margins": margins,
        "generalization gap": [against_m(kind) for kind in kinds],
        "status": [wr.RunComparer(diff_only="split"), reached],
    }
    return ws.Workspace(
        entity=entity,
        project=project,
        name="robust-erm",
        sections=[ws.Section(name=name, panels=panels, is_open=True) for name, panels in sections.items()],
        settings=ws.WorkspaceSettings(max_runs=100),
        runset_settings=ws.RunsetSettings(
            groupby=[expr.Config(key) for key in GROUPING],
            pinned_columns=["summary:status", "summary:final/test_robust_acc", "config:optimizer.value.name"],
        ),
        auto_generate_panels=False,
    )


def spec_of(workspace: Any) -> dict[str, Any]:
    """What W&B would be sent, having been read back into the same text by the package's own schema."""
    from wandb_workspaces.workspaces.internal import WorkspaceViewspec

    options: dict[str, Any] = {"by_alias": True, "exclude_none": True}
    text = workspace._to_model().spec.model_dump_json(**options)
    again = WorkspaceViewspec.model_validate_json(text).model_dump_json(**options)
    require(again == text, "workspace", workspace.name, "is not read back as it was written, by this wandb-workspaces")
    spec: dict[str, Any] = json.loads(text)
    return spec


def keys_of(spec: Any) -> Iterator[tuple[str, str]]:
    """Every key of a run that ``spec`` names: ("history", "log_loss"), ("config", "data.m"), ("summary", "status")."""
    if isinstance(spec, list):
        for item in spec:
            yield from keys_of(item)
    elif isinstance(spec, dict):
        if spec.get("section") == "config":
            yield "config", _without_value(spec["name"])
        kind = "summary" if spec.get("viewType") == "Bar Chart" else "history"
        yield from ((kind, metric) for metric in spec.get("config", {}).get("metrics", ()))
        for key, value in spec.items():
            yield from keys_of(value)
            for text in (key, value):
                if isinstance(text, str) and (named := re.match(r"(config|summary):(.+)", text)):
                    yield named[1], _without_value(named[2]) if named[1] == "config" else named[2]


def _without_value(key: str) -> str:
    """``data.value.m``, as W&B stores config keys, as ``data.m``."""
    return re.sub(r"\.value(?=\.|$)", "", key, count=1)


def check(spec: dict[str, Any], known: set[tuple[str, str]]) -> None:
    """Raise :class:`ConfigError` unless every key that ``spec`` names is among the ``known``."""
    for kind, key in keys_of(spec):
        require((kind, key) in known, kind, key, "is in the workspace, but no run sends it")
