"""Calibration tables: files of rows with strings or gaps, in CSV, TSV or JSON lines.

The first line of a CSV file is its heading. An empty field is a missing value.
"""

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sealserve.errors import InputError
from sealserve.protocol.schema import Schema

_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_JSON_LINES = (".jsonl", ".ndjson")
SUFFIXES = (*_DELIMITERS, *_JSON_LINES)
"""The suffixes of files that are read."""


def read_table(text: str, path: Path, schema: Schema) -> NDArray[Any]:
    """Read rows (rows, column_count) as the schema describes them.

    Raises:
        InputError: the file is of another kind, is malformed, or its columns are not the schema's.
    """
    suffix = path.suffix.lower()
    try:
        if suffix in _DELIMITERS:
            records = list(csv.DictReader(io.StringIO(text, newline=""), delimiter=_DELIMITERS[suffix], strict=True))
        elif suffix in _JSON_LINES:
            records = [json.loads(line) for line in text.splitlines() if line.strip()]
        else:
            raise InputError(f"{path} has columns of strings, which are read from .csv, .tsv and .jsonl files only")
        columns = {
            column.name: _values([record[column.name] for record in records], is_text=column.kind.is_text)
            for column in schema.columns
        }
    except (csv.Error, KeyError, RecursionError, TypeError, ValueError) as error:
        raise InputError(f"{path} are malformed, or lack a column: {error}") from error
    return schema.rows(columns)


def _values(values: list[Any], *, is_text: bool) -> NDArray[Any]:
    given = [None if value == "" else value for value in values]
    if is_text:
        found = np.empty(len(given), object)
        found[:] = given
        return found
    return np.array([np.nan if value is None else float(value) for value in given], np.float64)
