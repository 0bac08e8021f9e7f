"""HostileService: a gRPC service on a real socket whose every answer a test chooses."""

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np
from google.protobuf.any_pb2 import Any as PackedMessage
from google.rpc.status_pb2 import Status
from grpc_health.v1 import health_pb2

from sealserve.protocol import wire
from sealserve.v1 import errors_pb2, keys_pb2, model_pb2, prediction_pb2
from tests.support.serving import linear, served

Method = Callable[[Any, grpc.ServicerContext], Any]
"""Takes the request, or an iterator of requests, and the call; returns or yields its answers."""

_REQUESTS: dict[str, Any] = {
    "GetModel": model_pb2.GetModelRequest,
    "ListModels": model_pb2.ListModelsRequest,
    "GetInputSteps": model_pb2.GetInputStepsRequest,
    "Predict": prediction_pb2.PredictRequest,
    "StreamPredict": prediction_pb2.StreamPredictRequest,
    "RegisterKey": keys_pb2.RegisterKeyRequest,
    "GetKey": keys_pb2.GetKeyRequest,
    "ListKeys": keys_pb2.ListKeysRequest,
    "DeleteKey": keys_pb2.DeleteKeyRequest,
    "Check": health_pb2.HealthCheckRequest,
}

_STREAMS: dict[str, Any] = {
    "StreamPredict": grpc.stream_stream_rpc_method_handler,
    "GetInputSteps": grpc.unary_stream_rpc_method_handler,
    "RegisterKey": grpc.stream_unary_rpc_method_handler,
}


@dataclass
class HostileService(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # generic in the stubs only
    """A service of chosen methods. GetModel describes `model` unless it is chosen, too.

    Attributes:
        model: the description.
        methods: by their names; a method without an entry is unimplemented.
        headers: of the items that came, in order.
        calls: the names of the methods that were called, in order.
    """

    model: model_pb2.Model
    methods: dict[str, Method] = field(default_factory=dict)
    headers: list[prediction_pb2.ItemHeader] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[Any, Any] | None":
        """Return the handler of a method."""
        name = handler_call_details.method.rpartition("/")[2]
        self.calls.append(name)
        method = self.methods.get(name, self._describe if name == "GetModel" else None)
        if method is None:
            return None
        make = _STREAMS.get(name, grpc.unary_unary_rpc_method_handler)

        def act(request: Any, context: grpc.ServicerContext) -> Any:
            if name == "Predict":
                self.headers.append(request.header)
            return method(self._recorded(request) if name == "StreamPredict" else request, context)

        handler: grpc.RpcMethodHandler[Any, Any] = make(act, _REQUESTS[name].FromString, _serialized)
        return handler

    def _describe(self, request: Any, context: grpc.ServicerContext) -> model_pb2.GetModelResponse:
        return model_pb2.GetModelResponse(model=self.model)

    def _recorded(self, requests: Iterator[Any]) -> Iterator[Any]:
        for request in requests:
            if request.HasField("header"):
                self.headers.append(request.header)
            yield request


def description(**fields: Any) -> model_pb2.Model:
    """The description of a model of two features and two scores, with some fields changed."""
    model = served("line", linear(np.array([[1.0, 2.0], [2.0, -1.0]]))).model
    message = wire.model_to_proto(model)
    for name, value in fields.items():
        setattr(message, name, value)
    return message


@contextlib.contextmanager
def running_hostile(model: model_pb2.Model | None = None, **methods: Method) -> Iterator[tuple[HostileService, str]]:
    """Run a hostile service on a free port; give it and its address."""
    service = HostileService(model or description(), methods)
    server = grpc.server(ThreadPoolExecutor(16), [service], options=[("grpc.max_send_message_length", -1)])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield service, f"127.0.0.1:{port}"
    finally:
        server.stop(0).wait()


def abort(context: grpc.ServicerContext, text: str, detail: errors_pb2.Error | None = None) -> None:
    """End a call with a status of that text and, where there is one, a typed detail."""
    if detail is not None:
        packed = PackedMessage()
        packed.Pack(detail)
        status = Status(code=3, message=text, details=[packed])
        context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    context.abort(grpc.StatusCode.INVALID_ARGUMENT, text)


def _serialized(message: Any) -> bytes:
    data: bytes = message.SerializeToString()
    return data
