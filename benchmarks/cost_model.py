"""The cost model of the service: unit costs, timed alone in this process, times their number."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from statistics import median

import numpy as np
from threadpoolctl import threadpool_limits

from sealserve.he import _seal
from sealserve.he.parameters import EncryptionParameters, ParameterSet
from sealserve.he.quantization import InputGrid
from sealserve.he.seal_format import CiphertextFormat
from sealserve.he.secret.encryptor import Encryptor
from sealserve.protocol.wire import scores_to_proto
from sealserve.secret_key import SecretKey
from sealserve.secret_key_access import TOKEN
from sealserve_service.engines.linear.column import ColumnEngine, ColumnScoring, folds
from sealserve_service.engines.linear.row import RowEngine, RowScoring
from sealserve_service.planning.column import COLUMN_RULES, ColumnPlan
from sealserve_service.planning.row import ROW_RULES, RowPlan
from tests.support.plans import cheapest_plan

_CALLS = 30
_POLYNOMIALS = 8


def timed(work: Callable[[], object], calls: int = _CALLS) -> float:
    """Time work: median seconds of a call."""
    samples = []
    for _ in range(calls):
        start = time.perf_counter()
        work()
        samples.append(time.perf_counter() - start)
    return median(samples)


@dataclass(frozen=True)
class RowUnits:
    """Seconds of what a row item is made of.

    Attributes:
        forward: checking, loading and transforming a ciphertext.
        product: of a ciphertext and weights, and its sum with another.
        polynomial: an inverse transform, and that polynomial's part of the reply.
        item: what is left, however small an item.
    """

    forward: float
    product: float
    polynomial: float
    item: float


@cache
def row_units(parameters: EncryptionParameters) -> RowUnits:
    """Time what a row item is made of."""
    set_ = parameters.parameter_set
    plan = _row_plan(set_, 1)
    one, many = RowEngine(plan), RowEngine(_row_plan(set_, _POLYNOMIALS))
    ciphertexts = [one.random_ciphertext()]
    ((weights,),) = one.weights

    def loaded() -> RowScoring:
        scoring = RowScoring(one, 1, one.writer)
        scoring.add(ciphertexts)
        return scoring

    (block,) = loaded()._blocks
    total = one.evaluator.multiply_plain(block, weights)
    forward = timed(loaded)
    product = timed(lambda: one.evaluator.add_inplace(total, one.evaluator.multiply_plain(block, weights)))

    def whole(engine: RowEngine) -> float:
        def score() -> None:
            scoring = RowScoring(engine, 1, engine.writer)
            scoring.add(ciphertexts)
            scores_to_proto(0, list(scoring.finish()))

        return timed(score)

    least = whole(one)
    polynomial = (whole(many) - least) / (_POLYNOMIALS - 1) - product
    return RowUnits(forward, product, polynomial, max(0.0, least - forward - product - polynomial))


def _row_plan(parameter_set: ParameterSet, polynomials: int) -> RowPlan:
    """Plan one ciphertext and a number of polynomials, with a class in each."""
    weights = np.ones((polynomials, parameter_set.poly_modulus_degree))
    grid = InputGrid.of(weights.shape[1], 0.0, 1.0, 1.0)
    return cheapest_plan(ROW_RULES, weights, np.zeros(polynomials), grid, parameter_sets=[parameter_set])


def row_server_seconds(plan: RowPlan) -> float:
    """Model a row item: transforms of the request, products, inverse transforms of the reply."""
    units, ciphertexts, polynomials = row_units(plan.parameters), plan.packing.ciphertexts, plan.packing.polynomials
    products = ciphertexts * polynomials * units.product
    return units.item + ciphertexts * units.forward + products + polynomials * units.polynomial


@cache
def read_bytes_a_second() -> float:
    """Measure how fast one core widens 32-bit limbs from memory to float64: bytes a second.

    The limbs come from memory, not from a cache.
    """
    limbs = np.ones((256, 32, 8192), np.uint32)
    wide = np.empty(limbs.shape[1:])

    def widen() -> None:
        for some in limbs:
            np.copyto(wide, some)

    return limbs.nbytes / timed(widen, 3)


@cache
def check_seconds(parameters: EncryptionParameters) -> float:
    """Time the check of a batch's ciphertext, coefficient by coefficient."""
    form = CiphertextFormat(parameters.parameter_set, _seal.fresh_parms_id(_seal.context(parameters)))
    key = SecretKey.generate(parameters.parameter_set).export(TOKEN)
    zeros = np.zeros(parameters.parameter_set.poly_modulus_degree, np.uint64)
    data = [Encryptor(parameters, key).encrypt(zeros) for _ in range(32)]
    return timed(lambda: form.checked_residues(data)) / len(data)


@cache
def multiplied_a_second(score_count: int) -> float:
    """Measure how many products and sums a second one core makes of float64 matrices.

    The matrices have the shapes of the column engine's.
    """
    weights, limbs = np.ones((score_count, 32)), np.ones((32, 8192))
    sums = np.zeros((score_count, 8192))

    def multiply() -> None:
        nonlocal sums
        sums += weights @ limbs

    with threadpool_limits(1, user_api="blas"):
        return score_count * 32 * 8192 / timed(multiply)


@cache
def fold_and_reply_seconds(parameters: EncryptionParameters) -> tuple[float, float]:
    """Seconds of a fold and of the reply's message, a class."""
    set_ = parameters.parameter_set
    grid = InputGrid.of(1, 0.0, 1.0, 1.0)
    plan = cheapest_plan(COLUMN_RULES, np.ones((1, 1)), np.zeros(1), grid, parameter_sets=[set_])
    engine = ColumnEngine(plan)
    scoring = ColumnScoring(engine, engine.packing.rows, engine.writer)
    scoring.add([engine.random_ciphertext()])
    return timed(scoring.fold), timed(lambda: scores_to_proto(0, list(scoring.finish())))


def column_server_seconds(plan: ColumnPlan) -> float:
    """Model a column item: checks, bytes over bandwidth, products over BLAS's rate, and the rest.

    The rest is folds and the reply.
    """
    score_count, ciphertexts = plan.packing.score_count, plan.packing.ciphertexts
    checks = ciphertexts * check_seconds(plan.parameters)
    products = plan.request_bytes / 4 * score_count / multiplied_a_second(score_count)
    fold, reply = fold_and_reply_seconds(plan.parameters)
    ends = score_count * (len(folds(plan.model.weights)) * fold + reply)
    return checks + plan.request_bytes / read_bytes_a_second() + products + ends
