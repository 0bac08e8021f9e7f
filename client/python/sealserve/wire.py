"""Domain objects <-> protobuf messages, in pairs. Besides client.py the only module of the SDK that sees protobuf.

What comes from the wire is hostile: `model_from_proto` gives a checked Model or raises ParameterError, and builds
nothing larger than the message it reads.
"""

import dataclasses
import hashlib
import math
from collections.abc import Sequence
from datetime import UTC, timedelta
from enum import Enum
from typing import Any

import numpy as np
from google.protobuf.duration_pb2 import Duration
from numpy.typing import NDArray

from sealserve import errors
from sealserve.errors import CiphertextFault, KeyFault, ParameterError, ServiceError
from sealserve.he.parameters import EncryptionParameters, Layout, ParameterSet, Scheme
from sealserve.he.quantization import InputGrid
from sealserve.item import ItemHeader, Residues, Scores, SealCiphertext
from sealserve.model import Cost, Limits, Model, ObservedError, Offer
from sealserve.output import Label, Link, Output, Task
from sealserve.registered_key import KeyHeader, KeyKind, KeyRecord
from sealserve.v1 import errors_pb2, keys_pb2, model_pb2, parameters_pb2, prediction_pb2

MAX_FEATURES = 1 << 20
MAX_SCORES = 1 << 16
MAX_CONNECTIONS = 64

_LAYOUTS = {
    Layout.ROW: parameters_pb2.LAYOUT_ROW,
    Layout.COLUMN: parameters_pb2.LAYOUT_COLUMN,
    Layout.EI_SLOTS: parameters_pb2.LAYOUT_EI_SLOTS,
}
_LAYOUTS_BACK = {number: layout for layout, number in _LAYOUTS.items()}

_SCHEMES = {Scheme.BFV: parameters_pb2.SCHEME_BFV, Scheme.CKKS: parameters_pb2.SCHEME_CKKS}
_SCHEMES_BACK = {number: scheme for scheme, number in _SCHEMES.items()}

_KINDS = {
    KeyKind.EVALUATION_KEYS: keys_pb2.KEY_KIND_EVALUATION_KEYS,
    KeyKind.PUBLIC_ENCRYPTION_KEY: keys_pb2.KEY_KIND_PUBLIC_ENCRYPTION_KEY,
}
_KINDS_BACK = {number: kind for kind, number in _KINDS.items()}


# Items


def header_to_proto(header: ItemHeader) -> prediction_pb2.ItemHeader:
    """Convert a header."""
    return prediction_pb2.ItemHeader(
        model=header.model,
        config_id=header.config_id,
        layout=_layout_to_proto(header.layout),
        parameter_set=header.parameter_set,
        row_count=header.row_count,
        ciphertext_count=header.ciphertext_count,
        key_id=header.key_id,
    )


def header_from_proto(message: prediction_pb2.ItemHeader) -> ItemHeader:
    """Convert a header; whether it fits a model is not looked at here."""
    return ItemHeader(
        message.model,
        message.config_id,
        _LAYOUTS_BACK.get(message.layout),
        message.parameter_set,
        message.row_count,
        message.ciphertext_count,
        message.key_id,
    )


def scores_to_proto(first_index: int, pieces: Sequence[Scores]) -> prediction_pb2.ScoreGroup:
    """Convert consecutive pieces of a reply."""
    group = prediction_pb2.ScoreGroup(first_index=first_index)
    for piece in pieces:
        message = group.scores.add()
        if isinstance(piece, Residues):
            message.residues.c0, message.residues.c1 = piece
        else:
            message.seal_ciphertext = piece
    return group


def scores_from_proto(group: prediction_pb2.ScoreGroup) -> list[Scores]:
    """Convert consecutive pieces of a reply; whether they are of the layout's form is the exchange's to see."""
    return [
        SealCiphertext(scores.seal_ciphertext)
        if scores.HasField("seal_ciphertext")
        else Residues(scores.residues.c0, scores.residues.c1)
        for scores in group.scores
    ]


# Models


def model_to_proto(model: Model) -> model_pb2.Model:
    """Convert a model."""
    return model_pb2.Model(
        name=model.name,
        version=model.version,
        config_id=model.config_id,
        input=model_pb2.Input(
            feature_count=model.grid.feature_count,
            feature_names=model.feature_names,
            minimum=_folded(model.grid.minimum),
            maximum=_folded(model.grid.maximum),
            step=_folded(model.grid.step),
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
    )


def model_from_proto(message: model_pb2.Model) -> Model:
    """Check and convert a model. Offers in a layout, scheme or mode that this version does not know are left out.

    Raises:
        ParameterError: the description contradicts itself, or an offer is below 128 bits of security.
    """
    feature_count, score_count = message.input.feature_count, message.output.score_count
    if not (1 <= feature_count <= MAX_FEATURES and 1 <= score_count <= MAX_SCORES):
        raise ParameterError(f"model {message.name!r} has {feature_count} features and {score_count} scores")
    if len(message.input.feature_names) not in (0, feature_count):
        raise ParameterError(f"model {message.name!r}: as many feature names as features are needed, or none")
    try:
        grid = InputGrid.of(
            feature_count, *(_unfolded(v) for v in (message.input.minimum, message.input.maximum, message.input.step))
        )
        output = _output_from_proto(message.output)
    except ValueError as error:
        raise ParameterError(f"model {message.name!r}: {error}") from error
    limits = message.limits
    return Model(
        message.name,
        message.version,
        message.config_id,
        tuple(message.input.feature_names),
        grid,
        output,
        tuple(_offer_from_proto(offer, score_count) for offer in message.offers if _is_known(offer)),
        Limits(
            limits.max_message_bytes,
            limits.max_open_items,
            _seconds(limits.item_timeout),
            limits.window_bytes,
            limits.max_key_bytes,
            min(max(1, limits.suggested_connections), MAX_CONNECTIONS),
            _seconds(limits.idle_timeout),
        ),
    )


def config_digest(model: Model) -> str:
    """Return a config_id: a digest of all that a client's numbers depend on, but of the config_id itself."""
    message = model_to_proto(dataclasses.replace(model, config_id=""))
    for offer in message.offers:
        offer.ClearField("cost")  # measured, so that it differs between processes that serve the same
    return hashlib.sha256(message.SerializeToString(deterministic=True)).hexdigest()[:32]


def _output_to_proto(output: Output) -> model_pb2.Output:
    message = model_pb2.Output(
        task=f"TASK_{output.task.name}",
        score_count=output.score_count,
        link=f"LINK_{output.link.name}",
        scalar_target=output.scalar_target,
        keeps_zero_rows=output.keeps_zero_rows,
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
    except (KeyError, ValueError):
        raise ValueError("its task or link function is unknown to this version: update sealserve") from None
    return Output(task, message.score_count, classes, link, message.scalar_target, message.keeps_zero_rows)


def _offer_to_proto(offer: Offer) -> model_pb2.Offer:
    parameter_set = offer.parameters.parameter_set
    return model_pb2.Offer(
        layout=_layout_to_proto(offer.layout),
        parameters=parameters_pb2.EncryptionParameters(
            parameter_set=parameter_set.name,
            scheme=_SCHEMES[offer.parameters.scheme],
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
        ),
        required_key=_kind_to_proto(offer.required_key),
    )


def _observed_to_proto(observed: ObservedError | None) -> model_pb2.ObservedError | None:
    if observed is None:
        return None
    return model_pb2.ObservedError(
        score_error=observed.score_error, row_count=observed.row_count, label_agreement=observed.label_agreement
    )


def _is_known(message: model_pb2.Offer) -> bool:
    return (
        message.layout in _LAYOUTS_BACK
        and message.parameters.scheme in _SCHEMES_BACK
        and message.weights in (parameters_pb2.WEIGHTS_OPEN, parameters_pb2.WEIGHTS_PRIVATE)
        and (not message.required_key or message.required_key in _KINDS_BACK)
    )


def _offer_from_proto(message: model_pb2.Offer, score_count: int) -> Offer:
    parameters = message.parameters
    name = parameters.parameter_set
    parameter_set = ParameterSet(name, parameters.poly_modulus_degree, tuple(parameters.coeff_modulus))
    if parameters.data_prime_count != len(parameter_set.data_primes):
        raise ParameterError(f"{name}: {parameters.data_prime_count} data primes; SEAL makes other numbers of these")
    layout, scheme = _LAYOUTS_BACK[message.layout], _SCHEMES_BACK[parameters.scheme]
    if (layout is Layout.EI_SLOTS) != (scheme is Scheme.CKKS):
        raise ParameterError(f"{name}: {scheme.name} is not the scheme of layout {layout.value}")
    scale = message.score_scale
    if not (math.isfinite(scale) and scale > 0):
        raise ParameterError(f"{name}: the score scale is not above 0")
    score_integers = score_count if scheme is Scheme.BFV else 0
    if not len(message.score_centers) == len(message.score_radii) == score_integers:
        raise ParameterError(f"{name}: {score_integers} score centers and radii are needed")
    if any(radius < 0 or 2 * radius + 1 >= parameters.plain_modulus for radius in message.score_radii):
        raise ParameterError(f"{name}: scores wrap around: their range is negative or wider than the plaintext modulus")
    observed = message.observed_error
    return Offer(
        layout,
        EncryptionParameters(parameter_set, parameters.plain_modulus, scheme, parameters.ciphertext_scale),
        message.parameters.parms_id,
        message.weights == parameters_pb2.WEIGHTS_PRIVATE,
        message.rows_per_item,
        message.classes_per_polynomial,
        message.ciphertexts_per_item,
        scale,
        tuple(message.score_centers),
        tuple(message.score_radii),
        message.score_error_bound,
        message.input_rounding_error_bound,
        ObservedError(observed.score_error, observed.row_count, observed.label_agreement)
        if message.HasField("observed_error")
        else None,
        Cost(message.cost.request_bytes, message.cost.reply_bytes, message.cost.server_seconds),
        _KINDS_BACK.get(message.required_key),
    )


def _layout_to_proto(layout: Layout | None) -> parameters_pb2.Layout:
    return _LAYOUTS[layout] if layout else parameters_pb2.LAYOUT_UNSPECIFIED


def _folded(values: NDArray[np.float64]) -> list[float]:
    """One value when all are equal, else one a feature."""
    return list(map(float, values[:1] if (values == values[0]).all() else values))


def _unfolded(values: Sequence[float]) -> float | NDArray[np.float64]:
    return values[0] if len(values) == 1 else np.array(values, np.float64)


# Keys


def key_header_to_proto(header: KeyHeader) -> keys_pb2.KeyHeader:
    """Convert the header of an upload."""
    message = keys_pb2.KeyHeader(
        key_id=header.key_id,
        kind=_kind_to_proto(header.kind),
        parameter_set=header.parameter_set,
        byte_count=header.byte_count,
        blob_name=header.blob_name,
    )
    if header.ttl_seconds is not None:
        message.ttl.FromTimedelta(timedelta(seconds=header.ttl_seconds))
    return message


def key_header_from_proto(message: keys_pb2.KeyHeader) -> KeyHeader:
    """Convert the header of an upload; whether such a key is taken is not looked at here.

    Raises:
        ParameterSetNotOfferedError: a kind that this version does not know.
    """
    if message.kind not in _KINDS_BACK:
        raise errors.ParameterSetNotOfferedError("", message.parameter_set)
    return KeyHeader(
        message.key_id,
        _KINDS_BACK[message.kind],
        message.parameter_set,
        message.byte_count,
        _seconds(message.ttl) if message.HasField("ttl") else None,
        message.blob_name,
    )


def key_to_proto(record: KeyRecord) -> keys_pb2.Key:
    """Convert a key's record."""
    return keys_pb2.Key(
        key_id=record.key_id,
        kind=_kind_to_proto(record.kind),
        parameter_set=record.parameter_set,
        byte_count=record.byte_count,
        owner=record.tenant,
        create_time=record.create_time,
        expire_time=record.expire_time,
    )


def key_from_proto(message: keys_pb2.Key) -> KeyRecord:
    """Convert a key's record.

    Raises:
        ParameterError: a kind that this version does not know, or a time that is none.
    """
    if message.kind not in _KINDS_BACK:
        raise ParameterError("the key is of a kind that this version does not know: update sealserve")
    try:
        created, expires = message.create_time.ToDatetime(UTC), message.expire_time.ToDatetime(UTC)
    except (ValueError, OverflowError) as error:
        raise ParameterError(f"the key's times are no times: {error}") from error
    return KeyRecord(
        message.owner,
        message.key_id,
        _KINDS_BACK[message.kind],
        message.parameter_set,
        message.byte_count,
        created,
        expires,
    )


def _kind_to_proto(kind: KeyKind | None) -> keys_pb2.KeyKind:
    return _KINDS[kind] if kind else keys_pb2.KEY_KIND_UNSPECIFIED


# Errors

# The reasons of a detail's message, by the enumeration of its error.
_REASONS: dict[type[Enum], Any] = {
    CiphertextFault: errors_pb2.MalformedCiphertext.Reason,
    KeyFault: errors_pb2.MalformedKey.Reason,
}
_FAULTS: dict[type[ServiceError], type[Enum]] = {
    errors.MalformedCiphertextError: CiphertextFault,
    errors.MalformedKeyError: KeyFault,
}

# Each detail's message has the fields of its error, under the same names; the exceptions follow.
_DETAILS: dict[str, type[ServiceError]] = {
    "stale_config": errors.StaleConfigError,
    "model_not_found": errors.ModelNotFoundError,
    "key_not_found": errors.KeyNotFoundError,
    "parameter_set_not_offered": errors.ParameterSetNotOfferedError,
    "malformed_ciphertext": errors.MalformedCiphertextError,
    "input_mismatch": errors.InputMismatchError,
    "out_of_sequence": errors.OutOfSequenceError,
    "limit_exceeded": errors.LimitExceededError,
    "quota_exceeded": errors.QuotaExceededError,
    "draining": errors.DrainingError,
    "item_timeout": errors.ItemTimeoutError,
    "key_store_unavailable": errors.KeyStoreUnavailableError,
    "malformed_key": errors.MalformedKeyError,
    "unauthenticated": errors.UnauthenticatedError,
    "permission_denied": errors.PermissionDeniedError,
    "idle_timeout": errors.IdleTimeoutError,
    "internal": errors.InternalError,
}
_DETAILS_BACK = {kind: detail for detail, kind in _DETAILS.items()}


def error_to_proto(error: ServiceError) -> errors_pb2.Error:
    """Convert an error to the message with its detail set."""
    message = errors_pb2.Error(message=str(error))
    if name := _DETAILS_BACK.get(type(error)):
        detail = getattr(message, name)
        detail.SetInParent()
        for field in dataclasses.fields(error):  # type: ignore[arg-type]  # every detail's error is a dataclass
            value = getattr(error, field.name)
            if field.name.endswith("_seconds"):
                getattr(detail, field.name.removesuffix("_seconds")).FromTimedelta(timedelta(seconds=value))
            elif field.name == "reason":
                detail.reason = _REASONS[type(value)].Value(f"REASON_{value.name}")
            elif field.name == "layout":
                detail.layout = _layout_to_proto(next((v for v in Layout if v.value == value), None))
            else:
                setattr(detail, field.name, value)
    return message


def error_from_proto(message: errors_pb2.Error) -> ServiceError:
    """Convert a message to the error of its detail; an unknown one becomes a plain ServiceError."""
    name = message.WhichOneof("detail")
    if name not in _DETAILS:
        return ServiceError(message.message or "the service refused, and does not say why")
    detail, fields = getattr(message, name), dict[str, object]()
    for field in dataclasses.fields(_DETAILS[name]):  # type: ignore[arg-type]
        if field.name.endswith("_seconds"):
            fields[field.name] = _seconds(getattr(detail, field.name.removesuffix("_seconds")))
        elif field.name == "reason":
            fields["reason"] = _reason(_FAULTS[_DETAILS[name]], detail.reason)
        elif field.name == "layout":
            layout = _LAYOUTS_BACK.get(detail.layout)
            fields["layout"] = layout.value if layout else ""
        else:
            fields[field.name] = getattr(detail, field.name)
    return _DETAILS[name](**fields)


def _reason(faults: type[Enum], number: int) -> Enum:
    """Return the fault of a number, or the last there is for one that this version does not know."""
    names = _REASONS[faults]
    known = names.Name(number).removeprefix("REASON_") if number in names.values() else ""
    return faults[known] if known in faults.__members__ else list(faults)[-1]


def _seconds(duration: Duration) -> float:
    # ToTimedelta raises on what a hostile peer may put there.
    return float(duration.seconds + duration.nanos * 1e-9)
