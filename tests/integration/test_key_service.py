"""Keys over a real socket: registered once, found by their owner only.

Bad keys are refused and leave no trace.
"""

import dataclasses
import hashlib
import itertools
import struct
import threading
import zlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import numpy as np
import pytest

from sealserve._rpc.status import typed_error
from sealserve.errors import (
    InputMismatchError,
    ItemTimeoutError,
    KeyFault,
    KeyNotFoundError,
    KeyStoreUnavailableError,
    LimitExceededError,
    MalformedKeyError,
    OutOfSequenceError,
    ParameterSetNotOfferedError,
    QuotaExceededError,
    ServiceError,
)
from sealserve.he.layouts import LAYOUTS
from sealserve.key_registry import KeyRegistry
from sealserve.protocol.item import ItemHeader, SealCiphertext
from sealserve.protocol.key_record import KeyHeader, KeyKind, KeyRecord
from sealserve.protocol.wire import key_header_to_proto
from sealserve.v1 import keys_pb2, keys_pb2_grpc
from sealserve_service.catalog.registry import ModelRegistry
from sealserve_service.keys.registered_keys import RegisteredKeys
from sealserve_service.keys.stores.memory import MemoryKeyStore
from sealserve_service.rpc.servicers.keys import MAX_UPLOADS
from tests.support.ei_user import EIUser
from tests.support.raw import assert_error
from tests.support.registered_keys import record_of
from tests.support.serving import (
    HANG_SECONDS,
    LIMITS,
    linear,
    registered_keys,
    running_server,
    served,
    with_limits,
)

Request = keys_pb2.RegisterKeyRequest
STORE_BYTES = 64 << 20
IMPATIENT_SECONDS = 0.9  # less than any retry delay: the first refusal is the last


@dataclasses.dataclass(frozen=True)
class Service:
    """A server with registered keys, and ways to talk to it."""

    store: MemoryKeyStore
    registry: KeyRegistry
    stub: Any

    def register(self, *requests: Request) -> KeyRecord:
        """Send an upload by hand.

        Raises:
            SealserveError: as the SDK would.
        """
        try:
            self.stub.RegisterKey(iter(requests), timeout=HANG_SECONDS)
        except grpc.RpcError as error:
            raise typed_error(error) from error
        return self.registry.get(requests[0].header.key_id)

    def kept(self) -> list[KeyRecord]:
        return list(self.store.list("anonymous"))


@pytest.fixture
def service() -> Iterator[Service]:
    store = MemoryKeyStore(STORE_BYTES)
    with (
        running_server(
            ModelRegistry([]), with_limits(concurrent_uploads=MAX_UPLOADS), registered_keys(store)
        ) as address,
        KeyRegistry(address, timeout_seconds=HANG_SECONDS) as registry,
        grpc.insecure_channel(address) as channel,
    ):
        yield Service(store, registry, keys_pb2_grpc.KeyServiceStub(channel))


def header(data: bytes, **changes: Any) -> Request:
    fields = KeyHeader(
        key_id=hashlib.sha256(data).hexdigest(),
        kind=KeyKind.EVALUATION_KEYS,
        parameter_set="ei-8192",
        byte_count=len(data),
    )
    return Request(header=key_header_to_proto(dataclasses.replace(fields, **changes)))


def chunks(data: bytes, size: int = 1 << 20) -> list[Request]:
    return [
        Request(chunk=keys_pb2.KeyChunk(offset=offset, data=data[offset : offset + size]))
        for offset in range(0, len(data), size)
    ]


def test_a_key_is_registered_found_and_deleted(service: Service, ei_user: EIUser) -> None:
    data, before = ei_user.evaluation_keys, datetime.now(UTC)
    record = service.registry.register(data)
    assert record.key_id == hashlib.sha256(data).hexdigest()
    assert (record.kind, record.parameter_set) == (KeyKind.EVALUATION_KEYS, "ei-8192")
    assert (record.byte_count, record.tenant) == (len(data), "anonymous")
    assert before <= record.create_time <= datetime.now(UTC)
    assert record.expire_time - record.create_time == timedelta(hours=1)
    assert service.registry.get(record.key_id) == record
    assert list(service.registry.list()) == [record]
    service.registry.delete(record.key_id)
    for gone in (service.registry.get, service.registry.delete):
        with pytest.raises(KeyNotFoundError) as caught:
            gone(record.key_id)
        assert caught.value.key_id == record.key_id
    assert list(service.registry.list()) == []


def test_the_same_bytes_are_one_key(service: Service, ei_user: EIUser) -> None:
    first = service.registry.register(ei_user.evaluation_keys, ttl_seconds=60)
    assert first.expire_time - first.create_time == timedelta(seconds=60)
    again = service.registry.register(ei_user.evaluation_keys, ttl_seconds=1e9)
    assert (again.key_id, again.create_time) == (first.key_id, first.create_time)
    assert timedelta(seconds=3590) < again.expire_time - first.create_time < timedelta(seconds=3700)
    assert list(service.registry.list()) == [again]


def test_chunks_may_come_with_the_header_and_be_of_any_size(service: Service, ei_user: EIUser) -> None:
    data = ei_user.evaluation_keys
    first = header(data)
    first.chunk.CopyFrom(chunks(data[:100])[0].chunk)
    rest = [Request(chunk=keys_pb2.KeyChunk(offset=100, data=data[100:300])), Request()]
    rest += [
        Request(chunk=keys_pb2.KeyChunk(offset=offset, data=data[offset : offset + 999_999]))
        for offset in range(300, len(data), 999_999)
    ]
    assert service.register(first, *rest).byte_count == len(data)


def test_keys_are_listed_page_by_page(service: Service) -> None:
    data = [bytes([number]) for number in range(7)]
    kept = [service.store.put(record_of(key, "anonymous"), key) for key in data]
    records = sorted(kept, key=lambda record: record.key_id)
    pages, token = [], ""
    while True:
        page = service.stub.ListKeys(keys_pb2.ListKeysRequest(page_size=3, page_token=token), timeout=HANG_SECONDS)
        pages.append([key.key_id for key in page.keys])
        if not (token := page.next_page_token):
            break
    assert [len(page) for page in pages] == [3, 3, 1]
    assert list(itertools.chain(*pages)) == [record.key_id for record in records]
    assert list(service.registry.list()) == records


def test_keys_of_others_are_not_there(service: Service) -> None:
    record = service.store.put(record_of(b"bob's", "bob"), b"bob's")
    assert list(service.registry.list()) == []
    for method in (service.registry.get, service.registry.delete):
        with pytest.raises(KeyNotFoundError):
            method(record.key_id)
    assert service.store.read("bob", record.key_id) == b"bob's"


Upload = Callable[[bytes], list[Request]]
BAD_UPLOADS: dict[str, tuple[Upload, ServiceError]] = {
    "nothing": (lambda _: [], InputMismatchError("header", 1, 0)),
    "no header": (chunks, InputMismatchError("header", 1, 0)),
    "two headers": (lambda data: [header(data), header(data)], InputMismatchError("header", 0, 1)),
    "no kind": (
        lambda data: [Request(header=keys_pb2.KeyHeader(parameter_set="ei-8192"))],
        ParameterSetNotOfferedError("", "ei-8192"),
    ),
    "kind that is not taken": (
        lambda data: [header(data, kind=KeyKind.PUBLIC_ENCRYPTION_KEY)],
        ParameterSetNotOfferedError("", "ei-8192"),
    ),
    "another parameter set": (
        lambda data: [header(data, parameter_set="row-2048-54")],
        ParameterSetNotOfferedError("", "row-2048-54"),
    ),
    "endless parameter set": (
        lambda data: [header(data, parameter_set="x" * 1_000_000)],
        ParameterSetNotOfferedError("", "x" * 100),
    ),
    "id of the wrong form": (lambda data: [header(data, key_id="../x")], InputMismatchError("key_id", 64, 4)),
    "too long": (
        lambda data: [header(data, byte_count=LIMITS.max_key_bytes + 1)],
        LimitExceededError("max_key_bytes", LIMITS.max_key_bytes, LIMITS.max_key_bytes + 1),
    ),
    "chunks out of order": (
        lambda data: [header(data), *chunks(data)[1:2]],
        OutOfSequenceError(0, 1 << 20),
    ),
    "a chunk repeated": (
        lambda data: [header(data), *chunks(data)[:1], *chunks(data)[:1]],
        OutOfSequenceError(1 << 20, 0),
    ),
    "a chunk too long": (
        lambda data: [header(data), *chunks(data, (1 << 20) + 1)[:1]],
        LimitExceededError("key_chunk_bytes", 1 << 20, (1 << 20) + 1),
    ),
    "fewer bytes than declared": (
        lambda data: [header(data), *chunks(data)[:-1]],
        MalformedKeyError(KeyFault.LENGTH),
    ),
    "more bytes than declared": (
        lambda data: [header(data, byte_count=1000), *chunks(data)],
        MalformedKeyError(KeyFault.LENGTH),
    ),
    "another hash": (
        lambda data: [header(data, key_id="0" * 64), *chunks(data)],
        MalformedKeyError(KeyFault.DIGEST),
    ),
    "a blob, and no container": (
        lambda data: [header(data, blob_name="mine")],
        KeyNotFoundError("mine"),
    ),
    "a URL": (
        lambda data: [header(data, blob_name="https://evil.example/x")],
        KeyNotFoundError("https://evil.example/x"),
    ),
}


@pytest.mark.parametrize("name", BAD_UPLOADS)
def test_bad_uploads_have_their_error_and_leave_nothing(service: Service, ei_user: EIUser, name: str) -> None:
    upload, expected = BAD_UPLOADS[name]
    with pytest.raises(ServiceError) as caught:
        service.register(*upload(ei_user.evaluation_keys))
    assert_error(caught.value, expected)
    assert service.kept() == []
    assert service.registry.register(ei_user.evaluation_keys).byte_count == len(ei_user.evaluation_keys)


def bomb(data: bytes) -> bytes:
    """Ten megabytes, which inflate to ten gigabytes and more."""
    body = zlib.compress(bytes(1 << 26), 9) * 150
    return struct.pack("<HBBBBHQ", 0xA15E, 16, 3, 5, 1, 0, 16 + len(body)) + body


RANDOM = np.random.default_rng(13)
BAD_KEYS: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "truncated": lambda data: data[:-1],
    "half": lambda data: data[: len(data) // 2],
    "random": lambda _: RANDOM.bytes(100_000),
    "a byte too long": lambda data: data + b"\0",
    "twice": lambda data: data[: 5 << 20] * 2,
    "a header bit flipped": lambda data: bytes([data[0] ^ 1]) + data[1:],
    "a bit flipped within": lambda data: data[:4_000_000] + bytes([data[4_000_000] ^ 1]) + data[4_000_001:],
    "a bomb": bomb,
}


@pytest.mark.parametrize("name", BAD_KEYS)
def test_bad_keys_are_refused_on_arrival(service: Service, ei_user: EIUser, name: str) -> None:
    with pytest.raises(MalformedKeyError) as caught:
        service.registry.register(BAD_KEYS[name](ei_user.evaluation_keys))
    assert caught.value.reason in (KeyFault.FORMAT, KeyFault.PARAMETERS, KeyFault.COEFFICIENT)
    assert service.kept() == []


def test_an_upload_that_breaks_off_leaves_nothing(service: Service, ei_user: EIUser) -> None:
    sent, go_on = threading.Event(), threading.Event()

    def requests() -> Iterator[Request]:
        yield header(ei_user.evaluation_keys)
        yield from chunks(ei_user.evaluation_keys)[:3]
        sent.set()
        go_on.wait(HANG_SECONDS)

    call = service.stub.RegisterKey.future(requests(), timeout=HANG_SECONDS)
    assert sent.wait(HANG_SECONDS)
    call.cancel()
    go_on.set()
    assert service.kept() == []
    assert service.registry.register(ei_user.evaluation_keys)


def test_uploads_that_take_too_long_end(ei_user: EIUser) -> None:
    settings = with_limits(item_timeout_seconds=0.25)
    with (
        running_server(ModelRegistry([]), settings, registered_keys()) as address,
        grpc.insecure_channel(address) as channel,
    ):
        over = threading.Event()

        def requests() -> Iterator[Request]:
            yield header(ei_user.evaluation_keys)
            over.wait(HANG_SECONDS)

        with pytest.raises(grpc.RpcError) as caught:
            keys_pb2_grpc.KeyServiceStub(channel).RegisterKey(requests(), timeout=HANG_SECONDS)
        over.set()
        assert_error(typed_error(caught.value), ItemTimeoutError(0.25))


def test_only_so_many_uploads_at_once(service: Service, ei_user: EIUser) -> None:
    over, begun = threading.Event(), threading.Semaphore(0)

    def requests() -> Iterator[Request]:
        yield header(ei_user.evaluation_keys)
        yield from chunks(ei_user.evaluation_keys)[:2]
        begun.release()
        over.wait(HANG_SECONDS)

    calls = [service.stub.RegisterKey.future(requests(), timeout=HANG_SECONDS) for _ in range(MAX_UPLOADS)]
    for _ in calls:
        assert begun.acquire(timeout=HANG_SECONDS)
    refused: list[ServiceError] = []
    while not refused:  # the last of them may not have reached the servicer yet
        try:
            service.register(header(b""))
        except QuotaExceededError as error:
            refused.append(error)
        except MalformedKeyError:
            continue
    assert_error(refused[0], QuotaExceededError("concurrent_uploads", 1.0))
    for call in calls:
        call.cancel()
    over.set()


def test_a_full_store_says_so(ei_user: EIUser) -> None:
    with (
        running_server(ModelRegistry([]), keys=registered_keys(MemoryKeyStore(1 << 20))) as address,
        KeyRegistry(address, timeout_seconds=HANG_SECONDS) as registry,
    ):
        with pytest.raises(QuotaExceededError) as caught:
            registry.register(ei_user.evaluation_keys)
        assert caught.value.quota == "key_store_bytes"
        assert caught.value.retry_delay_seconds > 0
        assert list(registry.list()) == []


class Failing(MemoryKeyStore):
    """A store that never answers."""

    def _fail(self, *_: object) -> Any:
        raise KeyStoreUnavailableError(1.0)

    put = get = read = list = delete = _fail  # type: ignore[assignment]


def test_a_store_that_does_not_answer_is_unavailable(ei_user: EIUser) -> None:
    with (
        running_server(ModelRegistry([]), keys=registered_keys(Failing(STORE_BYTES))) as address,
        KeyRegistry(address, timeout_seconds=IMPATIENT_SECONDS) as registry,
    ):
        calls: list[Callable[[], object]] = [
            lambda: registry.register(ei_user.evaluation_keys),
            lambda: registry.get("0" * 64),
            lambda: list(registry.list()),
            lambda: registry.delete("0" * 64),
        ]
        for call in calls:
            with pytest.raises(KeyStoreUnavailableError) as caught:
                call()
            assert isinstance(caught.value.__cause__, grpc.RpcError)
            assert caught.value.__cause__.code() is grpc.StatusCode.UNAVAILABLE


class Blobs:
    """What clients have put into the configured container."""

    def __init__(self, blobs: dict[tuple[str, str], bytes]) -> None:
        self._blobs = blobs

    def read_upload(self, tenant: str, name: str, max_bytes: int) -> bytes:
        if (tenant, name) not in self._blobs:
            raise KeyNotFoundError(name)
        data = self._blobs[tenant, name]
        if len(data) > max_bytes:
            raise LimitExceededError("max_key_bytes", max_bytes, len(data))
        return data


def test_a_key_may_lie_in_the_container_already(ei_user: EIUser) -> None:
    data = ei_user.evaluation_keys
    blobs = Blobs({("anonymous", "mine"): data, ("bob", "his"): data})
    key_id = hashlib.sha256(data).hexdigest()
    with (
        running_server(ModelRegistry([]), keys=registered_keys(uploads=blobs)) as address,
        KeyRegistry(address, timeout_seconds=HANG_SECONDS) as registry,
    ):
        for name, byte_count, expected in (
            ("his", len(data), KeyNotFoundError("his")),
            ("mine", len(data) - 1, LimitExceededError("max_key_bytes", len(data) - 1, len(data))),
            ("mine", len(data) + 1, MalformedKeyError(KeyFault.LENGTH)),
        ):
            with pytest.raises(ServiceError) as caught:
                registry.register_blob(name, key_id, byte_count)
            assert_error(caught.value, expected)
        with pytest.raises(MalformedKeyError) as caught:
            registry.register_blob("mine", "0" * 64, len(data))
        assert_error(caught.value, MalformedKeyError(KeyFault.DIGEST))
        assert list(registry.list()) == []
        record = registry.register_blob("mine", key_id, len(data))
        assert list(registry.list()) == [record]


def test_two_tenants_keys_never_mix(ei_user: EIUser) -> None:
    """The same engine, asked by two tenants for the same id."""
    keys: RegisteredKeys = registered_keys(store := MemoryKeyStore(STORE_BYTES))
    store.put(record := record_of(ei_user.evaluation_keys, "alice"), ei_user.evaluation_keys)
    engine = served("model", linear(np.ones((1, 3))), keys=keys).engines[-1]
    header = ItemHeader(
        model="model",
        config_id="",
        layout=LAYOUTS["ei-slots"],
        parameter_set="ei-8192",
        row_count=1,
        ciphertext_count=1,
        key_id=record.key_id,
    )
    scoring = engine.begin(header, "alice")
    scoring.add(ei_user.encrypt(np.array([0.25, 0.5, 0.125])))
    reply = [piece for piece in scoring.finish() if isinstance(piece, SealCiphertext)]
    assert ei_user.decrypt(reply) == pytest.approx([0.875], abs=1e-4)
    for tenant in ("bob", "Alice", "", "alice/", "anonymous"):
        with pytest.raises(KeyNotFoundError):
            engine.begin(header, tenant)
    with pytest.raises(KeyNotFoundError):
        engine.begin(dataclasses.replace(header, key_id="0" * 64), "alice")
