"""The project's W&B workspace, as a spec that is checked offline, and saved when logged in.

python -m robust_erm.workspace --entity me --out workspace.json
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from robust_erm.core.errors import ConfigError, require
from robust_erm.reports.tables import flat
from robust_erm.reports.terminal import told
from robust_erm.reports.workspace import build, check, keys_of, spec_of
from robust_erm.store.files import write_json
from robust_erm.sweeps.exits import Parser, ended_cleanly


def sent() -> set[tuple[str, str]]:
    """The keys that the mirror sends, learnt from a real run of two steps."""
    from hydra import compose, initialize_config_dir

    from robust_erm.reports.tables import read_metrics
    from robust_erm.store.config import resolve
    from robust_erm.store.run_folder import folder_of
    from robust_erm.store.source import conf_dir
    from robust_erm.training.pack import train_pack
    from robust_erm.training.wandb_mirror import config, final

    with tempfile.TemporaryDirectory() as folder, initialize_config_dir(str(conf_dir()), version_base="1.3"):
        tiny = ["data=gaussian", "data.d=4", "data.m=4", "model=linear", "attack=exact", "stop.steps=2"]
        run = resolve(compose("train", [*tiny, "logger=none", "trainer.device=cpu", f"output_dir={folder}"]))
        train_pack([run])
        rows = read_metrics(folder_of(run)).to_pylist()
    last = final({str(key): float(value) for key, value in rows[-1].items()})
    found = {("history", key.removeprefix("final/")) for key in last} | {("summary", key) for key in last}
    return found | {("summary", "status")} | {("config", key) for key in flat(config(run))}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit status."""
    parser = Parser(prog="robust_erm.workspace", description="The W&B workspace of the project.")
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
        return told([str(error)], 2)
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
    with ended_cleanly():
        sys.exit(main())


if __name__ == "__main__":
    command()
