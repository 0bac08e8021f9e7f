"""Items: what a real service answers to requests of fixed randomness."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from google.protobuf import json_format

from sealserve._codec.codec import RowCodec
from sealserve.he.layouts import LAYOUTS
from sealserve.protocol.item import PackedPair
from sealserve.protocol.wire import model_from_proto, scores_from_proto
from sealserve.v1 import model_pb2, model_pb2_grpc, prediction_pb2, prediction_pb2_grpc
from tests.support.affine_models import Integers
from tests.support.serving import HANG_SECONDS
from tests.vectors.check.files import messages_of
from tests.vectors.make.json_text import json_text
from tests.vectors.make.keys import RingKeys, digest_of
from tests.vectors.make.models import FLOWERS_ROWS, WIDE_ROWS, MadeModel

SERVER_SECONDS = 2.0**-10
"""In the place of times that a service has measured."""


@dataclass(frozen=True)
class Item:
    """An item of a vector.

    Attributes:
        name: of its folder.
        model: by which it is served.
        layout: the name of its layout.
        rows: of features.
        form: of its ciphertexts: full, seeded or packed.
    """

    name: str
    model: str
    layout: str
    rows: Sequence[Sequence[float]]
    form: str


ITEMS = [
    Item("row_open", "flowers", "row", FLOWERS_ROWS, "packed"),
    Item("row_open_residues", "flowers_residues", "row", FLOWERS_ROWS, "full"),
    Item("row_open_wide", "wide", "row", WIDE_ROWS, "seeded"),
    Item("row_private", "flowers_private", "row", FLOWERS_ROWS, "packed"),
    Item("column_open", "flowers", "column", FLOWERS_ROWS, "full"),
    Item("column_open_residues", "flowers_residues", "column", FLOWERS_ROWS, "seeded"),
    Item("column_private", "flowers_private", "column", FLOWERS_ROWS, "packed"),
]


class MadeItem:
    """An item that a service has scored.

    Args:
        item: what to make.
        made: the model.
        channel: to the service that serves it.
        keys: of all rings, by name. Their public keys are registered with the service.
        folder: for files of keys.
    """

    def __init__(
        self, item: Item, made: MadeModel, channel: grpc.Channel, keys: dict[str, RingKeys], folder: Path
    ) -> None:
        self.item, self.channel = item, channel
        asked = model_pb2.GetModelRequest(model=item.model)
        self.described = model_pb2_grpc.ModelServiceStub(channel).GetModel(asked, timeout=HANG_SECONDS)
        for described in self.described.model.offers:
            described.cost.server_seconds = SERVER_SECONDS
        model = model_from_proto(self.described.model)
        (self.offer,) = (offer for offer in model.offers if offer.layout is LAYOUTS[item.layout])
        parameter_set = self.offer.parameters.parameter_set
        self.keys = next(ring for ring in keys.values() if ring.parameter_set.shares_ring(parameter_set))
        self.codec = RowCodec(model, self.keys.sdk_key(folder), offer=self.offer)
        self.cells = self.codec.quantize(np.array(item.rows)).integers
        self.integers = made.integers[self.offer.layout]
        self.labels = [f"{item.name} {index}" for index in range(self.offer.ciphertexts_per_item)]
        plaintexts = self.codec._packing.pack_rows(self.cells)
        self.header = self.codec.encrypt(self.cells).header_message
        self.ciphertexts = [
            self.keys.encrypt(self.offer.parameters, plaintext, label, item.form)
            for plaintext, label in zip(plaintexts, self.labels, strict=True)
        ]

    @property
    def scores(self) -> Integers:
        """The integer scores, (rows, scores), in plaintext."""
        of_inputs = self.cells.astype(object) @ self.integers.weights.T.astype(object)
        found: Integers = of_inputs + np.array(self.integers.intercept, object)
        return found

    def files(self) -> dict[str, bytes]:
        """Let the service score the item, and return its files."""
        found = {
            "description.binpb": self.described.SerializeToString(deterministic=True),
            "description.json": json_text(json_format.MessageToDict(self.described)),
        }
        reply = list[prediction_pb2.EncryptedScores]()
        if self.item.layout == "row":
            request = prediction_pb2.PredictRequest(header=self.header, ciphertexts=self.ciphertexts)
            response = prediction_pb2_grpc.PredictionServiceStub(self.channel).Predict(request, timeout=HANG_SECONDS)
            response.done.server_seconds = SERVER_SECONDS
            reply += response.scores.scores
            found["request.binpb"] = request.SerializeToString(deterministic=True)
            found["reply.binpb"] = response.SerializeToString(deterministic=True)
        else:
            requests, responses = list(self._requests()), list(self._responses())
            for response in responses:
                reply += response.scores.scores
            found["requests.binpb"] = delimited(requests)
            found["replies.binpb"] = delimited(responses)
        return found | {"expected.json": json_text(self._expected(reply))}

    def _requests(self) -> Iterator[prediction_pb2.StreamPredictRequest]:
        """Two ciphertexts a message."""
        for first in range(0, len(self.ciphertexts), 2):
            chunk = prediction_pb2.Chunk(first_index=first, ciphertexts=self.ciphertexts[first : first + 2])
            header = None if first else self.header
            yield prediction_pb2.StreamPredictRequest(item_id=1, header=header, chunk=chunk)

    def _responses(self) -> Iterator[prediction_pb2.StreamPredictResponse]:
        stub = prediction_pb2_grpc.PredictionServiceStub(self.channel)
        for response in stub.StreamPredict(self._requests(), timeout=HANG_SECONDS):
            if response.WhichOneof("end") == "done":
                response.done.server_seconds = SERVER_SECONDS
            yield response

    def _expected(self, reply: list[prediction_pb2.EncryptedScores]) -> dict[str, Any]:
        """What comes out, by the SDK."""
        row_count, output = len(self.cells), self.codec.model.output
        group = prediction_pb2.ScoreGroup(scores=reply)
        scores = self.codec.decrypt(row_count, scores_from_proto(group))
        integers = self.scores
        np.testing.assert_array_equal((integers / self.offer.score_scale).astype(np.float64), scores)
        found = {
            "ring": self.keys.name,
            "rows": [list(row) for row in self.item.rows],
            "cells": self.cells.tolist(),
            "noise_sha256": [digest_of(self.keys.noise(label)) for label in self.labels],
            "weights": self.integers.weights.tolist(),
            "intercept": list(map(str, self.integers.intercept)),
            "phases": [list(map(str, phases)) for phases in self._phases(scores_from_proto(group))],
            "integers": [list(map(str, row)) for row in integers.tolist()],
            "scores": scores.tolist(),
            "predictions": output.predict(scores).tolist(),
        }
        if output.has_probabilities:
            found["probabilities"] = output.predict_proba(scores).tolist()
        return found

    def _phases(self, pairs: Sequence[Any]) -> Iterator[list[int]]:
        """c0 + c1 s at the places of scores, modulo q or 2^bits."""
        parameter_set, bits = self.offer.parameters.parameter_set, self.offer.reply_bits
        N = parameter_set.poly_modulus_degree
        packing = self.codec._packing
        for number, pair in enumerate(pairs):
            places = packing.places(len(self.cells), len(packing.classes_in(number))).ravel()
            if isinstance(pair, PackedPair):
                assert bits is not None
                c0 = _unpacked(pair.c0, bits.c0, len(places)) << bits.c1 - bits.c0
                c1, q = _unpacked(pair.c1, bits.c1, N), 1 << bits.c1
            else:
                c0, c1 = (self._composed(data) for data in pair)
                q = parameter_set.modulus
            masked = np.array([self._masked(c1, int(place)) for place in places], object)
            yield ((c0 + masked) % q).tolist()

    def _composed(self, data: bytes) -> Any:
        parameter_set = self.offer.parameters.parameter_set
        q, primes = parameter_set.modulus, parameter_set.data_primes
        units = [q // prime * pow(q // prime, -1, prime) for prime in primes]
        rows = np.frombuffer(data, "<u8").reshape(len(primes), -1).astype(object)
        return sum(row * unit for row, unit in zip(rows, units, strict=True)) % q

    def _masked(self, c1: Any, place: int) -> int:
        """Coefficient `place` of c1 s."""
        turned = np.concatenate([self.keys.secret[place::-1], -self.keys.secret[:place:-1]])
        return int((c1 * turned.astype(object)).sum())


def _unpacked(data: bytes, bits: int, count: int) -> Any:
    whole, mask = int.from_bytes(data, "little"), (1 << bits) - 1
    return np.array([whole >> index * bits & mask for index in range(count)], object)


def delimited(messages: Sequence[Any]) -> bytes:
    """Messages, each behind its length as a varint."""
    found = bytearray()
    for message in messages:
        data = message.SerializeToString(deterministic=True)
        length = len(data)
        while length > 127:
            found.append(length & 127 | 128)
            length >>= 7
        found.append(length)
        found += data
    return bytes(found)


def messages_of_reply(files: dict[str, bytes]) -> list[prediction_pb2.EncryptedScores]:
    """The pairs of the reply that an item's files have."""
    if "reply.binpb" in files:
        return list(prediction_pb2.PredictResponse.FromString(files["reply.binpb"]).scores.scores)
    responses = messages_of(prediction_pb2.StreamPredictResponse, files["replies.binpb"])
    return [pair for response in responses for pair in response.scores.scores]
