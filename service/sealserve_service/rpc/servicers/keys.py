"""KeyService: registers, lists and deletes keys."""

import time
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager

from grpc import ServicerContext

from sealserve.errors import (
    InputMismatchError,
    LimitExceededError,
    PermissionDeniedError,
)
from sealserve.protocol.key_record import KeyRecord
from sealserve.protocol.model import Limits
from sealserve.protocol.wire import key_header_from_proto, key_to_proto
from sealserve.v1 import keys_pb2, keys_pb2_grpc
from sealserve_service.keys.registered_keys import RegisteredKeys
from sealserve_service.keys.upload import Upload
from sealserve_service.rpc.servicers.pages import page
from sealserve_service.rpc.timed_read import read_timed
from sealserve_service.scoring.admission import Admission
from sealserve_service.scoring.caller_slots import CallerSlots, shortened
from sealserve_service.scoring.calls_in_flight import CallsInFlight
from sealserve_service.tenants.caller import current_caller
from sealserve_service.tenants.tenant import Tenant, current_tenant

MAX_UPLOADS = 8
"""Each upload holds a key in memory."""
# While slots are scarce, an upload may still go on if it is not slower than this.
_SLOWEST_BYTES_PER_SECOND = 1e5


class KeyServicer(keys_pb2_grpc.KeyServiceServicer):
    """KeyService over registered keys.

    Args:
        keys: the registered keys.
        limits: the bounds of what one client may send. An upload may take item_timeout_seconds.
        calls_in_flight: admits uploads.
        uploads: has MAX_UPLOADS slots.
        admission: is charged a request for each upload.
        readers: has a thread for each upload, which waits for its next message.
    """

    def __init__(
        self,
        keys: RegisteredKeys,
        limits: Limits,
        calls_in_flight: CallsInFlight,
        uploads: CallerSlots,
        admission: Admission,
        readers: Executor,
    ) -> None:
        self._keys = keys
        self._limits = limits
        self._calls_in_flight = calls_in_flight
        self._readers = readers
        self._uploads = uploads
        self._admission = admission

    def RegisterKey(
        self, requests: Iterator[keys_pb2.RegisterKeyRequest], context: ServicerContext
    ) -> keys_pb2.RegisterKeyResponse:
        """Take a key in chunks, or from the blob into which its owner has put it."""
        with self._admit_upload() as tenant:
            try:
                return keys_pb2.RegisterKeyResponse(key=key_to_proto(self._register(requests, tenant)))
            except Exception:
                self._admission.count_empty(current_caller.get())
                raise

    def PutKey(self, request: keys_pb2.PutKeyRequest, context: ServicerContext) -> keys_pb2.PutKeyResponse:
        """Take a key in one message, or from the blob into which its owner has put it."""
        with self._admit_upload() as tenant:
            byte_count, maximum = len(request.data), self._limits.max_message_bytes
            if byte_count > maximum:
                raise LimitExceededError("max_message_bytes", maximum, byte_count)
            upload = self._begin(request, tenant)
            upload.add(request.data)
            return keys_pb2.PutKeyResponse(key=key_to_proto(self._keys.finish(tenant, upload)))

    @staticmethod
    def check_permission() -> None:
        """Check that the tenant of the current call may register keys.

        Raises:
            PermissionDeniedError: it may not.
        """
        if not current_tenant.get().may_register_keys:
            raise PermissionDeniedError("register_keys")

    @contextmanager
    def _admit_upload(self) -> Iterator[Tenant]:
        """Take one of the slots of uploads, and charge a request to the tenant.

        Raises:
            PermissionDeniedError: the tenant may not register keys.
            DrainingError, QuotaExceededError: the server stops, there are too many calls, no slot
                is free for the caller, or the tenant's quota of requests is used up.
        """
        self.check_permission()
        tenant = current_tenant.get()
        with self._calls_in_flight.admit(), self._uploads.hold(current_caller.get()):
            self._admission.charge(tenant, row_count=0)
            yield tenant

    def _register(self, requests: Iterator[keys_pb2.RegisterKeyRequest], tenant: Tenant) -> KeyRecord:
        began = time.monotonic()
        message = self._receive(requests, began, 0)
        upload = self._begin(message, tenant)
        while message is not None:
            if message.HasField("chunk"):
                upload.add_chunk(message.chunk.offset, message.chunk.data)
            message = self._receive(requests, began, upload.received_bytes)
            if message is not None and message.HasField("header"):
                raise InputMismatchError("header", 0, 1)
        return self._keys.finish(tenant, upload)

    def _begin(self, message: keys_pb2.RegisterKeyRequest | keys_pb2.PutKeyRequest | None, tenant: Tenant) -> Upload:
        """Begin the upload of a header. If the header names a blob, read the key from there."""
        if message is None or not message.HasField("header"):
            raise InputMismatchError("header", 1, 0)
        upload = self._keys.begin(key_header_from_proto(message.header))
        if upload.header.blob_name:
            self._keys.fetch(tenant, upload)
        return upload

    def _receive(
        self, requests: Iterator[keys_pb2.RegisterKeyRequest], began: float, received_bytes: int
    ) -> keys_pb2.RegisterKeyRequest | None:
        slots, longest = self._uploads, self._limits.item_timeout_seconds
        earned_seconds = received_bytes / _SLOWEST_BYTES_PER_SECOND

        def allowed_seconds() -> float:
            return min(longest, shortened(longest, slots.held_count, slots.slot_count) + earned_seconds)

        return read_timed(requests, self._readers, began, allowed_seconds)

    def GetKey(self, request: keys_pb2.GetKeyRequest, context: ServicerContext) -> keys_pb2.GetKeyResponse:
        """Get the record of a key."""
        return keys_pb2.GetKeyResponse(key=key_to_proto(self._keys.get(current_tenant.get(), request.key_id)))

    def ListKeys(self, request: keys_pb2.ListKeysRequest, context: ServicerContext) -> keys_pb2.ListKeysResponse:
        """List a page of the tenant's keys; its token is the last id of the previous page."""
        keys = self._keys.after(current_tenant.get(), request.page_token)
        listed, token = page(keys, request.page_size, lambda record: record.key_id)
        return keys_pb2.ListKeysResponse(keys=map(key_to_proto, listed), next_page_token=token)

    def DeleteKey(self, request: keys_pb2.DeleteKeyRequest, context: ServicerContext) -> keys_pb2.DeleteKeyResponse:
        """Delete a key."""
        self._keys.delete(current_tenant.get(), request.key_id)
        return keys_pb2.DeleteKeyResponse()
