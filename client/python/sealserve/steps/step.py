"""Step: what all kinds of steps have in common."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sealserve.steps.limits import OPERATIONS_A_CALL
from sealserve.steps.ranges import Ranges


class ValueKind(Enum):
    """What a value is."""

    NUMBER = "number"
    """A double. A missing number is NaN."""
    TEXT = "text"
    """A string. A missing text is None."""


@dataclass(frozen=True, eq=False)
class Step(ABC):
    """A step: it reads values of a row and appends its outputs.

    Attributes:
        inputs: the numbers of the values that it reads, all smaller than those of its outputs.

    Raises:
        ValueError: the arguments contradict each other, or are beyond `limits`.
    """

    inputs: Sequence[int] | NDArray[np.intp]

    def __post_init__(self) -> None:
        self._set("inputs", indices("inputs", self.inputs))
        if not self.input_count:
            raise ValueError("a step needs an input")

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    @property
    def input_count(self) -> int:
        """The number of values that it reads."""
        return len(self.inputs)

    @property
    def input_kind(self) -> ValueKind | None:
        """What all its inputs are; None if any kind will do."""
        return ValueKind.NUMBER

    def kind_of_input(self, position: int) -> ValueKind | None:
        """What one of its inputs is; None if any kind will do."""
        return self.input_kind

    @property
    def output_kind(self) -> ValueKind:
        """What all its outputs are."""
        return ValueKind.NUMBER

    @property
    def is_elementwise(self) -> bool:
        """Whether each output is computed from the input at its own place, and from no other."""
        return False

    @property
    @abstractmethod
    def width(self) -> int:
        """The number of its outputs."""

    @property
    def makes_indicators(self) -> bool:
        """Whether all its outputs are 0 or 1, in groups of which one at most is 1."""
        return False

    @property
    def operations(self) -> int:
        """The number of elementary operations on a row, about."""
        return self.input_count + self.width

    @property
    def text_count(self) -> int:
        """The number of its categories, terms and other texts."""
        return 0

    @abstractmethod
    def apply(self, values: NDArray[Any], is_refused: NDArray[np.bool_]) -> NDArray[Any]:
        """Compute the outputs (rows, width) of inputs (rows, input_count).

        The same operations run whatever the values are.

        Args:
            values: float64; or objects, which are numbers, texts or None.
            is_refused: bool (rows,). The step sets it for each row that it refuses.
        """

    @abstractmethod
    def ranges(self, inputs: Ranges) -> Ranges:
        """Derive the ranges of the outputs from those of the inputs."""


@dataclass(frozen=True, eq=False)
class RuledStep(Step):
    """A step that has a rule of its own for each input.

    Attributes:
        columns: the rules, one for each input.
    """

    columns: Sequence[Any]

    def __post_init__(self) -> None:
        super().__post_init__()
        self._set("columns", tuple(self.columns))
        if len(self.columns) != self.input_count:
            raise ValueError("one rule for each input is needed")

    @property
    def operations(self) -> int:
        return super().operations + OPERATIONS_A_CALL * self.input_count


def indices(what: str, values: Any) -> NDArray[np.intp]:
    """Return indices as an array that cannot be changed.

    Raises:
        ValueError: they are not one-dimensional, not integers, or negative.
    """
    array = np.asarray(values)
    if array.size == 0:
        array = array.astype(np.intp)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise ValueError(f"{what} are not a list of integers")
    if array.size and (array.min() < 0 or array.max() >= 1 << 31):
        raise ValueError(f"{what} are negative or too large")
    return _frozen(array.astype(np.intp))


def numbers(
    what: str, values: ArrayLike, *, shape: tuple[int, ...] | None = None, is_finite: bool = True
) -> NDArray[np.float64]:
    """Return numbers as an array that cannot be changed.

    Args:
        what: names them in errors.
        values: the numbers.
        shape: the shape that they need; None for one dimension of any length.
        is_finite: whether they have to be finite.

    Raises:
        ValueError: they have another shape, or are not finite.
    """
    array = np.array(values, np.float64, order="C")
    if array.ndim != 1 if shape is None else array.shape != shape:
        raise ValueError(f"{what} have the shape {array.shape}, not {shape or 'of a list'}")
    if is_finite and not np.isfinite(array).all():
        raise ValueError(f"{what} are not finite")
    return _frozen(array)


def increasing(what: str, values: ArrayLike, *, strictly: bool = False) -> NDArray[np.float64]:
    """Return numbers that do not decrease, as an array that cannot be changed.

    Raises:
        ValueError: they decrease, repeat although `strictly`, or are not finite.
    """
    array = numbers(what, values)
    if not (array[1:] > array[:-1] if strictly else array[1:] >= array[:-1]).all():
        raise ValueError(f"{what} do not increase")
    return array


def _frozen(array: NDArray[Any]) -> NDArray[Any]:
    array.flags.writeable = False
    return array
