"""Descriptions of models from a hostile server: a Model as promised, or ParameterError."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from google.protobuf.message import DecodeError, Message
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from sealserve.errors import ParameterError
from sealserve.protocol import wire
from sealserve.protocol.wire import _models
from sealserve.v1 import model_pb2
from tests.support.serving import linear, served

DESCRIBED = wire.model_to_proto(served("served", linear(np.random.default_rng(13).normal(size=(3, 4)))).model)
REGRESSION, CLASSIFICATION = model_pb2.Output.TASK_REGRESSION, model_pb2.Output.TASK_CLASSIFICATION


def described() -> model_pb2.Model:
    message = model_pb2.Model()
    message.CopyFrom(DESCRIBED)
    return message


def put(message: Any, **fields: Any) -> None:
    """Set fields; a list replaces the values of a repeated one."""
    for name, value in fields.items():
        if isinstance(value, list):
            getattr(message, name)[:] = value
        else:
            setattr(message, name, value)


def with_input(**fields: Any) -> model_pb2.Model:
    message = described()
    put(message.input, **fields)
    return message


def with_groups(group: list[int], exactly_one: list[bool], **fields: Any) -> model_pb2.Model:
    binary = {"minimum": [0.0], "maximum": [1.0], "step": [1.0], "keeps": [True]}
    return with_input(group=group, exactly_one=exactly_one, **(binary | fields))


def with_output(**fields: Any) -> model_pb2.Model:
    message = described()
    put(message.output, **fields)
    return message


def with_offer(**fields: Any) -> model_pb2.Model:
    message = described()
    put(message.offers[0], **fields)
    return message


def with_parameters(**fields: Any) -> model_pb2.Model:
    message = described()
    put(message.offers[0].parameters, **fields)
    return message


def with_bits(**fields: Any) -> model_pb2.Model:
    message = described()
    put(message.offers[0].reply_bits, **fields)
    return message


def with_labels(kind: str, labels: list[Any], task: Any = CLASSIFICATION) -> model_pb2.Model:
    message = with_output(task=task)
    put(getattr(message.output.classes, kind), values=labels)
    return message


def with_curves(*curves: tuple[list[float], list[float]]) -> model_pb2.Model:
    message = with_labels("integers", [1, 2, 3])
    message.output.link = model_pb2.Output.LINK_CURVES
    for scores, probabilities in curves:
        message.output.curves.add(scores=scores, probabilities=probabilities)
    return message


def with_cost(**fields: Any) -> model_pb2.Model:
    message = described()
    put(message.offers[0].cost, **fields)
    return message


def with_observed(**fields: Any) -> model_pb2.Model:
    message = described()
    put(message.offers[0].observed_error, **fields)
    return message


def with_limits(**fields: Any) -> model_pb2.Model:
    message = described()
    put(message.limits, **fields)
    return message


def with_time(limit: str, seconds: int) -> model_pb2.Model:
    message = described()
    put(getattr(message.limits, limit), seconds=seconds, nanos=0)
    return message


def with_offers(count: int, score_count: int = 3) -> model_pb2.Model:
    message = with_output(score_count=score_count)
    message.offers.extend([message.offers[0]] * (count - len(message.offers)))
    return message


def named(**fields: Any) -> model_pb2.Model:
    message = described()
    put(message, **fields)
    return message


HOSTILE = {
    "an empty description": model_pb2.Model(),
    "no features": with_input(feature_count=0),
    "endless features": with_input(feature_count=2**32 - 1),
    "a feature more than is allowed": with_input(feature_count=wire.MAX_FEATURES + 1),
    "too few names": with_input(feature_names=["a", "b", "c"]),
    "too many names": with_input(feature_names=["a", "b", "c", "d", "e"]),
    "no minimum": with_input(minimum=[]),
    "too few minima": with_input(minimum=[0, 0]),
    "a minimum that is NaN": with_input(minimum=[0, 0, 0, math.nan]),
    "too many maxima": with_input(maximum=[1, 1, 1, 1, 1]),
    "an infinite maximum": with_input(maximum=[math.inf]),
    "an infinite width": with_input(minimum=[-1.7e308], maximum=[1.7e308]),
    "groups of too few features": with_groups([1, 1], [True]),
    "groups of too many features": with_groups([1] * 5, [True]),
    "a number of a group that there is not": with_groups([1, 1, 2, 0], [True]),
    "a group without features": with_groups([1, 1, 0, 0], [True, True]),
    "groups that leave out a number": with_groups([1, 1, 3, 3], [True, True]),
    "an endless number of a group": with_groups([1, 1, 2**32 - 1, 0], [True]),
    "endless groups": with_groups([1, 1, 0, 0], [True] * 100_000),
    "groups of no features": with_groups([], [True]),
    "a group of features off a grid": with_groups([1, 1, 0, 0], [True], keeps=[False]),
    "a group with a feature off a grid": with_groups([1, 1, 0, 0], [True], keeps=[True, False, True, True]),
    "a group with a feature of one value": with_groups([1, 1, 0, 0], [True], maximum=[1, 0, 1, 1]),
    "an empty range": with_input(minimum=[2]),
    "no step": with_input(step=[]),
    "a step of zero": with_input(step=[0]),
    "a negative step": with_input(step=[-1]),
    "a step that is NaN": with_input(step=[math.nan]),
    "too fine a step": with_input(step=[5e-324]),
    "no scores": with_output(score_count=0),
    "endless scores": with_output(score_count=2**32 - 1),
    "a score more than is allowed": with_output(score_count=wire.MAX_SCORES + 1),
    "a task of tomorrow": with_output(task=99),
    "no task": with_output(task=0),
    "a negative task": with_output(task=-1),
    "a link of tomorrow": with_output(link=99),
    "no link": with_output(link=0),
    "a link that does not fit": with_output(link=model_pb2.Output.LINK_SOFTMAX),
    "a log link of a classifier": with_output(task=CLASSIFICATION, link=model_pb2.Output.LINK_LOG),
    "more averaged classifiers than scores": with_output(task=CLASSIFICATION, member_count=2**32 - 1),
    "averaged classifiers of a fraction of a score": with_output(task=CLASSIFICATION, member_count=2),
    "averaged regressions": with_output(member_count=3),
    "pairs of tomorrow": with_output(task=CLASSIFICATION, pairwise=99),
    "pairs of a regression": with_output(pairwise=model_pb2.Output.PAIRWISE_VOTES),
    "no curves": with_curves(),
    "too few curves": with_curves(([0.0], [0.5]), ([0.0], [0.5])),
    "too many curves": with_curves(*[([0.0], [0.5])] * 4),
    "an empty curve": with_curves(*[([0.0], [0.5])] * 2, ([], [])),
    "a curve of more scores than probabilities": with_curves(*[([0.0], [0.5])] * 2, ([0.0, 1.0], [0.5])),
    "a curve that falls back": with_curves(*[([0.0], [0.5])] * 2, ([0.0, -1.0], [0.5, 0.5])),
    "a curve of NaN": with_curves(*[([0.0], [0.5])] * 2, ([math.nan], [0.5])),
    "a probability above 1": with_curves(*[([0.0], [0.5])] * 2, ([0.0], [1.5])),
    "endless curves": with_curves(*[(list(map(float, range(100_000))), [0.5] * 100_000)] * 3),
    "a scalar target of three scores": with_output(scalar_target=True),
    "labels of a regression": with_labels("integers", [1, 2, 3], REGRESSION),
    "an integer twice": with_labels("integers", [1, 2, 1]),
    "a text twice": with_labels("strings", ["a", "b", "a"]),
    "a number twice": with_labels("doubles", [0.0, 1.0, -0.0]),
    "three truth values": with_labels("booleans", [True, False, True]),
    "too few labels": with_labels("integers", [1, 2]),
    "too many labels": with_labels("integers", [1, 2, 3, 4]),
    "no labels": with_output(task=CLASSIFICATION),
    "too few centers": with_offer(score_centers=[0, 0]),
    "too many centers": with_offer(score_centers=[0, 0, 0, 0]),
    "no centers": with_offer(score_centers=[]),
    "too few radii": with_offer(score_radii=[0, 0]),
    "neither centers nor radii": with_offer(score_centers=[], score_radii=[]),
    "a center and a radius too many": with_offer(score_centers=[0, 0, 0, 0], score_radii=[0, 0, 0, 0]),
    "a negative radius": with_offer(score_radii=[1, 1, -1]),
    "the most negative radius": with_offer(score_radii=[-(2**63), 1, 1]),
    "an endless radius": with_offer(score_radii=[1, 2**63 - 1, 1]),
    "a scale of zero": with_offer(score_scale=0.0),
    "a negative scale": with_offer(score_scale=-1.0),
    "a scale that is NaN": with_offer(score_scale=math.nan),
    "an infinite scale": with_offer(score_scale=math.inf),
    "no degree": with_parameters(poly_modulus_degree=0),
    "a degree too small for the prime": with_parameters(poly_modulus_degree=1024),
    "a degree of another ring": with_parameters(poly_modulus_degree=16384),  # the prime is 1 modulo 2 * 8192
    "an endless degree": with_parameters(poly_modulus_degree=2**32 - 1),
    "no primes": with_parameters(coeff_modulus=[]),
    "primes beyond tc128": with_parameters(coeff_modulus=[0x3FFFFFFFFED001, 12289]),
    "a prime of 64 bits": with_parameters(coeff_modulus=[2**64 - 4095]),
    "a prime that is 1": with_parameters(coeff_modulus=[1]),
    "a prime that is 0": with_parameters(coeff_modulus=[0]),
    "a prime twice": with_parameters(coeff_modulus=[12289, 12289]),
    "endless primes": with_parameters(coeff_modulus=[k * 4096 + 1 for k in range(1, 50_000)]),
    "no data primes": with_parameters(data_prime_count=0),
    "more data primes than primes": with_parameters(data_prime_count=2),
    "no plaintext modulus": with_parameters(plain_modulus=0),
    "a plaintext modulus of 1": with_parameters(plain_modulus=1),
    "a plaintext modulus at the prime": with_parameters(plain_modulus=DESCRIBED.offers[0].parameters.coeff_modulus[0]),
    "a plaintext modulus of 64 bits": with_parameters(plain_modulus=2**64 - 1),
    "no classes a polynomial": with_offer(classes_per_polynomial=0),
    "more classes a polynomial than scores": with_offer(classes_per_polynomial=4),
    "no rows an item": with_offer(rows_per_item=0),
    "no ciphertexts an item": with_offer(ciphertexts_per_item=0),
    "a center at the end of 64 bits": with_offer(score_centers=[2**63 - 1, 0, 0]),
    "a center at the other end": with_offer(score_centers=[0, -(2**63), 0]),
    "scores that are infinite": with_offer(score_scale=5e-324),
    "a negative error bound": with_offer(score_error_bound=-1.0),
    "an error bound that is NaN": with_offer(input_rounding_error_bound=math.nan),
    "an infinite observed error": with_observed(score_error=math.inf),
    "a negative part of the error bound": with_offer(weight_rounding_error_bound=-1.0),
    "an expected error that is NaN": with_offer(expected_score_error=math.nan),
    "an infinite root mean square": with_observed(rms_score_error=math.inf),
    "more labels that differ than rows": with_observed(label_disagreement=1.5),
    "a disagreement that is NaN": with_observed(label_disagreement=math.nan),
    "a negative expected disagreement": with_observed(expected_label_disagreement=-0.5),
    "an expected disagreement that is NaN": with_observed(expected_label_disagreement=math.nan),
    "endless calibration rows": with_observed(row_count=2**64 - 1),
    "a time that is NaN": with_cost(server_seconds=math.nan),
    "a negative time": with_cost(server_seconds=-1.0),
    "a request of no bytes": with_cost(request_bytes=0),
    "a reply of no bytes": with_cost(reply_bytes=0),
    "an item that nothing holds": with_cost(held_bytes=0),
    "endless bytes of a key": with_cost(key_bytes=2**64 - 1),
    "replies of 7 bits": with_bits(c0=7, c1=40, prime_count=1),
    "replies of no bits": with_bits(c0=0, c1=0, prime_count=1),
    "replies of 82 bits": with_bits(c0=40, c1=82, prime_count=1),
    "replies of 55 bits": with_bits(c0=40, c1=55, prime_count=1),
    "replies of 79 bits in the first polynomial": with_bits(c0=79, c1=80, prime_count=1),
    "replies of endless bits": with_bits(c0=40, c1=2**32 - 1, prime_count=1),
    "replies of more bits in the first polynomial": with_bits(c0=43, c1=42, prime_count=1),
    "replies of endless bits in the first polynomial": with_bits(c0=2**32 - 1, c1=42, prime_count=1),
    "replies that are lifted to no prime": with_bits(c0=40, c1=42, prime_count=0),
    "replies that are lifted to a prime more": with_bits(c0=40, c1=42, prime_count=2),
    "replies that are lifted to endless primes": with_bits(c0=40, c1=42, prime_count=2**32 - 1),
    "messages of no bytes": with_limits(max_message_bytes=0),
    "no open items": with_limits(max_open_items=0),
    "a window of no bytes": with_limits(window_bytes=0),
    "an endless window": with_limits(window_bytes=2**64 - 1),
    "no time for an item": with_time("item_timeout", 0),
    "a negative time for an item": with_time("item_timeout", -1),
    "a negative time without items": with_time("idle_timeout", -1),
    "33 offers": with_offers(33),
    "60,000 offers": with_offers(60_000),
    "9 offers for endless scores": with_offers(9, wire.MAX_SCORES),
    "endless labels": with_labels("integers", list(range(100_000))),
    "a label of 5,000 bytes": with_labels("strings", ["a", "b", "c" * 5000]),
    "a label of 2,000 wide characters": with_labels("strings", ["a", "b", "\u4e00" * 2000]),
    "a label that is NaN": with_labels("doubles", [0.0, 1.0, math.nan]),
    "an infinite label": with_labels("doubles", [0.0, 1.0, math.inf]),
    "a column name of 5,000 bytes": with_input(feature_names=["a", "b", "c", "d" * 5000]),
    "a column name twice": with_input(feature_names=["a", "b", "a", "d"]),
    "a name with an escape sequence": named(name="\x1b[2J"),
    "a name that reverses what follows": named(name="\u202egnp.exe"),
    "a name of 300 characters": named(name="x" * 300),
    "a configuration id with a line break": named(config_id="a\nb"),
    "a parameter set with an escape sequence": with_parameters(parameter_set="\x1b]0;title\x07"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_description_is_refused(what: str) -> None:
    with pytest.raises(ParameterError):
        wire.model_from_proto(HOSTILE[what])


def test_what_the_hostile_ones_are_made_of_is_accepted() -> None:
    assert wire.model_from_proto(described()).output.score_count == 3
    assert wire.model_from_proto(with_labels("strings", ["a", "b", "c"])).output.classes == ("a", "b", "c")
    small = with_parameters(coeff_modulus=[12289, 40961], data_prime_count=1, plain_modulus=5)
    put(small.offers[0], score_radii=[1, 1, 1])
    assert wire.model_from_proto(small).offers[0].parameters.parameter_set.primes == (12289, 40961)


def test_a_plaintext_modulus_must_hold_the_range_of_the_scores() -> None:
    """Residues of radius r take 2 r + 1 values; the planner's t is at least one more."""
    for radii in ([499, 0, 0], [0, 499, 0], [0, 0, 499]):
        message = with_offer(score_radii=radii)
        put(message.offers[0].parameters, plain_modulus=1000)
        assert wire.model_from_proto(message).offers[0].score_radii == tuple(radii)
        put(message.offers[0].parameters, plain_modulus=999)
        with pytest.raises(ParameterError, match="wider than the plaintext modulus"):
            wire.model_from_proto(message)


@pytest.mark.parametrize(
    ("suggested", "taken"), [(0, 1), (1, 1), (wire.MAX_CONNECTIONS, wire.MAX_CONNECTIONS), (2**32 - 1, 64)]
)
def test_a_server_cannot_make_a_client_open_endless_connections(suggested: int, taken: int) -> None:
    message = described()
    put(message.limits, suggested_connections=suggested)
    assert wire.model_from_proto(message).limits.suggested_connections == taken


def test_no_offer_is_converted_before_they_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each offer costs a product of primes: 60,000 took a second and 71 MB."""
    converted = list[object]()
    monkeypatch.setattr(_models, "_offer_from_proto", lambda *arguments: converted.append(arguments))
    with pytest.raises(ParameterError, match="60000 offers"):
        wire.model_from_proto(with_offers(60_000))
    assert converted == []
    wire.model_from_proto(with_offers(32))
    assert len(converted) == 32, "as many are possible"


@pytest.mark.parametrize("parity", [0, 1])
def test_a_radius_just_below_half_of_t_is_legal(parity: int) -> None:
    """Honest plans use all of t."""
    t = 1 << 30 | parity
    message = with_offer(score_radii=[(t - 2) // 2] * 3)
    put(message.offers[0].parameters, plain_modulus=t)
    assert wire.model_from_proto(message).offers[0].score_radii == ((t - 2) // 2,) * 3


@pytest.mark.parametrize(("published", "taken"), [(1, 1), (2**32 - 1, wire.MAX_OPEN_ITEMS)])
def test_a_server_cannot_make_a_client_keep_endless_items_open(published: int, taken: int) -> None:
    assert wire.model_from_proto(with_limits(max_open_items=published)).limits.max_open_items == taken


def test_a_version_is_made_printable() -> None:
    assert wire.model_from_proto(named(version="1\x1b[31m\n2")).version == "1\\x1b[31m\\n2"


def test_names_of_columns_and_labels_stay_as_they_are() -> None:
    names = ["a\n", "\x1b[31m", "\u202e", " b "]
    assert wire.model_from_proto(with_input(feature_names=names)).schema.column_names == tuple(names)
    assert wire.model_from_proto(with_labels("strings", names[:3])).output.classes == tuple(names[:3])


# Every field in turn

EXTREMES: dict[int, list[Any]] = {
    1: [-(2**31), -1, 0, 2**31 - 1],  # by the CPPTYPE of the field
    2: [-(2**63), -1, 0, 2**63 - 1],
    3: [0, 1, 2, 2**31, 2**32 - 1],
    4: [0, 1, 2, 2**63, 2**64 - 1],
    5: [math.nan, math.inf, -math.inf, 0.0, -1.0, 5e-324, 1.7976931348623157e308, -1.7976931348623157e308],
    7: [True, False],
    8: [-(2**31), -1, 0, 1, 2, 3, 99],
    9: ["", "\0", "x" * 1000],
}
BYTES = [b"", bytes(31), bytes(33)]


def spoiled(message: Message, path: str = "") -> Iterator[tuple[str, Message]]:
    """Copies of a message, each with one extreme value, or with another number of values."""
    for field in message.DESCRIPTOR.fields:
        value, name = getattr(message, field.name), f"{path}.{field.name}"
        if field.message_type is not None:
            for inner in value[:1] if field.is_repeated else [value]:
                for what, changed in spoiled(inner, name):
                    copy = copied(message)
                    place = getattr(copy, field.name)
                    (place[0] if field.is_repeated else place).CopyFrom(changed)
                    yield what, copy
            continue
        for extreme in BYTES if field.type == field.TYPE_BYTES else EXTREMES[field.cpp_type]:
            values = [[extreme] * n for n in {0, 1, len(value), len(value) + 1}] if field.is_repeated else [extreme]
            for new in values:
                copy = copied(message)
                put(copy, **{field.name: new})
                yield f"{name} = {new!r:.40}", copy


def copied(message: Message) -> Message:
    copy = type(message)()
    copy.CopyFrom(message)
    return copy


def is_refused(message: Any) -> bool:
    """Whether a description is refused; if it is not, check that the Model keeps its promises."""
    try:
        model = wire.model_from_proto(message)
    except ParameterError:
        return True
    assert 1 <= model.grid.feature_count <= wire.MAX_FEATURES
    assert 1 <= model.output.score_count <= wire.MAX_SCORES
    assert 1 <= model.limits.suggested_connections <= wire.MAX_CONNECTIONS
    assert (model.grid.levels >= 0).all()
    assert not model.grid.quantize(model.grid.dummy[None]).is_refused.any()
    assert 1 <= model.limits.max_open_items <= wire.MAX_OPEN_ITEMS
    assert model.limits.item_timeout_seconds > 0
    assert model.limits.idle_timeout_seconds >= 0
    for offer in model.offers:
        assert 1 <= offer.classes_per_polynomial <= model.output.score_count
        assert 0 <= offer.cost.server_seconds < math.inf
        assert offer.cost.held_bytes > 0
        assert len(offer.score_radii) == len(offer.score_centers) == model.output.score_count
        assert offer.score_scale > 0
    return False


def test_extreme_values_are_refused_or_harmless() -> None:
    refused = {what: is_refused(message) for what, message in spoiled(DESCRIBED)}
    assert len(refused) > 200
    assert 50 < sum(refused.values()) < len(refused) - 50


@settings(deadline=None, max_examples=200)
@given(data=st.data())
def test_changed_bytes_are_refused_or_harmless(data: st.DataObject) -> None:
    serialized = bytearray(DESCRIBED.SerializeToString())
    for _ in range(data.draw(st.integers(1, 3))):
        serialized[data.draw(st.integers(0, len(serialized) - 1))] = data.draw(st.integers(0, 255))
    try:
        message = model_pb2.Model.FromString(bytes(serialized))
    except DecodeError:
        reject()
    assert is_refused(message) or message.output.score_count > 0
