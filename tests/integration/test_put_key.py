"""PutKey over a real socket: what RegisterKey does with many messages, with one."""

import contextlib
import hashlib
import itertools
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from sealserve._rpc.status import typed_error
from sealserve.errors import (
    CallError,
    DrainingError,
    InputMismatchError,
    KeyFault,
    KeyNotFoundError,
    KeyStoreUnavailableError,
    LimitExceededError,
    MalformedKeyError,
    ParameterSetNotOfferedError,
    PermissionDeniedError,
    QuotaExceededError,
    SealserveError,
    ServiceError,
    UnauthenticatedError,
)
from sealserve.he.layouts import LAYOUTS
from sealserve.protocol.key_record import KeyHeader, KeyKind, KeyRecord
from sealserve.protocol.wire import key_from_proto, key_header_to_proto
from sealserve.secret_key import SecretKey
from sealserve.v1 import keys_pb2, keys_pb2_grpc
from sealserve_service.catalog.registry import ModelRegistry
from sealserve_service.keys.registered_keys import RegisteredKeys
from sealserve_service.keys.stores.memory import MemoryKeyStore
from sealserve_service.rpc.servicers.keys import MAX_UPLOADS
from sealserve_service.settings import Settings
from sealserve_service.telemetry.metrics import Telemetry
from sealserve_service.tenants.quota import Quota
from tests.support.identities import ALL, IdentitiesFile
from tests.support.mutations import mutants
from tests.support.raw import RawClient, assert_error
from tests.support.serving import (
    HANG_SECONDS,
    LIMITS,
    SETTINGS,
    linear,
    registered_keys,
    running,
    running_server,
    served,
)

PARAMETER_SET, LARGER = LAYOUTS["row"].private_parameter_sets[:2]
DATA = SecretKey.generate(PARAMETER_SET).public_encryption_key
LIMIT = LIMITS.max_message_bytes
NO_MODELS = ModelRegistry([])
Put = keys_pb2.PutKeyRequest
Metadata = tuple[tuple[str, str], ...]


def put(data: bytes = DATA, **changes: Any) -> Put:
    fields: dict[str, Any] = {
        "key_id": hashlib.sha256(data).hexdigest(),
        "kind": KeyKind.PUBLIC_ENCRYPTION_KEY,
        "parameter_set": PARAMETER_SET.name,
        "byte_count": len(data),
    }
    return Put(header=key_header_to_proto(KeyHeader(**(fields | changes))), data=data)


def in_chunks(request: Put) -> Iterator[keys_pb2.RegisterKeyRequest]:
    """The same upload for RegisterKey."""
    yield keys_pb2.RegisterKeyRequest(header=request.header if request.HasField("header") else None)
    for offset in range(0, len(request.data), 1 << 16):
        chunk = keys_pb2.KeyChunk(offset=offset, data=request.data[offset : offset + (1 << 16)])
        yield keys_pb2.RegisterKeyRequest(chunk=chunk)


class Service:
    """The KeyService of a server. Each way to register a key raises what the SDK would raise."""

    def __init__(self, channel: grpc.Channel, metadata: Metadata = ()) -> None:
        self.stub = keys_pb2_grpc.KeyServiceStub(channel)
        self._metadata = metadata

    def put(self, request: Put) -> KeyRecord:
        """Register a key in one message."""
        return _record(lambda: self.stub.PutKey(request, metadata=self._metadata, timeout=HANG_SECONDS))

    def register(self, request: Put) -> KeyRecord:
        """Register a key in chunks."""
        return _record(lambda: self.stub.RegisterKey(in_chunks(request), metadata=self._metadata, timeout=HANG_SECONDS))

    @property
    def kept(self) -> list[str]:
        """The ids of the caller's keys."""
        page = self.stub.ListKeys(keys_pb2.ListKeysRequest(), metadata=self._metadata, timeout=HANG_SECONDS)
        return [key.key_id for key in page.keys]


def _record(call: Callable[[], Any]) -> KeyRecord:
    try:
        return key_from_proto(call().key)
    except grpc.RpcError as error:
        raise typed_error(error) from error


@contextlib.contextmanager
def service_of(
    keys: RegisteredKeys | None = None, settings: Settings = SETTINGS, telemetry: Telemetry | None = None
) -> Iterator[Service]:
    with (
        running_server(NO_MODELS, settings, keys or registered_keys(), telemetry) as address,
        grpc.insecure_channel(address) as channel,
    ):
        yield Service(channel)


@pytest.fixture
def service() -> Iterator[Service]:
    with service_of() as opened:
        yield opened


def failure(call: Callable[[Put], object], request: Put) -> SealserveError:
    with pytest.raises(SealserveError) as caught:
        call(request)
    return caught.value


def status(error: SealserveError) -> grpc.StatusCode:
    assert isinstance(error.__cause__, grpc.RpcError)
    code: grpc.StatusCode = error.__cause__.code()
    return code


def test_a_browser_registers_its_key_and_asks_a_private_model() -> None:
    """It has unary calls only: GetModel, PutKey, Predict."""
    keys, weights = registered_keys(), np.array([[1.0, -2.0, 0.5]])
    models = ModelRegistry([served("model", linear(weights), keys=keys, hiding_bits=40)])
    row = np.array([1.0, 0.2, 0.6])
    with running_server(models, keys=keys) as address, RawClient(address) as raw:
        request = raw.request(row)
        with pytest.raises(KeyNotFoundError):
            raw.predict(request)
        name = raw.codec.offer.parameters.parameter_set.name
        record = Service(raw.channel).put(put(raw.codec.public_key, parameter_set=name))
        assert record.key_id == raw.codec.key_id == request.header.key_id
        assert raw.predict(request)[0] == pytest.approx(weights @ row, abs=0.05)


def test_a_key_is_registered_as_in_chunks(service: Service) -> None:
    whole = service.put(put(ttl_seconds=60.0))
    chunked = service.register(put(ttl_seconds=60.0))
    assert whole.key_id == hashlib.sha256(DATA).hexdigest()
    assert (whole.kind, whole.parameter_set) == (KeyKind.PUBLIC_ENCRYPTION_KEY, PARAMETER_SET.name)
    assert (whole.byte_count, whole.tenant) == (len(DATA), "anonymous")
    assert whole.expire_time - whole.create_time == timedelta(seconds=60)
    assert vars(whole) | {"expire_time": None} == vars(chunked) | {"expire_time": None}
    assert service.kept == [whole.key_id]


def test_the_same_bytes_are_one_key_and_the_later_end_counts(service: Service) -> None:
    first = service.put(put(ttl_seconds=600.0))
    assert service.put(put(ttl_seconds=6.0)).expire_time >= first.expire_time
    again = service.put(put())
    assert (again.key_id, again.create_time) == (first.key_id, first.create_time)
    assert again.expire_time > first.expire_time
    assert service.kept == [first.key_id]


def without_header(request: Put) -> Put:
    request.ClearField("header")
    return request


BAD_KEYS: dict[str, tuple[Callable[[], Put], ServiceError]] = {
    "nothing": (Put, InputMismatchError("header", 1, 0)),
    "no header": (lambda: without_header(put()), InputMismatchError("header", 1, 0)),
    "no kind": (
        lambda: Put(header=keys_pb2.KeyHeader(parameter_set=PARAMETER_SET.name), data=DATA),
        ParameterSetNotOfferedError("", PARAMETER_SET.name),
    ),
    "a set that takes no keys": (
        lambda: put(parameter_set="row-2048-54"),
        ParameterSetNotOfferedError("", "row-2048-54"),
    ),
    "an id of the wrong form": (lambda: put(key_id="../x"), InputMismatchError("key_id", 64, 4)),
    "no time to live": (lambda: put(ttl_seconds=-1.0), InputMismatchError("ttl", 1, 0)),
    "longer than its kind": (
        lambda: put(DATA + b"\0" * (1 << 20)),
        LimitExceededError("max_key_bytes", len(DATA), len(DATA) + (1 << 20)),
    ),
    "fewer bytes than declared": (lambda: put(DATA[:-1], byte_count=len(DATA)), MalformedKeyError(KeyFault.LENGTH)),
    "no bytes": (lambda: put(b"", byte_count=len(DATA)), MalformedKeyError(KeyFault.LENGTH)),
    "more bytes than declared": (lambda: put(byte_count=len(DATA) - 1), MalformedKeyError(KeyFault.LENGTH)),
    "another digest": (lambda: put(key_id="0" * 64), MalformedKeyError(KeyFault.DIGEST)),
    "no key": (lambda: put(bytes(len(DATA))), MalformedKeyError(KeyFault.FORMAT)),
    "a blob, and no container": (lambda: put(b"", blob_name="mine", byte_count=1), KeyNotFoundError("mine")),
}


@pytest.mark.parametrize("name", BAD_KEYS)
def test_bad_keys_have_the_error_that_they_have_in_chunks(service: Service, name: str) -> None:
    make, expected = BAD_KEYS[name]
    whole, chunked = failure(service.put, make()), failure(service.register, make())
    assert_error(whole, expected)
    assert_error(chunked, expected)
    assert status(whole) is status(chunked)
    assert service.kept == []


def test_a_key_that_is_longer_than_a_message_is_refused(service: Service) -> None:
    """Its own limit, then gRPC's, which is twice as high. Chunks of such a key would be taken."""
    long = put(bytes(LIMIT + 1))
    whole = failure(service.put, long)
    assert_error(whole, LimitExceededError("max_message_bytes", LIMIT, LIMIT + 1))
    assert status(whole) is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert isinstance(failure(service.register, long), LimitExceededError | MalformedKeyError)
    longest = failure(service.put, put(bytes(2 * LIMIT + 1)))
    assert isinstance(longest, CallError)
    assert status(longest) is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert service.kept == []


class Blobs:
    """One blob in the service's container."""

    def read_upload(self, tenant: str, name: str, max_bytes: int) -> bytes:
        if (tenant, name) != ("anonymous", "mine"):
            raise KeyNotFoundError(name)
        return DATA


def test_a_key_may_lie_in_the_container_already() -> None:
    with service_of(registered_keys(uploads=Blobs())) as service:
        named = put(blob_name="mine")
        assert_error(failure(service.put, named), MalformedKeyError(KeyFault.LENGTH))  # it has bytes as well
        named.ClearField("data")
        assert service.put(named).byte_count == len(DATA)


def test_who_may_register_no_keys_is_told_so_before_the_key_is_read(tmp_path: Path) -> None:
    file = IdentitiesFile(tmp_path / "identities.toml", clinic='models = ["*"]', lab=ALL)
    tokens = {tenant: (("authorization", f"Bearer {file.token(tenant)}"),) for tenant in ("clinic", "lab")}
    telemetry, keys = Telemetry(), registered_keys()

    def received_bytes() -> float:
        labels = {"method": "/sealserve.v1.KeyService/PutKey"}
        return telemetry.registry.get_sample_value("sealserve_received_bytes_total", labels) or 0.0

    settings = SETTINGS.with_changes(identities=file.path)
    with (
        running_server(NO_MODELS, settings, keys, telemetry) as address,
        grpc.insecure_channel(address) as channel,
    ):
        clinic, lab = (Service(channel, tokens[tenant]) for tenant in ("clinic", "lab"))
        for call in (clinic.put, clinic.register):
            refused = failure(call, put())
            assert_error(refused, PermissionDeniedError("register_keys"))
            assert status(refused) is grpc.StatusCode.PERMISSION_DENIED
        assert isinstance(failure(Service(channel).put, put()), UnauthenticatedError)
        assert received_bytes() == 0
        record = lab.put(put())
        assert record.tenant == "lab"
        assert received_bytes() > len(DATA)
        assert (clinic.kept, lab.kept) == ([], [record.key_id])


def test_the_quota_of_key_bytes_counts_both_ways() -> None:
    other = SecretKey.generate(PARAMETER_SET).public_encryption_key
    with service_of(registered_keys(quota=Quota(key_bytes=2 * len(DATA) - 1))) as service:
        for first, second in itertools.permutations((service.put, service.register)):
            record = first(put())
            assert second(put()).key_id == record.key_id  # the same again takes no more room
            refused = failure(second, put(other))
            assert isinstance(refused, QuotaExceededError)
            assert refused.quota == "key_bytes"
            assert service.kept == [record.key_id]


@pytest.mark.parametrize("slot_count", [2, MAX_UPLOADS])
def test_uploads_of_both_kinds_share_the_slots(slot_count: int) -> None:
    """A caller has two slots unless its quota says otherwise."""
    quota = {} if slot_count == 2 else {"concurrent_uploads": slot_count}
    with service_of(settings=SETTINGS.with_changes(**quota)) as service:
        _fill_the_slots(service, slot_count)


def _fill_the_slots(service: Service, slot_count: int) -> None:
    over, begun = threading.Event(), threading.Semaphore(0)

    def requests() -> Iterator[keys_pb2.RegisterKeyRequest]:
        yield from itertools.islice(in_chunks(put()), 2)
        begun.release()
        over.wait(HANG_SECONDS)

    calls = [service.stub.RegisterKey.future(requests(), timeout=HANG_SECONDS) for _ in range(slot_count)]
    for _ in calls:
        assert begun.acquire(timeout=HANG_SECONDS)
    refused: SealserveError | None = None
    while refused is None:  # the last of them may not have reached the servicer yet
        with contextlib.suppress(MalformedKeyError):
            try:
                service.put(put(key_id="0" * 64))
            except QuotaExceededError as error:
                refused = error
    assert_error(refused, QuotaExceededError("concurrent_uploads", 1.0))
    for call in calls:
        call.cancel()
    over.set()


class Failing(MemoryKeyStore):
    """A store that never answers."""

    def _fail(self, *_: object) -> Any:
        raise KeyStoreUnavailableError(1.0)

    put = _fail  # type: ignore[assignment]


def test_a_store_that_is_full_or_does_not_answer() -> None:
    with service_of(registered_keys(MemoryKeyStore(len(DATA) - 1))) as service:
        refused = failure(service.put, put())
        assert isinstance(refused, QuotaExceededError)
        assert refused.quota == "key_store_bytes"
    with service_of(registered_keys(Failing(64 << 20))) as service:
        refused = failure(service.put, put())
        assert_error(refused, KeyStoreUnavailableError(1.0))
        assert status(refused) is grpc.StatusCode.UNAVAILABLE


class Waiting(MemoryKeyStore):
    """A store that keeps a key only when it may."""

    def __init__(self) -> None:
        super().__init__(64 << 20)
        self.is_asked, self.may_go_on = threading.Event(), threading.Event()

    def put(self, record: KeyRecord, data: bytes, max_tenant_bytes: float | None = None) -> KeyRecord:
        self.is_asked.set()
        assert self.may_go_on.wait(HANG_SECONDS)
        return super().put(record, data, max_tenant_bytes)


def test_a_stopping_server_keeps_the_key_that_it_has_and_takes_no_more() -> None:
    store = Waiting()
    with (
        running(NO_MODELS, SETTINGS, registered_keys(store)) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        service = Service(channel)
        begun = service.stub.PutKey.future(put(), timeout=HANG_SECONDS)
        assert store.is_asked.wait(HANG_SECONDS)
        stopped = server.begin_stop()
        bad = put(key_id="0" * 64)
        while isinstance(refused := failure(service.put, bad), MalformedKeyError):
            continue  # the stop has not begun yet
        assert_error(refused, DrainingError(1.0))
        store.may_go_on.set()
        assert begun.result().key.byte_count == len(DATA)
        stopped.result(HANG_SECONDS)


def test_every_field_of_a_request_may_be_anything(service: Service) -> None:
    """The service answers each, keeps what is a key, and takes a key after all of them."""
    ends = Counter[str]()
    for request in itertools.chain.from_iterable(mutants(put(), random.Random(seed)) for seed in range(6)):
        try:
            service.put(request)
        except SealserveError as error:
            ends[status(error).name] += 1
        else:
            ends["OK"] += 1
    assert set(ends) <= {"OK", "INVALID_ARGUMENT", "FAILED_PRECONDITION", "NOT_FOUND", "RESOURCE_EXHAUSTED"}, ends
    assert ends["INVALID_ARGUMENT"] > 10
    digest = hashlib.sha256(DATA).hexdigest()
    assert set(service.kept) <= {digest}
    assert service.put(put()).key_id == digest
    larger = SecretKey.generate(LARGER).public_encryption_key
    assert service.put(put(larger, parameter_set=LARGER.name)).byte_count == len(larger)
