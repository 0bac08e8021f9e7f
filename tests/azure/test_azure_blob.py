"""What only Azure Blob storage has: races of processes, uploads, secrets, restarts, an identity."""

import contextlib
import dataclasses
import gzip
import logging
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from azure.storage.blob import (
    BlobProperties,
    ContainerClient,
    ContainerSasPermissions,
    ContentSettings,
    generate_container_sas,
)

from sealserve.errors import KeyNotFoundError, KeyStoreUnavailableError, LimitExceededError
from sealserve_service.keys.stores.azure_blob import AzureBlobKeyStore, with_connection_string
from sealserve_service.keys.stores.base import UploadSource
from sealserve_service.settings.errors import KeyStoreSettingsError
from tests.support.azurite import (
    ACCOUNT,
    ACCOUNT_KEY,
    Azurite,
    connection_string,
    free_port,
    running_azurite,
)
from tests.support.registered_keys import HOUR, let_put, putting_process, record_of
from tests.support.serving import HANG_SECONDS, ROOT

DATA = bytes(range(256)) * 40
RECORD = record_of(DATA)


@pytest.fixture
def container(azurite: Azurite) -> Iterator[ContainerClient]:
    """What an operator, or a client with a permission of its own, works with."""
    with ContainerClient.from_connection_string(azurite.connection_string, azurite.new_container()) as client:
        yield client


@pytest.fixture
def store(azurite: Azurite, container: ContainerClient) -> Iterator[AzureBlobKeyStore]:
    store = with_connection_string(azurite.connection_string, container.container_name)
    yield store
    store.close()


def key_blob(data: bytes = DATA) -> str:
    return f"keys/alice/{record_of(data).key_id}"


# Processes


def test_processes_that_put_one_key_agree(
    azurite: Azurite, store: AzureBlobKeyStore, container: ContainerClient
) -> None:
    preparation = f"""
from sealserve_service.keys.stores.azure_blob import with_connection_string
store = with_connection_string({azurite.connection_string!r}, {container.container_name!r})
"""
    with contextlib.ExitStack() as stack:
        processes = [stack.enter_context(putting_process(preparation, DATA)) for _ in range(4)]
        said = let_put(processes, HANG_SECONDS)
    [record] = store.list("alice")
    assert set(said) == {record.create_time.isoformat()}
    assert store.read("alice", RECORD.key_id) == DATA


@pytest.mark.slow
def test_a_restarted_account_has_the_keys(tmp_path: Path) -> None:
    port = free_port()
    with running_azurite(tmp_path, port) as azurite:
        name = azurite.new_container()
        store = with_connection_string(azurite.connection_string, name)
        store.put(RECORD, DATA)
        # Azurite itself saves its tables every few seconds.
        end = time.monotonic() + HANG_SECONDS
        while RECORD.key_id not in (tmp_path / "__azurite_db_blob__.json").read_text():
            assert time.monotonic() < end, "Azurite has not saved the key"
            time.sleep(0.2)
        azurite.process.kill()
        azurite.process.wait()
        with pytest.raises(KeyStoreUnavailableError):
            store.get("alice", RECORD.key_id)
    with running_azurite(tmp_path, port):
        assert store.get("alice", RECORD.key_id) == RECORD
        assert store.read("alice", RECORD.key_id) == DATA
    store.close()


# Blobs that others have touched


def test_a_damaged_blob_is_never_read_as_a_key(
    store: AzureBlobKeyStore, container: ContainerClient, caplog: pytest.LogCaptureFixture
) -> None:
    store.put(RECORD, DATA)
    blob = container.get_blob_client(key_blob())
    blob.upload_blob(DATA[:-1] + b"\0", overwrite=True, metadata=blob.get_blob_properties().metadata)
    with pytest.raises(KeyNotFoundError):
        store.read("alice", RECORD.key_id)
    assert f"blob {key_blob()} is damaged" in caplog.text
    assert not blob.exists()
    store.put(RECORD, DATA)
    assert store.read("alice", RECORD.key_id) == DATA


@pytest.mark.parametrize("metadata", [{}, {"record": "x"}, {"record": "{}"}])
def test_a_blob_of_somebody_else_is_neither_a_key_nor_deleted(
    metadata: dict[str, str], store: AzureBlobKeyStore, container: ContainerClient
) -> None:
    for name in (key_blob(), "keys/alice/notes", "keys/notes", "notes"):
        container.upload_blob(name, DATA, metadata=metadata)
    with pytest.raises(KeyStoreUnavailableError):
        store.get("alice", RECORD.key_id)
    with pytest.raises(KeyStoreUnavailableError):
        store.read("alice", RECORD.key_id)
    with pytest.raises(KeyStoreUnavailableError):
        store.put(RECORD, DATA)
    assert list(store.list("alice")) == []
    assert store.sweep() == 0
    assert len(list(container.list_blob_names())) == 4


def test_a_sweep_spares_a_key_that_was_registered_again_meanwhile(
    store: AzureBlobKeyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    expired = record_of(DATA, created=datetime.now(UTC) - 2 * HOUR)
    store.put(expired, DATA)
    listed = store._list_blobs
    anew = record_of(DATA)

    def listed_then_changed(prefix: str) -> list[BlobProperties]:
        found = list(listed(prefix))
        assert store.put(anew, DATA) == anew
        return found

    monkeypatch.setattr(store, "_list_blobs", listed_then_changed)
    assert store.sweep() == 0
    assert store.get("alice", RECORD.key_id) == anew


def test_more_keys_than_a_page_holds(store: AzureBlobKeyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    records = sorted((record_of(b"%d" % n) for n in range(7)), key=lambda record: record.key_id)
    for n in range(7):
        store.put(record_of(b"%d" % n), b"%d" % n)
    list_blobs = store._container.list_blobs
    monkeypatch.setattr(store._container, "list_blobs", lambda *args, **kw: list_blobs(*args, **kw, results_per_page=2))
    assert [record.key_id for record in store.list("alice")] == [record.key_id for record in records]


# Uploads


def test_an_upload_is_read(store: AzureBlobKeyStore, container: ContainerClient) -> None:
    uploads: UploadSource = store
    for name in ("key", "a.b-c_D.9", "x" * 200, "a.", ".a", "-"):
        container.upload_blob(f"uploads/alice/{name}", DATA)
        assert uploads.read_upload("alice", name, len(DATA)) == DATA
    container.upload_blob("uploads/alice/empty", b"")
    assert uploads.read_upload("alice", "empty", 0) == b""
    container.upload_blob("uploads/a=2fb/key", b"of a/b")
    assert uploads.read_upload("a/b", "key", 100) == b"of a/b"


NO_NAMES = [
    *("", ".", "..", "a..b", "...", "../key", "a/b", "/key", "a\\b", "%2e%2e", "a%2fb", "a b", "a\n", "\0", "x" * 201),
    *("https://elsewhere.example/key", "key?sv=1", "key#1", "key;x", "k\u00e9y", "\uff0fkey"),
]


@pytest.mark.parametrize("name", NO_NAMES)
def test_what_is_no_name_is_refused_unasked(name: str) -> None:
    store = with_connection_string(connection_string(port=1), "nothing-answers-there", timeout_seconds=0.1)
    with pytest.raises(KeyNotFoundError) as refusal:
        store.read_upload("alice", name, 1 << 20)
    assert refusal.value.key_id == ""
    store.close()


def test_uploads_and_keys_of_others_are_out_of_reach(store: AzureBlobKeyStore, container: ContainerClient) -> None:
    store.put(RECORD, DATA)
    container.upload_blob("uploads/alice/key", DATA)
    for tenant, name in [("bob", "key"), ("alice", RECORD.key_id), ("", "key"), ("..", "key"), ("alice/key", "key")]:
        with pytest.raises(KeyNotFoundError):
            store.read_upload(tenant, name, 1 << 20)


def test_an_upload_that_is_too_long_is_not_fetched(store: AzureBlobKeyStore, container: ContainerClient) -> None:
    container.upload_blob("uploads/alice/key", DATA)
    with pytest.raises(LimitExceededError) as refusal:
        store.read_upload("alice", "key", len(DATA) - 1)
    assert dataclasses.astuple(refusal.value) == ("max_key_bytes", len(DATA) - 1, len(DATA))


def test_an_upload_is_not_inflated(store: AzureBlobKeyStore, container: ContainerClient) -> None:
    bomb = gzip.compress(bytes(10_000_000))
    container.upload_blob("uploads/alice/key", bomb, content_settings=ContentSettings(content_encoding="gzip"))
    assert store.read_upload("alice", "key", len(bomb)) == bomb


def test_an_upload_that_grows_meanwhile_is_not_fetched(
    store: AzureBlobKeyStore, container: ContainerClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    container.upload_blob("uploads/alice/key", b"short")
    properties = store._properties

    def properties_then_changed(blob: object) -> object:
        found = properties(blob)  # type: ignore[arg-type]
        container.upload_blob("uploads/alice/key", DATA, overwrite=True)
        return found

    monkeypatch.setattr(store, "_properties", properties_then_changed)
    with pytest.raises(KeyStoreUnavailableError):
        store.read_upload("alice", "key", 100)


# Secrets


def signature(container: str) -> str:
    return generate_container_sas(
        ACCOUNT,
        container,
        ACCOUNT_KEY,
        permission=ContainerSasPermissions(read=True, write=True, delete=True, list=True, create=True),
        expiry=datetime.now(UTC) + timedelta(hours=1),
    )


def test_no_secret_is_logged_or_raised(
    azurite: Azurite, container: ContainerClient, caplog: pytest.LogCaptureFixture
) -> None:
    sas = signature(container.container_name)
    endpoint = f"http://127.0.0.1:{azurite.port}/{ACCOUNT}"
    refused = f"http://127.0.0.1:{free_port()}/{ACCOUNT}"
    wrong_key = ACCOUNT_KEY[:-4] + "AA=="
    raised = []
    with caplog.at_level(logging.DEBUG):
        for text in (
            f"BlobEndpoint={endpoint};SharedAccessSignature={sas}",
            f"BlobEndpoint={endpoint};SharedAccessSignature={sas.replace('sp=', 'sp=x')}",
            f"BlobEndpoint={refused};SharedAccessSignature={sas}",
            f"BlobEndpoint={endpoint};AccountName={ACCOUNT};AccountKey={wrong_key}",
        ):
            store = with_connection_string(text, container.container_name, timeout_seconds=1)
            try:
                store.put(RECORD, DATA)
                assert store.read("alice", RECORD.key_id) == DATA
                store.delete("alice", RECORD.key_id)
            except KeyStoreUnavailableError as error:
                raised.append(error)
            store.close()
    assert len(raised) == 3
    assert all(error.__cause__ is error.__context__ is None for error in raised)
    written = caplog.text + "".join(map(str, raised))
    assert "does not answer as it should" in written
    for secret in (ACCOUNT_KEY, wrong_key, sas, sas.rpartition("sig=")[2][:20], "sig=", "AccountKey"):
        assert secret not in written


MALFORMED = [
    *("", "secret", "secret=", "AccountKey=secret", "AccountName=x;AccountKey"),
    "DefaultEndpointsProtocol=https;AccountKey=secret;EndpointSuffix=core.windows.net",
]


@pytest.mark.parametrize("text", MALFORMED)
def test_a_malformed_connection_string_is_refused_without_showing_it(text: str) -> None:
    with pytest.raises(KeyStoreSettingsError) as refusal:
        with_connection_string(text, "keys")
    assert "secret" not in str(refusal.value)
    assert refusal.value.__cause__ is None


# The SDK


def test_one_module_imports_the_sdk() -> None:
    sources = [*(ROOT / "client/python").rglob("*.py"), *(ROOT / "service").rglob("*.py")]
    importing = [path.name for path in sources if "azure." in path.read_text().replace("azure.com", "")]
    assert importing == ["azure_blob.py"]


def test_a_server_without_azure_does_not_load_its_sdk() -> None:
    program = "import sys, sealserve_service.app; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert "sealserve_service" in loaded
    assert {"azure", "msal", "requests"}.isdisjoint(loaded)
