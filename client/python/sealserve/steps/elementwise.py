"""Elementwise: a function of each number."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sealserve.steps.ranges import Ranges
from sealserve.steps.step import Step, numbers

Floats = NDArray[np.float64]


class Function(Enum):
    """A function of x, and of parameters a and b. See Elementwise in steps.proto."""

    ABS = "abs"
    SQUARE = "square"
    SQRT = "sqrt"
    EXP = "exp"
    EXPM1 = "expm1"
    LOG = "log"
    LOG1P = "log1p"
    COS = "cos"
    SIN = "sin"
    TANH = "tanh"
    RELU = "relu"
    CLIP = "clip"
    YEO_JOHNSON = "yeo_johnson"
    BOX_COX = "box_cox"
    NORMAL_QUANTILE = "normal_quantile"
    SUBLINEAR = "sublinear"
    GREATER = "greater"


def _yeo_johnson(x: Floats, a: Floats, b: Floats) -> Floats:
    above, below = np.where(x >= 0, x, 0.0), np.where(x < 0, -x, 0.0)
    is_log, is_log_below = np.abs(a) < _EPSILON, np.abs(a - 2) <= _EPSILON
    upper = np.where(is_log, np.log1p(above), (np.power(above + 1, a) - 1) / np.where(is_log, 1.0, a))
    rest = np.where(is_log_below, 1.0, 2 - a)
    lower = np.where(is_log_below, -np.log1p(below), -(np.power(below + 1, rest) - 1) / rest)
    return np.where(np.isnan(x), x, np.where(x >= 0, upper, lower))


def _box_cox(x: Floats, a: Floats, b: Floats) -> Floats:
    is_log = a == 0
    # scipy.special.boxcox: expm1(a log(x)) / a, exact where a is small.
    found = np.where(is_log, np.log(x), np.expm1(a * np.log(x)) / np.where(is_log, 1.0, a))
    return np.where(x > 0, found, np.nan)


def _normal_quantile(x: Floats, a: Floats, b: Floats) -> Floats:
    return np.clip(normal_quantile(x), a, b)


class _Rule(NamedTuple):
    """How to compute a function.

    Attributes:
        compute: of x, a and b.
        parameters: how many it has.
        is_rising: whether a greater x never gives a smaller value.
    """

    compute: Callable[[Floats, Floats, Floats], Floats]
    parameters: int = 0
    is_rising: bool = True


_EPSILON = np.finfo(np.float64).eps
_RULES = {
    Function.ABS: _Rule(lambda x, a, b: np.abs(x), is_rising=False),
    Function.SQUARE: _Rule(lambda x, a, b: np.square(x), is_rising=False),
    Function.SQRT: _Rule(lambda x, a, b: np.sqrt(x)),
    Function.EXP: _Rule(lambda x, a, b: np.exp(x)),
    Function.EXPM1: _Rule(lambda x, a, b: np.expm1(x)),
    Function.LOG: _Rule(lambda x, a, b: np.log(x)),
    Function.LOG1P: _Rule(lambda x, a, b: np.log1p(x)),
    Function.COS: _Rule(lambda x, a, b: np.cos(x), is_rising=False),
    Function.SIN: _Rule(lambda x, a, b: np.sin(x), is_rising=False),
    Function.TANH: _Rule(lambda x, a, b: np.tanh(x)),
    Function.RELU: _Rule(lambda x, a, b: np.maximum(x, 0.0)),
    Function.CLIP: _Rule(lambda x, a, b: np.clip(x, a, b), 2),
    Function.YEO_JOHNSON: _Rule(_yeo_johnson, 1),
    Function.BOX_COX: _Rule(_box_cox, 1),
    Function.NORMAL_QUANTILE: _Rule(_normal_quantile, 2),
    Function.SUBLINEAR: _Rule(lambda x, a, b: np.where(x > 0, 1 + np.log(np.where(x > 0, x, 1.0)), x * 0.0)),
    Function.GREATER: _Rule(lambda x, a, b: np.where(np.isnan(x), x, x > a), 1),
}
# The numbers for which a function has a value.
_DOMAINS = {
    Function.SQRT: (0.0, np.inf),
    Function.LOG: (0.0, np.inf),
    Function.LOG1P: (-1.0, np.inf),
    Function.BOX_COX: (0.0, np.inf),
    Function.NORMAL_QUANTILE: (0.0, 1.0),
}


@dataclass(frozen=True, eq=False)
class Elementwise(Step):
    """Applies a function to each input. Where the function has no value, the output is NaN.

    Attributes:
        function: which.
        first: the parameter a, one for each input; None if the function has none.
        second: the parameter b.
    """

    function: Function
    first: Floats | None = None
    second: Floats | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for number, name in enumerate(("first", "second")):
            given = getattr(self, name)
            if (given is not None) != (number < _RULES[self.function].parameters):
                raise ValueError(f"{self.function.value} has {_RULES[self.function].parameters} parameters")
            if given is not None:
                self._set(name, numbers(f"{name} parameters", given, shape=(self.input_count,)))
        if self.first is not None and self.second is not None and (self.first > self.second).any():
            raise ValueError("a is above b")

    @property
    def is_elementwise(self) -> bool:
        """Each output is computed from one input."""
        return True

    @property
    def width(self) -> int:
        return self.input_count

    def apply(self, values: NDArray[Any], is_refused: NDArray[np.bool_]) -> NDArray[Any]:
        nothing = np.zeros(())
        a = nothing if self.first is None else self.first
        b = nothing if self.second is None else self.second
        return _RULES[self.function].compute(values, a, b)

    def ranges(self, inputs: Ranges) -> Ranges:
        least, greatest = _DOMAINS.get(self.function, (-np.inf, np.inf))
        low, high = np.clip(inputs.low, least, greatest), np.clip(inputs.high, least, greatest)
        nowhere = np.zeros(1, np.bool_)
        with np.errstate(all="ignore"):
            ends = [self.apply(end[None], nowhere)[0] for end in (low, high)]
        if self.function in (Function.COS, Function.SIN):
            ends = [np.full(self.width, -1.0), np.full(self.width, 1.0)]
        elif self.function in (Function.ABS, Function.SQUARE):
            ends = [np.where((low < 0) & (high > 0), 0.0, np.minimum(*ends)), np.maximum(*ends)]
        elif self.function is Function.SUBLINEAR:
            # It falls from 0 to minus infinity just above 0, where no count is.
            is_count = inputs.is_integral | (low >= 1) | (high <= 0)
            ends = [np.where(is_count, np.minimum(ends[0], ends[1]), -np.inf), np.maximum(ends[1], 0.0)]
        is_partial = (inputs.low <= least) & np.isfinite(least) | (inputs.high > greatest)
        keeps_integers = self.function in (Function.ABS, Function.SQUARE, Function.RELU)
        is_flag = self.function is Function.GREATER
        return Ranges.of(
            ends[0],
            ends[1],
            is_integral=(inputs.is_integral & keeps_integers) | is_flag,
            may_be_missing=inputs.may_be_missing | is_partial,
        )


# The rational approximations of Cephes (ndtri.c), which SciPy uses, too.
_P0 = [-5.99633501014107895267e1, 9.80010754185999661536e1, -5.66762857469070293439e1, 1.39312609387279679503e1,
       -1.23916583867381258016e0]  # fmt: skip
_Q0 = [1.0, 1.95448858338141759834e0, 4.67627912898881538453e0, 8.63602421390890590575e1, -2.25462687854119370527e2,
       2.00260212380060660359e2, -8.20372256168333339912e1, 1.59056225126211695515e1,
       -1.18331621121330003142e0]  # fmt: skip
_P1 = [4.05544892305962419923e0, 3.15251094599893866154e1, 5.71628192246421288162e1, 4.40805073893200834700e1,
       1.46849561928858024014e1, 2.18663306850790267539e0, -1.40256079171354495875e-1, -3.50424626827848203418e-2,
       -8.57456785154685413611e-4]  # fmt: skip
_Q1 = [1.0, 1.57799883256466749731e1, 4.53907635128879210584e1, 4.13172038254672030440e1, 1.50425385692907503408e1,
       2.50464946208309415979e0, -1.42182922854787788574e-1, -3.80806407691578277194e-2,
       -9.33259480895457427372e-4]  # fmt: skip
_P2 = [3.23774891776946035970e0, 6.91522889068984211695e0, 3.93881025292474443415e0, 1.33303460815807542389e0,
       2.01485389549179081538e-1, 1.23716634817820021358e-2, 3.01581553508235416007e-4, 2.65806974686737550832e-6,
       6.23974539184983293730e-9]  # fmt: skip
_Q2 = [1.0, 6.02427039364742014255e0, 3.67983563856160859403e0, 1.37702099489081330271e0, 2.16236993594496635890e-1,
       1.34204006088543189037e-2, 3.28014464682127739104e-4, 2.89247864745380683936e-6,
       6.79019408009981274425e-9]  # fmt: skip
_ROOT_OF_2_PI = 2.50662827463100050242
_TAIL = 0.13533528323661269189  # exp(-2)


def normal_quantile(p: Floats) -> Floats:
    """Return the quantiles of the standard normal distribution; NaN unless 0 <= p <= 1.

    Source: Cephes Math Library, ndtri.c. All its branches are computed for every p.
    """
    is_upper = p > 1 - _TAIL
    tail = np.where(is_upper, 1 - p, p)
    centered = tail - 0.5
    square = centered * centered
    middle = (centered + centered * (square * np.polyval(_P0, square) / np.polyval(_Q0, square))) * _ROOT_OF_2_PI
    with np.errstate(all="ignore"):
        root = np.sqrt(-2 * np.log(tail))
        inverse = 1 / root
        near = inverse * np.polyval(_P1, inverse) / np.polyval(_Q1, inverse)
        far = inverse * np.polyval(_P2, inverse) / np.polyval(_Q2, inverse)
        outer = root - np.log(root) / root - np.where(root < 8, near, far)
    found = np.where(tail > _TAIL, middle, np.where(is_upper, outer, -outer))
    return np.where(p == 0, -np.inf, np.where(p == 1, np.inf, np.where((p >= 0) & (p <= 1), found, np.nan)))
