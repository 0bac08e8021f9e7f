"""Column: what a user hands in as one column of a table, and the values that it takes."""

import math
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Column", "ColumnKind"]


class ColumnKind(Enum):
    """What the values of a column are."""

    NUMBER = "number"
    INTEGER = "integer"
    BOOLEAN = "boolean"
    STRING = "string"
    """Names of categories."""
    TEXT = "text"
    """Words."""
    UNUSED = "unused"
    """Anything: nothing reads the column, and a table with names may lack it."""

    @property
    def is_text(self) -> bool:
        """Whether values are strings. All others are numbers, and a boolean is 0 or 1.

        What nothing reads is NaN.
        """
        return self in (ColumnKind.STRING, ColumnKind.TEXT)


@dataclass(frozen=True)
class Column:
    """A column of the rows that a user hands in.

    Attributes:
        name: no other column has it; "" for all columns of a model that knows no names.
        kind: what the values are.
        allows_missing: whether values may be missing.
        minimum, maximum: the least and the greatest number that the column takes, if there is one.

    Raises:
        ValueError: the range is empty, is no range, or is of a column of strings.
    """

    name: str
    kind: ColumnKind = ColumnKind.NUMBER
    allows_missing: bool = False
    minimum: float | None = None
    maximum: float | None = None

    def __post_init__(self) -> None:
        if (self.kind.is_text or self.kind is ColumnKind.UNUSED) and (self.minimum, self.maximum) != (None, None):
            raise ValueError("a column of strings, or one that nothing reads, has no range")
        low, high = self.range
        if math.isnan(low) or math.isnan(high) or low > high:
            raise ValueError("the range of a column is empty, or is no range")

    @property
    def range(self) -> tuple[float, float]:
        """The least and the greatest number that the column takes."""
        low, high = (0.0, 1.0) if self.kind is ColumnKind.BOOLEAN else (-math.inf, math.inf)
        return low if self.minimum is None else self.minimum, high if self.maximum is None else self.maximum

    @property
    def words(self) -> str:
        """What the column takes, in words."""
        if self.kind is ColumnKind.UNUSED:
            return "unused: any value, and it may be left out"
        low, high = self.range
        span = "" if self.kind.is_text or (low, high) == (-math.inf, math.inf) else f", {low:g}..{high:g}"
        return f"{self.kind.value}{span}, {'or missing' if self.allows_missing else 'not missing'}"

    def faults(self, values: NDArray[Any], *, clip: bool) -> dict[str, NDArray[np.bool_]]:
        """Return which values (rows,) the column does not take, by the words for why.

        If `clip`, a number outside the range counts as being at its nearest end.

        The same operations run whatever the values are.
        """
        if self.kind is ColumnKind.UNUSED:
            return {}
        if self.kind.is_text:
            return {} if self.allows_missing else {"is missing": values == None}  # noqa: E711
        values, (low, high) = values.astype(np.float64, copy=False), self.range
        is_missing = np.isnan(values)
        faults = {} if clip else {f"is outside the column's range {low:g}..{high:g}": (values < low) | (values > high)}
        if not self.allows_missing:
            faults["is missing"] = is_missing
        if self.kind in (ColumnKind.INTEGER, ColumnKind.BOOLEAN):
            faults["is no integer"] = ~is_missing & (values != np.rint(values))
        return faults
