"""Open steps: transformers that are not affine, each as the steps that are published for it.

To add a transformer, write its rule and enter it in `OPEN_STEPS`. A rule yields what the
transformer does in turn; what is affine at its end stays private.
"""

from collections.abc import Callable, Iterator
from math import comb
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer, TfidfTransformer, TfidfVectorizer
from sklearn.impute import MissingIndicator, SimpleImputer
from sklearn.kernel_approximation import RBFSampler
from sklearn.preprocessing import (
    Binarizer,
    FunctionTransformer,
    KBinsDiscretizer,
    Normalizer,
    OneHotEncoder,
    OrdinalEncoder,
    PolynomialFeatures,
    PowerTransformer,
    QuantileTransformer,
    SplineTransformer,
)

from sealserve.protocol.text import counted, printable
from sealserve.steps.arithmetic import Affine as PublishedAffine
from sealserve.steps.arithmetic import Matrix, Monomials, Norm, Normalize
from sealserve.steps.elementwise import Elementwise, Function
from sealserve.steps.gaps import Impute, Missing
from sealserve.steps.intervals import Bins, BinsColumn, Table, TableColumn
from sealserve.steps.limits import MAX_FACTORS
from sealserve.steps.step import Step as PublishedStep
from sealserve_service.models import category_steps, spline_steps, text_steps
from sealserve_service.models.affine import Affine
from sealserve_service.models.arrays import fitted_width, matrix, vector
from sealserve_service.models.limits import MAX_WEIGHTS, check_limit
from sealserve_service.models.pipeline_steps import Node, OpenStep, Step, rows_told_by_quantiles

LEFT_TO_THE_APPLICATION = (
    "To leave it to the application, with the steps before it, serve pipeline[k:], where k counts them, and call "
    "client.predict(pipeline[:k].transform(X))"
)
_QUANTILE_TOLERANCE = 1e-7  # BOUNDS_THRESHOLD of scikit-learn
_FUNCTIONS: dict[Any, Function] = {
    np.abs: Function.ABS,
    np.fabs: Function.ABS,
    np.square: Function.SQUARE,
    np.sqrt: Function.SQRT,
    np.exp: Function.EXP,
    np.expm1: Function.EXPM1,
    np.log: Function.LOG,
    np.log1p: Function.LOG1P,
    np.cos: Function.COS,
    np.sin: Function.SIN,
    np.tanh: Function.TANH,
}


def _one(
    name: str, make: Callable[[NDArray[np.intp]], PublishedStep], width: int, tells: str, **options: Any
) -> OpenStep:
    """Return the open step of a transformer that is one published step."""
    return OpenStep(name, width, lambda add, inputs: add(make(inputs)), tells, **options)


def _function(transformer: FunctionTransformer, name: str) -> Iterator[Node]:
    if transformer.func is np.clip and (ends := _ends(transformer.kw_args or {})):
        count = fitted_width(transformer)
        low, high = (np.broadcast_to(np.asarray(end, np.float64), count) for end in ends)
        yield _one(name, lambda inputs: Elementwise(inputs, Function.CLIP, low, high), count, "its ends")
        return
    known = next((found for function, found in _FUNCTIONS.items() if function is transformer.func), None)
    if known is None or transformer.kw_args:
        function = getattr(transformer.func, "__name__", type(transformer.func).__name__)
        raise ValueError(
            f"its function {printable(str(function))!r} is not one that clients know. {LEFT_TO_THE_APPLICATION}"
        )
    yield _one(name, lambda inputs: Elementwise(inputs, known), fitted_width(transformer), "its function")


def _ends(said: dict[str, Any]) -> tuple[Any, Any] | None:
    """Return the ends of numpy.clip; None if there are not both."""
    for low, high in (("a_min", "a_max"), ("min", "max")):
        if said.keys() == {low, high} and said[low] is not None and said[high] is not None:
            return said[low], said[high]
    return None


def _binarizer(transformer: Binarizer, name: str) -> Iterator[Node]:
    count = fitted_width(transformer)
    thresholds = np.full(count, float(transformer.threshold))
    yield _one(name, lambda inputs: Elementwise(inputs, Function.GREATER, thresholds), count, "its threshold")


def _imputer(imputer: SimpleImputer, name: str) -> Iterator[Node]:
    statistics = np.asarray(imputer.statistics_)
    is_text = any(isinstance(value, str) for value in statistics.tolist())
    kept = np.arange(len(statistics))
    if not is_text:
        statistics = statistics.astype(np.float64)
        if not imputer.keep_empty_features:
            kept = np.flatnonzero(~np.isnan(statistics))
    missing = imputer.missing_values
    if isinstance(missing, str) or (is_text and not (missing is None or missing != missing)):
        raise ValueError(f"its missing_values {printable(str(missing))!r} is a text: use numpy.nan or None")
    number = None if missing is None or missing != missing else float(missing)
    flagged = np.asarray(imputer.indicator_.features_, np.intp) if imputer.indicator_ is not None else kept[:0]

    def emit(add: Any, inputs: NDArray[np.intp]) -> NDArray[np.intp]:
        chosen = inputs[kept]
        filled: NDArray[np.intp] = (
            add(Impute(chosen, texts=tuple(statistics[kept].tolist())))
            if is_text
            else add(Impute(chosen, numbers=statistics[kept], missing_number=number))
        )
        if len(flagged):
            filled = np.concatenate([filled, add(Missing(inputs[flagged], missing_number=number))])
        return filled

    tells = f"the {imputer.strategy} of {counted(len(kept), 'columns')}"
    if imputer.strategy == "constant":
        tells = "its constants"
    yield OpenStep(name, len(kept) + len(flagged), emit, tells)


def _missing_indicator(indicator: MissingIndicator, name: str) -> Iterator[Node]:
    flagged, missing = np.asarray(indicator.features_, np.intp), indicator.missing_values
    number = None if missing is None or missing != missing else float(missing)
    yield _one(
        name,
        lambda inputs: Missing(inputs[flagged], missing_number=number),
        len(flagged),
        "which columns had gaps in training",
    )


def _bins(discretizer: KBinsDiscretizer, name: str) -> Iterator[Node]:
    columns = [BinsColumn(np.asarray(edges, np.float64)[1:-1]) for edges in discretizer.bin_edges_]
    one_hot = discretizer.encode != "ordinal"
    width = sum(column.bin_count for column in columns) if one_hot else len(columns)
    what = {"uniform": "the extremes of each column", "quantile": "quantiles of each column"}
    tells = f"the edges of its bins: {what.get(discretizer.strategy, 'means of clusters of each column')}"
    most = 0 if discretizer.strategy == "uniform" else max(column.bin_count for column in columns)
    rows = rows_told_by_quantiles(most, "n_bins")
    yield _one(name, lambda inputs: Bins(inputs, columns, one_hot=one_hot), width, tells, training_values=rows)


def _polynomials(features: PolynomialFeatures, name: str) -> Iterator[Node]:
    count = fitted_width(features)
    most = int(np.max(features.degree))
    # Before scikit-learn makes a list of them: a file of a few bytes may ask for any number.
    check_limit("degrees of a polynomial", MAX_FACTORS, most)
    orders = range(min(most, count) + 1 if features.interaction_only else most + 1)
    ways = (comb(count, k) if features.interaction_only else comb(count + k - 1, k) for k in orders)
    check_limit("factors of products", MAX_WEIGHTS, sum(ways) * count)
    powers = np.asarray(features.powers_, np.intp)
    degrees = powers.sum(axis=1)
    factors = np.concatenate([np.repeat(np.arange(powers.shape[1]), row) for row in powers]).astype(np.intp)
    tells = "which products of columns there are"
    yield _one(name, lambda inputs: Monomials(inputs, degrees, factors), len(powers), tells)


def _power(transformer: PowerTransformer, name: str) -> Iterator[Node]:
    function = {"yeo-johnson": Function.YEO_JOHNSON, "box-cox": Function.BOX_COX}[transformer.method]
    lambdas = vector(transformer.lambdas_)
    tells = f"an exponent of each of {len(lambdas)} columns"
    yield _one(name, lambda inputs: Elementwise(inputs, function, lambdas), len(lambdas), tells)
    if transformer.standardize:
        scaler = transformer._scaler
        factor = 1.0 / vector(scaler.scale_)
        yield Step(name, Affine(factor, -vector(scaler.mean_) * factor), scaler)


def _quantiles(transformer: QuantileTransformer, name: str) -> Iterator[Node]:
    quantiles, references = matrix(transformer.quantiles_), vector(transformer.references_)
    is_normal = transformer.output_distribution == "normal"
    tolerance = _QUANTILE_TOLERANCE if is_normal else 0.0
    columns = [TableColumn(xs, references, tolerance) for xs in quantiles.T]
    edge = _QUANTILE_TOLERANCE - np.spacing(1)
    low, high = (np.full(len(columns), float(norm.ppf(p))) for p in (edge, 1 - edge))

    def emit(add: Any, inputs: NDArray[np.intp]) -> NDArray[np.intp]:
        outputs: NDArray[np.intp] = add(Table(inputs, columns))
        if is_normal:
            outputs = add(Elementwise(outputs, Function.NORMAL_QUANTILE, low, high))
        return outputs

    tells = f"{len(references)} quantiles of each of {len(columns)} columns"
    rows = rows_told_by_quantiles(len(references), "n_quantiles")
    yield OpenStep(name, len(columns), emit, tells, training_values=rows)


def _normalizer(normalizer: Normalizer, name: str) -> Iterator[Node]:
    kind, count = Norm(normalizer.norm), fitted_width(normalizer)
    yield _one(name, lambda inputs: Normalize(inputs, kind), count, "that rows are normalized")


def _fourier(sampler: RBFSampler, name: str) -> Iterator[Node]:
    weights, offsets = matrix(sampler.random_weights_).T, vector(sampler.random_offset_)

    def emit(add: Any, inputs: NDArray[np.intp]) -> NDArray[np.intp]:
        outputs: NDArray[np.intp] = add(Elementwise(add(Matrix(inputs, weights, offsets)), Function.COS))
        return outputs

    yield OpenStep(name, len(weights), emit, "random numbers, and gamma: nothing of the training rows")
    scale = np.full(len(weights), np.sqrt(2.0 / len(weights)))
    yield Step(name, Affine(scale, np.zeros(len(weights))))


def clipped_scaler(scaler: Any, name: str) -> OpenStep:
    """Return the step of a MinMaxScaler or MaxAbsScaler that clips."""
    factor, count = vector(scaler.scale_), fitted_width(scaler)
    low, high = getattr(scaler, "feature_range", (-1.0, 1.0))
    ends = np.full(count, float(low)), np.full(count, float(high))

    def emit(add: Any, inputs: NDArray[np.intp]) -> NDArray[np.intp]:
        scaled = PublishedAffine(inputs, multiply=factor, add=vector(scaler.min_)) if hasattr(scaler, "min_") else None
        outputs: NDArray[np.intp] = add(scaled or PublishedAffine(inputs, divide=factor))
        outputs = add(Elementwise(outputs, Function.CLIP, *ends))
        return outputs

    return OpenStep(name, count, emit, "the least and the greatest value of each column")


OPEN_STEPS: dict[type, Callable[[Any, str], Iterator[Node]]] = {
    SimpleImputer: _imputer,
    MissingIndicator: _missing_indicator,
    OneHotEncoder: category_steps.one_hot,
    OrdinalEncoder: category_steps.ordinal,
    KBinsDiscretizer: _bins,
    Binarizer: _binarizer,
    PolynomialFeatures: _polynomials,
    SplineTransformer: spline_steps.splines,
    PowerTransformer: _power,
    QuantileTransformer: _quantiles,
    Normalizer: _normalizer,
    RBFSampler: _fourier,
    FunctionTransformer: _function,
    CountVectorizer: text_steps.counts,
    TfidfVectorizer: text_steps.weighted_counts,
    TfidfTransformer: text_steps.term_weights,
    HashingVectorizer: text_steps.hashes,
}
