"""Image tables through Hugging Face ``datasets``: parquet files and data sets on the Hub."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from .._archives import check_growth, most_unpacked
from .._extras import require
from .._reach import no_answer
from .._reading import check_regular, excerpt, reading

__all__ = ["table_from_hub", "table_from_parquet"]

#: Seconds to wait for an answer of the Hub.
_PATIENCE = 5.0


def table_from_parquet(paths: Sequence[Path]) -> Any:
    """Return the image column of local parquet files, which ``datasets`` maps from its cache."""
    datasets, parquet = require("datasets", "data"), require("pyarrow.parquet", "data")
    for path in paths:
        with reading(path, "parquet file", "datasets"):
            check_regular(path)
            with parquet.ParquetFile(path) as file:
                column = _picture_column(file.schema_arrow, str(path))
            _check_size(path, column)
    log = logging.getLogger("datasets.packaged_modules.parquet.parquet")
    with reading(excerpt(", ".join(map(str, paths))), "table of pictures", "datasets"):
        log.disabled = True  # it would print the error, too
        try:
            table = datasets.Dataset.from_parquet([str(path) for path in paths], columns=[column])
        except datasets.exceptions.DatasetGenerationError as error:
            raise error.__cause__ or error  # noqa: B904  # which says what is wrong
        finally:
            log.disabled = False
    return _undecoded(datasets, table, column)


def _check_size(path: Path, column: str) -> None:
    """Raise a ``ValueError`` where a column unpacks to far more bytes than its file has."""
    parquet, arrow, compute = (require(f"pyarrow{part}", "data") for part in (".parquet", "", ".compute"))
    inner = [f"{column}.bytes", f"{column}.path"]
    with parquet.ParquetFile(path, read_dictionary=inner) as file:
        parts = [file.metadata.row_group(k) for k in range(file.metadata.num_row_groups)]
        check_growth(sum(part.total_byte_size for part in parts), path)
        # Columns of a damaged file are not asked whether they have a dictionary: pyarrow would abort.
        if sum(part.num_rows * part.total_byte_size for part in parts) <= most_unpacked(path):
            return
        size = 0  # a dictionary may say each of its pictures often, so they are counted
        for batch in file.iter_batches(64, columns=inner):
            for each in batch.column(0).flatten():
                if arrow.types.is_dictionary(each.type):
                    lengths = compute.binary_length(each.dictionary).take(each.indices)
                    size += compute.sum(lengths).as_py() or 0
            check_growth(size, path)


def table_from_hub(hub: str, split: str) -> Any:
    """Return the image column of a data set on the Hub, from the local cache or downloaded.

    Raises:
        ConnectionError: with the reason, when it cannot be downloaded.
    """
    datasets = require("datasets", "data")
    try:
        with _cache_only(datasets):
            table = datasets.load_dataset(hub, split=split)
    except (ConnectionError, FileNotFoundError, ValueError):  # not there, or without this split
        reason = _unreachable(datasets)
        if reason:
            raise ConnectionError(reason) from None
        try:
            table = datasets.load_dataset(hub, split=split)
        except OSError as error:  # ConnectionError and DatasetNotFoundError are among them
            raise ConnectionError(f"it cannot be fetched ({error})") from error
    return _undecoded(datasets, table, _picture_column(table.features.arrow_schema, hub))


def _undecoded(datasets: ModuleType, table: Any, column: str) -> Any:
    """Keep the column as bytes; we decode them, for the same pixels and errors from every source."""
    return table.select_columns([column]).cast_column(column, datasets.Image(decode=False))


def _picture_column(schema: Any, where: str) -> str:
    """Return the column of type ``struct{bytes, path}``; of several, ``image`` or ``img``."""
    arrow = require("pyarrow", "data")
    found = [
        field.name
        for field in schema
        if arrow.types.is_struct(field.type) and {"bytes", "path"} <= {part.name for part in field.type}
    ]
    usual = [name for name in ("image", "img") if name in found]
    if len(found) != 1 and not usual:
        raise ValueError(
            f"{where}: must have one column of pictures (struct of bytes and path), or, of several, one "
            f"called image or img, but has {len(found)} among its columns "
            f"{excerpt(', '.join(schema.names), 100)}."
        )
    return (usual or found)[0]


@contextmanager
def _cache_only(datasets: ModuleType) -> Iterator[None]:
    """Restrict ``datasets`` to its local cache, without its warning."""
    offline, verbosity = datasets.config.HF_HUB_OFFLINE, datasets.logging.get_verbosity()
    datasets.config.HF_HUB_OFFLINE = True
    datasets.logging.set_verbosity_error()
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE = offline
        datasets.logging.set_verbosity(verbosity)


def _unreachable(datasets: ModuleType) -> str | None:
    """Return why the Hub cannot be reached, or ``None`` if it can."""
    if datasets.config.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE or HF_DATASETS_OFFLINE is set"
    return no_answer(datasets.config.HF_ENDPOINT, _PATIENCE, "data")
