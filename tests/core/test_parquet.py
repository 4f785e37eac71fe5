"""Reading parquet leaves no thread behind, and nothing else of ours reads it."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import robust_erm
from robust_erm.core.parquet import table_of

PACKAGE = Path(robust_erm.__file__).parent
COUNT = """
import sys
from pathlib import Path
from robust_erm.core.parquet import table_of

def threads():
    return next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("Threads:"))

data, before = Path(sys.argv[1]).read_bytes(), threads()
assert table_of(data).num_rows == 1000
assert threads() == before, (before, threads())
"""


def test_a_table_is_what_pandas_reads() -> None:
    frame = pd.DataFrame({"a": np.arange(1000.0), "b": ["word"] * 1000, "c": [[1.0, 2.0]] * 1000})
    buffer = io.BytesIO()
    frame.to_parquet(buffer)
    assert table_of(buffer.getvalue()).to_pandas().equals(pd.read_parquet(io.BytesIO(buffer.getvalue())))
    with pytest.raises(pa.ArrowException):
        table_of(buffer.getvalue()[:100])


def test_no_thread_is_left(tmp_path: Path) -> None:
    """A thread that ends after the interpreter aborts the process: pyarrow's own readers leave three."""
    pd.DataFrame({str(n): np.arange(1000.0) for n in range(20)}).to_parquet(tmp_path / "some.parquet")
    command = [sys.executable, "-c", COUNT, str(tmp_path / "some.parquet")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_all_parquet_is_read_so() -> None:
    other = re.compile(r"read_parquet|\bread_table|ParquetFile|parquet\.read")
    found = [path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py") if other.search(path.read_text())]
    assert found == ["core/parquet.py"]
