"""Methods: the service's methods over one connection, ready to call."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import grpc
import grpc.aio

from sealserve._rpc.channel import Endpoint
from sealserve._rpc.pieces import read_pieces, read_pieces_async
from sealserve.v1 import keys_pb2_grpc, model_pb2_grpc, prediction_pb2, prediction_pb2_grpc

_SERVICE = "/sealserve.v1.PredictionService/"


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
        models, keys = model_pb2_grpc.ModelServiceStub(channel), keys_pb2_grpc.KeyServiceStub(channel)
        register = _with_metadata(keys.RegisterKey, metadata)
        self.get_model = _with_metadata(models.GetModel, metadata)
        self.list_models = _with_metadata(models.ListModels, metadata)
        read = read_pieces_async if isinstance(channel, grpc.aio.Channel) else read_pieces
        self.get_input_steps = partial(read, _with_metadata(models.GetInputSteps, metadata))
        self.get_key = _with_metadata(keys.GetKey, metadata)
        self.list_keys = _with_metadata(keys.ListKeys, metadata)
        self.delete_key = _with_metadata(keys.DeleteKey, metadata)
        self.register_key = partial(_call_with_iterator, register)
        stub = prediction_pb2_grpc.PredictionServiceStub(channel)
        self.stream_predict = _with_metadata(stub.StreamPredict, metadata)
        predict = self.channel.unary_unary(f"{_SERVICE}Predict", None, prediction_pb2.PredictResponse.FromString)
        stream = self.channel.stream_stream(
            f"{_SERVICE}StreamPredict", None, prediction_pb2.StreamPredictResponse.FromString
        )
        self.predict_serialized = _with_metadata(predict, metadata)
        self.stream_predict_serialized = _with_metadata(stream, metadata)


def _with_metadata(method: Callable[..., Any], metadata: tuple[tuple[str, str], ...]) -> Callable[..., Any]:
    return partial(method, metadata=metadata) if metadata else method


def _call_with_iterator(method: Callable[..., Any], requests: Sequence[Any], timeout: float) -> Any:
    return method(iter(requests), timeout=timeout)
