"""Affine models and rows for the tests of planner and engines, the worst ones among them.

Scores are computed exactly, in Python integers.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from sealserve.he.parameters import EncryptionParameters, ParameterSet
from sealserve.he.quantization import InputGrid, QuantizedModel
from sealserve_service.planning.rounding import open_noise

Integers = NDArray[np.object_]
"""Python integers: nothing wraps and nothing is rounded."""


@dataclass(frozen=True, eq=False)
class Affine:
    """Weights (scores, features), intercepts (scores,) and the declared range."""

    weights: NDArray[np.float64]
    intercept: NDArray[np.float64]
    grid: InputGrid

    @property
    def planned(self) -> tuple[NDArray[np.float64], NDArray[np.float64], InputGrid]:
        """What the planner takes."""
        return self.weights, self.intercept, self.grid

    def __repr__(self) -> str:  # hypothesis prints it
        minimum, maximum, step = (v.tolist() for v in (self.grid.minimum, self.grid.maximum, self.grid.step))
        return f"Affine({self.weights.tolist()}, {self.intercept.tolist()}, {minimum=}, {maximum=}, {step=})"


def keeping(model: Affine) -> Affine:
    """Declare that all features keep their grid, so that rounding them adds no error."""
    keeps = np.ones(model.grid.feature_count, np.bool_)
    return dataclasses.replace(model, grid=dataclasses.replace(model.grid, keeps=keeps))


def _alternating(generator: np.random.Generator, shape: tuple[int, int]) -> NDArray[np.float64]:
    return generator.uniform(0.5, 1.0, shape) * np.where(np.arange(shape[1]) % 2, -1, 1)


def _one_huge(generator: np.random.Generator, shape: tuple[int, int]) -> NDArray[np.float64]:
    weights = generator.normal(size=shape)
    weights[-1, -1] = -1e4
    return weights


def _zero_class(generator: np.random.Generator, shape: tuple[int, int]) -> NDArray[np.float64]:
    weights = generator.normal(size=shape)
    weights[shape[0] // 2] = 0.0
    return weights


def _zero_columns(generator: np.random.Generator, shape: tuple[int, int]) -> NDArray[np.float64]:
    weights = generator.normal(size=shape)
    weights[:, ::2] = 0.0
    return weights


WEIGHTS: dict[str, Callable[[np.random.Generator, tuple[int, int]], NDArray[np.float64]]] = {
    "normal": lambda generator, shape: generator.normal(size=shape),
    "positive": lambda generator, shape: generator.uniform(size=shape),
    "negative": lambda generator, shape: -generator.uniform(size=shape),
    "equal": lambda _, shape: np.full(shape, -3.0),
    "alternating": _alternating,
    "one huge": _one_huge,
    "zero class": _zero_class,
    "zero columns": _zero_columns,
    "zero": lambda _, shape: np.zeros(shape),
}


def affine(kind: str, shape: tuple[int, int], *, intercept: float = 1.0, seed: int = 0) -> Affine:
    """Build a model of a kind of weights; each feature has a range of its own.

    Intercepts are at most `intercept` in size.
    """
    generator = np.random.default_rng([seed, *shape])
    minimum = generator.uniform(-2.0, 1.0, shape[1])
    span = generator.choice([0.0, 1.0, 2.5], shape[1], p=[0.1, 0.5, 0.4])
    levels = generator.choice([1, 15, 255], shape[1])
    grid = InputGrid.of(shape[1], minimum, minimum + span, np.where(span, span / levels, 1.0))
    return Affine(WEIGHTS[kind](generator, shape), generator.uniform(-intercept, intercept, shape[0]), grid)


def tightest(parameter_set: ParameterSet, scores: int, features: int, levels: int, places: int = 1) -> Affine:
    """Build a model of integers that uses up what plans may take of q: no weight may grow by 1.

    It is all in one polynomial, of which so many places are kept. Its scores use up t as well: they
    span more than half of it.
    """
    powers = [1 << bits for bits in range(2, min(60, parameter_set.modulus.bit_length() - 1))]
    rooms = {t: open_noise(EncryptionParameters(parameter_set, t), places) for t in powers}
    totals = [(room - 1) // 43 for room in rooms.values()]
    spans = [levels * -(-total // scores) for total in totals]
    ((t, total),) = [(t, a) for t, a, span in zip(powers, totals, spans, strict=True) if t // 2 < span + 2 <= t]
    generator = np.random.default_rng(total)
    weights = np.empty((scores, features), np.int64)
    for score in range(scores):
        norm = (total + score) // scores
        peak = 1 << (2 * norm // features).bit_length()  # a power of two, so that the planner's scale is 1
        others = generator.multinomial(norm - peak - 1, np.full(features - 2, 1 / (features - 2)))
        weights[score] = generator.permutation([peak, 1, *others])
    assert weights.sum() == total
    assert 43 * total + 1 <= rooms[t] < 43 * (total + 1) + 1
    signs = generator.choice([-1, 1], weights.shape)
    return Affine((signs * weights).astype(np.float64), np.full(scores, 12345.0), InputGrid.of(features, 0, levels, 1))


# Features and levels that use the column sets up with weights of no more than 21 bits.
_TIGHT_COLUMNS = {
    "column-2048-44": (32, 31),
    "column-2048-54": (32, 127),
    "column-4096-60": (32, 511),
    "column-4096-92": (256, 1 << 31),
}


def tightest_columns(parameter_set: ParameterSet) -> Affine:
    """Build the tightest model of one class for a set of the column layout."""
    return tightest(parameter_set, 1, *_TIGHT_COLUMNS[parameter_set.name], parameter_set.poly_modulus_degree)


@st.composite
def affine_models(draw: st.DrawFn) -> Affine:
    """Models of up to 9 scores and 80 features, of any sign and about any size."""
    scores, features = draw(st.integers(1, 9)), draw(st.integers(1, 80))
    size = 10.0 ** draw(st.integers(-20, 20))
    entries = st.floats(-1.0, 1.0, width=32) | st.sampled_from([0.0, 1.0, -1.0, 1e-3])
    weights = size * draw(hnp.arrays(np.float64, (scores, features), elements=entries))
    intercept = size * draw(hnp.arrays(np.float64, scores, elements=st.floats(-1e5, 1e5)))
    minimum = draw(hnp.arrays(np.float64, features, elements=st.floats(-10.0, 10.0)))
    span = draw(hnp.arrays(np.float64, features, elements=st.floats(0.0, 20.0)))
    step = draw(st.floats(0.01, 5.0))
    return Affine(weights, intercept, InputGrid.of(features, minimum, minimum + span, step))


def extreme_rows(model: QuantizedModel, grid: InputGrid, classes: int = 12) -> NDArray[np.int64]:
    """Rows on the grid at the extremes: all features at a bound, and each class's extreme scores.

    Args:
        model: the integer model.
        grid: its range.
        classes: how many classes at most get rows of their own.

    Returns:
        int64 (2 + 2 min(classes, score_count), feature_count).
    """
    signs = np.sign(model.weights[:classes])
    bounds = np.concatenate([np.ones_like(signs[:1]), -np.ones_like(signs[:1]), signs, -signs])
    return np.where(bounds > 0, grid.levels, 0)


def features_of(grid: InputGrid, quantized_rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the features (rows, feature_count) that `quantize` rounds to these integers."""
    features: NDArray[np.float64] = np.minimum(grid.minimum + quantized_rows * grid.step, grid.maximum)
    return features


def random_rows(grid: InputGrid, count: int, seed: int = 0) -> NDArray[np.int64]:
    """Rows anywhere on the grid: int64 (count, feature_count)."""
    return np.random.default_rng(seed).integers(0, grid.levels, (count, grid.feature_count), endpoint=True)


def integer_scores(model: QuantizedModel, rows: NDArray[np.int64]) -> Integers:
    """Score rows in Python integers: (rows, score_count)."""
    scores: Integers = rows.astype(object) @ model.weights.T.astype(object) + np.array(model.intercept, object)
    return scores
