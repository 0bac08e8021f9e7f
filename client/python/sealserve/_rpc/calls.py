"""Calls, gRPC's failures -> sealserve's errors, items -> messages: what every client does."""

from collections.abc import Callable
from typing import Any, TypeVar

import grpc

from sealserve._codec.codec import Item
from sealserve._codec.messages import fits_a_message, messages, predict_request
from sealserve._rpc.retry import Patience, retried
from sealserve._rpc.status import translated
from sealserve.protocol.item import Scores
from sealserve.protocol.model import Limits, Model
from sealserve.protocol.wire import error_from_proto, model_from_proto, scores_from_proto
from sealserve.v1 import model_pb2, model_pb2_grpc, prediction_pb2_grpc

T = TypeVar("T")


def called(method: Callable[..., Any], request: Any, timeout_seconds: float) -> Any:
    """Call a method that has one reply.

    Raises:
        SealserveError: the call failed.
    """
    try:
        return method(request, timeout=timeout_seconds)
    except grpc.RpcError as error:
        raise translated(error) from error


def described(channel: grpc.Channel, name: str, timeout_seconds: float) -> Model:
    """Ask what a model is; the name may be empty when the service has one model only."""
    return retried(lambda left: described_once(channel, name, left), Patience(timeout_seconds))


def described_once(channel: grpc.Channel, name: str, timeout_seconds: float) -> Model:
    """Ask what a model is, once."""
    request = model_pb2.GetModelRequest(model=name)
    return model_from_proto(called(model_pb2_grpc.ModelServiceStub(channel).GetModel, request, timeout_seconds).model)


def scored(channel: grpc.Channel, item: Item, limits: Limits, timeout_seconds: float) -> list[Scores]:
    """Score an item, and again as long as the service is too busy: see `scored_once`."""
    return retried(lambda left: scored_once(channel, item, limits, left), Patience(timeout_seconds))


def scored_once(channel: grpc.Channel, item: Item, limits: Limits, timeout_seconds: float) -> list[Scores]:
    """Score an item, once: in one message each way if they fit, else on a stream of its own; returns the reply."""
    stub = prediction_pb2_grpc.PredictionServiceStub(channel)
    if fits_a_message(item, limits):
        return scores_from_proto(called(stub.Predict, predict_request(item), timeout_seconds).scores)
    reply: list[Scores] = []
    try:
        for response in stub.StreamPredict(messages(1, item, limits), timeout=timeout_seconds):
            if response.HasField("error"):
                raise error_from_proto(response.error)
            reply += scores_from_proto(response.scores)
    except grpc.RpcError as error:
        raise translated(error) from error
    return reply
