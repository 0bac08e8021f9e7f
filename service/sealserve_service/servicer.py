"""The RPCs, thin: who calls, which model, messages in, messages out. No SEAL here."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from sealserve.errors import DrainingError, LimitExceededError, ServiceError
from sealserve.model import Limits
from sealserve.v1 import model_pb2, model_pb2_grpc, prediction_pb2, prediction_pb2_grpc
from sealserve.wire import header_from_proto, model_to_proto, scores_to_proto
from sealserve_service import status
from sealserve_service.auth import ANONYMOUS
from sealserve_service.items import DRAIN_RETRY_SECONDS, Item, ItemTable, as_service_error, checked_bytes, done
from sealserve_service.models.registry import ModelRegistry

MAX_PAGE_SIZE = 100

Context = grpc.aio.ServicerContext[Any, Any]


class ModelServicer(model_pb2_grpc.ModelServiceServicer):
    """ModelService over a registry."""

    def __init__(self, models: ModelRegistry) -> None:
        self._models = models

    async def GetModel(self, request: model_pb2.GetModelRequest, context: Context) -> model_pb2.GetModelResponse:
        """Get one model."""
        try:
            return model_pb2.GetModelResponse(model=model_to_proto(self._models.get(request.model, ANONYMOUS).model))
        except ServiceError as error:
            await status.abort(context, as_service_error(error))

    async def ListModels(self, request: model_pb2.ListModelsRequest, context: Context) -> model_pb2.ListModelsResponse:
        """List a page of models; its token is the last name of the page before."""
        size = min(request.page_size or MAX_PAGE_SIZE, MAX_PAGE_SIZE)
        models = [served.model for served in self._models.after(request.page_token, ANONYMOUS)]
        return model_pb2.ListModelsResponse(
            models=map(model_to_proto, models[:size]),
            next_page_token=models[size - 1].name if len(models) > size else "",
        )


class PredictionServicer(prediction_pb2_grpc.PredictionServiceServicer):
    """PredictionService over a registry. `draining`, once set, refuses new work and lets work in flight finish."""

    def __init__(self, models: ModelRegistry, limits: Limits, draining: asyncio.Event) -> None:
        self._models = models
        self._limits = limits
        self._draining = draining

    async def Predict(self, request: prediction_pb2.PredictRequest, context: Context) -> prediction_pb2.PredictResponse:
        """Score one item."""
        try:
            if self._draining.is_set():
                raise DrainingError(DRAIN_RETRY_SECONDS)
            ciphertexts = list(request.ciphertexts)
            checked_bytes(ciphertexts, self._limits)
            item = Item(header_from_proto(request.header), self._models, ANONYMOUS)
            if item.offer.cost.reply_bytes > self._limits.max_message_bytes:
                limit = self._limits.max_message_bytes
                raise LimitExceededError("max_message_bytes", limit, item.offer.cost.reply_bytes)
            item.add(0, ciphertexts)
            return prediction_pb2.PredictResponse(scores=scores_to_proto(0, list(item.scores())), done=done(item))
        except Exception as error:
            await status.abort(context, as_service_error(error))

    async def StreamPredict(
        self, requests: AsyncIterator[prediction_pb2.StreamPredictRequest], context: Context
    ) -> None:
        """Score items as they come."""
        table = ItemTable(self._models, ANONYMOUS, self._limits)
        window = prediction_pb2.Window(max_bytes_in_flight=self._limits.window_bytes)
        await context.write(prediction_pb2.StreamPredictResponse(window=window))
        drain = asyncio.ensure_future(self._draining.wait())
        read = asyncio.ensure_future(context.read())
        try:
            while table or not drain.done():
                # Not wait_for: it would cancel the read, and with it the call, at every time-out.
                waited_for = {read} if drain.done() else {read, drain}
                await asyncio.wait(waited_for, timeout=_seconds_left(table), return_when=asyncio.FIRST_COMPLETED)
                table.draining = drain.done()
                for answer in table.expired(time.monotonic()):
                    await context.write(answer)
                if not read.done():
                    continue
                if not isinstance(message := read.result(), prediction_pb2.StreamPredictRequest):
                    break  # grpc.aio.EOF: the client has closed its side
                for answer in table.receive(message):
                    await context.write(answer)
                read = asyncio.ensure_future(context.read())
            else:
                await status.abort(context, DrainingError(DRAIN_RETRY_SECONDS))
            for answer in table.abandoned():
                await context.write(answer)
        except DecodeError:
            await status.abort_undecodable(context)
        finally:
            drain.cancel()
            read.cancel()


def _seconds_left(table: ItemTable) -> float | None:
    deadline = table.next_deadline
    return None if deadline is None else max(0.0, deadline - time.monotonic())
