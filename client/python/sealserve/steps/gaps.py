"""Steps for what is missing: Impute fills it, Missing tells it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sealserve.steps.ranges import Ranges
from sealserve.steps.step import Step, ValueKind, numbers


def is_missing(values: NDArray[Any], missing_number: float | None = None) -> NDArray[np.bool_]:
    """Tell which values are missing: NaN or None, or instead of NaN what equals missing_number."""
    # NaN is the only number that does not equal itself. None stands for a missing text.
    found: NDArray[np.bool_] = values != values if missing_number is None else values == missing_number
    return found if values.dtype != object else found | (values == None)  # noqa: E711


@dataclass(frozen=True, eq=False)
class Impute(Step):
    """Replaces what is missing by a number or a text for each input.

    Attributes:
        numbers: one for each input, if they are numbers. NaN leaves a gap as it is.
        texts: one for each input, if they are texts.
        missing_number: the number that means missing; None for NaN.
    """

    numbers: NDArray[np.float64] | None = None
    texts: Sequence[str] | None = None
    missing_number: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.numbers is None) == (self.texts is None):
            raise ValueError("either numbers or texts are needed to fill in")
        if self.numbers is not None:
            filled = numbers("numbers to fill in", self.numbers, shape=(self.input_count,), is_finite=False)
            if np.isinf(filled).any():
                raise ValueError("a number to fill in is infinite")
            self._set("numbers", filled)
        if self.texts is not None:
            if len(self.texts) != self.input_count or self.missing_number is not None:
                raise ValueError("one text for each input is needed, and no missing_number")
            self._set("texts", tuple(self.texts))
        if self.missing_number is not None and not np.isfinite(self.missing_number):
            raise ValueError("missing_number is not finite: None stands for NaN")

    @property
    def input_kind(self) -> ValueKind:
        return self.output_kind

    @property
    def output_kind(self) -> ValueKind:
        return ValueKind.NUMBER if self.texts is None else ValueKind.TEXT

    @property
    def is_elementwise(self) -> bool:
        """Each output is computed from one input."""
        return True

    @property
    def width(self) -> int:
        return self.input_count

    @property
    def text_count(self) -> int:
        return len(self.texts or ())

    def apply(self, values: NDArray[Any], is_refused: NDArray[np.bool_]) -> NDArray[Any]:
        if self.numbers is None:
            return np.where(is_missing(values), np.array(self.texts, object), values)
        return np.where(is_missing(values, self.missing_number), self.numbers, values)

    def ranges(self, inputs: Ranges) -> Ranges:
        if self.numbers is None:
            return Ranges.of(inputs.low, inputs.high)
        is_filled = ~np.isnan(self.numbers) & (inputs.may_be_missing | (self.missing_number is not None))
        return Ranges.of(
            np.where(is_filled, np.fmin(inputs.low, self.numbers), inputs.low),
            np.where(is_filled, np.fmax(inputs.high, self.numbers), inputs.high),
            is_integral=inputs.is_integral & (~is_filled | (self.numbers == np.rint(self.numbers))),
            may_be_missing=inputs.may_be_missing & (np.isnan(self.numbers) | (self.missing_number is not None)),
        )


@dataclass(frozen=True, eq=False)
class Missing(Step):
    """Tells what is missing: 1, else 0.

    Attributes:
        missing_number: the number that means missing; None for NaN.
    """

    missing_number: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.missing_number is not None and not np.isfinite(self.missing_number):
            raise ValueError("missing_number is not finite: None stands for NaN")

    @property
    def input_kind(self) -> None:
        return None

    @property
    def is_elementwise(self) -> bool:
        """Each output is computed from one input."""
        return True

    @property
    def width(self) -> int:
        return self.input_count

    def apply(self, values: NDArray[Any], is_refused: NDArray[np.bool_]) -> NDArray[Any]:
        return is_missing(values, self.missing_number).astype(np.float64)

    def ranges(self, inputs: Ranges) -> Ranges:
        return Ranges.of_flags(self.width)
