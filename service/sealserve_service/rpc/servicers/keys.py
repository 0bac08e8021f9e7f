"""KeyService: keys registered, listed and deleted."""

import itertools
import time
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from threading import BoundedSemaphore

from google.protobuf.message import DecodeError
from grpc import ServicerContext

from sealserve.errors import (
    InputMismatchError,
    ItemTimeoutError,
    PermissionDeniedError,
    QuotaExceededError,
)
from sealserve.protocol.key_record import KeyRecord
from sealserve.protocol.wire import key_header_from_proto, key_to_proto
from sealserve.v1 import (
    keys_pb2,
    keys_pb2_grpc,
)
from sealserve_service.keys.registered_keys import RegisteredKeys
from sealserve_service.rpc import status
from sealserve_service.rpc.servicers.models import MAX_PAGE_SIZE
from sealserve_service.scoring.calls_in_flight import Drain
from sealserve_service.scoring.item import as_service_error
from sealserve_service.tenants.authenticator import Authenticator
from sealserve_service.tenants.tenant import Tenant

MAX_UPLOADS = 8


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
