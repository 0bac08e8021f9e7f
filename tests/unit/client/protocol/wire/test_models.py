"""Models survive the way to protobuf and back."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sealserve.he.bit_packing import MAX_BITS, MIN_BITS, possible_bits
from sealserve.he.layouts import LAYOUTS
from sealserve.he.parameters import EncryptionParameters
from sealserve.he.quantization import InputGrid
from sealserve.he.reply_bits import ReplyBits
from sealserve.he.row_constraints import RowConstraints
from sealserve.protocol import wire
from sealserve.protocol.model import CiphertextForm, Cost, Limits, Model, ObservedError, Offer, Verdict
from sealserve.protocol.output import Curve, Link, Output, Pairwise, Task
from sealserve.protocol.schema import Schema
from sealserve.v1 import model_pb2
from tests.support.serving import linear, served

QUICK = settings(deadline=None, max_examples=60)
RANDOM = np.random.default_rng(12)

counts = st.integers(1, 2**32 - 1)
sizes = st.integers(1, 2**48)
texts = st.text(max_size=8)
shown_texts = st.text(st.characters(exclude_categories=("C", "Z")), max_size=8)
numbers = st.floats(allow_nan=False, allow_infinity=False)
amounts = st.floats(0.0, allow_nan=False, allow_infinity=False)
seconds = st.integers(0, 10**9).map(lambda milliseconds: milliseconds / 1000)
FLAGS = (False, True)


@st.composite
def grids(draw: st.DrawFn) -> InputGrid:
    count = draw(st.integers(1, 5))
    values = hnp.arrays(np.float64, st.sampled_from([(1,), (count,)]), elements=st.floats(-1e9, 1e9))
    low = np.broadcast_to(draw(values), (count,))
    high = low + np.abs(draw(values))
    step = np.abs(draw(values)) + 1.0
    numbers = draw(st.just([0]) | st.lists(st.integers(0, 2), min_size=count, max_size=count))
    if not any(numbers):
        return InputGrid.of(count, low, high, step)
    _, group = np.unique([0, *numbers], return_inverse=True)
    groups = RowConstraints.of(count, group[1:], [draw(st.booleans()) for _ in range(int(group.max()))])
    return InputGrid.of(count, low, low + 3 * step, step, True, groups)


@st.composite
def outputs(draw: st.DrawFn) -> Output:
    task, score_count = draw(st.sampled_from(Task)), draw(st.integers(1, 4))
    members, pairwise, curves = 1, Pairwise.NONE, tuple[Curve, ...]()
    link = draw(st.sampled_from(Link))
    if task is Task.CLASSIFICATION:
        pairwise = draw(st.sampled_from(Pairwise)) if score_count == 3 and link is Link.NONE else pairwise
        members = draw(st.sampled_from([1, score_count])) if link is not Link.NONE else members
        if link is Link.CURVES:
            curves = (Curve((0.0, 1.5), (0.25, draw(st.floats(0.25, 1.0)))),) * score_count
    width = score_count // members
    classes = {Task.REGRESSION: 0, Task.MULTILABEL: width, Task.CLASSIFICATION: max(2, width)}[task]
    labels = [st.integers(-(2**63), 2**63 - 1), numbers, texts, *([st.booleans()] if classes <= 2 else [])]
    kind = draw(st.sampled_from(labels))
    drawn: list[Any] = draw(st.lists(kind, min_size=classes, max_size=classes, unique=True))
    try:
        return Output(
            task,
            score_count,
            tuple(drawn),
            link,
            scalar_target=draw(st.booleans()),
            keeps_zero_rows=draw(st.booleans()),
            has_no_decision_function=draw(st.booleans()),
            member_count=members,
            curves=curves,
            pairwise=pairwise,
        )
    except ValueError:
        reject()


@st.composite
def offers(draw: st.DrawFn, score_count: int) -> Offer:
    parameters = EncryptionParameters(
        draw(st.sampled_from(LAYOUTS["row"].open_parameter_sets)), draw(st.integers(2, 2**50))
    )

    def integers(least: int, most: int) -> tuple[int, ...]:
        return tuple(draw(st.lists(st.integers(least, most), min_size=score_count, max_size=score_count)))

    return Offer(
        layout=draw(st.sampled_from([LAYOUTS["row"], LAYOUTS["column"]])),
        parameters=parameters,
        parms_id=draw(st.binary(min_size=32, max_size=32)),
        private_weights=draw(st.booleans()),
        rows_per_item=draw(counts),
        classes_per_polynomial=draw(st.integers(1, score_count)),
        ciphertexts_per_item=draw(counts),
        score_scale=draw(st.floats(1e-280, 1e300)),
        score_centers=integers(-(2**63) + 2**50, 2**63 - 2**50),
        score_radii=integers(0, (parameters.plain_modulus - 2) // 2),
        score_error_bound=draw(amounts),
        input_rounding_error_bound=draw(amounts),
        observed_error=draw(
            st.none()
            | st.builds(
                ObservedError,
                row_count=sizes,
                score_error=amounts,
                rms_score_error=amounts,
                label_disagreement=st.floats(0.0, 1.0),
                expected_label_disagreement=st.floats(0.0, 1.0),
            )
        ),
        weight_rounding_error_bound=draw(amounts),
        expected_score_error=draw(amounts),
        verdict=draw(st.none() | st.sampled_from(Verdict)),
        cost=draw(st.builds(Cost, request_bytes=sizes, reply_bytes=sizes, server_seconds=amounts, held_bytes=sizes)),
        reply_bits=draw(st.none() | reply_bits(len(parameters.parameter_set.data_primes))),
        ciphertext_forms=draw(st.frozensets(st.sampled_from(CiphertextForm))),
    )


@st.composite
def reply_bits(draw: st.DrawFn, prime_count: int) -> ReplyBits:
    c0, c1 = sorted(draw(st.lists(st.integers(MIN_BITS, MAX_BITS).map(possible_bits), min_size=2, max_size=2)))
    return ReplyBits(c0=c0, c1=c1, prime_count=draw(st.integers(1, prime_count)))


@st.composite
def models(draw: st.DrawFn) -> Model:
    grid, output = draw(grids()), draw(outputs())
    names = draw(st.just([]) | st.lists(texts, min_size=grid.feature_count, max_size=grid.feature_count, unique=True))
    connections = st.integers(1, wire.MAX_CONNECTIONS)
    return Model(
        name=draw(shown_texts),
        version=draw(shown_texts),
        config_id=draw(shown_texts),
        schema=Schema(grid.feature_count, tuple(names)),
        grid=grid,
        output=output,
        offers=tuple(draw(st.lists(offers(output.score_count), max_size=2))),
        limits=draw(
            st.builds(
                Limits,
                max_message_bytes=counts,
                max_open_items=st.integers(1, wire.MAX_OPEN_ITEMS),
                item_timeout_seconds=seconds.map(lambda value: value + 0.001),
                window_bytes=sizes,
                max_key_bytes=sizes,
                suggested_connections=connections,
                idle_timeout_seconds=seconds,
            )
        ),
        requires=tuple(draw(st.lists(texts, max_size=2))),
    )


@QUICK
@given(model=models())
def test_models_survive(model: Model) -> None:
    back = wire.model_from_proto(wire.model_to_proto(model))
    for field in dataclasses.fields(Model):
        if field.name not in ("grid", "limits"):
            assert getattr(back, field.name) == getattr(model, field.name)
    assert list(map(type, back.output.classes)) == list(map(type, model.output.classes))
    for field in dataclasses.fields(RowConstraints):
        found, kept = (getattr(one.grid.constraints, field.name) for one in (back, model))
        assert np.array_equal(found, kept), field.name
    for field in dataclasses.fields(InputGrid)[:4]:
        assert np.array_equal(getattr(back.grid, field.name), getattr(model.grid, field.name))
    assert vars(back.limits) == pytest.approx(vars(model.limits))
    assert wire.config_digest(back) == wire.config_digest(model)


SERVED = served("served", linear(RANDOM.normal(size=(3, 4)))).model
DESCRIBED = wire.model_to_proto(SERVED)


def test_one_value_stands_for_all_that_are_equal() -> None:
    grid = InputGrid.of(3, 0.0, [1.0, 2.0, 3.0])
    message = wire.model_to_proto(dataclasses.replace(SERVED, grid=grid)).input
    assert (len(message.minimum), len(message.maximum), len(message.step)) == (1, 3, 3)


def described() -> model_pb2.Model:
    message = model_pb2.Model()
    message.CopyFrom(DESCRIBED)
    return message


@pytest.mark.parametrize(
    ("part", "field"), [("layout", "layout"), ("scheme", "parameters.scheme"), ("mode", "weights")], ids=lambda v: v
)
@pytest.mark.parametrize("number", [0, 99, 2**31 - 1, -1])
def test_offers_of_tomorrow_are_left_out(part: str, field: str, number: int) -> None:
    message = described()
    strange = message.offers.add()
    strange.CopyFrom(message.offers[0])
    *path, last = field.split(".")
    setattr(getattr(strange, path[0]) if path else strange, last, number)
    strange.parameters.poly_modulus_degree = 7  # nothing of it is looked at
    assert wire.model_from_proto(message).offers == SERVED.offers, part


@pytest.mark.parametrize("number", [99, 2**31 - 1, -1])
def test_offers_with_a_verdict_of_tomorrow_are_left_out(number: int) -> None:
    message = described()
    message.offers.add().CopyFrom(message.offers[0])
    setattr(message.offers[-1], "verdict", number)  # noqa: B010, it is no enumerator
    assert wire.model_from_proto(message).offers == SERVED.offers


def test_a_model_has_the_worst_verdict_of_its_offers() -> None:
    offer = SERVED.offers[0]

    def verdict(*verdicts: Verdict | None) -> Verdict | None:
        offers = tuple(dataclasses.replace(offer, verdict=verdict) for verdict in verdicts)
        return dataclasses.replace(SERVED, offers=offers).verdict

    assert verdict(None) is None
    assert verdict(None, Verdict.OK) is Verdict.OK
    assert verdict(Verdict.WARN, Verdict.OK, Verdict.UNCHECKED) is Verdict.WARN
    assert verdict(Verdict.OK, Verdict.REFUSE, Verdict.WARN) is Verdict.REFUSE
    assert verdict(Verdict.UNCHECKED, Verdict.OK) is Verdict.UNCHECKED
