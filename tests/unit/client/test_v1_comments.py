"""The comments of sealserve.v1, against the code: a client may have nothing else to go by."""

import dataclasses
import hashlib
import importlib
import itertools
import re
import struct
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from google.protobuf import descriptor_pb2

from sealserve.he import _seal
from sealserve.he.bit_packing import DIGIT_BITS, MAX_BITS, MIN_BITS, possible_bits
from sealserve.he.layouts import LAYOUTS
from sealserve.he.layouts.ei_slots import EI_PARAMETER_SET
from sealserve.he.parameters import MAX_MODULUS_BITS, EncryptionParameters, Scheme
from sealserve.he.quantization import InputGrid
from sealserve.he.reply_bits import ROOM, ReplyBits
from sealserve.he.row_constraints import RowConstraints
from sealserve.he.seal_format import CiphertextFormat
from sealserve.protocol import wire
from sealserve.protocol.model import CAPABILITIES, Model
from sealserve.protocol.output import Output, Task
from sealserve.protocol.schema import Schema
from sealserve.protocol.wire._bounds import MAX_CIPHERTEXT_FORMS
from sealserve.steps.elementwise import Elementwise, Function
from sealserve.steps.intervals import Piecewise, PiecewiseColumn
from sealserve.v1 import errors_pb2, model_pb2, parameters_pb2
from sealserve_service.planning.noise import NOISE
from sealserve_service.rpc.status import _CODES
from tests.support.affine_models import features_of
from tests.support.malformed_ciphertexts import of_parameters, patched
from tests.support.serving import ROOT, linear, registered_keys, served

PROTOS = ROOT / "protos/sealserve/v1"
RANDOM = np.random.default_rng(3)


def comment(file: str, line: str) -> str:
    """The comment right above a line that begins so, in one line."""
    lines = (PROTOS / f"{file}.proto").read_text().splitlines()
    (at,) = (index for index, text in enumerate(lines) if text.strip().startswith(line))
    above = at
    while lines[above - 1].strip().startswith("//"):
        above -= 1
    return " ".join(text.strip().removeprefix("//").strip() for text in lines[above:at])


# Options


@pytest.mark.parametrize("name", ["errors", "keys", "model", "parameters", "prediction"])
def test_plain_generators_have_their_options(name: str) -> None:
    module = importlib.import_module(f"sealserve.v1.{name}_pb2")
    options = descriptor_pb2.FileOptions()
    options.CopyFrom(module.DESCRIPTOR.GetOptions())
    assert options == descriptor_pb2.FileOptions(
        csharp_namespace="Sealserve.V1",
        go_package="sealserve/v1;sealservev1",
        java_multiple_files=True,
        java_package="com.sealserve.v1",
    )


# Statuses


def test_every_detail_says_the_status_of_a_call_that_fails_with_it() -> None:
    said, used = {}, {}
    fields: list[Any] = list(errors_pb2.Error.DESCRIPTOR.oneofs_by_name["detail"].fields)
    for field in fields:
        said[field.name] = comment("errors", f"{field.message_type.name} {field.name} =").partition(":")[0]
        empty: Any = errors_pb2.Error()
        getattr(empty, field.name).SetInParent()
        used[field.name] = _CODES[type(wire.error_from_proto(empty))].name
    assert said == used
    assert len(said) == len(_CODES)


# Parameters


def test_the_table_of_most_bits_is_the_one_that_clients_check() -> None:
    text = comment("parameters", "message EncryptionParameters")
    degrees, bits = (re.search(rf"{name}((?: +\d+)+)", text) for name in (r"\bN", r"\bbits"))
    assert degrees
    assert bits
    table = dict(zip(map(int, degrees[1].split()), map(int, bits[1].split()), strict=True))
    assert table == MAX_MODULUS_BITS


def every_parameters() -> Iterator[EncryptionParameters]:
    sets = {s for layout in LAYOUTS.values() for s in layout.open_parameter_sets + layout.private_parameter_sets}
    for parameter_set in sorted(sets, key=lambda parameter_set: parameter_set.name):
        for plain_modulus in (2, 40961, 1 << 30):
            yield EncryptionParameters(parameter_set, plain_modulus)
    yield EncryptionParameters(EI_PARAMETER_SET, scheme=Scheme.CKKS, scale=2.0**40)


def test_a_parms_id_is_blake2b_of_the_scheme_the_degree_the_data_primes_and_t() -> None:
    keys = registered_keys()
    model = wire.model_to_proto(served("model", linear(RANDOM.normal(size=(2, 5))), keys=keys).model)
    described = [offer.parameters for offer in model.offers]
    assert {parameters.scheme for parameters in described} == {1, 2}
    for parameters in described:
        words = [
            parameters.scheme,
            parameters.poly_modulus_degree,
            *parameters.coeff_modulus[: parameters.data_prime_count],
            parameters.plain_modulus,
        ]
        assert hashlib.blake2b(struct.pack(f"<{len(words)}Q", *words), digest_size=32).digest() == parameters.parms_id
    numbers = {Scheme.BFV: parameters_pb2.SCHEME_BFV, Scheme.CKKS: parameters_pb2.SCHEME_CKKS}
    for ours in every_parameters():
        ring = ours.parameter_set
        words = [numbers[ours.scheme], ring.poly_modulus_degree, *ring.data_primes, ours.plain_modulus]
        digest = hashlib.blake2b(struct.pack(f"<{len(words)}Q", *words), digest_size=32).digest()
        assert digest == _seal.fresh_parms_id(_seal.context(ours)), ours


def test_a_packed_reply_is_lifted_to_a_level_of_seal() -> None:
    """Its parms_id is the digest of the first data primes, as the comment of PackedPair says."""
    for parameters in every_parameters():
        ring, levels = parameters.parameter_set, _seal.data_parms_ids(_seal.context(parameters))
        scheme = parameters_pb2.SCHEME_BFV if parameters.scheme is Scheme.BFV else parameters_pb2.SCHEME_CKKS
        for below, level in enumerate(levels):
            primes = ring.data_primes[: len(ring.data_primes) - below]
            words = [scheme, ring.poly_modulus_degree, *primes, parameters.plain_modulus]
            assert hashlib.blake2b(struct.pack(f"<{len(words)}Q", *words), digest_size=32).digest() == level


def test_the_bits_of_replies_that_are_refused_are_the_ones_that_the_comment_names() -> None:
    """R N / 2^c1 + r / 2^c0 + t (N + 1) / (2 q') < 1/2 - 2^-57, with r = (1 + 2^-7) t / 2."""
    text = comment("model", "message ReplyBits")
    assert "r = (1 + 2^-7) t / 2" in text
    assert "unless r N / 2^c1 + r / 2^c0 + t (N + 1) / (2 q') < 1/2 - 2^-57" in text
    for parameters in every_parameters():
        if parameters.scheme is Scheme.BFV:
            t, N = parameters.plain_modulus, parameters.parameter_set.poly_modulus_degree
            r, prime = Fraction(129 * t, 256), parameters.parameter_set.data_primes[0]
            for c0, c1 in ((8, 8), (30, 42), (MAX_BITS, MAX_BITS)):
                named = r * N / 2**c1 + r / 2**c0 + Fraction(t * (N + 1), 2 * prime)
                assert ReplyBits(c0=c0, c1=c1, prime_count=1).cost(parameters) == named
    assert Fraction(1, 2) - Fraction(1, 1 << 57) == ROOM
    limits = comment("model", "uint32 c0 = 1"), comment("model", "uint32 c1 = 2")
    assert limits[0].endswith(f"{MIN_BITS} to c1.")
    assert limits[1].endswith(f"{MIN_BITS} to {MAX_BITS}.")
    assert f"Above {DIGIT_BITS} both numbers of bits are even." in text
    assert [bits for bits in range(40, 60) if possible_bits(bits) == bits] == [*range(40, DIGIT_BITS + 1), 56, 58]


def test_the_noise_that_is_named_is_the_one_that_plans_count_on() -> None:
    assert f"|e| <= {NOISE} in every coefficient" in comment("prediction", "message Chunk")


def test_the_saving_that_packed_ciphertexts_are_published_for_is_the_one_that_the_comment_names() -> None:
    assert "shorter than seeded ones by a fifth" in comment("model", "CIPHERTEXT_FORM_PACKED = 1")
    for parameters in every_parameters():
        ring = parameters.parameter_set
        form = CiphertextFormat(ring, _seal.fresh_parms_id(_seal.context(parameters)))
        words, b = ring.poly_modulus_degree * len(ring.data_primes), max(ring.data_primes).bit_length()
        assert (form.packed_bytes, form.seeded_bytes) == (32 + 64 + words * b / 8, 113 + 8 * words + 81)
        assert form.packs == (form.packed_bytes <= form.seeded_bytes * 4 / 5)
    assert f"at most {MAX_CIPHERTEXT_FORMS}." in comment("model", "repeated CiphertextForm ciphertext_forms")


def test_seal_reads_no_later_minor_version_than_the_one_that_is_named() -> None:
    assert "uint8 4, the minor version, or less" in comment("prediction", "message Chunk")
    parameters = EncryptionParameters(LAYOUTS["row"].open_parameter_sets[0], 40961)
    context, good = _seal.context(parameters), of_parameters(parameters)
    for minor in range(5):
        _seal.load_ciphertext(context, patched(good, 4, bytes([minor])))
    with pytest.raises(_seal.SealError, match="version"):
        _seal.load_ciphertext(context, patched(good, 4, b"\5"))


# Steps


def test_values_at_the_ends_of_numbers_are_the_ones_that_comments_name() -> None:
    nowhere = np.zeros(1, np.bool_)
    ends = {Function.LOG: (0.0, -np.inf), Function.LOG1P: (-1.0, -np.inf), Function.SUBLINEAR: (-np.inf, np.nan)}
    said = "minus infinity at 0", "minus infinity at -1", "no value at minus infinity"
    for (function, (x, expected)), text in zip(ends.items(), said, strict=True):
        assert text in comment("steps", f"FUNCTION_{function.name} =")
        with np.errstate(all="ignore"):
            (value,) = Elementwise([0], function).apply(np.array([[x]]), nowhere)[0]
        assert value == expected or (np.isnan(value) and np.isnan(expected))
    assert "A missing or infinite number makes all outputs of its input NaN" in comment("steps", "message Piecewise {")
    line = PiecewiseColumn(np.zeros(0), np.zeros(1), np.array([[[1.0, 0.0], [2.0, 0.0]]]))
    for number in (np.inf, -np.inf, np.nan):
        with np.errstate(all="ignore"):
            assert np.isnan(Piecewise([0], [line]).apply(np.array([[number]]), nowhere)).all()


# The grid and ties


def models() -> Iterator[Model]:
    for weights, bounds, step in (
        (RANDOM.normal(size=(3, 4)), (0.0, 1.0), None),
        (np.full((1, 3), 1e-12), (-5.0, 7.0), 0.25),
        (np.zeros((2, 3)), (0.0, 9.0), 1.0),
        (RANDOM.normal(size=(1, 2)), (0.0, 1.0), 1 / 40_000),
    ):
        yield served("model", linear(weights), bounds, step).model


def test_no_integer_of_the_grid_reaches_t() -> None:
    for model in models():
        for offer in model.offers:
            assert model.grid.levels.max() < offer.parameters.plain_modulus, offer.layout


def test_a_half_may_be_rounded_either_way() -> None:
    """The published bound holds for both integers, and both are on the grid."""
    weights = RANDOM.normal(size=(3, 4))
    model = served("model", linear(weights)).model
    grid, bound = model.grid, model.offers[0].input_rounding_error_bound
    lower = RANDOM.integers(0, grid.levels, size=(200, 4))
    halves = grid.minimum + (lower + 0.5) * grid.step
    for rounded in (lower, lower + 1, lower + RANDOM.integers(0, 2, size=lower.shape)):
        assert (rounded <= grid.levels).all()
        error = np.abs((features_of(grid, rounded) - halves) @ weights.T)
        assert error.max() <= bound * (1 + 1e-9)


def test_the_greatest_integer_is_that_of_the_maximum_with_its_half_rounded_to_even() -> None:
    for width, greatest in ((2.5, 2), (3.5, 4), (0.5, 0), (255.0, 255)):
        grid = InputGrid.of(1, 0.0, width, 1.0)
        assert grid.levels.tolist() == [greatest]
        assert grid.quantize(np.array([[width]])).integers.tolist() == [[greatest]]


def test_of_equal_scores_the_first_class_is_predicted() -> None:
    several = Output(Task.CLASSIFICATION, 3, ("a", "b", "c"))
    scores = np.array([[1.0, 1.0, 0.0], [0.0, 2.0, 2.0], [3.0, 3.0, 3.0], [1.0, 0.0, 1.0]])
    assert several.predict(scores).tolist() == ["a", "b", "a", "a"]
    two = Output(Task.CLASSIFICATION, 1, ("no", "yes"))
    assert two.predict(np.array([[0.0], [1e-9]])).tolist() == ["no", "yes"]
    assert "of equal scores, the first class" in comment("model", "TASK_CLASSIFICATION")


def test_a_row_breaks_a_group_as_the_comment_says() -> None:
    """In plain Python, from the fields of the message."""
    constraints = RowConstraints.of(5, [1, 2, 1, 0, 2], [True, False])
    grid = InputGrid.of(5, [0, 0, -1, 0, 0], [1, 1, 3, 1, 1], [1, 0.25, 2, 0.25, 1], [1, 1, 1, 0, 1], constraints)
    message = wire.model_to_proto(dataclasses.replace(next(models()), schema=Schema(5), grid=grid)).input

    def is_refused(row: list[float]) -> bool:
        at_maximum = [0] * len(message.exactly_one)
        for x, low, high, step, number in zip(
            row, message.minimum, message.maximum, message.step, message.group, strict=True
        ):
            if number:
                nearest = low + round((x - low) / (high - low)) * (high - low)
                if abs(x - nearest) > max(step / 1000, abs(x) * 2**-22):
                    return True
                at_maximum[number - 1] += nearest == high
        return any(
            count > 1 or (exact and count < 1) for count, exact in zip(at_maximum, message.exactly_one, strict=True)
        )

    values = [[0.0, 1.0, 0.0004], [0.0, 1.0, 0.25], [-1.0, 3.0, 1.0, 2.9985], [0.5], [0.0, 1.0]]
    rows = list(map(list, itertools.product(*values)))
    refused = [is_refused(row) for row in rows]
    assert 10 < sum(refused) < len(rows) - 5
    assert grid.quantize(np.array(rows)).is_refused.tolist() == refused
    for text in ("two features of a group are at their maximum", "maximum - minimum as the distance of neighbours"):
        assert text in comment("model", "repeated uint32 group")


# Capabilities


def test_the_names_of_capabilities_are_those_that_the_comment_has() -> None:
    named = re.findall(r'"(\w+)":', comment("model", "repeated string requires"))
    assert set(named) == CAPABILITIES
    assert len(named) == len(CAPABILITIES) > 0
    assert model_pb2.Model.DESCRIPTOR.fields_by_name["requires"].number == 8
