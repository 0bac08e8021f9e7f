"""Columns: which columns of a file are the model's, in which order, and how they become rows."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sealserve.errors import FeatureCountError, FeatureNameError, InputError
from sealserve.protocol.column import Column, ColumnKind
from sealserve.protocol.schema import Schema
from sealserve.protocol.table_columns import check_names
from sealserve.protocol.text import feature_in_words

NOWHERE = -1
"""The position of a column that a file lacks, because nothing reads it."""


@dataclass(frozen=True)
class Columns:
    """The choice of a file's columns.

    Attributes:
        schema: of the model.
        chosen: the names or numbers (from 0) of the columns to use, in the model's order; empty for
            all.
        index: the name or number of a column that is no feature; "" for none.
    """

    schema: Schema
    chosen: tuple[str, ...] = ()
    index: str = ""

    @property
    def takes_gaps(self) -> bool:
        """Whether a missing value is read as such: columns say whether they take it.

        This must not depend on what they say. A row with a gap that is refused travels as a dummy.
        """
        return bool(self.schema.columns)

    @cached_property
    def texts(self) -> list[int]:
        """The columns of strings, by their numbers."""
        return [feature for feature, column in enumerate(self.schema.columns) if column.kind.is_text]

    def column(self, feature: int) -> Column | None:
        """Return what the model says of a column; None if it says nothing but its name."""
        return self.schema.columns[feature] if feature < len(self.schema.columns) else None

    def numbers(self, positions: Sequence[int]) -> list[int]:
        """Return the columns of numbers, by their numbers, of a file with these positions."""
        read = range(len(positions)) if not self.schema.columns else self.schema.read_positions
        return [feature for feature in read if feature not in self.texts]

    def rows(
        self, positions: Sequence[int], numbers: NDArray[np.float64], texts: Sequence[Iterable[Any]]
    ) -> NDArray[Any]:
        """Put rows together (rows, columns of the model): float64, or objects, as of `Schema`.

        Args:
            positions: of the model's columns.
            numbers: (rows, columns of numbers).
            texts: the strings of each column of strings, None where one is missing.
        """
        places = self.numbers(positions)
        if len(places) == len(positions):
            return numbers
        rows: NDArray[Any] = np.full((len(numbers), len(positions)), np.nan, object if texts else np.float64)
        rows[:, places] = numbers
        for feature, values in zip(self.texts, texts, strict=True):
            rows[:, feature] = list(values)
        return rows

    def positions(self, names: Sequence[str], width: int, *, any_order: bool = False) -> list[int]:
        """Return the positions of the model's columns in a file.

        A file that has more columns than the model is matched by name, if both have names. If
        columns say what they take, every file with names is.

        Args:
            names: of the file's columns; empty if it has none.
            width: the number of the file's columns.
            any_order: whether the order of the names means nothing, as in a JSON object.

        Raises:
            FeatureNameError: the names are not the model's, in the model's order.
            FeatureCountError: columns say what they take, and the file has another number of them.
            InputError: there is no such column, a name occurs twice, or no column is left.
        """
        wanted = self.schema.column_names
        if self.chosen:
            positions = [_position(column, names, width) for column in self.chosen]
        else:
            positions = list(range(width))
            if self.index:
                positions.remove(_position(self.index, names, width))
        found = [names[position] for position in positions] if names else []
        if wanted and found and self.schema.columns:
            check_names(self.schema.columns, found, any_more=True)
            places = dict(zip(found, positions, strict=True))
            positions = [places.get(name, NOWHERE) for name in wanted]
        elif not self.chosen and (any_order or len(found) > len(wanted)) and wanted and set(wanted) <= set(found):
            positions = [_position(name, names, width, by_name_only=True) for name in wanted]
        else:
            self.schema.check_names(found)
        if self.index and not positions:
            raise InputError("no column is left: the file has only the one that --index-column names")
        if self.schema.columns and len(positions) != self.schema.column_count:
            raise FeatureCountError(
                f"the file has {len(positions)} columns, and the model takes {self.schema.column_count}; choose "
                "columns, or leave one out as the index"
            )
        return positions

    def in_words(self, feature: int, position: int, names: Sequence[str]) -> str:
        """Return a feature in words: by its column's name in the file, or else in the model.

        Args:
            feature: its number.
            position: of its column in the file.
            names: of the file's columns; empty if it has none.
        """
        if names:
            return feature_in_words(feature, names[position])
        if feature < len(self.schema.column_names):
            return feature_in_words(feature, self.schema.column_names[feature])
        return feature_in_words(feature, None if feature == position else position)

    def are_named_in(self, cells: Sequence[str]) -> bool:
        """Return whether cells are names: the model's, or names that were chosen."""
        if self.schema.column_names and tuple(cells) == self.schema.column_names:
            return True
        names = self.chosen or self._read_names
        return set(names) <= set(cells) and not all(map(is_number, names))

    @cached_property
    def _read_names(self) -> list[str]:
        """The names of the columns that are read, if they have names."""
        names = self.schema.column_names
        return [names[feature] for feature in self.schema.read_positions] if names else []

    def spelled(self, cells: Sequence[str]) -> list[str]:
        """Return names without the space around them, but the model's as the model spells them."""
        spellings = {name.strip(): name for name in self.schema.column_names}
        return [spellings.get(cell.strip(), cell.strip()) for cell in cells]

    def by_number(self, cells: Sequence[str]) -> list[str]:
        """Return the cells of the first record that are of the model's columns, if no name says.

        Those of columns of strings are left out, if there are as many cells as columns: they may be
        anything.
        """
        if self.chosen:
            found = [cells[int(c)] for c in self.chosen if c.isdecimal() and int(c) < len(cells)] or list(cells)
        else:
            index = int(self.index) if self.index.isdecimal() else len(cells)
            found = [*cells[:index], *cells[index + 1 :]]
        if self.schema.columns and len(found) == self.schema.column_count:
            return [found[feature] for feature in self.numbers(range(len(found)))]
        return found


def is_boolean(column: Column | None) -> bool:
    """Return whether a model says of a column that it is one of booleans."""
    return column is not None and column.kind is ColumnKind.BOOLEAN


def _position(column: str, names: Sequence[str], width: int, *, by_name_only: bool = False) -> int:
    """Return the position of a column, by its name or, if there is no such name, by its number."""
    if (count := list(names).count(column)) == 1:
        return list(names).index(column)
    if count > 1:
        raise FeatureNameError(f"{count} columns are named {column!r}: rename them, or choose by number")
    if not by_name_only and column.isascii() and column.isdecimal() and int(column) < width:
        return int(column)
    kind = "name or number" if names else "number, and no names"
    raise InputError(f"there is no column {column!r}: the file has {width} columns; give a {kind} (from 0)")


def is_number(text: str) -> bool:
    """Return whether a text is a number as Python reads it."""
    try:
        float(text)
    except ValueError:
        return False
    return True
