"""Registered keys: what happens to a key while something else happens to it."""

import hashlib

import pytest

from sealserve.errors import KeyNotFoundError
from sealserve.protocol.key_record import KeyHeader, KeyKind
from sealserve_service.keys.stores.memory import MemoryKeyStore
from sealserve_service.tenants.tenant import ANONYMOUS
from tests.support.ei_user import EIUser
from tests.support.serving import registered_keys


def test_a_key_that_is_used_while_it_is_deleted_is_gone_afterwards(ei_user: EIUser) -> None:
    """The use loads it into the cache, from a store that still has it."""

    class Store(MemoryKeyStore):
        def delete(self, tenant: str, key_id: str) -> None:
            assert keys.galois_keys(tenant, key_id)
            super().delete(tenant, key_id)

    keys, data = registered_keys(Store(64 << 20)), ei_user.evaluation_keys
    header = KeyHeader(
        key_id=hashlib.sha256(data).hexdigest(),
        kind=KeyKind.EVALUATION_KEYS,
        parameter_set="ei-8192",
        byte_count=len(data),
    )
    upload = keys.begin(header)
    upload.add(data)
    keys.finish(ANONYMOUS, upload)
    keys.delete(ANONYMOUS, header.key_id)
    with pytest.raises(KeyNotFoundError):
        keys.galois_keys(ANONYMOUS.name, header.key_id)
