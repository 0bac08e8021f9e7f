"""KeyRegistry: the keys that a client has registered with a service.

>>> with KeyRegistry("127.0.0.1:50051") as registry:
...     record = registry.register(evaluation_keys)

Evaluation keys and public encryption keys are not secret; secret keys are never registered.
"""

import hashlib
import time
from collections.abc import Callable, Iterator
from functools import partial
from types import TracebackType
from typing import Any, Self

from sealserve._codec.listing import Listing
from sealserve._codec.messages import key_messages
from sealserve._rpc.calls import call_once
from sealserve._rpc.channel import open_channel
from sealserve._rpc.retry import run_with_retries
from sealserve.credentials import Credentials
from sealserve.errors import ClientClosedError
from sealserve.he.layouts.ei_slots import EI_PARAMETER_SET
from sealserve.protocol.key_record import KeyHeader, KeyKind, KeyRecord
from sealserve.protocol.wire import key_from_proto
from sealserve.v1 import keys_pb2, keys_pb2_grpc

__all__ = ["KeyRegistry"]


class KeyRegistry:
    """Registers, lists and deletes keys. Every method raises errors of `sealserve.errors` only.

    Args:
        address: HOST:PORT of the service.
        credentials: certificates and a token. By default there are none: the client speaks TLS to
            other machines, and plaintext to this one.
        timeout_seconds: how long an answer or an upload may take, 60 seconds by default.
    """

    def __init__(self, address: str, *, credentials: Credentials | None = None, timeout_seconds: float = 60.0) -> None:
        self._channel = open_channel(address, credentials)
        self._stub = keys_pb2_grpc.KeyServiceStub(self._channel)
        self._timeout_seconds = timeout_seconds
        self._is_closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection. Methods that are called later raise ClientClosedError."""
        self._is_closed = True
        self._channel.close()

    def register(
        self,
        data: bytes,
        *,
        kind: KeyKind = KeyKind.EVALUATION_KEYS,
        parameter_set: str = EI_PARAMETER_SET.name,
        ttl_seconds: float | None = None,
    ) -> KeyRecord:
        """Send a key and return its record. The headers of items name the record's key_id.

        Args:
            data: the key, in the format of its kind (see KeyKind in keys.proto).
            kind: what the key is for.
            parameter_set: the name of the set of the offer that needs the key.
            ttl_seconds: how long to keep the key. The service may keep it for less.

        Raises:
            MalformedKeyError: the data is not a key of this kind and parameter set.
            LimitExceededError, QuotaExceededError: the key is too long, or the store is full.
            KeyStoreUnavailableError: the service's store does not answer.
        """
        header = KeyHeader(
            key_id=hashlib.sha256(data).hexdigest(),
            kind=kind,
            parameter_set=parameter_set,
            byte_count=len(data),
            ttl_seconds=ttl_seconds,
        )
        return self._register(header, data)

    def register_blob(
        self,
        name: str,
        key_id: str,
        byte_count: int,
        *,
        kind: KeyKind = KeyKind.EVALUATION_KEYS,
        parameter_set: str = EI_PARAMETER_SET.name,
        ttl_seconds: float | None = None,
    ) -> KeyRecord:
        """Register a key that is the blob uploads/TENANT/NAME of the service's container.

        Args:
            name: the blob's name, without folders.
            key_id: the SHA-256 of the key's bytes, in hexadecimal digits.
            byte_count: the key's length.
            kind: what the key is for.
            parameter_set: the name of the set of the offer that needs the key.
            ttl_seconds: how long to keep the key.

        Raises:
            KeyNotFoundError: there is no such blob, or the service has no container.
            What `register` raises.
        """
        header = KeyHeader(
            key_id=key_id,
            kind=kind,
            parameter_set=parameter_set,
            byte_count=byte_count,
            ttl_seconds=ttl_seconds,
            blob_name=name,
        )
        return self._register(header, b"")

    def get(self, key_id: str) -> KeyRecord:
        """Return the record of a key.

        Raises:
            KeyNotFoundError: the key is not registered, or has expired.
        """
        request = keys_pb2.GetKeyRequest(key_id=key_id)
        return key_from_proto(self._call(self._stub.GetKey, request, self._timeout_seconds).key)

    def list(self) -> Iterator[KeyRecord]:
        """Yield the records of all keys, ordered by id.

        Raises:
            ParameterError: the list is too long.
        """
        listing = Listing(self._timeout_seconds)
        while not listing.is_complete:
            began = time.monotonic()
            request = keys_pb2.ListKeysRequest(page_token=listing.page_token)
            page = self._call(self._stub.ListKeys, request, listing.seconds_left)
            listing.spend(time.monotonic() - began)
            ids = [key.key_id for key in page.keys]
            listing.receive(ids, page.next_page_token, byte_count=page.ByteSize())
            yield from map(key_from_proto, page.keys)

    def delete(self, key_id: str) -> None:
        """Delete a key.

        Raises:
            KeyNotFoundError: the key is not registered, or has expired.
        """
        self._call(self._stub.DeleteKey, keys_pb2.DeleteKeyRequest(key_id=key_id), self._timeout_seconds)

    def _call(self, method: Callable[..., Any], request: Any, seconds: float) -> Any:
        self._check_open()
        return run_with_retries(partial(call_once, method, request), seconds)

    def _check_open(self) -> None:
        if self._is_closed:
            raise ClientClosedError

    def _register(self, header: KeyHeader, data: bytes) -> KeyRecord:
        self._check_open()

        # A stream takes one round trip, as PutKey does, and also has room for evaluation keys.
        def attempt(seconds_left: float) -> Any:  # each attempt needs an iterator of its own
            return call_once(self._stub.RegisterKey, key_messages(header, data), seconds_left)

        return key_from_proto(run_with_retries(attempt, self._timeout_seconds).key)
