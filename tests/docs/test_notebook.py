"""The gallery's notebook runs as it stands there, in an empty folder, and leaves what it shows."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from notebook import NOTEBOOK, cells, executed


@pytest.mark.turns(60)
def test_the_notebook_runs_and_is_the_one_of_the_gallery(tmp_path: Path) -> None:
    kept = nbformat.read(NOTEBOOK, as_version=4)  # type: ignore[no-untyped-call]
    assert [cell["source"] for cell in kept["cells"]] == [cell["source"] for cell in cells()], (
        "python tests/docs/notebook.py"
    )
    for notebook in (kept, executed(tmp_path)):
        code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
        kinds = [{kind for output in cell["outputs"] for kind in output.get("data", {})} for cell in code]
        assert not [o for cell in code for o in cell["outputs"] if o["output_type"] in ("error", "stream")]
        assert "text/html" in kinds[1] & kinds[2] & kinds[4], "tables"
        assert "image/png" in kinds[3], "the figure"
        assert any("Trained(12 runs" in o["data"]["text/plain"] for o in code[0]["outputs"])
        assert str(Path.home()) not in nbformat.writes(notebook), "no path of a machine"  # type: ignore[no-untyped-call]
