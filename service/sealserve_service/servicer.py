"""The RPCs, thin: who calls, which model, messages in, messages out. No SEAL here."""

import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from typing import Any

from grpc import ServicerContext

from sealserve.errors import DrainingError, LimitExceededError, ServiceError
from sealserve.model import Limits
from sealserve.v1 import model_pb2, model_pb2_grpc, prediction_pb2, prediction_pb2_grpc
from sealserve.wire import header_from_proto, model_to_proto, scores_to_proto
from sealserve_service import status
from sealserve_service.auth import ANONYMOUS
from sealserve_service.drain import RETRY_SECONDS, Drain
from sealserve_service.items import Item, ItemTable, as_service_error, checked_bytes, done
from sealserve_service.models.registry import ModelRegistry

MAX_PAGE_SIZE = 100


class ModelServicer(model_pb2_grpc.ModelServiceServicer):
    """ModelService over a registry."""

    def __init__(self, models: ModelRegistry) -> None:
        self._models = models

    def GetModel(self, request: model_pb2.GetModelRequest, context: ServicerContext) -> model_pb2.GetModelResponse:
        """Get one model."""
        try:
            return model_pb2.GetModelResponse(model=model_to_proto(self._models.get(request.model, ANONYMOUS).model))
        except ServiceError as error:
            status.abort(context, as_service_error(error))

    def ListModels(
        self, request: model_pb2.ListModelsRequest, context: ServicerContext
    ) -> model_pb2.ListModelsResponse:
        """List a page of models; its token is the last name of the page before."""
        size = min(request.page_size or MAX_PAGE_SIZE, MAX_PAGE_SIZE)
        models = [served.model for served in self._models.after(request.page_token, ANONYMOUS)]
        return model_pb2.ListModelsResponse(
            models=map(model_to_proto, models[:size]),
            next_page_token=models[size - 1].name if len(models) > size else "",
        )


class PredictionServicer(prediction_pb2_grpc.PredictionServiceServicer):
    """PredictionService over a registry.

    Args:
        models: what is served.
        limits: what one client may send.
        drain: once begun, new work is refused and work in flight finishes.
        readers: a thread for each stream, that waits for its next message.
    """

    def __init__(self, models: ModelRegistry, limits: Limits, drain: Drain, readers: Executor) -> None:
        self._models = models
        self._limits = limits
        self._drain = drain
        self._readers = readers

    def Predict(
        self, request: prediction_pb2.PredictRequest, context: ServicerContext
    ) -> prediction_pb2.PredictResponse:
        """Score one item."""
        try:
            with self._drain.call():
                return self._predicted(request)
        except Exception as error:
            status.abort(context, as_service_error(error))

    def _predicted(self, request: prediction_pb2.PredictRequest) -> prediction_pb2.PredictResponse:
        ciphertexts = list(request.ciphertexts)
        checked_bytes(ciphertexts, self._limits)
        item = Item(header_from_proto(request.header), self._models, ANONYMOUS)
        if item.offer.cost.reply_bytes > self._limits.max_message_bytes:
            limit = self._limits.max_message_bytes
            raise LimitExceededError("max_message_bytes", limit, item.offer.cost.reply_bytes)
        item.add(0, ciphertexts)
        return prediction_pb2.PredictResponse(scores=scores_to_proto(0, list(item.scores())), done=done(item))

    def StreamPredict(
        self, requests: Iterator[prediction_pb2.StreamPredictRequest], context: ServicerContext
    ) -> Iterator[prediction_pb2.StreamPredictResponse]:
        """Score items as they come."""
        try:
            with self._drain.call():
                yield from self._answers(requests)
        except DrainingError as error:
            status.abort(context, error)

    def _answers(
        self, requests: Iterator[prediction_pb2.StreamPredictRequest]
    ) -> Iterator[prediction_pb2.StreamPredictResponse]:
        table, draining = ItemTable(self._models, ANONYMOUS, self._limits), self._drain.begun
        window = prediction_pb2.Window(max_bytes_in_flight=self._limits.window_bytes)
        yield prediction_pb2.StreamPredictResponse(window=window)
        read = self._readers.submit(next, requests, None)
        while table or not draining.done():
            waited_for: set[Future[Any]] = {read} if draining.done() else {read, draining}
            wait(waited_for, _seconds_left(table), FIRST_COMPLETED)
            table.draining = draining.done()
            yield from table.expired(time.monotonic())
            if not read.done():
                continue
            message = read.result()
            if message is None:
                yield from table.abandoned()
                return
            # Received while this one is scored, but never more than one ahead: what is not read, gRPC holds back.
            read = self._readers.submit(next, requests, None)
            yield from table.receive(message)
        raise DrainingError(RETRY_SECONDS)


def _seconds_left(table: ItemTable) -> float | None:
    deadline = table.next_deadline
    return None if deadline is None else max(0.0, deadline - time.monotonic())
