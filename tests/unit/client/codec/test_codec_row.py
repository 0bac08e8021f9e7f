"""Rows to items and replies to scores, against a real engine: exact, and checked."""

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.sparse import csr_array

from sealserve._codec.codec import RowCodec
from sealserve.errors import (
    FeatureCountError,
    FeatureNameError,
    InputError,
    NotFiniteError,
    OutOfRangeError,
    ParameterError,
    ReplyError,
    SecretKeyError,
)
from sealserve.he import _seal
from sealserve.he.layouts import LAYOUTS
from sealserve.he.parameters import EncryptionParameters, ParameterSet
from sealserve.he.quantization import InputGrid, QuantizedModel
from sealserve.he.reply_bits import ReplyBits
from sealserve.protocol.item import EncryptedScores, PackedPair, Residues, SealCiphertext
from sealserve.protocol.key_record import KeyKind
from sealserve.protocol.model import Model
from sealserve.protocol.output import Output, Task
from sealserve.protocol.schema import Schema
from sealserve.secret_key import SecretKey
from sealserve.secret_key_access import TOKEN
from sealserve_service.engines.linear.row import RowEngine
from sealserve_service.planning.row import RowPlan
from sealserve_service.tenants.tenant import ANONYMOUS
from tests.support.plans import plan_row
from tests.support.reply_pairs import unpacked
from tests.support.serving import LIMITS

RANDOM = np.random.default_rng(14)
FEATURES, SCORES = 1000, 3  # two windows in 2048 coefficients: a polynomial of two classes and one of one
WEIGHTS, INTERCEPT = RANDOM.normal(size=(SCORES, FEATURES)), RANDOM.normal(size=SCORES)
GRID = InputGrid.of(FEATURES, -1.0, 1.0)
KEYS = {s: SecretKey.generate(s) for s in LAYOUTS["row"].open_parameter_sets}
SMALLEST = LAYOUTS["row"].open_parameter_sets[0]
SETS = pytest.mark.parametrize("parameter_set", LAYOUTS["row"].open_parameter_sets, ids=lambda s: s.name)


def planned(parameter_set: ParameterSet) -> RowPlan:
    return plan_row(WEIGHTS, INTERCEPT, GRID, max_score_error=20.0, parameter_sets=(parameter_set,))


PLANS = {s: planned(s) for s in LAYOUTS["row"].open_parameter_sets}
assert all(plan.reply_bits for plan in PLANS.values())
ENGINES = {s: RowEngine(plan) for s, plan in PLANS.items()}


def model_of(*engines: RowEngine, grid: InputGrid = GRID, names: tuple[str, ...] = ()) -> Model:
    offers = tuple(engine.offer for engine in engines)
    output = Output(Task.REGRESSION, len(offers[0].score_centers))
    return Model(
        name="model",
        version="1",
        config_id="config",
        schema=Schema(grid.feature_count, names),
        grid=grid,
        output=output,
        offers=offers,
        limits=LIMITS,
    )


def reply_of(engine: RowEngine, codec: RowCodec, quantized: NDArray[np.int64]) -> list[EncryptedScores]:
    item = codec.encrypt(quantized)
    scoring = engine.begin(item.header, ANONYMOUS.name)
    scoring.add(list(item.ciphertexts))
    return list(scoring.finish())


MODEL = model_of(*ENGINES.values())
CODEC = RowCodec(MODEL, KEYS[SMALLEST])
PLAN = PLANS[SMALLEST]
ROW = RANDOM.integers(0, 256, size=(1, FEATURES))
REPLY = reply_of(ENGINES[SMALLEST], CODEC, ROW)
PRIME, N = SMALLEST.primes[0], SMALLEST.poly_modulus_degree


def with_offer(**changes: Any) -> Model:
    return dataclasses.replace(MODEL, offers=(dataclasses.replace(MODEL.offers[0], **changes),))


# Good replies


@SETS
def test_scores_are_the_integer_arithmetic_exactly(parameter_set: ParameterSet) -> None:
    plan, codec = PLANS[parameter_set], RowCodec(MODEL, KEYS[parameter_set])
    assert codec.offer.parameters.parameter_set == parameter_set
    for row_count in {1, plan.packing.rows}:
        quantized = RANDOM.integers(0, 256, size=(row_count, FEATURES))
        reply = reply_of(ENGINES[parameter_set], codec, quantized)
        assert codec.decrypt(row_count, reply).tolist() == plan.model.scores(quantized).tolist()


def test_an_item_says_what_it_is() -> None:
    item = CODEC.encrypt(ROW)
    header = item.header
    assert (header.model, header.config_id, header.layout) == ("model", "config", LAYOUTS["row"])
    assert (header.parameter_set, header.row_count, header.key_id) == ("row-2048-44", 1, "")
    (ciphertext,) = item.ciphertexts
    assert header.ciphertext_count == 1
    assert item.byte_count == len(ciphertext) == ENGINES[SMALLEST].format.full_bytes


def test_rows_of_any_memory_order_are_scored_alike() -> None:
    rows = GRID.minimum + ROW * GRID.step
    wide = np.repeat(np.vstack([rows, rows]), 2, axis=1)
    views: dict[str, Any] = {
        "strided": wide[:1, ::2],
        "of Fortran order": np.asfortranarray(wide[:, ::2])[:1],
        "transposed": rows.T.copy().T,
        "backwards": rows[:, ::-1].copy()[:, ::-1],
        "nested lists": rows.tolist(),
        "a frame": pd.DataFrame(rows),
    }
    expected = PLAN.model.scores(ROW).tolist()
    for name, view in views.items():
        quantized = CODEC.quantize(CODEC.model.schema.rows(view)).integers
        scores = CODEC.decrypt(1, reply_of(ENGINES[SMALLEST], CODEC, quantized))
        assert scores.tolist() == expected, name


# Bad replies


def patched(data: bytes, at: int, residue: int) -> bytes:
    return data[:at] + residue.to_bytes(8, "little") + data[at + 8 :]


UNPACKED_ENGINE = RowEngine(unpacked(PLAN))
UNPACKED = RowCodec(model_of(UNPACKED_ENGINE), KEYS[SMALLEST])
UNPACKED_REPLY = reply_of(UNPACKED_ENGINE, UNPACKED, ROW)
PACKED_PAIRS = [PackedPair(*piece) for piece in REPLY if isinstance(piece, PackedPair)]
FIRST, SECOND = (Residues(*piece) for piece in UNPACKED_REPLY if isinstance(piece, Residues))
BAD_REPLIES: dict[str, Sequence[EncryptedScores]] = {
    "no pieces": [],
    "a piece too few": [FIRST],
    "a piece too many": [FIRST, SECOND, SECOND],
    "a piece of no classes too many": [FIRST, SECOND, Residues(b"", SECOND.c1)],
    "the pieces of two classes and of one exchanged": [SECOND, FIRST],
    "of two rows": [Residues(FIRST.c0 * 2, FIRST.c1), Residues(SECOND.c0 * 2, SECOND.c1)],
    "the first polynomial whole": [Residues(FIRST.c1, FIRST.c1), SECOND],
    "no first polynomial": [Residues(b"", FIRST.c1), SECOND],
    "no second polynomial": [Residues(FIRST.c0, b""), SECOND],
    "empty": [Residues(b"", b""), Residues(b"", b"")],
    "a first polynomial of a byte too few": [Residues(FIRST.c0[:-1], FIRST.c1), SECOND],
    "a first polynomial of a byte too many": [Residues(FIRST.c0 + b"\0", FIRST.c1), SECOND],
    "a second polynomial of a residue too few": [FIRST, Residues(SECOND.c0, SECOND.c1[:-8])],
    "a second polynomial of a residue too many": [FIRST, Residues(SECOND.c0, SECOND.c1 + bytes(8))],
    "a residue at its prime": [Residues(patched(FIRST.c0, 8, PRIME), FIRST.c1), SECOND],
    "the last residue at its prime": [FIRST, Residues(SECOND.c0, patched(SECOND.c1, 8 * N - 8, PRIME))],
    "a residue of 64 ones": [FIRST, Residues(SECOND.c0, patched(SECOND.c1, 0, 2**64 - 1))],
    "a SEAL object": [SealCiphertext(next(iter(CODEC.encrypt(ROW).ciphertexts))), SECOND],
    "SEAL objects": [SealCiphertext(b""), SealCiphertext(b"")],
    "packed": PACKED_PAIRS,
}


def bad_packed_replies() -> dict[str, Sequence[EncryptedScores]]:
    first, second = PACKED_PAIRS
    bits = CODEC.offer.reply_bits
    assert bits is not None
    # Two coefficients of c0, and one: of neither all bits of the last byte are used.
    assert 2 * bits.c0 % 8
    assert bits.c0 % 8
    return {
        "no pieces": [],
        "a piece too few": [first],
        "a piece too many": [first, second, second],
        "the pieces of two classes and of one exchanged": [second, first],
        "of two rows": [PackedPair(first.c0 * 2, first.c1), PackedPair(second.c0 * 2, second.c1)],
        "the first polynomial whole": [PackedPair(first.c1, first.c1), second],
        "no first polynomial": [PackedPair(b"", first.c1), second],
        "no second polynomial": [PackedPair(first.c0, b""), second],
        "empty": [PackedPair(b"", b"")] * 2,
        "a first polynomial of a byte too few": [PackedPair(first.c0[:-1], first.c1), second],
        "a first polynomial of a byte too many": [PackedPair(first.c0 + b"\0", first.c1), second],
        "a second polynomial of a byte too few": [first, PackedPair(second.c0, second.c1[:-1])],
        "a second polynomial of a byte too many": [first, PackedPair(second.c0, second.c1 + b"\0")],
        "a bit behind the last of c0": [PackedPair(first.c0[:-1] + bytes([first.c0[-1] | 0x80]), first.c1), second],
        "another bit there": [first, PackedPair(second.c0[:-1] + bytes([second.c0[-1] | 1 << bits.c0 % 8]), second.c1)],
        "residues": UNPACKED_REPLY,
        "residues of the same bytes": [Residues(*first), Residues(*second)],
        "a SEAL object": [SealCiphertext(b""), second],
    }


def assert_refused(codec: RowCodec, row_count: int, reply: Sequence[EncryptedScores]) -> None:
    """Refused, with one text for every reason and nothing behind it that tells more."""
    with pytest.raises(ReplyError) as caught:
        codec.decrypt(row_count, reply)
    assert str(caught.value) == str(ReplyError()) == repr(caught.value)[len("ReplyError('") : -len("')")]
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None or caught.value.__suppress_context__


@pytest.mark.parametrize("what", BAD_REPLIES)
def test_a_malformed_reply_is_refused(what: str) -> None:
    assert_refused(UNPACKED, 1, BAD_REPLIES[what])
    assert UNPACKED.decrypt(1, UNPACKED_REPLY).shape == (1, SCORES)


@pytest.mark.parametrize("what", bad_packed_replies())
def test_a_malformed_packed_reply_is_refused(what: str) -> None:
    assert_refused(CODEC, 1, bad_packed_replies()[what])
    assert CODEC.decrypt(1, REPLY).tolist() == UNPACKED.decrypt(1, UNPACKED_REPLY).tolist()


@pytest.mark.parametrize("score", range(SCORES))
@pytest.mark.parametrize("end", ["greatest", "least"])
def test_a_score_just_outside_the_published_range_is_refused(score: int, end: str) -> None:
    """The row of a class's extreme score, from an engine whose intercept of that class is moved."""
    sign = 1 if end == "greatest" else -1
    extreme = np.where(PLAN.model.weights[score] * sign > 0, GRID.levels, 0)[None]
    low, high = PLAN.model.extremes(GRID)[score]
    center, radius = PLAN.score_centers[score], PLAN.score_radii[score]
    to_the_edge = center + radius - high if end == "greatest" else low - (center - radius)
    assert 0 <= to_the_edge <= 1  # a range of odd width is no further from its centre on one side

    def engine_moved_by(distance: int) -> RowEngine:
        intercept = tuple(b + (sign * distance if k == score else 0) for k, b in enumerate(PLAN.model.intercept))
        return RowEngine(
            dataclasses.replace(PLAN, model=QuantizedModel(PLAN.model.weights, intercept, PLAN.model.score_scale))
        )

    accepted = CODEC.decrypt(1, reply_of(engine_moved_by(to_the_edge), CODEC, extreme))
    assert accepted[0, score] * PLAN.model.score_scale == pytest.approx(center + sign * radius, rel=1e-12)
    assert_refused(CODEC, 1, reply_of(engine_moved_by(to_the_edge + 1), CODEC, extreme))


def test_a_reply_to_somebody_else_is_refused() -> None:
    """The t here is far above the range of scores.

    Under another key each score is within the range with a chance of 2^-12 at most.
    """
    plain_modulus = PLAN.parameters.plain_modulus << 12
    model = dataclasses.replace(PLAN.model, weights=PLAN.model.weights >> 6)
    parameters = EncryptionParameters(SMALLEST, plain_modulus)
    engine = RowEngine(dataclasses.replace(unpacked(PLAN), parameters=parameters, model=model))
    ours, others = RowCodec(model_of(engine)), RowCodec(model_of(engine))
    quantized = GRID.levels[None] // 2
    for _ in range(5):
        reply = reply_of(engine, others, quantized)
        assert others.decrypt(1, reply).tolist() == model.scores(quantized).tolist()
        assert_refused(ours, 1, reply)


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**32 - 1))
def test_noise_is_refused_or_within_the_published_range(seed: int) -> None:
    random = np.random.default_rng(seed)

    def noise(count: int) -> bytes:
        return random.integers(0, PRIME, size=count, dtype=np.uint64).tobytes()

    def packed_noise(pair: PackedPair) -> PackedPair:
        return PackedPair(random.bytes(len(pair.c0) - 1) + b"\0", random.bytes(len(pair.c1)))

    try:
        if seed % 2:
            scores = CODEC.decrypt(1, list(map(packed_noise, PACKED_PAIRS)))
        else:
            scores = UNPACKED.decrypt(1, [Residues(noise(2), noise(N)), Residues(noise(1), noise(N))])
    except ReplyError:
        return
    distances = np.abs(scores[0] * CODEC.offer.score_scale - CODEC.offer.score_centers)
    assert (distances <= np.array(CODEC.offer.score_radii) + 0.5).all()


# Offers

OFFER = MODEL.offers[0]
CONTRADICTIONS: dict[str, dict[str, Any]] = {
    "no parms_id": {"parms_id": b""},
    "another parms_id": {"parms_id": bytes(32)},
    "a bit of parms_id": {"parms_id": OFFER.parms_id[:-1] + bytes([OFFER.parms_id[-1] ^ 1])},
    "another offer's parms_id": {"parms_id": MODEL.offers[1].parms_id},
    "the parms_id of another t": {"parameters": EncryptionParameters(SMALLEST, OFFER.parameters.plain_modulus * 2)},
    "a row too many": {"rows_per_item": OFFER.rows_per_item + 1},
    "no rows": {"rows_per_item": 0},
    "endless rows": {"rows_per_item": 2**32 - 1},
    "a ciphertext too many": {"ciphertexts_per_item": 2},
    "no ciphertexts": {"ciphertexts_per_item": 0},
    "no classes": {"classes_per_polynomial": 0},
    "fewer classes, with as many rows": {"classes_per_polynomial": 1},
    "a class too many": {"classes_per_polynomial": 3},
    "endless classes": {"classes_per_polynomial": 2**32 - 1},
    "bits for which nothing decrypts": {"reply_bits": ReplyBits(c0=24, c1=24, prime_count=1)},
    "composite primes": {
        "parameters": EncryptionParameters(
            ParameterSet("composite", 2048, ((1 << 40) * 4096 + 1,)), OFFER.parameters.plain_modulus
        )
    },
}


@pytest.mark.parametrize("what", CONTRADICTIONS)
def test_an_offer_that_contradicts_itself_is_refused(what: str) -> None:
    model = with_offer(**CONTRADICTIONS[what])
    with pytest.raises(ParameterError):
        RowCodec(model)
    with pytest.raises((ParameterError, SecretKeyError)):
        RowCodec(model, KEYS[SMALLEST])


def test_the_parms_id_of_the_key_level_is_not_that_of_a_ciphertext() -> None:
    two_primes = MODEL.offers[-1]
    parms_id = _seal.key_parms_id(_seal.context(two_primes.parameters))
    with pytest.raises(ParameterError, match="parms_id"):
        RowCodec(dataclasses.replace(MODEL, offers=(dataclasses.replace(two_primes, parms_id=parms_id),)))


def test_every_feature_on_the_grid_must_fit_the_plaintext_modulus() -> None:
    t = OFFER.parameters.plain_modulus
    fitting, too_fine = (InputGrid.of(FEATURES, 0.0, float(levels), 1.0) for levels in (t - 1, t))
    assert int(fitting.levels.max()) == t - 1
    assert RowCodec(dataclasses.replace(MODEL, grid=fitting)).encrypt(fitting.levels[None]).byte_count > 0
    one_too_fine = InputGrid.of(FEATURES, 0.0, np.where(np.arange(FEATURES) == 7, float(t), 1.0), 1.0)
    for grid in (too_fine, one_too_fine):
        with pytest.raises(ParameterError, match="do not fit the plaintext modulus"):
            RowCodec(dataclasses.replace(MODEL, grid=grid))


@pytest.mark.parametrize(
    "change",
    [
        {"layout": LAYOUTS["ei-slots"]},
        {"private_weights": True},
        {"private_weights": True, "required_key": KeyKind.EVALUATION_KEYS},
        {"required_key": KeyKind.PUBLIC_ENCRYPTION_KEY},
        {"required_key": KeyKind.EVALUATION_KEYS},
    ],
    ids=str,
)
def test_an_offer_that_is_not_understood_is_passed_over(change: dict[str, Any]) -> None:
    strange = dataclasses.replace(OFFER, **change)
    with pytest.raises(ParameterError, match="not offered in a way that this version understands"):
        RowCodec(dataclasses.replace(MODEL, offers=(strange,)))
    assert RowCodec(dataclasses.replace(MODEL, offers=(strange, *MODEL.offers[1:]))).offer == MODEL.offers[1]


def test_a_model_without_offers_is_refused() -> None:
    with pytest.raises(ParameterError, match="not offered"):
        RowCodec(dataclasses.replace(MODEL, offers=()), KEYS[SMALLEST])


def test_a_private_offer_gets_the_id_of_the_public_key() -> None:
    changed = with_offer(private_weights=True, required_key=KeyKind.PUBLIC_ENCRYPTION_KEY)
    codec = RowCodec(changed, KEYS[SMALLEST])
    assert codec.public_key == KEYS[SMALLEST].public_encryption_key
    assert codec.encrypt(ROW).header.key_id == hashlib.sha256(codec.public_key).hexdigest()
    assert CODEC.public_key == b""


def test_a_private_offer_may_allow_fewer_rows_than_fit_and_an_open_one_may_not() -> None:
    # With one class a polynomial, two rows fit.
    fewer = dataclasses.replace(OFFER, classes_per_polynomial=1, rows_per_item=1)
    private = dataclasses.replace(fewer, private_weights=True, required_key=KeyKind.PUBLIC_ENCRYPTION_KEY)
    for rows in (1, 2):
        offer = dataclasses.replace(private, rows_per_item=rows)
        assert RowCodec(dataclasses.replace(MODEL, offers=(offer,))).offer == offer
    for refused in (fewer, *(dataclasses.replace(private, rows_per_item=rows) for rows in (0, 3))):
        with pytest.raises(ParameterError, match="sizes of an item"):
            RowCodec(dataclasses.replace(MODEL, offers=(refused,)))


# Keys


def test_without_a_key_the_first_offer_gets_a_new_one() -> None:
    first, second = RowCodec(MODEL), RowCodec(MODEL)
    assert first.offer == second.offer == OFFER
    assert first.secret_key.fits(SMALLEST)
    assert first.secret_key.export(TOKEN) != second.secret_key.export(TOKEN)


@SETS
def test_a_key_chooses_the_offer_of_its_ring(parameter_set: ParameterSet) -> None:
    codec = RowCodec(MODEL, KEYS[parameter_set])
    assert codec.offer.parameters.parameter_set == parameter_set
    assert codec.secret_key is KEYS[parameter_set]


def test_a_key_of_no_offered_ring_is_refused() -> None:
    others = dataclasses.replace(MODEL, offers=MODEL.offers[1:])
    with pytest.raises(SecretKeyError, match=r"is offered in: row-2048-54, row-4096-60, row-4096-92$") as caught:
        RowCodec(others, KEYS[SMALLEST])
    assert repr(KEYS[SMALLEST]) in str(caught.value)


# Rows

NAMES = tuple(f"feature {index}" for index in range(FEATURES))
NAMED = RowCodec(dataclasses.replace(MODEL, schema=Schema(FEATURES, NAMES)), KEYS[SMALLEST])
FRAME = pd.DataFrame(RANDOM.uniform(-1, 1, size=(2, FEATURES)), columns=list(NAMES))


def test_columns_in_the_models_order() -> None:
    assert np.array_equal(NAMED.model.schema.rows(FRAME), FRAME.to_numpy())
    assert np.array_equal(NAMED.model.schema.rows(FRAME.to_numpy()), FRAME.to_numpy())  # an array has no names to check


BAD_FRAMES: dict[str, Callable[[pd.DataFrame], pd.DataFrame]] = {
    "two exchanged": lambda frame: frame[[NAMES[1], NAMES[0], *NAMES[2:]]],
    "backwards": lambda frame: frame[list(reversed(NAMES))],
    "one renamed": lambda frame: frame.rename(columns={NAMES[3]: "Feature 3"}),
    "one missing": lambda frame: frame.drop(columns=NAMES[-1]),
    "one too many": lambda frame: frame.assign(another=0.0),
    "without names": lambda frame: pd.DataFrame(frame.to_numpy()),
}


DIFFERENCES = {
    "two exchanged": "in another order: number 0 is 'feature 1', not 'feature 0'",
    "backwards": "in another order: number 0 is 'feature 999', not 'feature 0'",
    "one renamed": "missing: feature 3; unexpected: Feature 3",
    "one missing": "missing: feature 999",
    "one too many": "unexpected: another",
    "without names": f"missing: {', '.join(NAMES[:10])}, ...; unexpected: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, ...",
}


@pytest.mark.parametrize("what", BAD_FRAMES)
def test_other_columns_are_refused_with_the_difference_only(what: str) -> None:
    with pytest.raises(FeatureNameError) as refusal:
        NAMED.model.schema.rows(BAD_FRAMES[what](FRAME))
    said = "the columns must be those of the model, in its order; they differ: "
    assert str(refusal.value) == said + DIFFERENCES[what]


def test_names_that_are_numbers_are_compared_as_text() -> None:
    numbered = RowCodec(
        dataclasses.replace(MODEL, schema=Schema(FEATURES, tuple(map(str, range(FEATURES))))), KEYS[SMALLEST]
    )
    frame = pd.DataFrame(FRAME.to_numpy())
    assert np.array_equal(numbered.model.schema.rows(frame), FRAME.to_numpy())
    with pytest.raises(FeatureNameError):
        numbered.model.schema.rows(frame[frame.columns[::-1]])


def test_a_model_without_names_takes_any() -> None:
    assert np.array_equal(CODEC.model.schema.rows(FRAME), FRAME.to_numpy())


ZEROS = np.zeros((1, FEATURES))
BAD_ROWS: dict[str, tuple[Any, type[InputError]]] = {
    "one row without its brackets": (ZEROS[0], FeatureCountError),
    "a feature too few": (ZEROS[:, 1:], FeatureCountError),
    "a feature too many": (np.zeros((1, FEATURES + 1)), FeatureCountError),
    "a row too deep": (ZEROS[None], FeatureCountError),
    "a number": (1.0, FeatureCountError),
    "nothing": ([], FeatureCountError),
    "None": (None, FeatureCountError),
    "text": ([["a"] * FEATURES], InputError),
    "ragged": ([[1.0], [1.0, 2.0]], InputError),
    "sparse, a feature too few": (csr_array(ZEROS[:, 1:]), FeatureCountError),
    "objects": ([[object()] * FEATURES], InputError),
}


@pytest.mark.parametrize("what", BAD_ROWS)
def test_rows_that_are_none_are_refused(what: str) -> None:
    rows, kind = BAD_ROWS[what]
    with pytest.raises(kind):
        CODEC.model.schema.rows(rows)


def test_rows_of_any_number_type() -> None:
    for dtype in (np.float32, np.int8, np.uint64, np.bool_, object):
        rows = CODEC.model.schema.rows(np.ones((2, FEATURES), dtype))
        assert rows.dtype == np.float64
        assert (rows == 1).all()
    assert CODEC.model.schema.rows(np.empty((0, FEATURES))).shape == (0, FEATURES)


def test_rows_off_the_range_are_refused_or_clipped() -> None:
    clipping = RowCodec(CODEC.model, CODEC.secret_key, clip=True)
    rows = np.full((2, FEATURES), 0.5)
    rows[1, 3] = 1.5
    integers, is_refused = CODEC.quantize(rows)
    assert is_refused.tolist() == [False, True]
    assert integers[0].any()
    assert not integers[1].any(), "the dummy is the grid's minimum"
    assert type(CODEC.refusal(rows)) is OutOfRangeError
    assert str(CODEC.refusal(rows)).startswith("row 1, feature 3 is outside")
    integers, is_refused = clipping.quantize(rows)
    assert not is_refused.any()
    assert integers[1, 3] == GRID.levels[3]
    rows[0, 2] = np.nan
    assert clipping.quantize(rows).is_refused.tolist() == [True, False]
    assert type(clipping.refusal(rows)) is NotFiniteError
    assert str(clipping.refusal(rows)) == "row 0, feature 2 is missing (NaN): replace it"
