"""KeyRegistry: the keys that a client has registered with a service.

>>> with KeyRegistry("127.0.0.1:50051") as registry:
...     record = registry.register(evaluation_keys)

Evaluation keys and public encryption keys are not secret; secret keys are never registered.
"""

import hashlib
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

from sealserve._codec.arguments import count_of, timeout_of
from sealserve._codec.listing import Listing
from sealserve._codec.messages import key_messages
from sealserve._rpc.channel import endpoint, open_channel
from sealserve._rpc.connections import Connections, call
from sealserve._rpc.methods import Methods
from sealserve.credentials import Credentials
from sealserve.he.layouts.ei_slots import EI_PARAMETER_SET
from sealserve.protocol.address import parse_address
from sealserve.protocol.key_record import KeyHeader, KeyKind, KeyRecord
from sealserve.protocol.wire import key_from_proto
from sealserve.v1 import keys_pb2

__all__ = ["KeyRegistry"]

_MAX_BYTE_COUNT = (1 << 63) - 1


class KeyRegistry:
    """Registers, lists and deletes keys. Every method raises errors of `sealserve.errors` only.

    Args:
        address: HOST:PORT of the service.
        credentials: certificates and a token. By default there are none: the client speaks TLS to
            other machines, and plaintext to this one.
        timeout_seconds: how long an answer or an upload may take, 60 seconds by default.
    """

    def __init__(self, address: str, *, credentials: Credentials | None = None, timeout_seconds: float = 60.0) -> None:
        parse_address(address)
        self._connections = Connections(
            lambda: Methods(open_channel(address, credentials), endpoint=endpoint(address, credentials)),
            lambda connection: connection.channel.close(),
        )
        self._timeout_seconds = timeout_of(timeout_seconds)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection. Methods that are called later raise ClientClosedError."""
        self._connections.close()

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
            ttl_seconds=None if ttl_seconds is None else timeout_of(ttl_seconds, "ttl_seconds"),
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
            SealserveError: what `register` raises.
        """
        header = KeyHeader(
            key_id=key_id,
            kind=kind,
            parameter_set=parameter_set,
            byte_count=count_of(byte_count, "byte_count", least=0, most=_MAX_BYTE_COUNT),
            ttl_seconds=None if ttl_seconds is None else timeout_of(ttl_seconds, "ttl_seconds"),
            blob_name=name,
        )
        return self._register(header, b"")

    def get(self, key_id: str) -> KeyRecord:
        """Return the record of a key.

        Raises:
            KeyNotFoundError: the key is not registered, or has expired.
        """
        request = keys_pb2.GetKeyRequest(key_id=key_id)
        return key_from_proto(self._call("get_key", request).key)

    def list(self) -> Iterator[KeyRecord]:
        """Yield the records of all keys, ordered by id.

        Raises:
            ParameterError: the list is too long.
        """
        listing = Listing(self._timeout_seconds)
        while not listing.is_complete:
            began = time.monotonic()
            request = keys_pb2.ListKeysRequest(page_token=listing.page_token)
            page = call(self._connections, "list_keys", request, listing.seconds_left)
            listing.spend(time.monotonic() - began)
            ids = [key.key_id for key in page.keys]
            listing.receive(ids, page.next_page_token, byte_count=page.ByteSize())
            yield from map(key_from_proto, page.keys)

    def delete(self, key_id: str) -> None:
        """Delete a key.

        Raises:
            KeyNotFoundError: the key is not registered, or has expired.
        """
        self._call("delete_key", keys_pb2.DeleteKeyRequest(key_id=key_id))

    def _call(self, method: str, request: Any) -> Any:
        return call(self._connections, method, request, self._timeout_seconds)

    def _register(self, header: KeyHeader, data: bytes) -> KeyRecord:
        # A stream takes one round trip, as PutKey does, and also has room for evaluation keys.
        return key_from_proto(self._call("register_key", list(key_messages(header, data))).key)
