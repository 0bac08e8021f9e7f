"""A key store in a container of Azure Blob storage, which every replica of the service may share.

The blob keys/TENANT/KEY_ID holds a key's bytes and, as metadata, its record. A blob is created only
if there is none, and changed only if it is still as it was read (by ETag), so that any number of
writers agree. Writers of a tenant with a quota take turns: a turn is a lease of the blob
locks/TENANT. Clients put uploads, with a permission of their own, into uploads/TENANT/NAME of the
container.

This is the only module that imports the Azure SDK. The texts of the SDK's errors hold URLs, and a
URL may hold a signature: the texts are neither logged nor chained.
"""

import contextlib
import hashlib
import logging
import math
import re
import time
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, TypeVar

from azure.core import MatchConditions
from azure.core.exceptions import (
    AzureError,
    HttpResponseError,
    ResourceExistsError,
    ResourceModifiedError,
    ResourceNotFoundError,
)
from azure.identity import ManagedIdentityCredential
from azure.storage.blob import BlobClient, BlobProperties, ContainerClient, LinearRetry, StorageErrorCode

from sealserve.errors import KeyNotFoundError, LimitExceededError, ServiceError
from sealserve.protocol.key_record import KeyRecord
from sealserve_service.keys.stores.base import Clock, check_tenant_bytes, in_force, unavailable_error, utc_now
from sealserve_service.keys.stores.bounded_calls import BoundedCalls, refuse_late
from sealserve_service.keys.stores.record_format import (
    folder_name,
    is_key_id,
    record_from_json,
    record_to_json,
)
from sealserve_service.settings.errors import KeyStoreSettingsError

_logger = logging.getLogger(__name__)

TIMEOUT_SECONDS = 5.0
_RETRIES = 1
_RETRY_DELAY_SECONDS = 1
_METADATA_NAME = "record"
_KEYS = "keys"
_UPLOADS = "uploads"
_LOCKS = "locks"
# The leases that Azure grants.
_LEAST_LEASE_SECONDS = 15
_LONGEST_LEASE_SECONDS = 60
_POLL_SECONDS = 0.05
# An attempt is repeated if another writer of the same key was faster.
_MAX_ATTEMPTS = 20
# An account URL with a signature as its query would be a secret, and would hold two permissions.
_ACCOUNT_URL = re.compile(r"https://[^/?#@]+(/[^?#]*)?")
_UPLOAD_NAME = re.compile(r"(?!.*\.\.)(?!\.$)[A-Za-z0-9._-]{1,200}", re.ASCII)

Result = TypeVar("Result")


def with_managed_identity(
    account_url: str,
    container: str,
    client_id: str | None = None,
    *,
    timeout_seconds: float = TIMEOUT_SECONDS,
    clock: Clock = utc_now,
) -> "AzureBlobKeyStore":
    """Open a container with the identity that Azure gives this process.

    There is no secret to configure, leak or rotate.

    Args:
        account_url: https://ACCOUNT.blob.core.windows.net
        container: its name.
        client_id: of a user-assigned identity; None for the system-assigned one.
        timeout_seconds: of a connection and of each wait for an answer.
        clock: returns the time; for tests.

    Raises:
        KeyStoreSettingsError: account_url or container is malformed.
    """
    try:
        if not _ACCOUNT_URL.fullmatch(account_url):
            raise ValueError
        credential = ManagedIdentityCredential(client_id=client_id)
        client = ContainerClient(account_url, container, credential=credential, **_client_options(timeout_seconds))
    except ValueError:
        raise KeyStoreSettingsError(
            "the storage account of the keys: its URL, or the container's name, is malformed"
        ) from None
    return AzureBlobKeyStore(client, timeout_seconds, clock=clock, credential=credential)


def with_connection_string(
    text: str, container: str, *, timeout_seconds: float = TIMEOUT_SECONDS, clock: Clock = utc_now
) -> "AzureBlobKeyStore":
    """Open a container with the account key or signature of a connection string.

    Raises:
        KeyStoreSettingsError: the text is no connection string, or the container's name is
            malformed.
    """
    try:
        client = ContainerClient.from_connection_string(text, container, **_client_options(timeout_seconds))
    except ValueError:
        raise KeyStoreSettingsError(
            "SEALSERVE_KEY_STORE_CONNECTION_STRING: the connection string of the storage account is malformed"
        ) from None
    return AzureBlobKeyStore(client, timeout_seconds, clock=clock)


def _client_options(timeout_seconds: float) -> dict[str, Any]:
    return {
        "connection_timeout": timeout_seconds,
        "read_timeout": timeout_seconds,
        "retry_policy": LinearRetry(backoff=_RETRY_DELAY_SECONDS, retry_total=_RETRIES, random_jitter_range=0),
        "raw_request_hook": refuse_late,  # before each request, also before retries
    }


class AzureBlobKeyStore:
    """Keys in an existing container.

    Args:
        container_client: the SDK's client of the container.
        timeout_seconds: of a connection and of each wait for an answer. A call with its retry takes
            at most twice that.
        clock: returns the time; for tests.
        credential: is closed with the store.
    """

    def __init__(
        self,
        container_client: ContainerClient,
        timeout_seconds: float = TIMEOUT_SECONDS,
        *,
        clock: Clock = utc_now,
        credential: ManagedIdentityCredential | None = None,
    ) -> None:
        # At INFO the SDK writes several lines for each request. At DEBUG urllib3 writes URLs, which
        # hold signatures.
        for name in ("azure", "msal", "urllib3"):
            logging.getLogger(name).setLevel(logging.WARNING)
        self._container = container_client
        self._credential = credential
        self._clock = clock
        self._calls = BoundedCalls(2 * timeout_seconds)
        # Azure itself gives up a request after this many seconds.
        self._options: dict[str, Any] = {"timeout": math.ceil(timeout_seconds)}
        self._lease_seconds = min(max(math.ceil(3 * timeout_seconds), _LEAST_LEASE_SECONDS), _LONGEST_LEASE_SECONDS)

    def put(self, record: KeyRecord, data: bytes, max_tenant_bytes: float | None = None) -> KeyRecord:
        """Keep a key; see KeyStore.put."""
        if max_tenant_bytes is None:
            return self._run_bounded(lambda: self._put(record, data))

        def put() -> KeyRecord:
            with self._turn(record.tenant):
                check_tenant_bytes(self._records(record.tenant), record, max_tenant_bytes)
                return self._put(record, data)

        return self._run_bounded(put)

    def get(self, tenant: str, key_id: str) -> KeyRecord:
        """Return a key's record; see KeyStore.get."""
        return self._run_bounded(lambda: self._get(tenant, key_id))

    def read(self, tenant: str, key_id: str) -> bytes:
        """Return a key's bytes, and delete a damaged key; see KeyStore.read."""
        return self._run_bounded(lambda: self._read(tenant, key_id))

    def list(self, tenant: str) -> Iterator[KeyRecord]:
        """Yield a tenant's records; see KeyStore.list."""
        now = self._clock()
        for properties in self._list_blobs(f"{_KEYS}/{folder_name(tenant)}/"):
            record = _record(properties, tenant, _key_id(properties))
            if record is not None and not record.is_expired(now):
                yield record

    def delete(self, tenant: str, key_id: str) -> None:
        """Delete a key; see KeyStore.delete."""

        def delete() -> None:
            self._get(tenant, key_id)
            self._delete(self._blob(tenant, key_id))

        self._run_bounded(delete)

    def sweep(self) -> int:
        """Delete expired keys that were not registered again meanwhile; see KeyStore.sweep."""
        now = self._clock()
        count = 0
        for properties in self._list_blobs(f"{_KEYS}/"):
            record = _record(properties, tenant="", key_id=_key_id(properties))  # the tenant does not matter here
            if record is not None and record.is_expired(now):
                blob = self._container.get_blob_client(properties.name)
                count += self._run_bounded(partial(self._delete, blob, **_unchanged(properties.etag)))
        return count

    def close(self) -> None:
        """Close connections."""
        self._container.close()
        if self._credential is not None:
            self._credential.close()

    def read_upload(self, tenant: str, name: str, max_bytes: int) -> bytes:
        """Return the bytes of an upload; see UploadSource.read_upload."""
        if not _UPLOAD_NAME.fullmatch(name):
            raise KeyNotFoundError("")
        blob = self._container.get_blob_client(f"{_UPLOADS}/{folder_name(tenant)}/{name}")
        return self._run_bounded(lambda: self._read_upload(blob, name, max_bytes))

    def _get(self, tenant: str, key_id: str) -> KeyRecord:
        properties = self._properties(self._blob(tenant, key_id))
        if properties is None:
            raise KeyNotFoundError(key_id)
        record = _require_record(properties, tenant, key_id)
        if record.is_expired(self._clock()):
            raise KeyNotFoundError(key_id)
        return record

    def _put(self, record: KeyRecord, data: bytes) -> KeyRecord:
        blob = self._blob(record.tenant, record.key_id)
        for _ in range(_MAX_ATTEMPTS):
            properties = self._properties(blob)
            if properties is None:
                try:
                    # overwrite=False creates, or fails where another writer has just created it.
                    blob.upload_blob(data, overwrite=False, metadata=_metadata(record), **self._options)
                    return record
                except ResourceExistsError:
                    continue
            kept = _require_record(properties, record.tenant, record.key_id)
            wanted = in_force(kept, record, self._clock())
            if wanted == kept or self._replace_record(blob, wanted, properties.etag):
                return wanted
        _logger.error("a key's blob was changed by others %d times in a row", _MAX_ATTEMPTS)
        raise unavailable_error()

    def _records(self, tenant: str) -> Iterator[KeyRecord]:
        """Yield the records of a tenant's keys, within a bounded call."""
        now = self._clock()
        prefix = f"{_KEYS}/{folder_name(tenant)}/"
        for properties in self._container.list_blobs(prefix, include=["metadata"], **self._options):
            record = _record(properties, tenant, _key_id(properties))
            if record is not None and not record.is_expired(now):
                yield record

    @contextlib.contextmanager
    def _turn(self, tenant: str) -> Iterator[None]:
        """Wait for this writer's turn to put a key of a tenant, and have it in the context.

        The turn is a lease of a blob. It is as long as the bounded call that it is taken in, and
        the last request of that, can take: nothing is put after the lease has ended.

        Raises:
            TimeoutError: the turn did not come within the bounded call.
        """
        blob = self._container.get_blob_client(f"{_LOCKS}/{folder_name(tenant)}")
        while True:
            try:
                lease = blob.acquire_lease(self._lease_seconds, **self._options)
                break
            except ResourceExistsError:  # another writer has it
                time.sleep(_POLL_SECONDS)
            except ResourceNotFoundError as error:
                _require_container(error)
                with contextlib.suppress(ResourceExistsError):
                    blob.upload_blob(b"", overwrite=False, **self._options)
        try:
            yield
        finally:
            with contextlib.suppress(AzureError, OSError):  # it ends by itself
                lease.release(**self._options)

    def _replace_record(self, blob: BlobClient, record: KeyRecord, etag: str) -> bool:
        try:
            blob.set_blob_metadata(_metadata(record), **_unchanged(etag), **self._options)
        except (ResourceModifiedError, ResourceNotFoundError):
            return False
        return True

    def _read(self, tenant: str, key_id: str) -> bytes:
        blob = self._blob(tenant, key_id)
        found = self._download(blob)
        if found is None:
            raise KeyNotFoundError(key_id)
        properties, data = found
        if _require_record(properties, tenant, key_id).is_expired(self._clock()):
            raise KeyNotFoundError(key_id)
        if hashlib.sha256(data).hexdigest() != key_id:
            _logger.error("blob %s is damaged: deleted; its owner has to register the key again", blob.blob_name)
            self._delete(blob, **_unchanged(properties.etag))
            raise KeyNotFoundError(key_id)
        return data

    def _read_upload(self, blob: BlobClient, name: str, max_bytes: int) -> bytes:
        properties = self._properties(blob)
        if properties is None:
            raise KeyNotFoundError(name)
        if properties.size > max_bytes:
            raise LimitExceededError("max_key_bytes", max_bytes, properties.size)
        found = self._download(blob, **_unchanged(properties.etag))
        if found is None:
            raise KeyNotFoundError(name)
        return found[1]

    def _blob(self, tenant: str, key_id: str) -> BlobClient:
        if not is_key_id(key_id):
            raise KeyNotFoundError(key_id)
        return self._container.get_blob_client(f"{_KEYS}/{folder_name(tenant)}/{key_id}")

    def _properties(self, blob: BlobClient) -> BlobProperties | None:
        try:
            return blob.get_blob_properties(**self._options)
        except ResourceNotFoundError as error:
            _require_container(error)
            return None

    def _download(self, blob: BlobClient, **conditions: Any) -> tuple[BlobProperties, bytes] | None:
        try:
            # decompress=False: the Content-Encoding of an upload must not make it longer than its
            # blob.
            stream = blob.download_blob(max_concurrency=1, decompress=False, **conditions, **self._options)
            data = stream.readall()
        except ResourceNotFoundError as error:
            _require_container(error)
            return None
        if len(data) != stream.size:
            raise OSError("the download broke off")
        return stream.properties, data

    def _delete(self, blob: BlobClient, **conditions: Any) -> bool:
        """Delete a blob if it exists and the conditions hold; return whether it was deleted."""
        try:
            blob.delete_blob(**conditions, **self._options)
        except ResourceNotFoundError as error:
            _require_container(error)
            return False
        except ResourceModifiedError:
            return False
        return True

    def _list_blobs(self, prefix: str) -> Iterator[BlobProperties]:
        pages = self._container.list_blobs(prefix, include=["metadata"], **self._options).by_page()
        while (page := self._run_bounded(lambda: _next_page(pages))) is not None:
            yield from page

    def _run_bounded(self, call: Callable[[], Result]) -> Result:
        try:
            return self._calls.run(call)
        except ServiceError:
            raise
        except HttpResponseError as error:
            reason = f"{error.status_code} {getattr(error, 'error_code', '')}"
        except (AzureError, OSError) as error:
            reason = type(error).__name__
        except Exception as error:
            # The SDK checks little of an answer: a malformed one may raise any exception.
            frame = traceback.extract_tb(error.__traceback__)[-1]
            reason = f"{type(error).__name__} at {frame.filename}:{frame.lineno}"
        _logger.error("the keys' container does not answer as it should: %s", reason)
        raise unavailable_error()


def _next_page(pages: Iterator[Iterator[BlobProperties]]) -> list[BlobProperties] | None:
    page = next(pages, None)
    return None if page is None else list(page)  # an empty page may not be the last one


def _key_id(properties: BlobProperties) -> str:
    return properties.name.rpartition("/")[2]


def _metadata(record: KeyRecord) -> dict[str, str]:
    return {_METADATA_NAME: record_to_json(record)}


def _unchanged(etag: str) -> dict[str, Any]:
    """Return the condition that a blob is still as it was read.

    Without an ETag, the SDK refuses the condition with ValueError.
    """
    return {"etag": etag, "match_condition": MatchConditions.IfNotModified}


def _record(properties: BlobProperties, tenant: str, key_id: str) -> KeyRecord | None:
    """Return the record of a blob, or None if this store has not written the blob."""
    try:
        return _require_record(properties, tenant, key_id)
    except ValueError:
        return None


def _require_record(properties: BlobProperties, tenant: str, key_id: str) -> KeyRecord:
    """Return the record of a blob.

    Raises:
        ValueError: the blob has none. Nothing follows from that: the head of the answer may have
            been cut off.
    """
    record = record_from_json((properties.metadata or {}).get(_METADATA_NAME, ""), tenant, key_id)
    if properties.size != record.byte_count:
        raise ValueError("the blob does not have the length of its record")
    return record


def _require_container(error: ResourceNotFoundError) -> None:
    """Raise the error unless it says that a blob is missing, which is an answer.

    A missing container is a fault of the configuration.
    """
    if getattr(error, "error_code", None) != StorageErrorCode.BLOB_NOT_FOUND:
        raise error
