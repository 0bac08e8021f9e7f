"""The kinds of keys that are taken: of which parameter sets, how long at most, how they are checked and made ready."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from sealserve.he import ei_format
from sealserve.he._seal import GaloisKeys
from sealserve.he.layouts import LAYOUTS
from sealserve.he.layouts.ei_slots import EI_PARAMETER_SET
from sealserve.he.parameters import ParameterSet
from sealserve.he.public_key_format import check_public_key, public_key_bytes
from sealserve.protocol.key_record import KeyKind
from sealserve_service.engines.ei.keys import GALOIS_KEYS_BYTES, load_galois_keys
from sealserve_service.engines.linear.zero_encryptor import ZeroEncryptor

ReadyKey: TypeAlias = "GaloisKeys | ZeroEncryptor"
"""A key ready for use."""


@dataclass(frozen=True)
class KeyType:
    """A kind of key of one parameter set.

    Attributes:
        check: of its bytes; raises MalformedKeyError with the first check that fails.
        load: makes its bytes ready, and says how much memory that takes; raises what `check` raises.
        max_bytes: what no such key exceeds, however much else the service would take.
    """

    check: Callable[[bytes], object]
    load: Callable[[bytes], tuple[ReadyKey, int]]
    max_bytes: int | None = None


def _load_galois_keys(data: bytes) -> tuple[ReadyKey, int]:
    return load_galois_keys(data), GALOIS_KEYS_BYTES


def _load_public_key(parameter_set: ParameterSet, data: bytes) -> tuple[ReadyKey, int]:
    encryptor = ZeroEncryptor(parameter_set, data)
    return encryptor, encryptor.byte_count


def _public_key_type(parameter_set: ParameterSet) -> KeyType:
    return KeyType(
        partial(check_public_key, parameter_set),
        partial(_load_public_key, parameter_set),
        public_key_bytes(parameter_set),
    )


KEY_TYPES = {
    (KeyKind.EVALUATION_KEYS, EI_PARAMETER_SET.name): KeyType(ei_format.read_evaluation_keys, _load_galois_keys),
    **{
        (KeyKind.PUBLIC_ENCRYPTION_KEY, parameter_set.name): _public_key_type(parameter_set)
        for layout in LAYOUTS.values()
        for parameter_set in layout.private_parameter_sets
    },
}
"""By kind and the name of the parameter set."""
