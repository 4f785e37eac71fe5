"""The project's W&B workspace, as a spec that is checked offline, and saved when logged in.

python -m robust_erm.workspace --entity me --out workspace.json
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from robust_erm.errors import ConfigError, require
from robust_erm.files import write_json
from robust_erm.results import flat

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


def sent() -> set[tuple[str, str]]:
    """The keys that the mirror sends, learnt from a real run of two steps."""
    import pandas as pd
    from hydra import compose, initialize_config_dir

    from robust_erm.config import resolve
    from robust_erm.pack import train_pack
    from robust_erm.run_folder import METRICS, folder_of
    from robust_erm.train import conf_dir
    from robust_erm.wandb_mirror import config, final

    with tempfile.TemporaryDirectory() as folder, initialize_config_dir(str(conf_dir()), version_base="1.3"):
        tiny = ["data=gaussian", "data.d=4", "data.m=4", "model=linear", "attack=exact", "stop.steps=2"]
        run = resolve(compose("train", [*tiny, "logger=none", "trainer.device=cpu", f"output_dir={folder}"]))
        train_pack([run])
        rows = pd.read_parquet(folder_of(run) / METRICS).to_dict("records")
    last = final({str(key): float(value) for key, value in rows[-1].items()})
    found = {("history", key.removeprefix("final/")) for key in last} | {("summary", key) for key in last}
    return found | {("summary", "status")} | {("config", key) for key in flat(config(run))}


def check(spec: dict[str, Any], known: set[tuple[str, str]]) -> None:
    """Raise :class:`ConfigError` unless every key that ``spec`` names is among the ``known``."""
    for kind, key in keys_of(spec):
        require((kind, key) in known, kind, key, "is in the workspace, but no run sends it")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="robust_erm.workspace", description="The W&B workspace of the project.")
    parser.add_argument("--entity", help="user or team; default: that of the login")
    parser.add_argument("--project", default="robust-erm", help="default: %(default)s")
    parser.add_argument("--out", type=Path, default=Path("workspace.json"), help="the spec; default: %(default)s")
    parser.add_argument("--save", action="store_true", help="save it in W&B as a new view; needs a login")
    options = parser.parse_args(arguments)
    try:
        require(options.out.absolute().parent.is_dir(), "--out", options.out, "its folder is missing")
        workspace = build(options.entity or "", options.project)
        spec = spec_of(workspace)
        check(spec, sent())
        write_json(options.out, spec)
        print(f"{options.out}: {len(set(keys_of(spec)))} keys, all of which runs send")
        if options.save:
            _save(workspace)
    except ConfigError as error:
        print(f"robust_erm: {error}", file=sys.stderr)
        return 2
    return 0


def _save(workspace: Any) -> None:
    import wandb

    require(wandb.login(prompt=False), "--save", True, "not logged in: run `wandb login`, or set WANDB_API_KEY")
    workspace.entity = workspace.entity or wandb.Api().default_entity
    try:
        print(f"saved: {workspace.save().url}")
    except Exception as error:  # the package's own, wandb's and the network's
        raise ConfigError("--save", workspace.project, f"{type(error).__name__}: {error}") from error


def command() -> None:
    """The console command ``robust-erm-workspace``."""
    sys.exit(main())


if __name__ == "__main__":
    command()
