"""A storage account that fails: every call ends in time with a typed error.

Calls work again when the account does.
"""

import gc
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from sealserve.errors import KeyStoreUnavailableError
from sealserve_service.keys.stores.azure_blob import AzureBlobKeyStore, with_connection_string
from tests.support.azurite import Azurite, connection_string, free_port
from tests.support.fault_proxy import (
    Fault,
    FaultProxy,
    answer,
    break_off_after,
    drip,
    hang_up,
    lose_answer_to,
    read_nothing,
    relay,
    say_nothing,
)
from tests.support.registered_keys import HOUR, record_of
from tests.support.serving import HANG_SECONDS

TIMEOUT_SECONDS = 1.0
DATA = bytes(3_000_000)
RECORD = record_of(DATA)
OTHER = b"other" * 100_000


pytestmark = [
    pytest.mark.slow,
    # The SDK leaves the answers to failed requests, with their sockets, to the garbage collector,
    # in cycles.
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
]


@pytest.fixture(autouse=True)
def garbage() -> Iterator[None]:
    """Collect that garbage here: in another test it would be an error."""
    yield
    gc.collect()


@pytest.fixture
def proxy(azurite: Azurite) -> Iterator[FaultProxy]:
    with FaultProxy(azurite.port) as proxy:
        yield proxy


@pytest.fixture
def container(azurite: Azurite) -> str:
    return azurite.new_container()


@pytest.fixture
def store(proxy: FaultProxy, container: str) -> Iterator[AzureBlobKeyStore]:
    store = with_connection_string(connection_string(proxy.port), container, timeout_seconds=TIMEOUT_SECONDS)
    yield store
    store.close()


@pytest.fixture
def patient(proxy: FaultProxy, container: str) -> Iterator[AzureBlobKeyStore]:
    """A store with the time-outs of a service."""
    store = with_connection_string(connection_string(proxy.port), container)
    yield store
    store.close()


def calls(store: AzureBlobKeyStore) -> list[Callable[[], object]]:
    return [
        lambda: store.put(RECORD, DATA),
        lambda: store.put(record_of(OTHER), OTHER),
        lambda: store.get("alice", RECORD.key_id),
        lambda: store.read("alice", RECORD.key_id),
        lambda: list(store.list("alice")),
        lambda: store.delete("alice", RECORD.key_id),
        store.sweep,
        lambda: store.read_upload("alice", "upload", 1 << 20),
    ]


def outcome(call: Callable[[], object]) -> tuple[object, float]:
    """What a call raised, or else returned, and how long that took."""
    begin = time.monotonic()
    try:
        result = call()
    except Exception as error:
        result = error
    return result, time.monotonic() - begin


SERVER_BUSY = (
    b"HTTP/1.1 503 Server Busy\r\nx-ms-error-code: ServerBusy\r\nContent-Type: application/xml\r\n"
    b"Content-Length: 0\r\nConnection: close\r\n\r\n"
)
FAULTS: dict[str, Fault] = {
    "503": answer(SERVER_BUSY),
    "500 with a page of HTML": answer(
        b"HTTP/1.1 500 Oops\r\nContent-Length: 13\r\nConnection: close\r\n\r\n<html></html>"
    ),
    "403": answer(b"HTTP/1.1 403 Forbidden\r\nx-ms-error-code: AuthorizationFailure\r\nContent-Length: 0\r\n\r\n"),
    "404 of a proxy": answer(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"),
    "no HTTP": answer(b"SSH-2.0-OpenSSH_9.2\r\n"),
    "a success that says nothing": answer(b"HTTP/1.1 204 No Content\r\n\r\n"),
    "no answer": say_nothing,
    "nothing read": read_nothing,
    "an answer without end": drip,
    "hangs up": hang_up,
    "breaks off in the head": break_off_after(30),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_failing_account_is_unavailable_in_time(fault: Fault, proxy: FaultProxy, store: AzureBlobKeyStore) -> None:
    store.put(RECORD, DATA)
    proxy.use(fault)
    with ThreadPoolExecutor(len(calls(store))) as threads:
        outcomes = list(threads.map(outcome, calls(store)))
    assert [type(result) for result, _ in outcomes] == [KeyStoreUnavailableError] * len(outcomes)
    assert max(seconds for _, seconds in outcomes) < HANG_SECONDS
    proxy.use(relay)
    assert store.read("alice", RECORD.key_id) == DATA, "no call that was given up does anything later"


def test_an_account_that_refuses_connections_is_unavailable(container: str) -> None:
    store = with_connection_string(connection_string(free_port()), container, timeout_seconds=TIMEOUT_SECONDS)
    with ThreadPoolExecutor(len(calls(store))) as threads:
        outcomes = list(threads.map(outcome, calls(store)))
    assert [type(result) for result, _ in outcomes] == [KeyStoreUnavailableError] * len(outcomes)
    store.close()


def test_a_missing_container_is_unavailable_and_said_in_the_log(
    azurite: Azurite, caplog: pytest.LogCaptureFixture
) -> None:
    store = with_connection_string(azurite.connection_string, "no-such-container", timeout_seconds=TIMEOUT_SECONDS)
    for call in calls(store):
        caplog.clear()
        assert isinstance(outcome(call)[0], KeyStoreUnavailableError)
        assert "404 ContainerNotFound" in caplog.text
    store.close()


def test_a_download_that_breaks_off_is_no_damaged_key(proxy: FaultProxy, store: AzureBlobKeyStore) -> None:
    store.put(RECORD, DATA)
    proxy.use(break_off_after(len(DATA) // 2))
    with pytest.raises(KeyStoreUnavailableError):
        store.read("alice", RECORD.key_id)
    proxy.use(relay)
    assert store.read("alice", RECORD.key_id) == DATA


# What one retry gets over


@pytest.mark.parametrize(
    "fault", [answer(SERVER_BUSY), hang_up, break_off_after(len(DATA) // 2)], ids=["503", "hangs up", "breaks off"]
)
def test_one_failure_is_got_over(fault: Fault, proxy: FaultProxy, patient: AzureBlobKeyStore) -> None:
    proxy.use(fault, times=1)
    assert patient.put(RECORD, DATA) == RECORD
    proxy.use(fault, times=1)
    assert patient.read("alice", RECORD.key_id) == DATA
    proxy.use(fault, times=1)
    assert list(patient.list("alice")) == [RECORD]


def test_a_put_whose_answer_is_lost_is_still_one_put(proxy: FaultProxy, patient: AzureBlobKeyStore) -> None:
    later = record_of(DATA, lives=2 * HOUR, created=RECORD.create_time)
    for record in (RECORD, later):
        proxy.use(lose_answer_to(b"PUT"), times=1)
        before = proxy.connection_count
        assert patient.put(record, DATA) == record
        assert proxy.connection_count == before + 2
        assert patient.get("alice", record.key_id) == record
