"""The column engine is exact: its replies decrypt to the integers of plaintext arithmetic."""

import logging
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sealserve._codec.codec import RowCodec
from sealserve._codec.offers import choose
from sealserve.errors import CiphertextFault, MalformedCiphertextError, PlanError
from sealserve.he.layouts import LAYOUTS
from sealserve.he.parameters import ParameterSet
from sealserve.he.quantization import InputGrid
from sealserve_service.catalog.registry import prepare_model
from sealserve_service.engines.linear.column import MAX_HELD_BYTES, ColumnEngine, folds
from sealserve_service.planning.column import ColumnPlan
from sealserve_service.tenants.tenant import ANONYMOUS
from tests.support.affine_models import (
    WEIGHTS,
    Affine,
    affine,
    affine_models,
    extreme_rows,
    integer_scores,
    random_rows,
)
from tests.support.column_round_trip import ColumnRoundTrip, plan_of
from tests.support.plans import column_plans, plan_column
from tests.support.seeded import seeded
from tests.support.serving import LIMITS, linear

every_set = pytest.mark.parametrize(
    "parameter_set", LAYOUTS["column"].open_parameter_sets, ids=lambda parameter_set: parameter_set.name
)
chunkings: st.SearchStrategy[list[int]] = st.lists(st.integers(1, 40), max_size=80) | st.just([1] * 80) | st.just([])
SMALLEST = LAYOUTS["column"].open_parameter_sets[0]


def assert_exact(plan: ColumnPlan, rows: NDArray[np.int64], row_counts: list[int], chunks: list[int]) -> None:
    """Score a number of rows, the given ones over and over, in batches fed in chunks."""
    exchange, expected = ColumnRoundTrip(plan), integer_scores(plan.model, rows)
    for row_count in row_counts:
        repeated = np.arange(row_count) % len(rows)
        ciphertexts = exchange.encrypted(rows[repeated])
        np.testing.assert_array_equal(exchange.decrypted(ciphertexts, row_count, chunks), expected[repeated])


def assert_model_exact(model: Affine, plans: list[ColumnPlan], chunks: tuple[int, ...] = (1, 30, 2)) -> None:
    """Score the extreme rows, and some in between, in a full batch and in one of a single row."""
    assert plans
    for plan in plans:
        rows = np.concatenate([extreme_rows(plan.model, model.grid), random_rows(model.grid, 3)])
        assert_exact(plan, rows, [1, plan.packing.rows], list(chunks))


# Exactness, through encryption and decryption


@settings(deadline=None, max_examples=40)
@given(affine_models(), st.sampled_from(LAYOUTS["column"].open_parameter_sets), st.data())
def test_any_model_any_batch_any_chunks(model: Affine, parameter_set: ParameterSet, data: st.DataObject) -> None:
    plans = column_plans(*model.planned, parameter_sets=[parameter_set])
    assume(plans)  # the intercepts may be beyond any scale
    N = parameter_set.poly_modulus_degree
    row_count = data.draw(st.sampled_from([1, 2, N // 2 + 1, N - 1, N]) | st.integers(1, N), "rows")
    rows = np.concatenate([extreme_rows(plans[0].model, model.grid), random_rows(model.grid, 20)])
    assert_exact(plans[0], rows, [row_count], data.draw(chunkings, "chunks"))


@every_set
@pytest.mark.parametrize("kind", WEIGHTS)
def test_weights_of_every_kind(kind: str, parameter_set: ParameterSet) -> None:
    model = affine(kind, (5, 50))
    assert_model_exact(model, column_plans(*model.planned, parameter_sets=[parameter_set]))


@every_set
@pytest.mark.parametrize("shape", [(10, 1), (10, 300), (1, 64), (40, 20)], ids=str)
def test_shapes(shape: tuple[int, int], parameter_set: ParameterSet) -> None:
    model = affine("normal", shape)
    assert_model_exact(model, column_plans(*model.planned, parameter_sets=[parameter_set]))


def test_weights_that_are_multiples_of_t() -> None:
    constant = InputGrid.of(2, 5.0, 5.0)  # no range, hence a small t, however large the weights
    model = Affine(np.array([[2.0, 1.0]]), np.array([0.5]), constant)
    plans = column_plans(*model.planned)
    assert not (plans[0].model.weights % plans[0].parameters.plain_modulus).any()
    assert_model_exact(model, plans)


@pytest.mark.parametrize("second", [2**21 - 3, 2**21 - 2])
def test_scores_that_span_t(second: int) -> None:
    weights = [2**21, -second, -1]  # no fewer bits hold the last
    model = Affine(np.array([weights], float), np.array([1e17]), InputGrid.of(3, 0, 1, 1))
    plans = column_plans(*model.planned)
    assert plans[-1].model.weights.tolist() == [weights]
    assert_model_exact(model, plans)


@pytest.mark.parametrize("number", range(3))
def test_what_a_client_reads(number: int) -> None:
    """The planner's choice through the SDK's own encryption and decryption."""
    model = affine("normal", (10, 784))
    plan = [
        p
        for p in column_plans(*model.planned)
        if p.parameters.parameter_set == LAYOUTS["column"].open_parameter_sets[number]
    ][-1]
    served = prepare_model(
        "model",
        linear(model.weights, model.intercept),
        model.grid,
        LIMITS,
        max_score_error=plan.total_error_bound,
        accept_disagreement=True,
    )
    codec, engine = RowCodec(served.model, offer=choose(served.model, 1, LAYOUTS["column"])), served.engines[1]
    assert codec.offer.parameters == plan.parameters
    rows = np.concatenate([extreme_rows(plan.model, model.grid), random_rows(model.grid, 20)])
    encrypted = codec.encrypt(rows)
    scoring = engine.begin(encrypted.header, ANONYMOUS.name)
    scoring.add(list(encrypted.ciphertexts))
    scores = codec.decrypt(len(rows), list(scoring.finish()))
    np.testing.assert_array_equal(scores, plan.model.scores(rows))


def test_seeded_ciphertexts_among_full_ones() -> None:
    model = affine("normal", (3, 40))
    regression = linear(model.weights, model.intercept)
    served = prepare_model("model", regression, model.grid, LIMITS, accept_disagreement=True)
    codec = RowCodec(served.model, offer=choose(served.model, 1, LAYOUTS["column"]))
    rows = random_rows(model.grid, 100)
    encrypted = codec.encrypt(rows)
    mixed = [seeded(codec, data) if index % 3 else data for index, data in enumerate(encrypted.ciphertexts)]
    assert len(set(map(len, mixed))) == 2
    scoring = served.engines[1].begin(encrypted.header, ANONYMOUS.name)
    scoring.add(mixed[:7])
    scoring.add(mixed[7:])
    expected = plan_column(*model.planned).model.scores(rows)
    np.testing.assert_array_equal(codec.decrypt(100, list(scoring.finish())), expected)


# The matrix product, on residues


def residues_at(pattern: NDArray[np.int64], parameter_set: ParameterSet) -> NDArray[np.uint64]:
    """The residues for which rounding and carries are worst, by number 0..6.

    Shape (features, 2, data primes, N).
    """
    columns = []
    for q in parameter_set.data_primes:
        low, high = (1 << 32) - 1, q >> 32
        values = [q - 1, (high - 1) << 32 | low, high << 32, low, 0, 1, q // 2]
        columns.append(np.array(values, np.uint64)[pattern])
    return np.stack(columns, axis=2)


def some_residues(parameter_set: ParameterSet, features: int, seed: int) -> NDArray[np.uint64]:
    """Residues of any size, every other one of the worst."""
    generator = np.random.default_rng(seed)
    shape = features, 2, parameter_set.poly_modulus_degree
    residues = residues_at(generator.integers(0, 7, shape), parameter_set)
    for index, q in enumerate(parameter_set.data_primes):
        residues[:, :, index, ::2] = generator.integers(0, q, residues[:, :, index, ::2].shape, np.uint64)
    return residues


def assert_products(
    parameter_set: ParameterSet, weights: NDArray[np.int64], residues: NDArray[np.uint64], chunks: list[int]
) -> None:
    """Compare the engine's sums of products with those of Python integers, in some coefficients."""
    found = ColumnRoundTrip(plan_of(parameter_set, weights)).products(residues, chunks)
    some = np.r_[0:20, np.random.default_rng(0).integers(0, found.shape[-1], 50), -20:0]
    products = np.tensordot(weights.astype(object), residues[..., some].astype(object), 1)
    primes = np.array(parameter_set.data_primes, object)[:, None]
    np.testing.assert_array_equal(found[..., some].astype(object), products % primes)


@st.composite
def integer_weights(draw: st.DrawFn) -> NDArray[np.int64]:
    """Weights of at most 2^21, in up to 4 classes and for up to 70 features."""
    most = 1 << 21
    shape = draw(st.integers(1, 4)), draw(st.integers(1, 70))
    weight = st.integers(-most, most) | st.sampled_from([0, 1, -1, most, -most, most // 2, 1 - most])
    size = draw(st.sampled_from([1, 1 << 7, 1 << 15]))  # few folds, or one a feature
    weights = np.array(draw(st.lists(weight, min_size=1, max_size=20)))
    return np.resize(weights, shape) // size


@settings(deadline=None, max_examples=80)
@given(integer_weights(), st.sampled_from(LAYOUTS["column"].open_parameter_sets), chunkings, st.integers(0, 99))
def test_products_of_any_integers(
    weights: NDArray[np.int64], parameter_set: ParameterSet, chunks: list[int], seed: int
) -> None:
    assert_products(parameter_set, weights, some_residues(parameter_set, weights.shape[1], seed), chunks)


MOST = 1 << 21
EXTREMES: dict[str, NDArray[np.int64]] = {
    "one weight of 2^21": np.array([[MOST]]),
    "a fold a feature": np.array([[MOST] * 3, [MOST - 1] * 3]),
    "128 weights of 2^14": np.full((1, 128), 1 << 14),
    "128 weights of 2^14 and 1 more": np.array([[1 << 14] * 128 + [1]]),
    "two folds to the brim": np.full((2, 80), MOST // 40),
    "a class that folds for another": np.array([[1] * 60, [MOST // 20] * 60]),
    "a class without weights": np.array([[0] * 40, [MOST // 20] * 40]),
    "features without weights": np.array([[0, MOST, 0, 0, MOST, 0]]),
}
SIGNS = {
    "positive": lambda weights: weights,
    "negative": lambda weights: -weights,
    "alternating": lambda weights: weights * np.where(np.arange(weights.shape[1]) % 2, -1, 1),
}


@every_set
@pytest.mark.parametrize("signs", SIGNS)
@pytest.mark.parametrize("what", EXTREMES)
def test_products_at_the_edge_of_a_fold(what: str, signs: str, parameter_set: ParameterSet) -> None:
    """Each coefficient has another of the worst residues, the same for all features.

    So nothing evens out.
    """
    weights = SIGNS[signs](EXTREMES[what])
    N = parameter_set.poly_modulus_degree
    pattern = np.broadcast_to(np.arange(N) % 7, (weights.shape[1], 2, N))
    assert_products(parameter_set, weights, residues_at(pattern, parameter_set), [1, 40])


@pytest.mark.parametrize("sign", [1, -1])
def test_float64_holds_a_part_to_the_brim_and_not_one_more(sign: int) -> None:
    """With limbs of 2^32 - 1, beyond any that a residue has."""
    ones = np.full((128, 2, 1, SMALLEST.poly_modulus_degree), 2**64 - 1, np.uint64)
    for total, is_exact in ((MOST, True), (MOST + 1, False)):
        weights = np.full((1, 128), sign << 14)
        weights[0, 60] += sign * (total - MOST)
        sums = np.zeros((1, 4 * SMALLEST.poly_modulus_degree))
        ColumnEngine(plan_of(SMALLEST, weights)).multiply(0, ones, sums)
        assert (int(sums[0, 0]) == sign * total * (2**32 - 1)) is is_exact
        assert (sums == sums[0, 0]).all()


# Folds


@settings(deadline=None, max_examples=200)
@given(integer_weights())
def test_folds_are_as_few_as_the_bound_allows(weights: NDArray[np.int64]) -> None:
    ends = folds(weights).tolist()
    assert ends[-1] == weights.shape[1]
    magnitudes = np.abs(weights)
    for first, end in zip([0, *ends], ends, strict=False):
        assert first < end
        assert magnitudes[:, first:end].sum(axis=1).max() <= MOST
        if end < weights.shape[1]:  # as each part is as long as it can be, no other division has fewer
            assert magnitudes[:, first : end + 1].sum(axis=1).max() > MOST


@pytest.mark.parametrize(
    ("weights", "ends"),
    [
        ([[MOST]], [1]),
        ([[MOST, 1]], [1, 2]),
        ([[MOST, 0, 0]], [3]),
        ([[MOST - 1, 1, 1]], [2, 3]),
        ([[-MOST // 2, MOST // 2, -1]], [2, 3]),
        ([[1 << 14] * 129], [128, 129]),
        ([[1, 1, 1, 1], [MOST, MOST, 0, 1]], [1, 3, 4]),
        ([[0, 0]], [2]),
    ],
    ids=str,
)
def test_examples_of_folds(weights: list[list[int]], ends: list[int]) -> None:
    assert folds(np.array(weights)).tolist() == ends


# Items side by side, costs and faults


def test_items_on_their_way_at_once_do_not_meet() -> None:
    """In one thread and in many, which take turns with the engine's buffers."""
    weights = np.random.default_rng(1).integers(-MOST // 30, MOST // 30, (3, 70))
    batch = ColumnRoundTrip(plan_of(SMALLEST, weights))
    items = [batch.packed(some_residues(SMALLEST, 70, seed)) for seed in range(6)]
    alone = [batch.reply(item, 100) for item in items]
    scorings = [batch.begin(100) for _ in items]
    for first in range(0, 70, 9):
        for scoring, item in zip(scorings, items, strict=True):
            scoring.add(item[first : first + 9])
    assert [list(scoring.finish()) for scoring in scorings] == alone
    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(lambda item: batch.reply(item, 100, [5] * 14), items * 4)) == alone * 4


@every_set
def test_costs_are_those_of_a_full_item(parameter_set: ParameterSet) -> None:
    model = affine("normal", (10, 40))
    *_, plan = column_plans(*model.planned, parameter_sets=[parameter_set])
    batch = ColumnRoundTrip(plan)
    ciphertexts = batch.encrypted(random_rows(model.grid, plan.packing.rows))
    cost = batch.engine.offer.cost
    assert sum(map(len, ciphertexts)) == cost.request_bytes
    assert sum(pair.byte_count for pair in batch.reply(ciphertexts, plan.packing.rows)) == cost.reply_bytes
    assert cost.server_seconds > 0


@every_set
def test_an_item_holds_what_its_offer_says_however_many_features_have_come(parameter_set: ParameterSet) -> None:
    weights = np.full((3, 6), MOST // 2)
    batch = ColumnRoundTrip(plan_of(parameter_set, weights))
    scoring = batch.begin(1)

    def held_bytes() -> int:
        return sum(value.nbytes for value in vars(scoring).values() if isinstance(value, np.ndarray))

    assert held_bytes() < 100, "a header alone costs nothing"
    for data in batch.packed(some_residues(parameter_set, 6, 0)):
        scoring.add([data])
        assert held_bytes() <= batch.engine.offer.cost.held_bytes
    assert held_bytes() == batch.engine.offer.cost.held_bytes


def test_a_reply_has_the_places_of_its_rows_only() -> None:
    batch = ColumnRoundTrip(plan_of(SMALLEST, np.array([[1, -2], [3, 4]])))
    ciphertexts = batch.packed(some_residues(SMALLEST, 2, 0))
    full = batch.reply(ciphertexts, SMALLEST.poly_modulus_degree)
    for row_count in (1, 77):
        for (c0, c1), (full_c0, full_c1) in zip(batch.reply(ciphertexts, row_count), full, strict=True):
            assert (c0, c1) == (full_c0[: 8 * row_count], full_c1)


@every_set
def test_intercepts_are_rounded_not_cut_off(parameter_set: ParameterSet) -> None:
    """Intercepts alone are in the first polynomial where no class has weights.

    Any lift but the nearest costs noise.
    """
    t, intercepts = 1 << 20, (0, 1, -1, (1 << 19) + 1, -(10**30), 10**30)
    plan = plan_of(parameter_set, np.zeros((6, 1), np.int64), intercepts, t)
    products = ColumnRoundTrip(plan).products(some_residues(parameter_set, 1, 0))
    q = parameter_set.modulus
    for product, intercept in zip(products, intercepts, strict=True):
        lifted = {(q * (intercept % t) * 2 + t) // (2 * t)}
        for index, prime in enumerate(parameter_set.data_primes):
            assert set(product[0, index].tolist()) == {value % prime for value in lifted}
        assert not product[1].any()


@pytest.mark.parametrize("spoilt", [0, 4, 8])
def test_a_malformed_ciphertext_is_named_by_its_place_in_the_item(spoilt: int) -> None:
    batch = ColumnRoundTrip(plan_of(SMALLEST, np.full((1, 9), MOST // 4)))
    ciphertexts = batch.packed(some_residues(SMALLEST, 9, 0))
    expected = batch.reply(ciphertexts, 1)
    bad = [*ciphertexts[:spoilt], ciphertexts[spoilt][:-1], *ciphertexts[spoilt + 1 :]]
    with pytest.raises(MalformedCiphertextError) as refused:
        batch.reply(bad, 1, [3, 3])
    assert (refused.value.reason, refused.value.index) == (CiphertextFault.LENGTH, spoilt)
    assert batch.reply(ciphertexts, 1) == expected


def test_ciphertexts_that_cancel_each_other_out() -> None:
    """Only their sender can make them so; the reply, which hides nothing, is right."""
    model = Affine(np.ones((1, 2)), np.array([3.0]), InputGrid.of(2, 0.0, 7.0, 1.0))
    *_, plan = column_plans(*model.planned, parameter_sets=[SMALLEST])
    batch = ColumnRoundTrip(plan)
    first, _ = batch.encrypted(np.array([[5, 0], [6, 1]]))
    (c0, c1), (q,) = batch.engine.format.residues(first), SMALLEST.data_primes
    opposite = batch.engine.format.pack((q - c0) % q, ((q - c1) % q).tobytes())
    (reply,) = batch.reply([first, opposite], 2)
    assert not any(reply.c1)
    assert batch.decrypted([first, opposite], 2).tolist() == [[plan.model.intercept[0]]] * 2


def test_a_batch_that_would_hold_too_much_is_not_offered(caplog: pytest.LogCaptureFixture) -> None:
    bytes_a_class = 6 * SMALLEST.polynomial_bytes
    most = MAX_HELD_BYTES // bytes_a_class
    largest = ColumnEngine(plan_of(SMALLEST, np.ones((most, 1), np.int64)))
    assert largest.offer.cost.held_bytes == most * bytes_a_class <= MAX_HELD_BYTES
    with pytest.raises(PlanError, match=f"a batch with {most + 1} classes would hold 32 MB"):
        ColumnEngine(plan_of(SMALLEST, np.ones((most + 1, 1), np.int64)))
    model = affine("normal", (1000, 4))
    with caplog.at_level(logging.WARNING):
        regression = linear(model.weights, model.intercept)
        served = prepare_model("wide", regression, model.grid, LIMITS, accept_disagreement=True)
    assert [offer.layout for offer in served.model.offers] == [LAYOUTS["row"]]
    assert "model wide is not served in layout column: a batch with 1000 classes would hold 93 MB" in caplog.text


def test_a_model_that_only_rows_can_serve_as_asked(caplog: pytest.LogCaptureFixture) -> None:
    model = affine("normal", (10, 300))
    regression = linear(model.weights, model.intercept)
    wanted = column_plans(*model.planned)[0].input_rounding_error_bound + 1e-6
    with caplog.at_level(logging.WARNING):
        served = prepare_model("fine", regression, model.grid, LIMITS, max_score_error=wanted, accept_disagreement=True)
    assert [offer.layout for offer in served.model.offers] == [LAYOUTS["row"]]
    assert (
        f"model fine is not served in layout column: no parameter set keeps the score error within {wanted:.3g}"
        in caplog.text
    )
    both = prepare_model("coarse", regression, model.grid, LIMITS, accept_disagreement=True)
    assert [offer.layout for offer in both.model.offers] == [LAYOUTS["row"], LAYOUTS["column"]]
    assert both.model.offers[1].cost.held_bytes == 6 * 10 * SMALLEST.polynomial_bytes
