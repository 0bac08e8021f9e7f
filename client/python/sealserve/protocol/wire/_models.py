"""Conversions of models, with the checks of a description that may be hostile."""

import dataclasses
import hashlib
import math
from collections.abc import Sequence
from datetime import timedelta

import numpy as np
from numpy.typing import NDArray

from sealserve.errors import ParameterError
from sealserve.he.parameters import EncryptionParameters, ParameterSet, Scheme
from sealserve.he.quantization import InputGrid
from sealserve.he.reply_bits import ReplyBits
from sealserve.he.row_constraints import RowConstraints
from sealserve.protocol.column import Column, ColumnKind
from sealserve.protocol.model import Cost, Limits, Model, ObservedError, Offer
from sealserve.protocol.output import Curve, Label, Link, Output, Task
from sealserve.protocol.schema import Schema
from sealserve.protocol.text import printable
from sealserve.protocol.wire._bounds import (
    MAX_CIPHERTEXT_FORMS,
    MAX_CONNECTIONS,
    MAX_OPEN_ITEMS,
    check_counts,
    check_identifier,
    check_limits,
    check_offer,
    check_reply_bits,
    check_scores,
)
from sealserve.protocol.wire._enums import (
    CIPHERTEXT_FORMS,
    CIPHERTEXT_FORMS_TO_PROTO,
    KINDS,
    LAYOUTS_BY_NUMBER,
    PAIRWISE,
    PAIRWISE_TO_PROTO,
    SCHEMES,
    SCHEMES_TO_PROTO,
    VERDICTS,
    kind_to_proto,
    layout_to_proto,
    seconds,
    verdict_to_proto,
)
from sealserve.v1 import model_pb2, parameters_pb2


def model_to_proto(model: Model) -> model_pb2.Model:
    """Convert a model."""
    constraints = model.grid.constraints.checked
    return model_pb2.Model(
        name=model.name,
        version=model.version,
        config_id=model.config_id,
        input=model_pb2.Input(
            feature_count=model.grid.feature_count,
            feature_names=() if model.schema.columns else model.schema.column_names,
            minimum=_folded(model.grid.minimum),
            maximum=_folded(model.grid.maximum),
            step=_folded(model.grid.step),
            keeps=map(bool, _folded(model.grid.keeps)) if model.grid.keeps.any() else (),
            group=constraints.group.tolist(),
            exactly_one=constraints.exactly_one.tolist(),
            columns=map(_column_to_proto, model.schema.columns),
            steps_id=model.steps_id,
            steps_bytes=model.steps_bytes,
        ),
        output=_output_to_proto(model.output),
        offers=[_offer_to_proto(offer) for offer in model.offers],
        limits=model_pb2.Limits(
            max_message_bytes=model.limits.max_message_bytes,
            max_open_items=model.limits.max_open_items,
            item_timeout=timedelta(seconds=model.limits.item_timeout_seconds),
            window_bytes=model.limits.window_bytes,
            max_key_bytes=model.limits.max_key_bytes,
            suggested_connections=model.limits.suggested_connections,
            idle_timeout=timedelta(seconds=model.limits.idle_timeout_seconds),
        ),
        requires=model.requires,
    )


def model_from_proto(message: model_pb2.Model) -> Model:
    """Check and convert a model.

    Offers in a layout, scheme or mode that this version does not know are left out. A model that
    requires a capability that this version does not have is converted, so that it can be listed.
    The caller refuses to encrypt for it: see `Model.check_requirements`.

    Raises:
        ParameterError: the description contradicts itself, is out of bounds (`_bounds`), or an
            offer has less than 128 bits of security.
    """
    check_counts(message)
    feature_count, score_count = message.input.feature_count, message.output.score_count
    try:
        schema = _schema_from_proto(message.input)
        grid = InputGrid.of(
            feature_count,
            _unfolded(message.input.minimum),
            _unfolded(message.input.maximum),
            _unfolded(message.input.step),
            keeps=_unfolded(message.input.keeps) if message.input.keeps else False,
            constraints=RowConstraints.of(feature_count, message.input.group, message.input.exactly_one),
        )
        output = _output_from_proto(message.output)
    except ValueError as error:
        raise ParameterError(f"model {message.name!r}: {error}") from error
    limits = message.limits
    check_limits(message.name, limits)
    return Model(
        name=message.name,
        version=printable(message.version),
        config_id=message.config_id,
        schema=schema,
        grid=grid,
        output=output,
        offers=tuple(_offer_from_proto(offer, score_count) for offer in message.offers if _is_known(offer)),
        limits=Limits(
            max_message_bytes=limits.max_message_bytes,
            max_open_items=min(limits.max_open_items, MAX_OPEN_ITEMS),
            item_timeout_seconds=seconds(limits.item_timeout),
            window_bytes=limits.window_bytes,
            max_key_bytes=limits.max_key_bytes,
            suggested_connections=min(max(1, limits.suggested_connections), MAX_CONNECTIONS),
            idle_timeout_seconds=seconds(limits.idle_timeout),
        ),
        requires=tuple(message.requires),
        steps_id=message.input.steps_id,
        steps_bytes=message.input.steps_bytes,
    )


def config_digest(model: Model) -> str:
    """Return a config_id: a digest of all that a client's numbers depend on, except itself."""
    message = model_to_proto(dataclasses.replace(model, config_id=""))
    for offer in message.offers:
        offer.ClearField("cost")  # measured, so that it differs between processes that serve the same
    return hashlib.sha256(message.SerializeToString(deterministic=True)).hexdigest()[:32]


def _column_to_proto(column: Column) -> model_pb2.Column:
    return model_pb2.Column(
        name=column.name,
        kind=f"KIND_{column.kind.name}",
        allows_missing=column.allows_missing,
        minimum=column.minimum,
        maximum=column.maximum,
    )


def _schema_from_proto(message: model_pb2.Input) -> Schema:
    if not message.columns:  # each feature is a column
        return Schema(message.feature_count, tuple(message.feature_names))
    return Schema.of(list(map(_column_from_proto, message.columns)))


def _column_from_proto(message: model_pb2.Column) -> Column:
    try:
        kind = ColumnKind[model_pb2.Column.Kind.Name(message.kind).removeprefix("KIND_")]
    except (KeyError, ValueError):
        raise ValueError("a column is of a kind that is unknown to this version: update sealserve") from None
    return Column(
        message.name,
        kind,
        message.allows_missing,
        message.minimum if message.HasField("minimum") else None,
        message.maximum if message.HasField("maximum") else None,
    )


def _output_to_proto(output: Output) -> model_pb2.Output:
    message = model_pb2.Output(
        task=f"TASK_{output.task.name}",
        score_count=output.score_count,
        link=f"LINK_{output.link.name}",
        scalar_target=output.scalar_target,
        keeps_zero_rows=output.keeps_zero_rows,
        has_no_decision_function=output.has_no_decision_function,
        member_count=output.member_count if output.member_count > 1 else 0,
        curves=[model_pb2.Curve(scores=c.scores, probabilities=c.probabilities) for c in output.curves],
        pairwise=PAIRWISE_TO_PROTO[output.pairwise],
    )
    for field, kind in (("booleans", bool), ("integers", int), ("doubles", float), ("strings", str)):
        if output.classes and isinstance(output.classes[0], kind):
            getattr(message.classes, field).values.extend(output.classes)
            break
    return message


def _output_from_proto(message: model_pb2.Output) -> Output:
    field = message.classes.WhichOneof("labels")
    classes: tuple[Label, ...] = tuple(getattr(message.classes, field).values) if field else ()
    try:
        task = Task[model_pb2.Output.Task.Name(message.task).removeprefix("TASK_")]
        link = Link[model_pb2.Output.Link.Name(message.link).removeprefix("LINK_")]
        pairwise = PAIRWISE[message.pairwise]
    except (KeyError, ValueError):
        raise ValueError("its task or link function is unknown to this version: update sealserve") from None
    if not all(math.isfinite(label) for label in message.classes.doubles.values):
        raise ValueError("a label is infinite or no number")
    return Output(
        task,
        message.score_count,
        classes,
        link,
        scalar_target=message.scalar_target,
        keeps_zero_rows=message.keeps_zero_rows,
        has_no_decision_function=message.has_no_decision_function,
        member_count=message.member_count or 1,
        curves=tuple(Curve(tuple(curve.scores), tuple(curve.probabilities)) for curve in message.curves),
        pairwise=pairwise,
    )


def _offer_to_proto(offer: Offer) -> model_pb2.Offer:
    parameter_set = offer.parameters.parameter_set
    return model_pb2.Offer(
        layout=layout_to_proto(offer.layout),
        parameters=parameters_pb2.EncryptionParameters(
            parameter_set=parameter_set.name,
            scheme=SCHEMES_TO_PROTO[offer.parameters.scheme],
            poly_modulus_degree=parameter_set.poly_modulus_degree,
            coeff_modulus=parameter_set.primes,
            data_prime_count=len(parameter_set.data_primes),
            plain_modulus=offer.parameters.plain_modulus,
            ciphertext_scale=offer.parameters.scale,
            parms_id=offer.parms_id,
        ),
        weights=parameters_pb2.WEIGHTS_PRIVATE if offer.private_weights else parameters_pb2.WEIGHTS_OPEN,
        rows_per_item=offer.rows_per_item,
        classes_per_polynomial=offer.classes_per_polynomial,
        ciphertexts_per_item=offer.ciphertexts_per_item,
        score_scale=offer.score_scale,
        score_centers=offer.score_centers,
        score_radii=offer.score_radii,
        score_error_bound=offer.score_error_bound,
        input_rounding_error_bound=offer.input_rounding_error_bound,
        observed_error=_observed_to_proto(offer.observed_error),
        cost=model_pb2.Cost(
            request_bytes=offer.cost.request_bytes,
            reply_bytes=offer.cost.reply_bytes,
            server_seconds=offer.cost.server_seconds,
            held_bytes=offer.cost.held_bytes,
            key_bytes=offer.cost.key_bytes,
        ),
        required_key=kind_to_proto(offer.required_key),
        weight_rounding_error_bound=offer.weight_rounding_error_bound,
        expected_score_error=offer.expected_score_error,
        verdict=verdict_to_proto(offer.verdict),
        reply_bits=_bits_to_proto(offer.reply_bits),
        ciphertext_forms=[
            number for form, number in CIPHERTEXT_FORMS_TO_PROTO.items() if form in offer.ciphertext_forms
        ],
    )


def _bits_to_proto(bits: ReplyBits | None) -> model_pb2.ReplyBits | None:
    if bits is None:
        return None
    return model_pb2.ReplyBits(c0=bits.c0, c1=bits.c1, prime_count=bits.prime_count)


def _observed_to_proto(observed: ObservedError | None) -> model_pb2.ObservedError | None:
    if observed is None:
        return None
    return model_pb2.ObservedError(
        score_error=observed.score_error,
        row_count=observed.row_count,
        label_disagreement=observed.label_disagreement,
        rms_score_error=observed.rms_score_error,
        expected_label_disagreement=observed.expected_label_disagreement,
    )


def _is_known(message: model_pb2.Offer) -> bool:
    return (
        message.layout in LAYOUTS_BY_NUMBER
        and message.parameters.scheme in SCHEMES
        and message.weights in (parameters_pb2.WEIGHTS_OPEN, parameters_pb2.WEIGHTS_PRIVATE)
        and (not message.required_key or message.required_key in KINDS)
        and (not message.verdict or message.verdict in VERDICTS)
    )


def _offer_from_proto(message: model_pb2.Offer, score_count: int) -> Offer:
    parameters = message.parameters
    check_identifier("the name of a parameter set", parameters.parameter_set)
    name = parameters.parameter_set
    check_offer(name, message, score_count)
    parameter_set = ParameterSet(name, parameters.poly_modulus_degree, tuple(parameters.coeff_modulus))
    if parameters.data_prime_count != len(parameter_set.data_primes):
        raise ParameterError(f"{name}: {parameters.data_prime_count} data primes; SEAL makes other numbers of these")
    layout, scheme = LAYOUTS_BY_NUMBER[message.layout], SCHEMES[parameters.scheme]
    if layout.scheme is not scheme:
        raise ParameterError(f"{name}: {scheme.name} is not the scheme of layout {layout.name}")
    scale = message.score_scale
    if not (math.isfinite(scale) and scale > 0):
        raise ParameterError(f"{name}: the score scale is not above 0")
    score_integers = score_count if scheme is Scheme.BFV else 0
    if not len(message.score_centers) == len(message.score_radii) == score_integers:
        raise ParameterError(f"{name}: {score_integers} score centers and radii are needed")
    check_scores(name, message)
    check_reply_bits(name, message)
    return Offer(
        layout=layout,
        parameters=EncryptionParameters(parameter_set, parameters.plain_modulus, scheme, parameters.ciphertext_scale),
        parms_id=message.parameters.parms_id,
        private_weights=message.weights == parameters_pb2.WEIGHTS_PRIVATE,
        rows_per_item=message.rows_per_item,
        classes_per_polynomial=message.classes_per_polynomial,
        ciphertexts_per_item=message.ciphertexts_per_item,
        score_scale=scale,
        score_centers=tuple(message.score_centers),
        score_radii=tuple(message.score_radii),
        score_error_bound=message.score_error_bound,
        input_rounding_error_bound=message.input_rounding_error_bound,
        observed_error=_observed_from_proto(message.observed_error) if message.HasField("observed_error") else None,
        cost=Cost(
            request_bytes=message.cost.request_bytes,
            reply_bytes=message.cost.reply_bytes,
            server_seconds=message.cost.server_seconds,
            held_bytes=message.cost.held_bytes,
            key_bytes=message.cost.key_bytes,
        ),
        required_key=KINDS.get(message.required_key),
        weight_rounding_error_bound=message.weight_rounding_error_bound,
        expected_score_error=message.expected_score_error,
        verdict=VERDICTS.get(message.verdict),
        reply_bits=_bits_from_proto(message.reply_bits) if message.HasField("reply_bits") else None,
        ciphertext_forms=frozenset(
            filter(None, map(CIPHERTEXT_FORMS.get, message.ciphertext_forms[:MAX_CIPHERTEXT_FORMS]))
        ),
    )


def _bits_from_proto(message: model_pb2.ReplyBits) -> ReplyBits:
    return ReplyBits(c0=message.c0, c1=message.c1, prime_count=message.prime_count)


def _observed_from_proto(message: model_pb2.ObservedError) -> ObservedError:
    return ObservedError(
        score_error=message.score_error,
        row_count=message.row_count,
        label_disagreement=message.label_disagreement,
        rms_score_error=message.rms_score_error,
        expected_label_disagreement=message.expected_label_disagreement,
    )


def _folded(values: NDArray[np.float64] | NDArray[np.bool_]) -> list[float]:
    """Return one value if all are equal, otherwise one a feature."""
    return list(map(float, values[:1] if (values == values[0]).all() else values))


def _unfolded(values: Sequence[float]) -> float | NDArray[np.float64]:
    return values[0] if len(values) == 1 else np.array(values, np.float64)
