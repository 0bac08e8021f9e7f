"""Batches to items and replies to scores, against a column engine: exact, and checked."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sealserve._codec.codec import RowCodec
from sealserve._codec.offers import choose
from sealserve.errors import ParameterError, ReplyError
from sealserve.he.bit_packing import packed_bytes
from sealserve.he.layouts import LAYOUTS
from sealserve.protocol.item import EncryptedScores, PackedPair, Residues, SealCiphertext
from sealserve.protocol.model import Model
from sealserve_service.tenants.tenant import ANONYMOUS
from tests.support.serving import linear, served

RANDOM = np.random.default_rng(14)
FEATURES, SCORES, ROWS = 9, 3, 5
LINEAR = linear(RANDOM.normal(size=(SCORES, FEATURES)), RANDOM.normal(size=SCORES))
SERVED = served("model", LINEAR)
MODEL, ENGINE = SERVED.model, SERVED.engines[1]
CODEC = RowCodec(MODEL, offer=choose(MODEL, 1, LAYOUTS["column"]))
OFFER, GRID = CODEC.offer, MODEL.grid
N = OFFER.rows_per_item
QUANTIZED = RANDOM.integers(0, GRID.levels, (ROWS, FEATURES), endpoint=True)


def reply_to(codec: RowCodec, quantized: NDArray[np.int64]) -> list[EncryptedScores]:
    item = codec.encrypt(quantized)
    scoring = ENGINE.begin(item.header, ANONYMOUS.name)
    scoring.add(list(item.ciphertexts))
    return list(scoring.finish())


def packed_pair(piece: EncryptedScores) -> PackedPair:
    assert isinstance(piece, PackedPair)
    return piece


REPLY = reply_to(CODEC, QUANTIZED)
FIRST, SECOND, THIRD = map(packed_pair, REPLY)


def test_an_item_says_what_it_is_and_is_encrypted_as_it_is_taken() -> None:
    item = CODEC.encrypt(QUANTIZED)
    header = item.header
    assert (header.layout, header.parameter_set, header.key_id) == (LAYOUTS["column"], "column-2048-44", "")
    assert (header.row_count, header.ciphertext_count) == (ROWS, FEATURES)
    once, again = list(item.ciphertexts), list(item.ciphertexts)
    assert item.byte_count == sum(map(len, once)) == OFFER.cost.request_bytes
    assert not set(once) & set(again), "no ciphertext is sent twice: a batch that is sent again is encrypted anew"
    assert len(set(once)) == FEATURES


@pytest.mark.parametrize("row_count", [1, ROWS, N])
def test_scores_come_in_the_order_of_rows_and_classes(row_count: int) -> None:
    quantized = RANDOM.integers(0, GRID.levels, (row_count, FEATURES), endpoint=True)
    scores = CODEC.decrypt(row_count, reply_to(CODEC, quantized))
    assert scores.shape == (row_count, SCORES)
    expected = LINEAR.decision(GRID.minimum + GRID.step * quantized)
    assert np.abs(scores - expected).max() <= OFFER.weight_rounding_error_bound


def c0_bytes(row_count: int) -> int:
    assert OFFER.reply_bits is not None
    assert ROWS * OFFER.reply_bits.c0 % 8, "not all bits of the last byte are used"
    return packed_bytes(row_count, OFFER.reply_bits.c0)


BAD_REPLIES: dict[str, list[EncryptedScores]] = {
    "no pieces": [],
    "a piece too few": [FIRST, SECOND],
    "a piece too many": [FIRST, SECOND, THIRD, THIRD],
    "of a row less": [PackedPair(pair.c0[: c0_bytes(ROWS - 1)], pair.c1) for pair in (FIRST, SECOND, THIRD)],
    "of a row more": [
        PackedPair(pair.c0 + bytes(c0_bytes(ROWS + 1) - len(pair.c0)), pair.c1) for pair in (FIRST, SECOND, THIRD)
    ],
    "a first polynomial whole": [PackedPair(FIRST.c1, FIRST.c1), SECOND, THIRD],
    "no first polynomial": [FIRST, PackedPair(b"", SECOND.c1), THIRD],
    "no second polynomial": [FIRST, PackedPair(SECOND.c0, b""), THIRD],
    "a second polynomial of the rows only": [FIRST, SECOND, PackedPair(THIRD.c0, THIRD.c1[: len(THIRD.c0)])],
    "a bit behind the last": [FIRST, SECOND, PackedPair(THIRD.c0[:-1] + b"\xff", THIRD.c1)],
    "residues": [FIRST, SECOND, Residues(bytes(8 * ROWS), bytes(8 * N))],
    "a SEAL object": [FIRST, SECOND, SealCiphertext(b"")],
}


@pytest.mark.parametrize("what", BAD_REPLIES)
def test_a_malformed_reply_is_refused(what: str) -> None:
    with pytest.raises(ReplyError):
        CODEC.decrypt(ROWS, BAD_REPLIES[what])
    assert CODEC.decrypt(ROWS, REPLY).shape == (ROWS, SCORES)


def with_offer(**changes: Any) -> Model:
    return dataclasses.replace(MODEL, offers=(dataclasses.replace(OFFER, **changes),))


CONTRADICTIONS: dict[str, dict[str, Any]] = {
    "a row too many": {"rows_per_item": N + 1},
    "a row too few": {"rows_per_item": N - 1},
    "no rows": {"rows_per_item": 0},
    "a ciphertext too many": {"ciphertexts_per_item": FEATURES + 1},
    "no ciphertexts": {"ciphertexts_per_item": 0},
    "no classes": {"classes_per_polynomial": 0},
    "two classes a polynomial": {"classes_per_polynomial": 2},
    "endless classes": {"classes_per_polynomial": 2**32 - 1},
    "the row layout's packing": {"layout": LAYOUTS["row"]},
    "another ring": {
        "parameters": dataclasses.replace(OFFER.parameters, parameter_set=LAYOUTS["column"].open_parameter_sets[2]),
    },
    "another parms_id": {"parms_id": bytes(32)},
}


@pytest.mark.parametrize("what", CONTRADICTIONS)
def test_an_offer_that_contradicts_itself_is_refused(what: str) -> None:
    with pytest.raises(ParameterError):
        RowCodec(with_offer(**CONTRADICTIONS[what]))
