"""The location of a key store, as the operator names it, and the store that is opened there."""

import re
from pathlib import Path

from sealserve_service.keys.stores.base import KeyStore, KeyStoreSettingsError, UploadSource
from sealserve_service.keys.stores.filesystem import FilesystemKeyStore
from sealserve_service.keys.stores.memory import MemoryKeyStore
from sealserve_service.settings import Settings

_AZURE_CONTAINER = re.compile(r"azure:([a-z0-9-]{3,63})", re.ASCII)
_AZURE_URL = re.compile(r"(https://[a-z0-9.-]+(?::\d+)?(?:/[a-z0-9]+)?)/([a-z0-9-]{3,63})", re.ASCII)


def open_key_store(settings: Settings) -> tuple[KeyStore | None, UploadSource | None]:
    """Open the store that settings.key_store names, and its place of uploads if it has one.

    If settings.key_store is empty, a single process keeps keys in memory. Several processes keep
    none: each would have keys of its own.

    Raises:
        KeyStoreSettingsError: the location cannot be used, or private weights need a store and
            there is none.
    """
    location = settings.key_store or ("memory" if settings.processes == 1 else "none")
    if location == "none":
        if settings.hiding_bits is not None:
            raise KeyStoreSettingsError(
                "private weights need clients' public encryption keys, and a place for them: a directory or an Azure "
                "Blob container that all processes share, with --key-store; or let clients see the weights, with "
                "--weights open"
            )
        return None, None
    if location == "memory":
        if settings.processes > 1:
            raise KeyStoreSettingsError(
                "--key-store memory: each of several processes would have keys of its own; name a directory, an Azure "
                "Blob container, or none"
            )
        return MemoryKeyStore(settings.key_memory_bytes), None
    if match := _AZURE_CONTAINER.fullmatch(location):
        if not settings.key_store_connection_string:
            raise KeyStoreSettingsError(
                f"--key-store {location}: SEALSERVE_KEY_STORE_CONNECTION_STRING is not set; with a managed identity, "
                "name https://ACCOUNT.blob.core.windows.net/CONTAINER instead"
            )
        from sealserve_service.keys.stores import azure_blob  # imported here: it takes half a second and 30 MB

        container = azure_blob.with_connection_string(settings.key_store_connection_string, match[1])
        return container, container
    if match := _AZURE_URL.fullmatch(location):
        from sealserve_service.keys.stores import azure_blob

        container = azure_blob.with_managed_identity(match[1], match[2], settings.identity_client_id or None)
        return container, container
    if "://" in location or location.startswith("azure:"):
        raise KeyStoreSettingsError(
            f"--key-store {location.partition('?')[0]}: neither azure:CONTAINER nor "
            "https://ACCOUNT.blob.core.windows.net/CONTAINER"
        )
    return FilesystemKeyStore(Path(location)), None
