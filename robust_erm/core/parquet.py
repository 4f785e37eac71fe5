"""Reading parquet, in the calling thread alone."""

from __future__ import annotations

import pyarrow as pa
from pyarrow import parquet


def table_of(data: bytes) -> pa.Table:
    """The table that the bytes of a parquet file hold.

    ``pyarrow.parquet.read_table`` (and pandas by it) leaves threads behind that still hold Python's memory: a script
    that ends at once after it may abort ("terminate called without an active exception", status 134) or never end
    (github.com/apache/arrow issues 34314 and 50482). Nothing is left here.

    Raises:
        pyarrow.ArrowException: of what is no parquet file.
    """
    with parquet.ParquetFile(pa.BufferReader(data), pre_buffer=False) as file:
        return file.read(use_threads=False)
