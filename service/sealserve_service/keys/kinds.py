"""Kinds of keys that the service takes, with the parameter sets of each.

Each has a maximal length, a check, and a function that makes a key ready for use.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from sealserve.he import ei_format
from sealserve.he._seal import GaloisKeys
from sealserve.he.layouts import LAYOUTS
from sealserve.he.layouts.ei_slots import EI_PARAMETER_SET
from sealserve.he.parameters import ParameterSet
from sealserve.he.public_key_format import check_public_key, public_key_bytes, unseeded_public_key_bytes
from sealserve.protocol.key_record import KeyKind
from sealserve_service.engines.ei.keys import GALOIS_KEYS_BYTES, load_galois_keys
from sealserve_service.engines.linear.zero_encryptor import ZeroEncryptor

ReadyKey: TypeAlias = "GaloisKeys | ZeroEncryptor"
"""A key ready for use."""


@dataclass(frozen=True, kw_only=True)
class KeyType:
    """A kind of key of one parameter set.

    Attributes:
        check: checks a key's bytes; raises MalformedKeyError with the first check that fails.
        load: makes a key's bytes ready and returns the size in memory; raises what `check` raises.
        max_bytes: the length that no such key exceeds, whatever the service's own limit is; None if
            only that limit holds.
        unseeded_bytes: the length of such a key without a seed, which is refused before it is
            sent; None if such keys have no seeds, or may be without.
    """

    check: Callable[[bytes], object]
    load: Callable[[bytes], tuple[ReadyKey, int]]
    max_bytes: int | None = None
    unseeded_bytes: int | None = None


def _load_galois_keys(data: bytes) -> tuple[ReadyKey, int]:
    return load_galois_keys(data), GALOIS_KEYS_BYTES


def _load_public_key(parameter_set: ParameterSet, data: bytes) -> tuple[ReadyKey, int]:
    encryptor = ZeroEncryptor(parameter_set, data)
    return encryptor, encryptor.byte_count


def _public_key_type(parameter_set: ParameterSet) -> KeyType:
    return KeyType(
        check=partial(check_public_key, parameter_set),
        load=partial(_load_public_key, parameter_set),
        max_bytes=public_key_bytes(parameter_set),
        unseeded_bytes=unseeded_public_key_bytes(parameter_set),
    )


KEY_TYPES = {
    (KeyKind.EVALUATION_KEYS, EI_PARAMETER_SET.name): KeyType(
        check=ei_format.read_evaluation_keys, load=_load_galois_keys
    ),
    **{
        (KeyKind.PUBLIC_ENCRYPTION_KEY, parameter_set.name): _public_key_type(parameter_set)
        for layout in LAYOUTS.values()
        for parameter_set in layout.private_parameter_sets
    },
}
"""By kind and the name of the parameter set."""
