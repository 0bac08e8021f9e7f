"""Registered keys: what happens to a key while something else happens to it."""

import hashlib
from datetime import UTC, datetime, timedelta

import pytest

from sealserve.errors import KeyNotFoundError
from sealserve.protocol.key_record import KeyHeader, KeyKind
from sealserve_service.engines.ei.keys import GALOIS_KEYS_BYTES
from sealserve_service.keys.registered_keys import RegisteredKeys
from sealserve_service.keys.stores.memory import MemoryKeyStore
from sealserve_service.telemetry.metrics import Telemetry
from sealserve_service.tenants.tenant import ANONYMOUS
from tests.support.ei_user import EIUser
from tests.support.serving import registered_keys


def register(keys: RegisteredKeys, data: bytes) -> str:
    header = KeyHeader(
        key_id=hashlib.sha256(data).hexdigest(),
        kind=KeyKind.EVALUATION_KEYS,
        parameter_set="ei-8192",
        byte_count=len(data),
    )
    upload = keys.begin(header)
    upload.add(data)
    keys.finish(ANONYMOUS, upload)
    return header.key_id


def test_a_key_that_is_used_while_it_is_deleted_is_gone_afterwards(ei_user: EIUser) -> None:
    """The use loads it into the cache, from a store that still has it."""

    class Store(MemoryKeyStore):
        def delete(self, tenant: str, key_id: str) -> None:
            assert keys.galois_keys(tenant, key_id)
            super().delete(tenant, key_id)

    keys, data = registered_keys(Store(64 << 20)), ei_user.evaluation_keys
    key_id = register(keys, data)
    keys.delete(ANONYMOUS, key_id)
    with pytest.raises(KeyNotFoundError):
        keys.galois_keys(ANONYMOUS.name, key_id)


def test_a_sweep_frees_the_memory_of_expired_keys(ei_user: EIUser) -> None:
    telemetry, now = Telemetry(), datetime.now(UTC)

    def clock() -> datetime:
        return now

    keys = registered_keys(MemoryKeyStore(64 << 20, clock=clock), clock=clock, telemetry=telemetry)
    keys.galois_keys(ANONYMOUS.name, register(keys, ei_user.evaluation_keys))
    held = "sealserve_key_cache_bytes"
    keys.sweep()
    assert telemetry.registry.get_sample_value(held) == GALOIS_KEYS_BYTES
    now += timedelta(hours=2)
    keys.sweep()
    assert telemetry.registry.get_sample_value(held) == 0
