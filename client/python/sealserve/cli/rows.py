"""The options of commands that read a file of rows."""

import csv
import sys
from argparse import ArgumentParser, BooleanOptionalAction, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from sealserve.row_files.formats import FORMATS

if TYPE_CHECKING:
    from sealserve.row_files.reader import RowsFile


def add_rows_options(parser: ArgumentParser, *, required: bool, purpose: str) -> None:
    """Add --input, which is for this purpose, and the options that say how to read it."""
    parser.add_argument("--input", type=Path, required=required, metavar="FILE", help=purpose)
    parser.add_argument(
        "--input-format", choices=FORMATS, default="", help="by default what the suffix says; for stdin, csv"
    )
    parser.add_argument(
        "--header",
        action=BooleanOptionalAction,
        help="whether the first line of a csv or tsv file has names; by default it has if they are the model's, or "
        "if there is no number in it",
    )
    parser.add_argument(
        "--columns",
        metavar="A,B,...",
        default="",
        help="columns by name or number (from 0), in the model's order",
    )
    parser.add_argument(
        "--index-column", metavar="A", default="", help="a column that is no feature, by name or number"
    )


def rows_file(arguments: Namespace) -> "RowsFile":
    """Return the file that --input and its options describe; `-` is stdin.

    Raises:
        InputError: the suffix tells no format.
    """
    from sealserve.row_files.reader import RowsFile

    is_stdin = str(arguments.input) == "-"
    return RowsFile(
        Path("stdin") if is_stdin else arguments.input,
        arguments.input_format or ("csv" if is_stdin else ""),
        arguments.header,
        tuple(next(csv.reader([arguments.columns], skipinitialspace=True), ())),  # quotes hold names with commas
        arguments.index_column,
        sys.stdin.buffer if is_stdin else None,
    )
