"""From what the operator says of the keys' place to the store that is there."""

import re
from pathlib import Path

from sealserve_service.keys.stores.base import KeyStore, KeyStoreSettingsError, UploadSource
from sealserve_service.keys.stores.filesystem import FilesystemKeyStore
from sealserve_service.keys.stores.memory import MemoryKeyStore
from sealserve_service.settings import Settings

_AZURE_CONTAINER = re.compile(r"azure:([a-z0-9-]{3,63})", re.ASCII)
_AZURE_URL = re.compile(r"(https://[a-z0-9.-]+(?::\d+)?(?:/[a-z0-9]+)?)/([a-z0-9-]{3,63})", re.ASCII)


def open_key_store(settings: Settings) -> tuple[KeyStore | None, UploadSource | None]:
    """Open the store that settings.key_store names, and the place of clients' uploads where there is one.

    Without a name, one process keeps keys in memory, and several keep none: each would have its own.

    Raises:
        KeyStoreSettingsError: the place cannot be used so, or private weights need one and there is none.
    """
    place = settings.key_store or ("memory" if settings.processes == 1 else "none")
    if place == "none":
        if settings.hiding_bits is not None:
            raise KeyStoreSettingsError(
                "private weights need clients' public encryption keys, and a place for them: a directory or an Azure "
                "Blob container that all processes share, with --key-store; or let clients see the weights, with "
                "--weights open"
            )
        return None, None
    if place == "memory":
        if settings.processes > 1:
            raise KeyStoreSettingsError(
                "--key-store memory: each of several processes would have keys of its own; name a directory, an Azure "
                "Blob container, or none"
            )
        return MemoryKeyStore(settings.key_memory_bytes), None
    if match := _AZURE_CONTAINER.fullmatch(place):
        if not settings.key_store_connection_string:
            raise KeyStoreSettingsError(
                f"--key-store {place}: SEALSERVE_KEY_STORE_CONNECTION_STRING is not set; with a managed identity, name "
                "https://ACCOUNT.blob.core.windows.net/CONTAINER instead"
            )
        from sealserve_service.keys.stores import azure_blob  # it takes half a second and 30 MB

        container = azure_blob.with_connection_string(settings.key_store_connection_string, match[1])
        return container, container
    if match := _AZURE_URL.fullmatch(place):
        from sealserve_service.keys.stores import azure_blob

        container = azure_blob.with_managed_identity(match[1], match[2], settings.identity_client_id or None)
        return container, container
    if "://" in place or place.startswith("azure:"):
        raise KeyStoreSettingsError(
            f"--key-store {place.partition('?')[0]}: neither azure:CONTAINER nor "
            "https://ACCOUNT.blob.core.windows.net/CONTAINER"
        )
    return FilesystemKeyStore(Path(place)), None
