"""Errors: the trailer with which a real service ends a call that fails with each of them."""

import base64
from typing import Any

import grpc
from google.protobuf import json_format
from google.rpc.status_pb2 import Status

from sealserve import errors
from sealserve.errors import CiphertextFault, KeyFault, ServiceError
from sealserve.v1 import errors_pb2, model_pb2, model_pb2_grpc
from sealserve_service.catalog.registry import ModelRegistry, ServedModel
from sealserve_service.tenants.tenant import Tenant
from tests.support.serving import HANG_SECONDS, running_server

ERRORS: list[ServiceError] = [
    errors.StaleConfigError("0123456789abcdef0123456789abcdef"),
    errors.ModelNotFoundError("fl\u00f6wers"),
    errors.KeyNotFoundError("ab" * 32),
    errors.ParameterSetNotOfferedError("column", "column-8192-180"),
    errors.MalformedCiphertextError(CiphertextFault.COEFFICIENT, 4_294_967_295),
    errors.InputMismatchError("row_count", 4, 2**53),
    errors.OutOfSequenceError(2, 1),
    errors.LimitExceededError("max_message_bytes", 4_194_304, 4_194_305),
    errors.QuotaExceededError("rows_per_minute", 1.5),
    errors.DrainingError(0.25),
    errors.ItemTimeoutError(30.0),
    errors.KeyStoreUnavailableError(1.0),
    errors.ResourceUnavailableError("file descriptors", 1.0),
    errors.MalformedKeyError(KeyFault.UNSEEDED),
    errors.UnauthenticatedError(),
    errors.PermissionDeniedError("register_keys"),
    errors.IdleTimeoutError(3600.0),
    errors.InternalError("f00d"),
]


class FailingRegistry(ModelRegistry):
    """Models that cannot be found, for the reason that a test has set."""

    error: ServiceError = ERRORS[0]

    def get(self, name: str, tenant: Tenant, config_id: str = "") -> ServedModel:
        raise self.error


def content() -> dict[str, Any]:
    """What the file has."""
    registry, cases = FailingRegistry([]), []
    with running_server(registry) as address, grpc.insecure_channel(address) as channel:
        for error in ERRORS:
            registry.error = error
            cases.append(_case(_failed(channel)))
    unknown = Status(code=9, message="a detail of a later release")
    # Field 1000 with the bytes "new", which Error does not have.
    detail = errors_pb2.Error(message=unknown.message).SerializeToString() + b"\xc2\x3e\x03new"
    unknown.details.add(type_url="type.googleapis.com/sealserve.v1.Error", value=detail)
    another = Status(code=8, message="a proxy's refusal")
    another.details.add(type_url="type.googleapis.com/google.rpc.RetryInfo")
    second = Status(code=5, message=str(ERRORS[1]))
    second.details.add(type_url="type.googleapis.com/google.rpc.Help")
    second.details.add().Pack(_error_of(Status.FromString(base64.b64decode(cases[1]["grpc_status_details_bin"]))))
    return {"cases": cases + [_case(status) for status in (unknown, another, second)]}


def _failed(channel: grpc.Channel) -> Status:
    """The status of a call that fails."""
    try:
        model_pb2_grpc.ModelServiceStub(channel).GetModel(model_pb2.GetModelRequest(), timeout=HANG_SECONDS)
    except grpc.RpcError as error:
        failed: Any = error
        trailers = dict(failed.trailing_metadata())
        status = Status.FromString(trailers["grpc-status-details-bin"])
        assert (status.code, status.message) == (failed.code().value[0], failed.details())
        return status
    raise AssertionError("the call did not fail")


def _case(status: Status) -> dict[str, Any]:
    error = _error_of(status)
    detail = None if error is None else error.WhichOneof("detail")
    found: dict[str, Any] = {"detail": detail, "grpc_status": status.code, "grpc_message": status.message}
    if error is not None and detail:
        found["error"] = json_format.MessageToDict(error)
    return found | {"grpc_status_details_bin": base64.b64encode(status.SerializeToString(deterministic=True)).decode()}


def _error_of(status: Status) -> errors_pb2.Error | None:
    for detail in status.details:
        if detail.type_url.endswith("/sealserve.v1.Error"):
            return errors_pb2.Error.FromString(detail.value)
    return None
