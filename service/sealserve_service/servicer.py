"""The RPCs, thin: who calls, which model or key, messages in, messages out. No SEAL and no Azure here."""

import itertools
import queue
import time
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import closing, contextmanager
from threading import BoundedSemaphore

from google.protobuf.message import DecodeError
from grpc import ServicerContext

from sealserve.errors import (
    DrainingError,
    InputMismatchError,
    ItemTimeoutError,
    LimitExceededError,
    PermissionDeniedError,
    QuotaExceededError,
    ServiceError,
)
from sealserve.model import Limits
from sealserve.registered_key import KeyRecord
from sealserve.v1 import keys_pb2, keys_pb2_grpc, model_pb2, model_pb2_grpc, prediction_pb2, prediction_pb2_grpc
from sealserve.wire import header_from_proto, key_header_from_proto, key_to_proto, model_to_proto
from sealserve_service import calls, status
from sealserve_service.admission import Admission
from sealserve_service.auth import Tenant
from sealserve_service.authenticator import Authenticator
from sealserve_service.drain import RETRY_SECONDS, Drain
from sealserve_service.inbox import Inbox
from sealserve_service.items import Item, ItemTable, as_service_error, check_bytes, done
from sealserve_service.models.registry import ModelRegistry
from sealserve_service.registered_keys import RegisteredKeys

MAX_PAGE_SIZE = 100
MAX_UPLOADS = 8


class ModelServicer(model_pb2_grpc.ModelServiceServicer):
    """ModelService over a registry."""

    def __init__(self, models: ModelRegistry, authenticator: Authenticator) -> None:
        self._models = models
        self._authenticator = authenticator

    def GetModel(self, request: model_pb2.GetModelRequest, context: ServicerContext) -> model_pb2.GetModelResponse:
        """Get one model."""
        try:
            served = self._models.get(request.model, self._authenticator.authenticate(context))
            return model_pb2.GetModelResponse(model=model_to_proto(served.model))
        except ServiceError as error:
            status.abort(context, as_service_error(error))

    def ListModels(
        self, request: model_pb2.ListModelsRequest, context: ServicerContext
    ) -> model_pb2.ListModelsResponse:
        """List a page of models; its token is the last name of the page before."""
        size = min(request.page_size or MAX_PAGE_SIZE, MAX_PAGE_SIZE)
        try:
            tenant = self._authenticator.authenticate(context)
            if not tenant.may_list_models:
                raise PermissionDeniedError("list_models")
        except ServiceError as error:
            status.abort(context, error)
        models = [served.model for served in self._models.after(request.page_token, tenant)]
        return model_pb2.ListModelsResponse(
            models=map(model_to_proto, models[:size]),
            next_page_token=models[size - 1].name if len(models) > size else "",
        )


class PredictionServicer(prediction_pb2_grpc.PredictionServiceServicer):
    """PredictionService over a registry.

    Args:
        models: what is served.
        authenticator: says whose call it is.
        limits: what one client may send.
        drain: once begun, new work is refused and work in flight finishes.
        admission: the bounds of what is under way.
        readers: a thread for each stream, that waits for its next message.
    """

    def __init__(
        self,
        models: ModelRegistry,
        authenticator: Authenticator,
        limits: Limits,
        drain: Drain,
        admission: Admission,
        readers: Executor,
    ) -> None:
        self._models = models
        self._admission = admission
        self._authenticator = authenticator
        self._limits = limits
        self._drain = drain
        self._readers = readers

    def check_room(self) -> None:
        """Look whether Predict could score anything soon, whatever a request asks for.

        Raises:
            DrainingError, QuotaExceededError: it could not.
        """
        # Seeded ciphertexts are half as long. What does not fit into a message nobody asks Predict for.
        longest = 2 * self._limits.max_message_bytes
        with self._drain.call():
            self._admission.check_wait(e for e in self._models.engines() if e.offer.cost.request_bytes <= longest)

    def Predict(
        self, request: prediction_pb2.PredictRequest, context: ServicerContext
    ) -> prediction_pb2.PredictResponse:
        """Score one item."""
        try:
            with self._drain.call():
                tenant = self._authenticator.authenticate(context)
                return self._predicted(request, tenant, context.time_remaining())
        except Exception as error:
            status.abort(context, as_service_error(error))

    def _predicted(
        self, request: prediction_pb2.PredictRequest, tenant: Tenant, seconds_left: float | None
    ) -> prediction_pb2.PredictResponse:
        ciphertexts = list(request.ciphertexts)
        check_bytes(ciphertexts, self._limits)
        call, header = calls.current(), header_from_proto(request.header)
        call.asks(header)
        item = Item(header, self._models, tenant, self._admission)
        call.item_began()
        if item.offer.cost.reply_bytes > self._limits.max_message_bytes:
            limit = self._limits.max_message_bytes
            raise LimitExceededError("max_message_bytes", limit, item.offer.cost.reply_bytes)
        with closing(item), item.whole_turn(seconds_left):
            item.add(0, ciphertexts)
            scores = item.message(0, list(item.scores()))
        call.scored(item.work)
        return prediction_pb2.PredictResponse(scores=scores, done=done(item))

    def StreamPredict(
        self, requests: Iterator[prediction_pb2.StreamPredictRequest], context: ServicerContext
    ) -> Iterator[prediction_pb2.StreamPredictResponse]:
        """Score items as they come."""
        try:
            with self._drain.call():
                yield from self._answers(requests, context)
        except ServiceError as error:
            status.abort(context, error)

    def _answers(
        self, requests: Iterator[prediction_pb2.StreamPredictRequest], context: ServicerContext
    ) -> Iterator[prediction_pb2.StreamPredictResponse]:
        tenant = self._authenticator.authenticate(context)
        window = prediction_pb2.Window(max_bytes_in_flight=self._limits.window_bytes)
        yield prediction_pb2.StreamPredictResponse(window=window)
        with closing(ItemTable(self._models, tenant, self._limits, self._admission, calls.current())) as table:
            yield from self._ends(requests, context, table)

    def _ends(
        self, requests: Iterator[prediction_pb2.StreamPredictRequest], context: ServicerContext, table: ItemTable
    ) -> Iterator[prediction_pb2.StreamPredictResponse]:
        draining = self._drain.begun
        with closing(Inbox(requests, self._readers)) as inbox, self._drain.heard(inbox.wake):
            while table or not draining.done():
                try:
                    message = inbox.get(_seconds_left(table))
                except queue.Empty:
                    table.draining = draining.done()
                    yield from table.expired(time.monotonic())
                    table.check_idle(time.monotonic())
                    continue
                table.draining = draining.done()
                yield from table.expired(time.monotonic())
                if message is None:
                    yield from table.abandoned()
                    return
                # A token may have expired, or have been revoked, since the stream began.
                table.tenant = self._authenticator.authenticate(context)
                yield from table.receive(message)
        raise DrainingError(RETRY_SECONDS)


class KeyServicer(keys_pb2_grpc.KeyServiceServicer):
    """KeyService over registered keys.

    Args:
        timeout_seconds: how long an upload may take.
        authenticator, drain, readers: as in PredictionServicer.
    """

    def __init__(
        self,
        keys: RegisteredKeys,
        authenticator: Authenticator,
        timeout_seconds: float,
        drain: Drain,
        readers: Executor,
    ) -> None:
        self._keys = keys
        self._authenticator = authenticator
        self._timeout_seconds = timeout_seconds
        self._drain = drain
        self._readers = readers
        self._slots = BoundedSemaphore(MAX_UPLOADS)

    def RegisterKey(
        self, requests: Iterator[keys_pb2.RegisterKeyRequest], context: ServicerContext
    ) -> keys_pb2.RegisterKeyResponse:
        """Take a key in chunks, or from where its owner has put it."""
        try:
            tenant = self._authenticator.authenticate(context)
            if not tenant.may_register_keys:
                raise PermissionDeniedError("register_keys")
            with self._drain.call(), self._slot():
                return keys_pb2.RegisterKeyResponse(key=key_to_proto(self._registered(requests, tenant)))
        except DecodeError:
            raise
        except Exception as error:
            if not context.is_active():  # the client has broken off, which is gRPC's error
                raise
            status.abort(context, as_service_error(error))

    @contextmanager
    def _slot(self) -> Iterator[None]:
        """Be one of the uploads under way: each holds a key in memory."""
        if not self._slots.acquire(blocking=False):
            raise QuotaExceededError("concurrent_uploads", 1.0)
        try:
            yield
        finally:
            self._slots.release()

    def _registered(self, requests: Iterator[keys_pb2.RegisterKeyRequest], tenant: Tenant) -> KeyRecord:
        end = time.monotonic() + self._timeout_seconds
        message = self._received(requests, end)
        if message is None or not message.HasField("header"):
            raise InputMismatchError("header", 1, 0)
        upload = self._keys.begin(key_header_from_proto(message.header))
        if upload.header.blob_name:
            self._keys.fetch(tenant, upload)
        while message is not None:
            if message.HasField("chunk"):
                upload.add(message.chunk.offset, message.chunk.data)
            message = self._received(requests, end)
            if message is not None and message.HasField("header"):
                raise InputMismatchError("header", 0, 1)
        return self._keys.finish(tenant, upload)

    def _received(
        self, requests: Iterator[keys_pb2.RegisterKeyRequest], end: float
    ) -> keys_pb2.RegisterKeyRequest | None:
        try:
            return self._readers.submit(next, requests, None).result(max(0.0, end - time.monotonic()))
        except TimeoutError:
            raise ItemTimeoutError(self._timeout_seconds) from None

    def GetKey(self, request: keys_pb2.GetKeyRequest, context: ServicerContext) -> keys_pb2.GetKeyResponse:
        """Get what is known of a key."""
        try:
            record = self._keys.get(self._authenticator.authenticate(context), request.key_id)
            return keys_pb2.GetKeyResponse(key=key_to_proto(record))
        except Exception as error:
            status.abort(context, as_service_error(error))

    def ListKeys(self, request: keys_pb2.ListKeysRequest, context: ServicerContext) -> keys_pb2.ListKeysResponse:
        """List a page of the caller's keys; its token is the last id of the page before."""
        try:
            size = min(request.page_size or MAX_PAGE_SIZE, MAX_PAGE_SIZE)
            tenant = self._authenticator.authenticate(context)
            keys = list(itertools.islice(self._keys.after(tenant, request.page_token), size + 1))
        except Exception as error:
            status.abort(context, as_service_error(error))
        return keys_pb2.ListKeysResponse(
            keys=map(key_to_proto, keys[:size]), next_page_token=keys[size - 1].key_id if len(keys) > size else ""
        )

    def DeleteKey(self, request: keys_pb2.DeleteKeyRequest, context: ServicerContext) -> keys_pb2.DeleteKeyResponse:
        """Delete a key."""
        try:
            self._keys.delete(self._authenticator.authenticate(context), request.key_id)
        except Exception as error:
            status.abort(context, as_service_error(error))
        return keys_pb2.DeleteKeyResponse()


def _seconds_left(table: ItemTable) -> float | None:
    deadline = table.next_deadline
    return None if deadline is None else max(0.0, deadline - time.monotonic())
