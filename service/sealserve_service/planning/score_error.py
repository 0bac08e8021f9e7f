"""Errors of a plan's scores: what is expected of them, and what calibration rows show.

A score's error has two parts: the rounding of features onto the grid, and the rounding of weights
and intercept. With x = minimum + step x_int + d, the error of class k is

    (W_int / s - W step)_k x_int + (b_int / s - b - W minimum)_k - W_k d

`expected_rms` is its root mean square, with the parts of different features taken as independent:
the signs of roundings are as good as random. What is known of x_int and d are their `Moments`: of
calibration rows, or else of features that are uniform over the declared range.

Features of an exclusive group are not independent: the product of two of their x_int is always 0.
So a weighted sum of them has the variance

    sum r_j^2 E[x_j^2] - (sum r_j E[x_j])^2

`observe` computes the error itself on calibration rows, against the scores of the plaintext model.
It also computes what decides a label: for each row the margin of its label, and the root mean
square of the error of that margin over all rows.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sealserve.he.quantization import InputGrid, QuantizedModel
from sealserve.he.row_constraints import RowConstraints
from sealserve.protocol.output import Output, Pairwise, Task
from sealserve.protocol.refusal import RefusedFeatures
from sealserve_service.models.errors import InputRangeError
from sealserve_service.models.linear_model import LinearModel

_LEAST_PROBABILITY = 1e-9
_BLOCK_NUMBERS = 1 << 22  # of float64 at once, 32 MB
_erfc = np.vectorize(math.erfc, otypes=[np.float64])


@dataclass(frozen=True, eq=False, kw_only=True)
class Moments:
    """What an expected error depends on: moments of the features, float64 (feature_count,).

    Attributes:
        mean: of x_int.
        variance: of x_int.
        rounding: the mean square of d, what rounding onto the grid takes from a feature.
        constraints: the features' exclusive groups.
    """

    mean: NDArray[np.float64]
    variance: NDArray[np.float64]
    rounding: NDArray[np.float64]
    constraints: RowConstraints = field(default_factory=RowConstraints)

    @classmethod
    def uniform(cls, grid: InputGrid) -> "Moments":
        """Moments of features that are uniform over the declared range.

        Of a group, each feature is at its maximum as often as any other, and as none where none may
        be. Rows of a norm R point into all directions alike: n features have a mean square of
        R^2 / n.
        """
        width = grid.maximum - grid.minimum
        # A feature without levels becomes its minimum. One that keeps its grid is not rounded.
        rounding = np.where(grid.levels > 0, np.where(grid.keeps, 0.0, grid.step**2 / 12), width**2 / 3)
        levels, constraints = grid.levels.astype(np.float64), grid.constraints
        mean, variance = levels / 2, levels**2 / 12
        often = np.repeat(1 / (constraints.sizes + ~constraints.exactly_one), constraints.sizes)
        mean[constraints.members] = often * levels[constraints.members]
        variance[constraints.members] = often * (1 - often) * levels[constraints.members] ** 2
        for members, bound in constraints.norms:
            mean[members] = np.where(levels[members] > 0, -grid.minimum[members] / grid.step[members], 0.0)
            variance[members] = np.minimum(bound**2 / len(members) / grid.step[members] ** 2, levels[members] ** 2)
        return cls(mean=mean, variance=variance, rounding=rounding, constraints=constraints)

    def variances(self, coefficients: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the variances (sums,) of sums of coefficients (sums, feature_count) and x_int."""
        squares = self.variance.copy()
        members, starts = self.constraints.members, self.constraints.starts
        squares[members] += self.mean[members] ** 2
        variances: NDArray[np.float64] = coefficients**2 @ squares
        if len(members):
            means = np.add.reduceat(coefficients[:, members] * self.mean[members], starts, axis=1)
            variances = np.maximum(variances - (means**2).sum(axis=1), 0.0)
        return variances


@dataclass(frozen=True, eq=False, kw_only=True)
class Margins:
    """How clearly the plaintext model decides the labels of rows.

    Attributes:
        pairs: of scores, int (pairs, 2), the greater one first; (k, -1) is score k against zero. If
            labels follow from probabilities, their logarithms take the place of scores.
        pair_of: the pairs that decide each row, int (rows, decisions).
        gaps: by how much, float64 (rows, decisions).
    """

    pairs: NDArray[np.intp]
    pair_of: NDArray[np.intp]
    gaps: NDArray[np.float64]

    @classmethod
    def of(cls, output: Output, scores: NDArray[np.float64]) -> "Margins":
        """Return the margins of scores (rows, score_count) of a classifier."""
        scores = _compared(output, scores)
        count, score_count = scores.shape
        if score_count == 1 or output.task is Task.MULTILABEL or output.pairwise is not Pairwise.NONE:
            # Each score is compared with zero. Of pairs of classes, those of the label decide.
            pairs = np.stack([np.arange(score_count), np.full(score_count, -1)], axis=1)
            pair_of = np.broadcast_to(np.arange(score_count), scores.shape)
            if output.pairwise is not Pairwise.NONE:
                pair_of = _pairs_of_label(output, scores)
            return cls(pairs=pairs, pair_of=pair_of, gaps=np.abs(np.take_along_axis(scores, pair_of, axis=1)))
        best = scores.argmax(axis=1)
        others = scores.copy()
        others[np.arange(count), best] = -np.inf
        second = others.argmax(axis=1)
        pairs, pair_of = np.unique(np.stack([best, second], axis=1), axis=0, return_inverse=True)
        gaps = scores[np.arange(count), best] - scores[np.arange(count), second]
        return cls(pairs=pairs, pair_of=pair_of.reshape(count, 1), gaps=gaps[:, None])

    def disagreement(self, mean_squares: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the probability of another label for each row, float64 (rows,).

        Args:
            mean_squares: of the error of each pair's gap, (pairs,). An error is taken as normal.
        """
        sigma = np.sqrt(mean_squares)[self.pair_of]
        with np.errstate(divide="ignore", invalid="ignore"):
            distance = np.where(sigma > 0, self.gaps / sigma, np.inf)  # equal classes tie either way
        stays = 1 - _erfc(distance / math.sqrt(2)) / 2
        disagreement: NDArray[np.float64] = 1 - stays.prod(axis=1)
        return disagreement


@dataclass(eq=False, kw_only=True)
class CalibrationScores:
    """Calibration rows, and the plaintext model's scores of them.

    Attributes:
        rows: float64 (rows, feature_count).
        scores: of the plaintext model, float64 (rows, score_count).
        margins: of a classifier's labels; None for a regression.
        outside_share: of other rows like these, the share that is expected to be out of range.
        names: of the features' columns; empty if they have none.
    """

    rows: NDArray[np.float64]
    scores: NDArray[np.float64]
    margins: Margins | None
    outside_share: float = 0.0
    names: tuple[str, ...] = ()
    _last: "tuple[InputGrid, OnGrid] | None" = None

    @classmethod
    def of(cls, model: LinearModel, rows: NDArray[np.generic], *, outside_share: float = 0.0) -> "CalibrationScores":
        """Score rows (rows, column_count) by the plaintext model.

        Raises:
            UnsupportedModelError: the model is not what the estimator computes.
        """
        numbers = model.features(rows)
        scores = model.expected_scores(numbers if model.published is None else rows)
        is_regression = model.output.task is Task.REGRESSION
        margins = None if is_regression else Margins.of(model.output, scores)
        return cls(
            rows=numbers,
            scores=scores,
            margins=margins,
            outside_share=outside_share,
            names=model.names_on_grid,
        )

    def on(self, grid: InputGrid) -> "OnGrid":
        """Put the rows on a grid. Plans of one grid come one after another: the last is kept.

        Raises:
            InputRangeError: a row is not finite, or the grid refuses it.
        """
        if self._last is None or self._last[0] is not grid:
            self._last = None  # before the next one takes as much memory
            self._last = grid, OnGrid.of(grid, self.rows, self.names)
        return self._last[1]


@dataclass(frozen=True, eq=False, kw_only=True)
class OnGrid:
    """Rows on a grid.

    Attributes:
        integers: x_int, int64 (rows, feature_count).
        moments: of the rows.
    """

    integers: NDArray[np.int64]
    moments: Moments

    @classmethod
    def of(cls, grid: InputGrid, rows: NDArray[np.float64], names: Sequence[str] = ()) -> "OnGrid":
        """Put rows (rows, feature_count) on a grid. `names` are those of the features' columns.

        Raises:
            InputRangeError: a row is not finite, or the grid refuses it.
        """
        integers, is_refused = grid.quantize(rows)
        if is_refused.any():
            raise InputRangeError(
                f"calibration rows do not fit what is declared: {RefusedFeatures.of(grid, rows).in_words(names)}: "
                "declare other ranges or steps, or leave the rows out"
            )
        mean = integers.mean(axis=0)
        squares, rounding = np.zeros((2, grid.feature_count))
        for part in _blocks(*integers.shape):
            squares += ((integers[part] - mean) ** 2).sum(axis=0)
            rounding += ((rows[part] - grid.minimum - grid.step * integers[part]) ** 2).sum(axis=0)
        return cls(
            integers=integers,
            moments=Moments(
                mean=mean,
                variance=squares / len(rows),
                rounding=rounding / len(rows),
                constraints=grid.constraints,
            ),
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class ScoreErrors:
    """The errors that calibration rows show: what a client would see of them.

    Encryption changes nothing: the decrypted integers equal this plaintext arithmetic.

    Attributes:
        maximum: the largest |score - plaintext model's score|.
        rms: the root mean square of each score's error, float64 (score_count,).
        label_rms: the same, of several classes without what their errors have in common.
        row_count: the number of rows.
        has_labels: false for a regression: the next two mean nothing then.
        other_labels: of how many rows the predicted label is not the plaintext model's.
        disagreement: the expected share of such rows, and its standard error.
    """

    maximum: float
    rms: NDArray[np.float64]
    label_rms: NDArray[np.float64]
    row_count: int
    has_labels: bool
    other_labels: int
    disagreement: tuple[float, float]


def expected_rms(
    weights: NDArray[np.float64],
    intercept: NDArray[np.float64],
    grid: InputGrid,
    model: QuantizedModel,
    moments: Moments,
    *,
    is_centred: bool = False,
) -> NDArray[np.float64]:
    """Return the expected root mean square of each score's error, float64 (score_count,).

    Args:
        weights: (score_count, feature_count).
        intercept: (score_count,).
        grid: the input grid.
        model: the integer model.
        moments: of the features.
        is_centred: leave out what the errors of all classes have in common, which changes no label.
    """
    # What an exactly-one group has in common is in the intercept, and is no error of either.
    on_grid, common = grid.centered(weights * grid.step)
    residual = model.weights / model.score_scale - on_grid
    base = np.array([value / model.score_scale for value in model.intercept])
    base -= intercept + weights @ grid.minimum + common
    if is_centred:
        weights, residual, base = (values - values.mean(axis=0) for values in (weights, residual, base))
    bias = base + residual @ moments.mean
    rms: NDArray[np.float64] = np.sqrt(weights**2 @ moments.rounding + moments.variances(residual) + bias**2)
    return rms


def observe(output: Output, grid: InputGrid, model: QuantizedModel, rows: CalibrationScores) -> ScoreErrors:
    """Compare an integer model's scores of calibration rows with those of the plaintext model."""
    integers = rows.on(grid).integers
    scale, margins = model.score_scale, rows.margins
    intercept = np.array([value / scale for value in model.intercept])
    in_units = (model.weights / scale).T
    count, score_count = rows.scores.shape
    is_centred = output.compares_scores
    maximum, other_labels, squares, label_squares = 0.0, 0, np.zeros(score_count), np.zeros(score_count)
    pair_squares = np.zeros(0 if margins is None else len(margins.pairs))
    for part in _blocks(count, max(*model.weights.shape, len(pair_squares))):
        scores = integers[part] @ in_units + intercept
        errors = scores - rows.scores[part]
        maximum = max(maximum, float(np.abs(errors).max()))
        squares += (errors**2).sum(axis=0)
        centred = errors - errors.mean(axis=1, keepdims=True) if is_centred else errors
        label_squares += (centred**2).sum(axis=0)
        if margins is not None:
            first, second = margins.pairs.T
            if output.decides_by_probabilities:
                errors = _compared(output, scores) - _compared(output, rows.scores[part])
            pair_squares += ((errors[:, first] - np.where(second < 0, 0.0, errors[:, second])) ** 2).sum(axis=0)
            differ = output.predict(scores) != output.predict(rows.scores[part])
            other_labels += int(differ.reshape(len(differ), -1).any(axis=1).sum())
    disagreement = (0.0, 0.0)
    if margins is not None:
        shares = margins.disagreement(pair_squares / count)
        disagreement = float(shares.mean()), float(shares.std()) / math.sqrt(count)
    return ScoreErrors(
        maximum=maximum,
        rms=np.sqrt(squares / count),
        label_rms=np.sqrt(label_squares / count),
        row_count=count,
        has_labels=margins is not None,
        other_labels=other_labels,
        disagreement=disagreement,
    )


def _compared(output: Output, scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the numbers that a label follows from, (rows, numbers).

    They are the scores, unless labels follow from averaged probabilities: then they are logarithms
    of these, whose errors depend little on how far a row is from the threshold.
    """
    if not output.decides_by_probabilities:
        return scores
    logarithms: NDArray[np.float64] = np.log(np.maximum(output.predict_proba(scores), _LEAST_PROBABILITY))
    return logarithms


def _pairs_of_label(output: Output, scores: NDArray[np.float64]) -> NDArray[np.intp]:
    """Return the pairs that the label of each row is in, int (rows, classes - 1)."""
    class_count = len(output.classes)
    pair_of_classes = np.zeros((class_count, class_count), np.intp)
    firsts, seconds = np.triu_indices(class_count, 1)
    pair_of_classes[firsts, seconds] = pair_of_classes[seconds, firsts] = np.arange(len(firsts))
    is_other = ~np.eye(class_count, dtype=np.bool_)
    pairs_of_class = pair_of_classes[is_other].reshape(class_count, class_count - 1)
    pairs: NDArray[np.intp] = pairs_of_class[output.class_indices(scores)]
    return pairs


def _blocks(row_count: int, numbers_a_row: int) -> Iterator[slice]:
    """Yield slices of rows, in order, so small that their arrays take little memory."""
    size = max(1, _BLOCK_NUMBERS // numbers_a_row)
    yield from (slice(first, first + size) for first in range(0, row_count, size))
