"""A config_id covers every number that a client depends on, and none that is measured."""

import dataclasses
import math
from typing import Any

import numpy as np
import pytest

from sealserve.he.layouts import LAYOUTS
from sealserve.he.parameters import EncryptionParameters, ParameterSet, Scheme
from sealserve.he.quantization import InputGrid
from sealserve.he.reply_bits import ReplyBits
from sealserve.he.row_constraints import RowConstraints
from sealserve.protocol import wire
from sealserve.protocol.column import Column, ColumnKind
from sealserve.protocol.key_record import KeyKind
from sealserve.protocol.model import CiphertextForm, Cost, Limits, Model, ObservedError, Offer, Verdict
from sealserve.protocol.output import Curve, Link, Output, Pairwise, Task
from sealserve.protocol.schema import Schema
from tests.support.serving import LIMITS, linear, served

SERVED = served("served", linear(np.random.default_rng(12).normal(size=(3, 4)))).model
OFFER, OTHER_SET = SERVED.offers[0], LAYOUTS["row"].open_parameter_sets[1]
BITS = OFFER.reply_bits
assert BITS is not None


def with_offer(**changes: Any) -> Model:
    return dataclasses.replace(SERVED, offers=(dataclasses.replace(OFFER, **changes),))


def with_column(**changes: Any) -> Model:
    columns = [Column("first"), *(Column(str(number)) for number in range(3))]
    columns[0] = dataclasses.replace(columns[0], **changes)
    return dataclasses.replace(SERVED, schema=Schema.of(columns))


def with_output(**changes: Any) -> Model:
    return dataclasses.replace(SERVED, output=dataclasses.replace(SERVED.output, **changes))


def with_parameters(parameter_set: ParameterSet, plain_modulus: int) -> Model:
    return with_offer(parameters=EncryptionParameters(parameter_set, plain_modulus))


def nudged(values: tuple[int, ...]) -> tuple[int, ...]:
    return (*values[:-1], values[-1] + 1)


def with_grid(**changes: Any) -> Model:
    grid = {field.name: getattr(SERVED.grid, field.name) for field in dataclasses.fields(InputGrid)}
    return dataclasses.replace(SERVED, grid=InputGrid.of(SERVED.grid.feature_count, **(grid | changes)))


# What is described of constraints is the groups that clients check.
BINARY = with_grid(minimum=0.0, maximum=1.0, step=1.0, keeps=True)


def grouped(*group: int, exactly_one: tuple[bool, ...] = (False,)) -> Model:
    constraints = RowConstraints.of(4, group, exactly_one)
    return dataclasses.replace(BINARY, grid=InputGrid.of(4, 0.0, 1.0, 1.0, True, constraints))


GROUPED = grouped(1, 1, 0, 0)
T, RING = OFFER.parameters.plain_modulus, OFFER.parameters.parameter_set
OBSERVED = ObservedError(
    row_count=10, score_error=0.5, rms_score_error=0.25, label_disagreement=0.75, expected_label_disagreement=0.125
)

# Every field that is published, each with a model in which it differs. A new field fails the test
# until it is here.
CHANGED: dict[type, dict[str, Model]] = {
    Model: {
        "name": dataclasses.replace(SERVED, name="another"),
        "version": dataclasses.replace(SERVED, version="another"),
        "schema": dataclasses.replace(SERVED, schema=Schema(4, tuple("abcd"))),
        "grid": with_grid(minimum=-1.0),
        "output": with_output(scalar_target=False, task=Task.MULTILABEL, classes=(1, 2, 3)),
        "offers": dataclasses.replace(SERVED, offers=(OFFER, OFFER)),
        "limits": dataclasses.replace(SERVED, limits=dataclasses.replace(LIMITS, max_message_bytes=1)),
        "requires": dataclasses.replace(SERVED, requires=("steps",)),
        "steps_id": dataclasses.replace(SERVED, steps_id="0" * 64),
        "steps_bytes": dataclasses.replace(SERVED, steps_bytes=1),
    },
    Column: {
        "name": with_column(name="another"),
        "kind": with_column(kind=ColumnKind.INTEGER),
        "allows_missing": with_column(allows_missing=True),
        "minimum": with_column(minimum=0.0),
        "maximum": with_column(maximum=0.0),
    },
    Schema: {
        "column_count": dataclasses.replace(SERVED, schema=Schema.of([Column(name) for name in "abcde"])),
        "column_names": dataclasses.replace(SERVED, schema=Schema(4, tuple("efgh"))),
        "columns": dataclasses.replace(SERVED, schema=Schema.of([Column(name) for name in "abcd"])),
    },
    InputGrid: {
        "minimum": with_grid(minimum=np.nextafter(SERVED.grid.minimum, -1)),
        "maximum": with_grid(maximum=np.nextafter(SERVED.grid.maximum, 2)),
        "step": with_grid(step=np.nextafter(SERVED.grid.step, 1)),
        "keeps": with_grid(keeps=~SERVED.grid.keeps),
        "constraints": GROUPED,
    },
    Output: {
        "task": with_output(task=Task.CLASSIFICATION, classes=(1, 2, 3)),
        "score_count": with_output(score_count=2),
        "classes": with_output(task=Task.CLASSIFICATION, classes=(1.0, 2.0, 3.0)),
        "link": with_output(task=Task.CLASSIFICATION, classes=(1, 2, 3), link=Link.SOFTMAX),
        "scalar_target": with_output(score_count=1, scalar_target=True),
        "keeps_zero_rows": with_output(keeps_zero_rows=True),
        "has_no_decision_function": with_output(has_no_decision_function=True),
        "member_count": with_output(
            task=Task.CLASSIFICATION, classes=("no", "yes"), link=Link.LOGISTIC, member_count=3
        ),
        "curves": with_output(
            task=Task.CLASSIFICATION, classes=(1, 2, 3), link=Link.CURVES, curves=(Curve((0.0,), (0.5,)),) * 3
        ),
        "pairwise": with_output(task=Task.CLASSIFICATION, classes=(1, 2, 3), pairwise=Pairwise.VOTES),
    },
    Offer: {
        "layout": with_offer(layout=LAYOUTS["column"]),
        "parameters": with_parameters(OTHER_SET, T),
        "parms_id": with_offer(parms_id=bytes(32)),
        "private_weights": with_offer(private_weights=True),
        "rows_per_item": with_offer(rows_per_item=OFFER.rows_per_item + 1),
        "classes_per_polynomial": with_offer(classes_per_polynomial=OFFER.classes_per_polynomial + 1),
        "ciphertexts_per_item": with_offer(ciphertexts_per_item=2),
        "score_scale": with_offer(score_scale=math.nextafter(OFFER.score_scale, 0)),
        "score_centers": with_offer(score_centers=nudged(OFFER.score_centers)),
        "score_radii": with_offer(score_radii=nudged(OFFER.score_radii)),
        "score_error_bound": with_offer(score_error_bound=math.nextafter(OFFER.score_error_bound, 1)),
        "input_rounding_error_bound": with_offer(input_rounding_error_bound=0.0),
        "observed_error": with_offer(observed_error=OBSERVED),
        "required_key": with_offer(required_key=KeyKind.PUBLIC_ENCRYPTION_KEY),
        "weight_rounding_error_bound": with_offer(weight_rounding_error_bound=OFFER.score_error_bound),
        "expected_score_error": with_offer(expected_score_error=OFFER.score_error_bound),
        "verdict": with_offer(verdict=Verdict.REFUSE),
        "reply_bits": with_offer(reply_bits=None),
        "ciphertext_forms": with_offer(ciphertext_forms=frozenset(CiphertextForm) ^ OFFER.ciphertext_forms),
    },
    ReplyBits: {
        name: with_offer(reply_bits=dataclasses.replace(BITS, **{name: getattr(BITS, name) + 1}))
        for name in ("c0", "c1", "prime_count")
    },
    ParameterSet: {
        "name": with_parameters(dataclasses.replace(RING, name="another"), T),
        "poly_modulus_degree": with_parameters(ParameterSet(RING.name, 4096, (12289 * 8192 + 1,)), 2),
        "primes": with_parameters(ParameterSet(RING.name, 2048, (12289,)), 2),
    },
    EncryptionParameters: {
        "parameter_set": with_parameters(LAYOUTS["row"].open_parameter_sets[2], T),
        "plain_modulus": with_parameters(RING, T * 2),
        "scheme": with_offer(parameters=EncryptionParameters(RING, scheme=Scheme.CKKS)),
        "scale": with_offer(parameters=EncryptionParameters(RING, scheme=Scheme.CKKS, scale=2.0)),
    },
    ObservedError: {
        "score_error": with_offer(observed_error=dataclasses.replace(OBSERVED, score_error=0.25)),
        "row_count": with_offer(observed_error=dataclasses.replace(OBSERVED, row_count=11)),
        "rms_score_error": with_offer(observed_error=dataclasses.replace(OBSERVED, rms_score_error=0.375)),
        "label_disagreement": with_offer(observed_error=dataclasses.replace(OBSERVED, label_disagreement=1.0)),
        "expected_label_disagreement": with_offer(
            observed_error=dataclasses.replace(OBSERVED, expected_label_disagreement=0.0)
        ),
    },
    Limits: {
        field.name: dataclasses.replace(SERVED, limits=dataclasses.replace(LIMITS, **{field.name: 7}))
        for field in dataclasses.fields(Limits)
    },
}
# Of the steps the digest covers their digest.
NOT_COVERED = {Model: {"config_id", "steps"}, Offer: {"cost"}}


@pytest.mark.parametrize("kind", CHANGED, ids=lambda kind: kind.__name__)
def test_a_configs_digest_covers_every_published_field(kind: type) -> None:
    changed = CHANGED[kind]
    fields = {field.name for field in dataclasses.fields(kind)}
    assert set(changed) == fields - NOT_COVERED.get(kind, set())
    digests = {name: wire.config_digest(model) for name, model in changed.items()} | {"": wire.config_digest(SERVED)}
    assert len(set(digests.values())) == len(digests), digests


def test_a_configs_digest_covers_each_group() -> None:
    models = [
        BINARY,
        GROUPED,
        grouped(0, 1, 1, 0),
        grouped(1, 1, 1, 0),
        grouped(1, 1, 0, 0, exactly_one=(True,)),
        grouped(1, 1, 2, 2, exactly_one=(True, False)),
        grouped(1, 1, 2, 2, exactly_one=(False, True)),
    ]
    assert len(set(map(wire.config_digest, models))) == len(models)


def test_a_configs_digest_does_not_change_with_measured_costs_or_itself() -> None:
    digest = wire.config_digest(with_offer())
    assert (
        wire.config_digest(with_offer(cost=Cost(request_bytes=1, reply_bytes=2, server_seconds=3.0, held_bytes=4)))
        == digest
    )
    digest = wire.config_digest(dataclasses.replace(SERVED, config_id="another"))
    assert digest == SERVED.config_id
    assert len(digest) == 32
