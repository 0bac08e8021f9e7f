"""Columns: which columns of a file are the model's, and in which order."""

from collections.abc import Sequence
from dataclasses import dataclass

from sealserve.errors import FeatureNameError, InputError
from sealserve.protocol.schema import Schema
from sealserve.protocol.text import feature_in_words


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

    def positions(self, names: Sequence[str], width: int, *, any_order: bool = False) -> list[int]:
        """Return the positions of the model's columns in a file.

        A file that has more columns than the model is matched by name, if both have names.

        Args:
            names: of the file's columns; empty if it has none.
            width: the number of the file's columns.
            any_order: whether the order of the names means nothing, as in a JSON object.

        Raises:
            FeatureNameError: the names are not the model's, in the model's order.
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
        if not self.chosen and (any_order or len(found) > len(wanted)) and wanted and set(wanted) <= set(found):
            positions = [_position(name, names, width, by_name_only=True) for name in wanted]
        else:
            self.schema.check_names(found)
        if self.index and not positions:
            raise InputError("no column is left: the file has only the one that --index-column names")
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
        names = self.chosen or self.schema.column_names
        return set(names) <= set(cells) and not all(map(is_number, names))

    def spelled(self, cells: Sequence[str]) -> list[str]:
        """Return names without the space around them, but the model's as the model spells them."""
        spellings = {name.strip(): name for name in self.schema.column_names}
        return [spellings.get(cell.strip(), cell.strip()) for cell in cells]

    def by_number(self, cells: Sequence[str]) -> list[str]:
        """Return the cells of the first record that are of the model's columns, if no name says."""
        if self.chosen:
            return [cells[int(c)] for c in self.chosen if c.isdecimal() and int(c) < len(cells)] or list(cells)
        index = int(self.index) if self.index.isdecimal() else len(cells)
        return [*cells[:index], *cells[index + 1 :]]


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
