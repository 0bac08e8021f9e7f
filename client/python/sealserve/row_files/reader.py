"""Reader of files of rows, for `sealserve predict` and `bench` and the service's calibration."""

import io
import math
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from numpy.typing import NDArray

from sealserve.errors import FeatureCountError, InputError
from sealserve.protocol.schema import Schema
from sealserve.row_files import arrays, arrow
from sealserve.row_files.columns import Columns
from sealserve.row_files.delimited import read_delimited
from sealserve.row_files.formats import FORMATS, SUFFIXES
from sealserve.row_files.json_lines import read_json_lines


@dataclass(frozen=True)
class RowsFile:
    """A file of rows, and what its user says about it.

    Attributes:
        path: of the file.
        format: one of FORMATS; "" for what the suffix of the path says.
        header: of csv and tsv: whether the first record has the columns' names; None to tell from
            the record.
        chosen: the names or numbers (from 0) of the columns to use; empty for all.
        index: the name or number of a column that is no feature; "" for none.
        content: the open file to read instead of the path, such as stdin.
        max_bytes: of the rows in a Parquet or Arrow file.

    Raises:
        InputError: the suffix tells no format.
    """

    path: Path
    format: str = ""
    header: bool | None = None
    chosen: tuple[str, ...] = ()
    index: str = ""
    content: BinaryIO | None = None
    max_bytes: float = math.inf

    def __post_init__(self) -> None:
        if self.format_name not in FORMATS:
            raise InputError(f"{self.path}: its suffix is of no format of rows: give the format, {', '.join(FORMATS)}")

    @property
    def format_name(self) -> str:
        """The name of the file's format; "" if nothing tells."""
        return self.format or SUFFIXES.get(self.path.suffix.lower(), "")

    def read(self, schema: Schema) -> NDArray[Any]:
        """Read the rows (rows, schema.column_count), as `Schema` describes them.

        Numbers may be of any type. A .npy file is memory-mapped. If the schema has columns that say
        what they take, what is missing is NaN or None.

        Raises:
            FeatureNameError, FeatureCountError: the columns are not the model's.
            NotFiniteError: a value is missing, and columns do not say what they take.
            InputError: the file is damaged, or holds something that is no row of the model's kind.
                No row is passed over.
            OSError: the file cannot be opened.
        """
        columns = Columns(schema, self.chosen, self.index)
        try:
            rows = self._read(columns)
            self._check_width(rows, schema)
        except UnicodeDecodeError as error:
            raise InputError(f"{self.path} is not text in UTF-8: save it as UTF-8") from error
        except InputError as error:
            raise type(error)(f"{self.path}: {error}") from error
        return rows

    def _read(self, columns: Columns) -> NDArray[Any]:
        if self.format_name in _ARRAYS:
            if columns.texts:
                raise InputError(
                    f"{columns.schema.words(columns.texts[0])} is one of strings, and a .{self.format_name} file holds "
                    "numbers: save the rows as .csv, .jsonl or .parquet"
                )
            source = self.path if self.content is None else io.BytesIO(self.content.read())
            return _ARRAYS[self.format_name](source, columns)
        with ExitStack() as stack:
            file = stack.enter_context(self.path.open("rb")) if self.content is None else self.content
            if self.format_name in _BINARY:
                return _BINARY[self.format_name](_seekable(file), columns, self.max_bytes)
            # csv reads the ends of lines itself: one within quotes belongs to the field.
            newline = None if self.format_name == "jsonl" else ""
            text = io.TextIOWrapper(file, "utf-8-sig", newline=newline)
            stack.callback(text.detach)  # what was opened elsewhere stays open
            return self._read_text(text, columns)

    def _read_text(self, text: TextIO, columns: Columns) -> NDArray[Any]:
        if self.format_name == "jsonl":
            return read_json_lines(text, columns)
        return read_delimited(text, "\t" if self.format_name == "tsv" else ",", columns, self.header)

    def _check_width(self, rows: NDArray[Any], schema: Schema) -> None:
        try:
            schema.check_shape(rows.shape)
        except FeatureCountError as error:
            if rows.shape[1] <= schema.column_count:
                raise
            raise FeatureCountError(f"{error}; choose columns, or leave one out as the index") from error


_ARRAYS: dict[str, Callable[[Path | BinaryIO, Columns], NDArray[Any]]] = {
    "npy": arrays.read_npy,
    "npz": arrays.read_npz,
}
_BINARY: dict[str, Callable[[BinaryIO, Columns, float], NDArray[Any]]] = {
    "parquet": arrow.read_parquet,
    "arrow": arrow.read_arrow,
}


def _seekable(file: BinaryIO) -> BinaryIO:
    """Return a file that can be read from its end, as Parquet is; a pipe cannot."""
    return file if file.seekable() else io.BytesIO(file.read())
