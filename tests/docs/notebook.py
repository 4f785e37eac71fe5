"""The notebook of the gallery, from nothing to a figure with error bars; made, with its outputs, by

python tests/docs/notebook.py
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = ROOT / "outputs" / "gallery" / "first-steps.ipynb"

CELLS = [
    """# From nothing to a figure with error bars

Does sign descent (SD) find networks that are more robust than gradient descent's (GD)? Small ReLU networks on
scikit-learn's 8x8 digits, 2 against 7, under l_inf PGD.""",
    """
import matplotlib.pyplot as plt
import robust_erm as re
from robust_erm.core.statistics import interval

options = {"model__width": 32, "logger": "none", "quiet": True}
found = re.train(optimizer=["gd", "sd"], eps=[0.05, 0.15], seed=range(3), **options)
found
""",
    "Keys are those of the command line, lists are sweeps; what has been trained is taken from disk. One row a run:",
    """
columns = ["optimizer", "eps", "seed", "status", "step", "train_robust_acc", "test_clean_acc", "test_robust_acc"]
found.table[columns].head()
""",
    "Runs of one seed share their draws, so the differences are taken seed by seed..",
    """
found.compare("optimizer")[["eps", "first", "second", "difference", "half", "p", "holm", "n"]]
""",
    "Means over the seeds, with their 95 % t-intervals:",
    """
figure, ax = plt.subplots(figsize=(4.5, 3), layout="constrained")
for name, some in found.table.groupby("optimizer"):
    means, halves = zip(*(interval(100 * runs) for _, runs in some.groupby("eps")["test_robust_acc"]), strict=True)
    ax.errorbar(sorted(some["eps"].unique()), means, yerr=halves, fmt="o-", capsize=3, label=name)
ax.set(xlabel="eps of training and test", ylabel="robust test accuracy, %")
ax.legend(frameon=False);
""",
    "A run opens as a plain `torch.nn.Module`, and goes before stronger attacks than PGD, with certificates:",
    """
from robust_erm.training.problem import draw

run = found.runs[0]
points = draw(run.run.data, run.run.seed)
x, y = points.x_test, points.y_test
judged = re.evaluate(run.module, x, y, eps=[0.05, 0.15], domain=(0, 1), square={"queries": 200})
judged.table
""",
]


def cells() -> list[Any]:
    """Text where there is no code."""
    new = nbformat.v4
    kinds = {True: new.new_code_cell, False: new.new_markdown_cell}
    made: list[Any] = [kinds[text.startswith("\n")](text.strip()) for text in CELLS]
    for k, one in enumerate(made):
        one["id"] = f"cell-{k}"
    return made


def executed(place: Path) -> Any:
    """The notebook, run in an empty folder with this checkout's package."""
    notebook = nbformat.v4.new_notebook(cells=cells())  # type: ignore[no-untyped-call]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(place)}}).execute()
    for one in notebook["cells"]:
        one.get("metadata", {}).pop("execution", None)  # when it was run
    return notebook


def main() -> None:
    """Write it anew."""
    with tempfile.TemporaryDirectory() as place:
        notebook = executed(Path(place))
    NOTEBOOK.write_text(nbformat.writes(notebook))  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main()
