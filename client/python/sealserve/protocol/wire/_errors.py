"""Conversions of typed errors: one table, generic in the fields of each error."""

import dataclasses
from datetime import timedelta
from enum import Enum
from typing import Any

from sealserve import errors
from sealserve.errors import CiphertextFault, KeyFault, ServiceError
from sealserve.he.layouts import LAYOUTS
from sealserve.protocol.text import MAX_MESSAGE_CHARACTERS, printable
from sealserve.protocol.wire._enums import LAYOUTS_BY_NUMBER, layout_to_proto, seconds
from sealserve.v1 import errors_pb2

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
    "resource_unavailable": errors.ResourceUnavailableError,
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
                detail.layout = layout_to_proto(LAYOUTS.get(value))
            else:
                setattr(detail, field.name, value)
    return message


def error_from_proto(message: errors_pb2.Error) -> ServiceError:
    """Convert a message to the error of its detail; an unknown one becomes a plain ServiceError.

    The texts in it are made printable, because errors are shown.
    """
    name = message.WhichOneof("detail")
    if name not in _DETAILS:
        text = printable(message.message, MAX_MESSAGE_CHARACTERS)
        return ServiceError(text or "the service refused, and does not say why")
    detail, fields = getattr(message, name), dict[str, object]()
    for field in dataclasses.fields(_DETAILS[name]):  # type: ignore[arg-type]
        if field.name.endswith("_seconds"):
            fields[field.name] = seconds(getattr(detail, field.name.removesuffix("_seconds")))
        elif field.name == "reason":
            fields["reason"] = _reason(_FAULTS[_DETAILS[name]], detail.reason)
        elif field.name == "layout":
            layout = LAYOUTS_BY_NUMBER.get(detail.layout)
            fields["layout"] = layout.name if layout else ""
        else:
            value = getattr(detail, field.name)
            fields[field.name] = printable(value) if isinstance(value, str) else value
    return _DETAILS[name](**fields)


def _reason(faults: type[Enum], number: int) -> Enum:
    """Return the fault of a number, or the last fault if this version does not know the number."""
    names = _REASONS[faults]
    known = names.Name(number).removeprefix("REASON_") if number in names.values() else ""
    return faults[known] if known in faults.__members__ else list(faults)[-1]
