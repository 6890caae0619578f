"""Reads a manifest's rows as text, each with its place for messages."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from io import StringIO
from pathlib import Path
from typing import Any

from tlsearch.core.errors import DataError
from tlsearch.core.files import TABLE_BYTES, open_regular, read_regular
from tlsearch.core.label_tasks import SEPARATOR
from tlsearch.core.printable import from_cell
from tlsearch.core.text import plural

_REQUIRED = ("path", "label")
_OPTIONAL = ("split", "group")
_COLUMNS = (*_REQUIRED, *_OPTIONAL)
_DELIMITERS = (",", ";", "\t")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row; None where the table has no such column.

    Attributes:
        place: ``FILE, line N`` of a CSV (where the row ends), ``FILE, row N`` of a Parquet file, from 1.
    """

    place: str
    path: str
    label: str
    split: str | None
    group: str | None


def read_rows(path: Path) -> list[Row]:
    """All rows of a .csv, .tsv or .parquet file, spaces around the values removed.

    Raises:
        DataError: The file is not there, of neither kind, broken, or lacks a column; a row has another
            number of values than the header, or a value is of the wrong type.
    """
    if not path.is_file():
        raise DataError(f"data.path must be a file: {path} {'is a folder' if path.exists() else 'does not exist'}")
    suffix = path.suffix.lower()
    if suffix not in (".csv", ".tsv", ".parquet"):
        raise DataError(f"a manifest must be a .csv, .tsv or .parquet file: {path}")
    try:
        open_regular(path, TABLE_BYTES).close()
        rows = list(_parquet_rows(path) if suffix == ".parquet" else _csv_rows(path))
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    if not rows:
        raise DataError(f"{path}: has no rows")
    return rows


def unread_columns(path: Path) -> list[str]:
    """The columns of a table that ``read_rows`` has read, other than ours."""
    if path.suffix.lower() == ".parquet":
        import pyarrow.parquet as pq

        header = list(pq.read_schema(path).names)
    else:
        with path.open(encoding="utf-8-sig") as file:
            line = file.readline()
        header = next(csv.reader([line], delimiter=max(_DELIMITERS, key=line.count)), [])
    return [name.strip() for name in header if name.strip() not in _COLUMNS]


def doubtful_column(unread: Sequence[str]) -> str:
    """One of ours in another case, which is not read: ``Split``; empty where there is none."""
    return next((name for name in unread if name.lower() in _OPTIONAL), "")


def _csv_rows(path: Path) -> Iterator[Row]:
    data = read_regular(path, TABLE_BYTES)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path}, line {line}: must be UTF-8") from error
    header_line = text.partition("\n")[0]
    delimiter = max(_DELIMITERS, key=header_line.count)  # the first of those as frequent
    reader = csv.reader(StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        places = _places(path, header)
        for values in reader:
            if not any(value.strip() for value in values):
                continue  # an empty line
            place = f"{path}, line {reader.line_num}"
            if len(values) != len(header):
                raise DataError(f"{place}: has {plural(len(values), 'value')}, the header has {len(header)}")
            cells = {name: from_cell(values[position].strip()) for name, position in places.items()}
            yield _row(place, cells)
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: is not valid CSV: {error}") from error


def _parquet_rows(path: Path) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        header = list(pq.read_schema(path).names)
        places = _places(path, header)
        table = pq.read_table(path, columns=list(places))
    except pa.ArrowException as error:
        raise DataError(f"{path}: is not a readable Parquet file: {error}") from error
    columns = {name: table.column(name).to_pylist() for name in places}
    for number in range(table.num_rows):
        place = f"{path}, row {number + 1}"
        yield _row(place, {name: _text(values[number], name, place) for name, values in columns.items()})


def _text(value: Any, name: str, place: str) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value.strip()
    if name == "label" and isinstance(value, list) and all(isinstance(one, str) for one in value):
        return SEPARATOR.join(value)
    if isinstance(value, int) and not isinstance(value, bool) and name != "path":
        return str(value)
    kinds = "text" if name == "path" else "text or a whole number"
    raise DataError(f"{place}: the {name} must be {kinds}, not {value!r} ({type(value).__name__})")


def _places(path: Path, header: Sequence[str]) -> dict[str, int]:
    """Where each of our columns stands; others are left alone."""
    problems = [f"the column {name!r} stands twice" for name in _COLUMNS if header.count(name) > 1]
    for name in _REQUIRED:
        if name not in header:
            near = get_close_matches(name, [one.lower() for one in header], 1)
            hint = f"; is it {header[[one.lower() for one in header].index(near[0])]!r}?" if near else ""
            problems.append(f"the column {name!r} is missing{hint}")
    if problems:
        raise DataError(
            f"{path}: {'; '.join(problems)}; a manifest has the columns path, label and perhaps split and group, "
            f"this one has {', '.join(header) or 'none'}"
        )
    return {name: header.index(name) for name in _COLUMNS if name in header}


def _row(place: str, cells: dict[str, str]) -> Row:
    return Row(
        place=place,
        path=cells["path"],
        label=cells["label"],
        split=cells.get("split"),
        group=cells.get("group"),
    )
