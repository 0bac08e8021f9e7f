"""Methods: the service's methods over one connection, ready to call, with spans if they are on."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import grpc
import grpc.aio

from sealserve._rpc.channel import Endpoint
from sealserve._rpc.pieces import read_pieces, read_pieces_async
from sealserve._rpc.spans import CallSpans
from sealserve.v1 import keys_pb2_grpc, model_pb2, model_pb2_grpc, prediction_pb2, prediction_pb2_grpc

_MODELS, _KEYS, _PREDICTIONS = (f"sealserve.v1.{name}Service/" for name in ("Model", "Key", "Prediction"))
_Wrap = Callable[[str, Callable[..., Any]], Callable[..., Any]]


class Methods:
    """The methods of the service over one channel; each takes a request and `timeout`, in seconds.

    Args:
        channel: the connection.
        metadata: key-value pairs to send with every call.
        endpoint: where the channel leads, for errors.

    Attributes:
        channel: the connection.
        endpoint: where it leads.
        get_model, list_models, get_key, list_keys, delete_key: take and return messages.
        get_input_steps: takes a `PiecesRequest`, and returns bytes.
        register_key: takes a sequence of messages.
        stream_predict: takes an iterator of messages; with asyncio no argument.
        predict_serialized, stream_predict_serialized: take messages that are serialized already.
        cancellable: of some methods, by their names, another form; see `Cancellation.call`.
    """

    def __init__(
        self,
        channel: grpc.Channel | grpc.aio.Channel,
        metadata: tuple[tuple[str, str], ...] = (),
        *,
        endpoint: Endpoint | None = None,
    ) -> None:
        self.channel: Any = channel
        self.endpoint = endpoint
        is_async = isinstance(channel, grpc.aio.Channel)
        spans = CallSpans.of_application(endpoint.address if endpoint else "")
        unary: _Wrap = _as_it_is if spans is None else spans.unary_async if is_async else spans.unary
        streamed: _Wrap = _as_it_is if spans is None else spans.stream

        def ready(wrap: _Wrap, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
            return _with_metadata(wrap(name, method), metadata)

        models, keys = model_pb2_grpc.ModelServiceStub(channel), keys_pb2_grpc.KeyServiceStub(channel)
        self.get_model = ready(unary, f"{_MODELS}GetModel", models.GetModel)
        self.list_models = ready(unary, f"{_MODELS}ListModels", models.ListModels)
        read = read_pieces_async if is_async else read_pieces
        self.get_input_steps = partial(read, ready(streamed, f"{_MODELS}GetInputSteps", models.GetInputSteps))
        self.get_key = ready(unary, f"{_KEYS}GetKey", keys.GetKey)
        self.list_keys = ready(unary, f"{_KEYS}ListKeys", keys.ListKeys)
        self.delete_key = ready(unary, f"{_KEYS}DeleteKey", keys.DeleteKey)
        self.register_key = partial(_call_with_iterator, ready(unary, f"{_KEYS}RegisterKey", keys.RegisterKey))
        stub = prediction_pb2_grpc.PredictionServiceStub(channel)
        self.stream_predict = ready(streamed, f"{_PREDICTIONS}StreamPredict", stub.StreamPredict)
        predict = self.channel.unary_unary(f"/{_PREDICTIONS}Predict", None, prediction_pb2.PredictResponse.FromString)
        stream = self.channel.stream_stream(
            f"/{_PREDICTIONS}StreamPredict", None, prediction_pb2.StreamPredictResponse.FromString
        )
        self.predict_serialized = ready(unary, f"{_PREDICTIONS}Predict", predict)
        self.cancellable = {} if isinstance(channel, grpc.aio.Channel) else _cancellable(channel, streamed)
        self.stream_predict_serialized = ready(streamed, f"{_PREDICTIONS}StreamPredict", stream)


def _as_it_is(_: str, method: Callable[..., Any]) -> Callable[..., Any]:
    return method


def _cancellable(channel: grpc.Channel, wrap: _Wrap) -> dict[str, Callable[..., Any]]:
    """Return methods that return at once a stream of one response, which any thread can cancel.

    A future of gRPC's could be cancelled, too, but its answer passes through a thread of gRPC's,
    which takes longer.
    """
    request, response = model_pb2.GetModelRequest, model_pb2.GetModelResponse
    predict = channel.unary_stream(f"/{_PREDICTIONS}Predict", None, prediction_pb2.PredictResponse.FromString)
    get_model = channel.unary_stream(f"/{_MODELS}GetModel", request.SerializeToString, response.FromString)
    return {
        "predict_serialized": wrap(f"{_PREDICTIONS}Predict", predict),
        "get_model": wrap(f"{_MODELS}GetModel", get_model),
    }


def _with_metadata(method: Callable[..., Any], metadata: tuple[tuple[str, str], ...]) -> Callable[..., Any]:
    return partial(method, metadata=metadata) if metadata else method


def _call_with_iterator(method: Callable[..., Any], requests: Sequence[Any], timeout: float) -> Any:
    return method(iter(requests), timeout=timeout)
