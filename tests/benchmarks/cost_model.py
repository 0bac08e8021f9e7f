"""What the service's time should be made of: unit costs, timed alone in this process, times how often each is due."""

import time
from collections.abc import Callable
from functools import cache
from statistics import median

import numpy as np
from threadpoolctl import threadpool_limits

from sealserve.he import _seal
from sealserve.he.encryptor import Encryptor
from sealserve.he.parameters import EncryptionParameters
from sealserve.he.planner import ColumnPlan, RowPlan, plan_column, plan_row
from sealserve.he.quantization import InputGrid
from sealserve.he.seal_format import CiphertextFormat, pack_plaintext
from sealserve.keys import SecretKey
from sealserve.secret_key_access import TOKEN
from sealserve.wire import scores_to_proto
from sealserve_service.engines import planned
from sealserve_service.engines.column import ColumnEngine, ColumnScoring, folds
from sealserve_service.engines.row import RowEngine, RowScoring

_CALLS = 30
_GRID = InputGrid.of(1, 0.0, 1.0, 1.0)


def timed(work: Callable[[], object], calls: int = _CALLS) -> float:
    """Time work: median seconds of a call."""
    samples = []
    for _ in range(calls):
        start = time.perf_counter()
        work()
        samples.append(time.perf_counter() - start)
    return median(samples)


@cache
def transform_units(parameters: EncryptionParameters) -> tuple[float, float, float]:
    """Seconds of: checking, loading and transforming a ciphertext; a product and a sum; an inverse transform."""
    context = _seal.context(parameters)
    evaluator = _seal.Evaluator(context)
    form = CiphertextFormat(parameters.parameter_set, _seal.fresh_parms_id(context))
    key = SecretKey.generate(parameters.parameter_set).export(TOKEN)
    coefficients = np.random.default_rng(0).integers(
        parameters.plain_modulus, size=parameters.parameter_set.poly_modulus_degree
    )
    packed = pack_plaintext(coefficients.astype(np.uint64))
    data = Encryptor(parameters, key).encrypt(coefficients.astype(np.uint64))
    plaintext = evaluator.transform_to_ntt(_seal.load_plaintext(context, packed), context.first_parms_id())

    def loaded() -> _seal.Ciphertext:
        form.check(data)
        ciphertext = _seal.load_ciphertext(context, data)
        evaluator.transform_to_ntt_inplace(ciphertext)
        return ciphertext

    block = loaded()
    product = evaluator.multiply_plain(block, plaintext)

    def multiply() -> None:
        evaluator.add_inplace(product, evaluator.multiply_plain(block, plaintext))

    def finish() -> None:
        total = evaluator.multiply_plain(block, plaintext)
        evaluator.transform_from_ntt_inplace(total)
        form.residues(_seal.ciphertext_bytes(total))

    product_seconds = timed(multiply)
    return timed(loaded), product_seconds, max(0.0, timed(finish) - product_seconds)


@cache
def item_seconds(parameters: EncryptionParameters) -> float:
    """What a row item takes besides, however small: Python around SEAL's calls, and the message of the reply."""
    set_ = parameters.parameter_set
    engine = RowEngine(plan_row(np.ones((1, 1)), np.zeros(1), _GRID, parameter_sets=[set_]))
    ciphertexts = [planned.noise(engine._plan)]

    def score() -> None:
        scoring = RowScoring(engine, 1)
        scoring.add(ciphertexts)
        scores_to_proto(0, list(scoring.finish()))

    return max(0.0, timed(score) - sum(transform_units(parameters)))


def row_server_seconds(plan: RowPlan) -> float:
    """Model a row item: transforms of what comes, products, inverse transforms of what goes."""
    forward, product, inverse = transform_units(plan.parameters)
    ciphertexts, polynomials = plan.packing.ciphertexts, plan.packing.polynomials
    transforms = ciphertexts * forward + ciphertexts * polynomials * product + polynomials * inverse
    return item_seconds(plan.parameters) + transforms


@cache
def read_bytes_a_second() -> float:
    """How many bytes of 32-bit limbs one core reads from memory, not from a cache, and widens to float64."""
    limbs = np.ones((256, 32, 8192), np.uint32)
    wide = np.empty(limbs.shape[1:])

    def widen() -> None:
        for some in limbs:
            np.copyto(wide, some)

    return limbs.nbytes / timed(widen, 3)


@cache
def check_seconds(parameters: EncryptionParameters) -> float:
    """How long a ciphertext of a batch is checked, coefficient by coefficient."""
    form = CiphertextFormat(parameters.parameter_set, _seal.fresh_parms_id(_seal.context(parameters)))
    key = SecretKey.generate(parameters.parameter_set).export(TOKEN)
    zeros = np.zeros(parameters.parameter_set.poly_modulus_degree, np.uint64)
    data = [Encryptor(parameters, key).encrypt(zeros) for _ in range(32)]
    return timed(lambda: form.checked_residues(data)) / len(data)


@cache
def multiplied_a_second(score_count: int) -> float:
    """How many products and sums one core makes of float64 matrices as the column engine has them."""
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
    engine = ColumnEngine(plan_column(np.ones((1, 1)), np.zeros(1), _GRID, parameter_sets=[set_]))
    scoring = ColumnScoring(engine, engine.packing.rows)
    scoring.add([planned.noise(engine._plan)])
    return timed(scoring.fold), timed(lambda: scores_to_proto(0, list(scoring.finish())))


def column_server_seconds(plan: ColumnPlan) -> float:
    """Model a column item: checks, bytes over bandwidth, products over BLAS's rate, folds, the reply."""
    score_count, ciphertexts = plan.packing.score_count, plan.packing.ciphertexts
    checks = ciphertexts * check_seconds(plan.parameters)
    products = plan.request_bytes / 4 * score_count / multiplied_a_second(score_count)
    fold, reply = fold_and_reply_seconds(plan.parameters)
    ends = score_count * (len(folds(plan.model.weights)) * fold + reply)
    return checks + plan.request_bytes / read_bytes_a_second() + products + ends
