"""Steps for categories: OneHot and Lookup, and the codes of categories that they share."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sealserve.steps.limits import MAX_TEXT_BYTES, MAX_VALUES
from sealserve.steps.ranges import Group, GroupKind, Ranges
from sealserve.steps.step import RuledStep, ValueKind, increasing, indices, numbers


@dataclass(frozen=True, eq=False)
class Categories:
    """The categories of an input.

    The code of a value is the index of its category; the number of categories if the value is
    missing; and one more if it is of no category.

    Attributes:
        numbers: strictly increasing, if the input is a number.
        texts: each occurs once, if the input is a text.
        refuses_missing: whether to refuse a row in which the value is missing.
        refuses_unknown: whether to refuse a row in which the value is of no category.

    Raises:
        ValueError: there are numbers and texts, or neither; they repeat; or a text is too long.
    """

    numbers: NDArray[np.float64] | None = None
    texts: Sequence[str] | None = None
    refuses_missing: bool = False
    refuses_unknown: bool = False
    _codes: dict[str | None, int] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        if (self.numbers is None) == (self.texts is None):
            raise ValueError("categories are either numbers or texts")
        if self.numbers is not None:
            object.__setattr__(self, "numbers", increasing("categories", self.numbers, strictly=True))
        if self.texts is not None:
            texts = distinct("a category", self.texts)
            object.__setattr__(self, "texts", texts)
            codes: dict[str | None, int] = {text: code for code, text in enumerate(texts)}
            codes[None] = len(texts)
            object.__setattr__(self, "_codes", codes)

    @property
    def kind(self) -> ValueKind:
        """What the input is."""
        return ValueKind.NUMBER if self.texts is None else ValueKind.TEXT

    @property
    def count(self) -> int:
        """The number of categories."""
        return len(self.texts if self.numbers is None else self.numbers)  # type: ignore[arg-type]

    @property
    def code_count(self) -> int:
        """The number of codes: two more than categories."""
        return self.count + 2

    def codes(self, values: NDArray[Any], is_refused: NDArray[np.bool_]) -> NDArray[np.intp]:
        """Return the codes of values (rows,), and set is_refused for rows that are refused."""
        missing, unknown = self.count, self.count + 1
        if self.numbers is None:
            code_of = self._codes.get
            found = np.fromiter((code_of(value, unknown) for value in values.tolist()), np.intp, len(values))
        else:
            floats = values.astype(np.float64, copy=False)
            places = np.searchsorted(self.numbers, floats)
            is_known = np.append(self.numbers, np.nan)[places] == floats
            found = np.where(is_known, places, np.where(np.isnan(floats), missing, unknown))
        if self.refuses_missing:
            is_refused |= found == missing
        if self.refuses_unknown:
            is_refused |= found == unknown
        return found

    def reachable(self, may_be_missing: bool) -> NDArray[np.bool_]:
        """Tell which codes a row can have that is not refused: bool (code_count,)."""
        found = np.ones(self.code_count, np.bool_)
        found[-2] = may_be_missing and not self.refuses_missing
        found[-1] = not self.refuses_unknown
        return found


@dataclass(frozen=True, eq=False)
class _OfCategories(RuledStep):
    """A step whose rules have `categories`."""

    @property
    def input_kind(self) -> None:
        return None

    def kind_of_input(self, position: int) -> ValueKind:
        kind: ValueKind = self.columns[position].categories.kind
        return kind

    @property
    def text_count(self) -> int:
        return sum(column.categories.code_count for column in self.columns)


@dataclass(frozen=True, eq=False)
class OneHotColumn:
    """The outputs of one input of `OneHot`.

    Attributes:
        categories: the categories.
        places: for each code, which output is 1, counted from 1; 0 if none is.
        width: the number of outputs.
    """

    categories: Categories
    places: NDArray[np.intp]
    width: int

    def __post_init__(self) -> None:
        places = indices("places", self.places)
        object.__setattr__(self, "places", places)
        if len(places) != self.categories.code_count:
            raise ValueError("there is a place for each category, for missing and for unknown values")
        if not 1 <= self.width <= MAX_VALUES or places.max() > self.width:
            raise ValueError("a place is beyond the outputs, or there are none")


@dataclass(frozen=True, eq=False)
class OneHot(_OfCategories):
    """Has several outputs for each input, of which one at most is 1 and the others are 0.

    Attributes:
        columns: one for each input.
    """

    columns: Sequence[OneHotColumn]

    @property
    def width(self) -> int:
        return sum(column.width for column in self.columns)

    @property
    def makes_indicators(self) -> bool:
        return True

    def apply(self, values: NDArray[Any], is_refused: NDArray[np.bool_]) -> NDArray[Any]:
        # There is one place more before the outputs of each input, for those of whom none is 1.
        found = np.zeros((len(values), self.width + self.input_count))
        kept = np.ones(found.shape[1], np.bool_)
        rows, start = np.arange(len(values)), 0
        for position, column in enumerate(self.columns):
            codes = column.categories.codes(values[:, position], is_refused)
            found[rows, start + column.places[codes]] = 1.0
            kept[start] = False
            start += column.width + 1
        return found[:, kept]

    def ranges(self, inputs: Ranges) -> Ranges:
        groups, start = [], 0
        for column, may_be_missing in zip(self.columns, inputs.may_be_missing.tolist(), strict=True):
            places = column.places[column.categories.reachable(may_be_missing)]
            kind = GroupKind.EXACTLY_ONE if (places > 0).all() else GroupKind.AT_MOST_ONE
            groups.append(Group(kind, np.arange(start, start + column.width)))
            start += column.width
        return Ranges.of_flags(self.width, tuple(groups))


@dataclass(frozen=True, eq=False)
class LookupColumn:
    """The numbers of one input of `Lookup`.

    Attributes:
        categories: the categories.
        values: a number for each code. It may be NaN.
    """

    categories: Categories
    values: NDArray[np.float64]

    def __post_init__(self) -> None:
        shape = (self.categories.code_count,)
        values = numbers("numbers of categories", self.values, shape=shape, is_finite=False)
        if np.isinf(values).any():
            raise ValueError("a number of a category is infinite")
        object.__setattr__(self, "values", values)


@dataclass(frozen=True, eq=False)
class Lookup(_OfCategories):
    """Replaces a category by a number.

    Attributes:
        columns: one for each input.
    """

    columns: Sequence[LookupColumn]

    @property
    def is_elementwise(self) -> bool:
        """Each output is computed from one input."""
        return True

    @property
    def width(self) -> int:
        return self.input_count

    def apply(self, values: NDArray[Any], is_refused: NDArray[np.bool_]) -> NDArray[Any]:
        found = np.empty(values.shape)
        for position, column in enumerate(self.columns):
            found[:, position] = column.values[column.categories.codes(values[:, position], is_refused)]
        return found

    def ranges(self, inputs: Ranges) -> Ranges:
        low, high, is_integral, may_be_missing = [], [], [], []
        for column, is_gap in zip(self.columns, inputs.may_be_missing.tolist(), strict=True):
            values = column.values[column.categories.reachable(is_gap)]
            known = values[~np.isnan(values)]
            low.append(known.min(initial=np.inf))
            high.append(known.max(initial=-np.inf))
            is_integral.append(bool((known == np.rint(known)).all()))
            may_be_missing.append(len(known) < len(values))
        # Where nothing is known, nothing is a number: 0 stands for the range.
        is_empty = np.array(low) > np.array(high)
        return Ranges.of(
            np.where(is_empty, 0.0, low),
            np.where(is_empty, 0.0, high),
            is_integral=np.array(is_integral),
            may_be_missing=np.array(may_be_missing),
        )


def distinct(what: str, texts: Sequence[str]) -> tuple[str, ...]:
    """Return texts, each of which occurs once.

    Raises:
        ValueError: one repeats, is too long or is no text.
    """
    found = tuple(texts)
    if not all(isinstance(text, str) for text in found):
        raise ValueError(f"{what} is no text")
    if len(set(found)) != len(found):
        raise ValueError(f"{what} occurs twice")
    # A character has at most four bytes, and only the few long texts are encoded.
    if any(len(text) > MAX_TEXT_BYTES // 4 and len(text.encode(errors="replace")) > MAX_TEXT_BYTES for text in found):
        raise ValueError(f"{what} has more than {MAX_TEXT_BYTES} bytes")
    return found
