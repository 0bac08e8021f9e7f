"""Malformed bytes: ciphertexts and public keys that a real service refuses."""

import hashlib
from abc import ABC, abstractmethod
from typing import Any

import grpc
import numpy as np
from google.protobuf import json_format

from sealserve._rpc.status import typed_error
from sealserve.errors import MalformedCiphertextError, MalformedKeyError
from sealserve.he.seal_format import PARMS_ID_BYTES, RESIDUES_AT, SEED_BYTES, SEED_INFO_BYTES
from sealserve.v1 import keys_pb2, keys_pb2_grpc, prediction_pb2, prediction_pb2_grpc
from tests.support.serving import HANG_SECONDS
from tests.vectors.check.files import changed
from tests.vectors.make.items import MadeItem
from tests.vectors.make.keys import RingKeys, digest_of

Case = dict[str, Any]


def at(place: int, octets: str, times: int = 1) -> Case:
    """A case with other bytes at a place, so many times."""
    change = {"at": place, "bytes": octets}
    return {"changes": [change if times == 1 else {**change, "times": times}]}


def word(number: int) -> str:
    """64 bits, little-endian, in hexadecimal digits."""
    return number.to_bytes(8, "little").hex()


# Ciphertexts


def file_of(form: str) -> str:
    """The file of the ciphertext in a form; a packed one is no object of SEAL's."""
    return f"ciphertexts/{form}.{'bin' if form == 'packed' else 'seal'}"


class CiphertextVectors(ABC):
    """Ciphertexts of an offer, and what a service says of malformed ones.

    Args:
        item: whose offer they are of.
    """

    forms: tuple[str, ...]

    def __init__(self, item: MadeItem) -> None:
        self._item, self._parameters = item, item.offer.parameters
        t, N = self._parameters.plain_modulus, self._parameters.parameter_set.poly_modulus_degree
        plaintext = np.array([i**3 % t for i in range(N)], np.uint64)
        self.files = {
            file_of(form): item.keys.encrypt(self._parameters, plaintext, file_of(form), form) for form in self.forms
        }

    def content(self) -> Case:
        """What the file has."""
        described = next(
            offer.parameters
            for offer in self._item.described.model.offers
            if offer.parameters.parameter_set == self._parameters.parameter_set.name
        )
        good = [
            {"file": name, "form": form, **case, "noise_sha256": digest_of(self._item.keys.noise(name))}
            for form, name in zip(self.forms, self.files, strict=True)
            for case in self._good(form)
        ]
        for case in good:
            assert self._fault(changed(self.files[str(case["file"])], case)) is None
        malformed = [self._case(*case) for case in self._malformed()]
        return {
            "ring": self._item.keys.name,
            "parameters": json_format.MessageToDict(described),
            "good": good,
            "malformed": malformed,
        }

    @abstractmethod
    def _good(self, form: str) -> list[Case]:
        """Changes that leave a ciphertext a good one."""

    @abstractmethod
    def _malformed(self) -> list[tuple[str, str, Case, str]]:
        """For each case its name, its form, the changes and the reason."""

    def _case(self, name: str, form: str, case: Case, reason: str) -> Case:
        error = self._fault(changed(self.files[file_of(form)], case))
        assert error is not None, name
        assert (error.index, error.reason.name) == (0, reason), name
        return {"name": name, "file": file_of(form), **case, "reason": f"REASON_{reason}"}

    def _fault(self, data: bytes) -> MalformedCiphertextError | None:
        header = prediction_pb2.ItemHeader()
        header.CopyFrom(self._item.header)
        header.row_count = 1
        request = prediction_pb2.PredictRequest(header=header, ciphertexts=[data])
        try:
            prediction_pb2_grpc.PredictionServiceStub(self._item.channel).Predict(request, timeout=HANG_SECONDS)
        except grpc.RpcError as failed:
            error = typed_error(failed)
            assert isinstance(error, MalformedCiphertextError), error
            return error
        return None


class FullAndSeeded(CiphertextVectors):
    """SEAL's objects, of an offer that takes no others."""

    forms = "full", "seeded"

    def _good(self, form: str) -> list[Case]:
        return [{}, {"changes": [{"at": 4, "bytes": "00"}, {"at": 93, "bytes": "03"}]}]

    def _malformed(self) -> list[tuple[str, str, Case, str]]:
        full, seeded = (len(self.files[file_of(form)]) for form in self.forms)
        prime = self._parameters.parameter_set.data_primes[0]
        seed = seeded - SEED_INFO_BYTES
        other_t = hashlib.blake2b(b"another parms_id", digest_size=32).hexdigest()
        half = (full - RESIDUES_AT) // 2
        return [
            ("empty", "full", {"length": 0}, "LENGTH"),
            ("nothing but what precedes residues", "full", {"length": RESIDUES_AT}, "LENGTH"),
            ("one byte less", "full", {"length": full - 1}, "LENGTH"),
            ("one byte more", "full", {"length": full + 1}, "LENGTH"),
            ("packed, which is less than a fifth shorter", "full", {"length": 96 + 54 * half // 64}, "LENGTH"),
            ("seeded, one byte less", "seeded", {"length": seeded - 1}, "LENGTH"),
            ("seeded, without its seed", "seeded", {"length": seed}, "LENGTH"),
            ("another magic number", "full", at(0, "5fa1"), "HEADER"),
            ("another length of the header", "full", at(2, "08"), "HEADER"),
            ("a later minor version", "full", at(4, "05"), "HEADER"),
            ("major version 3", "full", at(3, "03"), "HEADER"),
            ("said to be compressed with zlib", "full", at(5, "01"), "HEADER"),
            ("said to be compressed with zstd", "seeded", at(5, "02"), "HEADER"),
            ("reserved bytes are set", "full", at(6, "0100"), "HEADER"),
            ("another length of the object", "full", at(8, word(full - 1)), "HEADER"),
            ("another length of the residues", "full", at(97, word(full - 90)), "HEADER"),
            ("another number of residues", "full", at(105, word(1)), "HEADER"),
            ("seeded, another magic number of the seed", "seeded", at(seed, "00"), "HEADER"),
            ("seeded, another length of the seed", "seeded", at(seed + 8, word(80)), "HEADER"),
            ("seeded, another kind of generator", "seeded", at(seed + 16, "03"), "HEADER"),
            ("another parms_id", "full", at(16, other_t), "PARAMETERS"),
            ("no parms_id", "seeded", at(16, "00", 32), "PARAMETERS"),
            ("NTT form", "full", at(48, "01"), "FORM"),
            ("three polynomials", "full", at(49, word(3)), "FORM"),
            ("another degree", "full", at(57, word(1024)), "FORM"),
            ("another number of primes", "full", at(65, word(2)), "FORM"),
            ("another scale", "full", at(73, "0000000000000040"), "FORM"),
            ("another correction factor", "seeded", at(81, word(3)), "FORM"),
            ("the first residue is its prime", "full", at(RESIDUES_AT, word(prime)), "COEFFICIENT"),
            ("the last residue is 2^64 - 1", "full", at(full - 8, "ff" * 8), "COEFFICIENT"),
            ("seeded, the last residue is its prime", "seeded", at(seed - 8, word(prime)), "COEFFICIENT"),
            (
                "the second polynomial is zero",
                "full",
                at(full - half, "00", half),
                "TRANSPARENT",
            ),
        ]


class Packed(CiphertextVectors):
    """Packed ciphertexts."""

    forms = ("packed",)

    def _good(self, form: str) -> list[Case]:
        return [{}]

    def _malformed(self) -> list[tuple[str, str, Case, str]]:
        (packed,) = map(len, self.files.values())
        first, *_, last = self._parameters.parameter_set.data_primes
        other_t = hashlib.blake2b(b"another parms_id", digest_size=32).hexdigest()
        # A residue of 46 bits takes six bytes, two bits of which are its neighbour's.
        first_prime, last_prime = (number.to_bytes(6, "little").hex() for number in (first, last << 2))
        return [
            ("one byte less", "packed", {"length": packed - 1}, "LENGTH"),
            ("one byte more", "packed", {"length": packed + 1}, "LENGTH"),
            ("without its seed", "packed", {"length": packed - SEED_BYTES}, "LENGTH"),
            ("another parms_id", "packed", at(0, other_t), "PARAMETERS"),
            ("no parms_id", "packed", at(0, "00", PARMS_ID_BYTES), "PARAMETERS"),
            ("the first residue is its prime", "packed", at(PARMS_ID_BYTES + SEED_BYTES, first_prime), "COEFFICIENT"),
            ("the last residue is its prime", "packed", at(packed - 6, last_prime), "COEFFICIENT"),
            (
                "all bits of the residues are set",
                "packed",
                at(PARMS_ID_BYTES + SEED_BYTES, "ff", packed - 96),
                "COEFFICIENT",
            ),
        ]


# Public keys


def public_keys(keys: RingKeys, channel: grpc.Channel) -> Case:
    """What the file of malformed public keys has."""
    data, words = keys.public_key, sum(map(len, keys.values))
    N, primes = len(keys.secret), keys.parameter_set.primes
    end, last = RESIDUES_AT + 8 * words, RESIDUES_AT + 8 * (words - N)
    cases: list[tuple[str, Case, str]] = [
        ("the length of a key with a in full", {"byte_count": RESIDUES_AT + 16 * words}, "UNSEEDED"),
        ("fewer bytes than declared", {"length": len(data) - 1, "byte_count": len(data)}, "LENGTH"),
        ("more bytes than declared", {"byte_count": len(data) - 8}, "LENGTH"),
        ("another digest", {"key_id": "0" * 64}, "DIGEST"),
        ("a byte less", {"length": len(data) - 1}, "FORMAT"),
        ("another magic number", at(0, "00"), "FORMAT"),
        ("said to be compressed with zlib", at(5, "01"), "FORMAT"),
        ("coefficient form", at(48, "00"), "FORMAT"),
        ("three polynomials", at(49, word(3)), "FORMAT"),
        ("another number of values", at(105, word(1)), "FORMAT"),
        ("another kind of generator", at(end + 16, "02"), "FORMAT"),
        ("another parms_id", at(16, "00", 32), "PARAMETERS"),
        ("the first value is its prime", at(RESIDUES_AT, word(primes[0])), "COEFFICIENT"),
        ("the last value is 2^64 - 1", at(end - 8, "ff" * 8), "COEFFICIENT"),
        ("zero modulo the last prime", at(last, "00", 8 * N), "DEGENERATE"),
        ("constant modulo the last prime", at(last, word(7), N), "DEGENERATE"),
    ]
    return {"ring": keys.name, "malformed": [_key_case(keys, channel, *case) for case in cases]}


def _key_case(keys: RingKeys, channel: grpc.Channel, name: str, case: Case, reason: str) -> Case:
    data = changed(keys.public_key, case)
    header = keys_pb2.KeyHeader(
        key_id=case.get("key_id", hashlib.sha256(data).hexdigest()),
        kind=keys_pb2.KEY_KIND_PUBLIC_ENCRYPTION_KEY,
        parameter_set=keys.parameter_set.name,
        byte_count=case.get("byte_count", len(data)),
    )
    try:
        keys_pb2_grpc.KeyServiceStub(channel).PutKey(
            keys_pb2.PutKeyRequest(header=header, data=data), timeout=HANG_SECONDS
        )
    except grpc.RpcError as failed:
        error = typed_error(failed)
        assert isinstance(error, MalformedKeyError), (name, error)
        assert error.reason.name == reason, (name, error)
        return {"name": name, **case, "reason": f"REASON_{reason}"}
    raise AssertionError(f"{name} is accepted")
