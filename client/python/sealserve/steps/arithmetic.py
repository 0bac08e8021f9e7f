"""Steps that compute with numbers: Affine, Monomials, Normalize and Matrix."""

from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sealserve.steps.limits import MAX_FACTORS
from sealserve.steps.ranges import Group, GroupKind, Ranges
from sealserve.steps.step import Step, indices, numbers


@dataclass(frozen=True, eq=False)
class Affine(Step):
    """Computes (x - subtract) / divide * multiply + add, in this order.

    Attributes:
        subtract, divide, multiply, add: one for each input; None leaves the operation out.
    """

    subtract: NDArray[np.float64] | None = None
    divide: NDArray[np.float64] | None = None
    multiply: NDArray[np.float64] | None = None
    add: NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("subtract", "divide", "multiply", "add"):
            if (given := getattr(self, name)) is not None:
                self._set(name, numbers(name, given, shape=(self.input_count,)))
        if self.divide is not None and not self.divide.all():
            raise ValueError("divide is 0")

    @property
    def is_elementwise(self) -> bool:
        """Each output is computed from one input."""
        return True

    @property
    def width(self) -> int:
        return self.input_count

    def apply(self, values: NDArray[Any], is_refused: NDArray[np.bool_]) -> NDArray[Any]:
        found = values
        if self.subtract is not None:
            found = found - self.subtract
        if self.divide is not None:
            found = found / self.divide
        if self.multiply is not None:
            found = found * self.multiply
        return found if self.add is None else found + self.add

    def ranges(self, inputs: Ranges) -> Ranges:
        nothing = np.zeros(self.width, np.bool_)
        ends = [self.apply(end[None], nothing)[0] for end in (inputs.low, inputs.high)]
        return Ranges.of(np.minimum(*ends), np.maximum(*ends), may_be_missing=inputs.may_be_missing)


@dataclass(frozen=True, eq=False)
class Monomials(Step):
    """Products of inputs, one for each output.

    Attributes:
        degrees: the number of factors of each product; 0 is the constant 1.
        factors: the numbers of the inputs, of all products. They are multiplied from left to right.
    """

    degrees: NDArray[np.intp]
    factors: NDArray[np.intp]

    def __post_init__(self) -> None:
        super().__post_init__()
        self._set("degrees", indices("degrees", self.degrees))
        self._set("factors", indices("factors", self.factors))
        if not len(self.degrees) or self.degrees.max() > MAX_FACTORS:
            raise ValueError(f"products have 0 to {MAX_FACTORS} factors, and there is at least one product")
        if self.degrees.sum() != len(self.factors) or (self.factors >= self.input_count).any():
            raise ValueError("the factors are not as many as the degrees say, or not of inputs")

    @property
    def width(self) -> int:
        return len(self.degrees)

    @property
    def operations(self) -> int:
        return self.width * max(1, int(self.degrees.max()))

    def apply(self, values: NDArray[Any], is_refused: NDArray[np.bool_]) -> NDArray[Any]:
        with_one = np.concatenate([values, np.ones((len(values), 1))], axis=1)
        found = np.ones((len(values), self.width))
        for factor in self._by_place():
            found *= with_one[:, factor]
        return found

    def _by_place(self) -> NDArray[np.intp]:
        """Return the factors (places, products); past the last, that of a constant 1."""
        table = np.full((int(self.degrees.max()), self.width), self.input_count, np.intp)
        starts = np.cumsum(self.degrees) - self.degrees
        product = np.repeat(np.arange(self.width), self.degrees)
        table[np.arange(len(self.factors)) - starts[product], product] = self.factors
        return table

    def ranges(self, inputs: Ranges) -> Ranges:
        low, high = np.ones(self.width), np.ones(self.width)
        stops = np.cumsum(self.degrees).tolist()
        for product, (start, stop) in enumerate(zip([0, *stops[:-1]], stops, strict=True)):
            chosen, powers = np.unique(self.factors[start:stop], return_counts=True)
            for factor, power in zip(chosen.tolist(), powers.tolist(), strict=True):
                ends = _power(float(inputs.low[factor]), float(inputs.high[factor]), power)
                products = [a * b if a and b else 0.0 for a in (low[product], high[product]) for b in ends]
                low[product], high[product] = min(products), max(products)
        factors = self._by_place()
        missing = np.logical_or.reduce(np.append(inputs.may_be_missing, False)[factors], axis=0)
        integral = np.logical_and.reduce(np.append(inputs.is_integral, True)[factors], axis=0)
        return Ranges.of(low, high, is_integral=integral, may_be_missing=missing)


class Norm(Enum):
    """A norm of all inputs together."""

    L1 = "l1"
    L2 = "l2"
    MAX = "max"


@dataclass(frozen=True, eq=False)
class Normalize(Step):
    """Divides all inputs by their norm. A norm of 0 counts as 1.

    Attributes:
        norm: which.
    """

    norm: Norm

    @property
    def width(self) -> int:
        return self.input_count

    def apply(self, values: NDArray[Any], is_refused: NDArray[np.bool_]) -> NDArray[Any]:
        if self.norm is Norm.L2:
            norms = np.sqrt(np.einsum("ij,ij->i", values, values))
        elif self.norm is Norm.L1:
            norms = np.abs(values).sum(axis=1)
        else:
            norms = np.abs(values).max(axis=1)
        return values / np.where(norms == 0, 1.0, norms)[:, None]

    def ranges(self, inputs: Ranges) -> Ranges:
        is_gap = bool(inputs.may_be_missing.any())
        groups = () if self.norm is Norm.MAX else (Group(GroupKind.NORM, np.arange(self.width)),)
        return Ranges.of(
            np.where(inputs.low < 0, -1.0, 0.0),
            np.where(inputs.high > 0, 1.0, 0.0),
            may_be_missing=is_gap,
            groups=groups,
        )


@dataclass(frozen=True, eq=False)
class Matrix(Step):
    """Computes intercepts[k] + the sum over j of weights[k, j] x_j.

    Attributes:
        weights: (outputs, inputs).
        intercepts: (outputs,).
    """

    weights: NDArray[np.float64]
    intercepts: NDArray[np.float64]

    def __post_init__(self) -> None:
        super().__post_init__()
        shape = np.shape(self.weights)
        if len(shape) != 2 or shape[1] != self.input_count or not shape[0]:
            raise ValueError("weights are needed for each output and input")
        self._set("weights", numbers("weights", self.weights, shape=shape))
        self._set("intercepts", numbers("intercepts", self.intercepts, shape=shape[:1]))

    @property
    def width(self) -> int:
        return len(self.weights)

    @property
    def operations(self) -> int:
        return self.weights.size

    def apply(self, values: NDArray[Any], is_refused: NDArray[np.bool_]) -> NDArray[Any]:
        found: NDArray[Any] = values @ self.weights.T + self.intercepts
        return found

    def ranges(self, inputs: Ranges) -> Ranges:
        with np.errstate(invalid="ignore"):  # 0 times infinity
            ends = [np.where(self.weights == 0, 0.0, self.weights * end) for end in (inputs.low, inputs.high)]
        low, high = np.minimum(*ends).sum(axis=1), np.maximum(*ends).sum(axis=1)
        is_used = (self.weights != 0) & inputs.may_be_missing
        return Ranges.of(
            low + self.intercepts, high + self.intercepts, may_be_missing=np.full(self.width, is_used.any())
        )


def _power(low: float, high: float, power: int) -> tuple[float, float]:
    """Return the least and the greatest power of numbers low..high."""
    try:
        ends = low**power, high**power
    except OverflowError:
        return -np.inf, np.inf
    if power % 2 == 0 and low < 0 < high:
        return 0.0, max(ends)
    return min(ends), max(ends)
