"""Tables of numbers and lists of numbers: .csv, .parquet, and data sets of Hugging Face that were saved to disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from robust_erm.core.errors import in_one_line, require
from robust_erm.core.parquet import table_of
from robust_erm.data.dataset import Array

_SPLITS, _STATE = "dataset_dict.json", "state.json"


def splits(key: str, folder: Path) -> dict[str, Path]:
    """The folders of a saved DatasetDict by name; a saved Dataset is its own ``train``.

    Raises:
        ConfigError: nothing that ``save_to_disk`` has made.
    """
    if (folder / _STATE).is_file():
        return {"train": folder}
    says = f"is a folder without {_STATE} or {_SPLITS}: not one that save_to_disk of a Hugging Face data set has made"
    require((folder / _SPLITS).is_file(), key, folder, says)
    with in_one_line(key, folder / _SPLITS, "reading it"):
        named = [Path(name).name for name in json.loads((folder / _SPLITS).read_text())["splits"]]
    return {name: folder / name for name in named}


def files_of(folder: Path) -> list[Path]:
    """The files of a saved Dataset or DatasetDict."""
    return sorted(path for path in folder.rglob("*") if path.suffix in (".arrow", ".json") and path.is_file())


def read(path: Path) -> pd.DataFrame:
    """The table of a file, or of the folder of a saved Dataset; names of columns are words.

    Raises:
        ConfigError: a folder whose files do not belong together; what pandas and pyarrow raise, else.
    """
    reader = _saved if path.is_dir() else _parquet if path.suffix == ".parquet" else pd.read_csv
    frame: pd.DataFrame = reader(path)
    frame.columns = frame.columns.map(str)
    return frame


def inputs(frame: pd.DataFrame, path: Path) -> tuple[Array, tuple[str, ...]]:
    """(n, d), the columns beside one another, and what each is called: ``emb[3]`` in a column of lists ``emb``.

    Raises:
        ConfigError: columns without a name or without numbers, or lists that are missing or not of one length.
    """
    unnamed = [str(name) for name in frame if not str(name).strip() or str(name).startswith("Unnamed: ")]
    says = "has a column without a name: an index? Write the file without it (index=False), or name the column"
    require(not unnamed, "file", path, says)
    lists = {str(name): is_list(frame[name]) for name in frame}
    words = [name for name in lists if not lists[name] and frame[name].dtype.kind not in "fiub"]
    require(not words, "file", path, f"has columns that are not numbers: {', '.join(words[:4])}; leave them out")
    if not any(lists.values()):
        return frame.to_numpy(dtype=np.float64), tuple(lists)
    parts = {n: _listed(frame[n], path) if lists[n] else _column(frame[n]) for n in lists}
    names = (f"{n}[{k}]" if lists[n] else n for n, some in parts.items() for k in range(some.shape[1]))
    return np.concatenate(list(parts.values()), axis=1), tuple(names)


def _parquet(path: Path) -> pd.DataFrame:
    frame: pd.DataFrame = table_of(path.read_bytes()).to_pandas()
    return frame


def _saved(folder: Path) -> pd.DataFrame:
    require((folder / _STATE).is_file(), "file", folder, f"lacks {_STATE}")
    state = json.loads((folder / _STATE).read_text())
    says = "keeps a selection of its rows beside them; save it again after flatten_indices()"
    require(not state.get("_indices_data_files"), "file", folder, says)
    tables = []
    for entry in state["_data_files"]:
        file = folder / Path(str(entry["filename"])).name  # whatever the folder says, nothing outside of it
        require(file.is_file(), "file", folder, f"lacks {file.name}")
        with pa.memory_map(str(file)) as source, pa.ipc.open_stream(source) as stream:
            tables.append(stream.read_all())
    require(bool(tables), "file", folder, "names no files of points")
    table = pa.concat_tables(tables)
    shown = state.get("_format_columns")
    frame: pd.DataFrame = (table if shown is None else table.select(list(shown))).to_pandas()
    return frame


def is_list(column: pd.Series[Any]) -> bool:
    """Whether a column has lists of numbers, or of lists."""
    first = next((value for value in column if value is not None), None) if column.dtype.kind == "O" else None
    return isinstance(first, (np.ndarray, list))


def _column(column: pd.Series[Any]) -> Array:
    return column.to_numpy(dtype=np.float64)[:, None]


def _listed(column: pd.Series[Any], path: Path) -> Array:
    """(n, k) of a column of n lists, or lists of lists, with k numbers each."""
    gaps = sum(not isinstance(value, (np.ndarray, list)) for value in column)
    require(not gaps, "file", path, f"has {gaps} lists that are missing in its column {column.name}")
    shapes = {(row := _row(value)).shape: row for value in column}
    says = f"has lists of different lengths in its column {column.name}: {', '.join(map(str, sorted(shapes)[:4]))}"
    require(len(shapes) == 1, "file", path, says)
    (row,) = shapes.values()
    require(row.dtype.kind in "fiub", "file", path, f"has lists without numbers in its column {column.name}")
    return np.stack([_row(value) for value in column]).reshape(len(column), -1).astype(np.float64)


def _row(value: Any) -> Any:
    found = np.asarray(value)
    return np.stack([_row(one) for one in found]) if found.dtype.kind == "O" and _nested(found) else found


def _nested(value: Any) -> bool:
    return len(value) > 0 and all(isinstance(one, (np.ndarray, list)) for one in value)
