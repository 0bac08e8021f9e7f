"""The location of a key store, as the operator names it, and the store that is opened there."""

from pathlib import Path

from sealserve_service.keys.stores.base import KeyStore, UploadSource
from sealserve_service.keys.stores.filesystem import FilesystemKeyStore
from sealserve_service.keys.stores.memory import MemoryKeyStore
from sealserve_service.settings import Settings
from sealserve_service.settings.errors import KeyStoreSettingsError
from sealserve_service.settings.values import AZURE_CONTAINER, AZURE_URL


def open_key_store(settings: Settings) -> tuple[KeyStore | None, UploadSource | None]:
    """Open the key store that the settings name, and the source of uploads if there is one.

    Without a name, one process keeps keys in memory, and several keep none: each would have its
    own.

    Raises:
        KeyStoreSettingsError: the store cannot be opened.
    """
    location = settings.key_store or ("memory" if settings.process_count == 1 else "none")
    if location == "none":
        return None, None
    if location == "memory":
        return MemoryKeyStore(settings.key_memory_bytes), None
    if match := AZURE_CONTAINER.fullmatch(location):
        from sealserve_service.keys.stores import azure_blob  # it takes half a second and 30 MB

        secret = settings.key_store_connection_string.get_secret_value()
        container = azure_blob.with_connection_string(secret, match[1])
        return container, container
    if match := AZURE_URL.fullmatch(location):
        from sealserve_service.keys.stores import azure_blob

        container = azure_blob.with_managed_identity(match[1], match[2], settings.identity_client_id or None)
        return container, container
    try:
        return FilesystemKeyStore(Path(location)), None
    except KeyStoreSettingsError as error:
        raise KeyStoreSettingsError(f"{settings.name_of('key_store')}: {error}") from error
