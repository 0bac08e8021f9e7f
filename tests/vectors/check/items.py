"""Items: description, request, reply, and what comes out with the secret key."""

import hashlib
from pathlib import Path
from typing import Any

from sealserve.v1 import keys_pb2, model_pb2, prediction_pb2
from tests.vectors.check import grid, offers, outputs
from tests.vectors.check.files import are_close, message_of, messages_of, of_json, read_json
from tests.vectors.check.polynomials import centred, product, rounded
from tests.vectors.check.rings import Keys
from tests.vectors.check.seal_objects import Parameters, is_of_this_version, require

MOST_NOISE = 21
SERVER_SECONDS = 2.0**-10
"""What stands in the vectors in the place of measured times."""


def described(folder: Path) -> model_pb2.Model:
    """The description of an item's model."""
    response = message_of(model_pb2.GetModelResponse, (folder / "description.binpb").read_bytes())
    assert response == of_json(model_pb2.GetModelResponse, read_json(folder / "description.json"))
    return response.model


def offered(model: model_pb2.Model, header: prediction_pb2.ItemHeader) -> model_pb2.Offer:
    """The offer that a header names."""
    names = header.layout, header.parameter_set
    (offer,) = (offer for offer in model.offers if (offer.layout, offer.parameters.parameter_set) == names)
    return offer


def requested(folder: Path) -> tuple[prediction_pb2.ItemHeader, list[bytes]]:
    """The header and the ciphertexts of an item."""
    if (folder / "request.binpb").exists():
        request = message_of(prediction_pb2.PredictRequest, (folder / "request.binpb").read_bytes())
        return request.header, list(request.ciphertexts)
    requests = messages_of(prediction_pb2.StreamPredictRequest, (folder / "requests.binpb").read_bytes())
    found = list[bytes]()
    for number, message in enumerate(requests):
        assert (message.HasField("header"), message.item_id, message.cancel) == (number == 0, 1, False)
        assert message.chunk.first_index == len(found)
        found += message.chunk.ciphertexts
    return requests[0].header, found


def replied(folder: Path) -> list[prediction_pb2.EncryptedScores]:
    """The polynomial pairs of the reply to an item."""
    if (folder / "reply.binpb").exists():
        reply = message_of(prediction_pb2.PredictResponse, (folder / "reply.binpb").read_bytes())
        assert reply.scores.first_index == 0
        assert reply.done == prediction_pb2.ItemDone(server_seconds=SERVER_SECONDS)
        return list(reply.scores.scores)
    replies = messages_of(prediction_pb2.StreamPredictResponse, (folder / "replies.binpb").read_bytes())
    found = list[prediction_pb2.EncryptedScores]()
    window, *replies = replies
    assert window.window.max_bytes_in_flight == described(folder).limits.window_bytes
    for message in replies:
        assert message.item_id == 1
        assert message.scores.first_index == len(found)
        found += message.scores.scores
    ends = [message.WhichOneof("end") for message in replies]
    assert ends == [None] * (len(replies) - 1) + ["done"]
    assert replies[-1].done.server_seconds == SERVER_SECONDS
    return found


def check(folder: Path) -> None:
    """Check the vector of an item."""
    model, expected = described(folder), read_json(folder / "expected.json")
    header, ciphertexts = requested(folder)
    offer = offered(model, header)
    keys = Keys.read(folder.parents[1] / "rings" / expected["ring"])
    assert not offers.offer_fault(model, offer)
    _check_header(model, offer, header, keys)
    cells = [grid.cells(model.input, row) for row in expected["rows"]]
    assert cells == expected["cells"]
    rows = expected["cells"]
    assert len(rows) == header.row_count <= offer.rows_per_item
    _check_ciphertexts(offer, keys, offers.plaintexts(offer, rows), ciphertexts, expected["noise_sha256"])
    integers = decrypted(model, offer, keys.secret, len(rows), replied(folder), expected["phases"])
    weights, intercept = expected["weights"], list(map(int, expected["intercept"]))
    for row, found, written in zip(rows, integers, expected["integers"], strict=True):
        plain = [sum(w * x for w, x in zip(of_class, row, strict=True)) for of_class in weights]
        assert found == list(map(int, written)) == [p + b for p, b in zip(plain, intercept, strict=True)]
    scores = [[integer / offer.score_scale for integer in row] for row in integers]
    assert are_close(scores, expected["scores"], 1e-15)
    assert [outputs.prediction(model.output, row) for row in scores] == expected["predictions"]
    if outputs.has_probabilities(model.output):
        assert are_close([outputs.probabilities(model.output, row) for row in scores], expected["probabilities"])
    if not offer.required_key:
        _check_arithmetic(model, offer, ciphertexts, replied(folder), expected)


def decrypted(
    model: model_pb2.Model,
    offer: model_pb2.Offer,
    secret: list[int],
    row_count: int,
    reply: list[prediction_pb2.EncryptedScores],
    expected: list[list[str]] | None = None,
) -> list[list[int]]:
    """The integer scores of a reply, and that its phases are the expected ones."""
    score_count = model.output.score_count
    found: list[list[int]] = [[0] * score_count for _ in range(row_count)]
    require(len(reply) == offers.pair_count(offer, score_count), "count")
    for number, pair in enumerate(reply):
        classes = offers.classes_in(offer, score_count, number)
        places = offers.places(offer, model.input.feature_count, row_count, len(classes))
        c0, c1, q = offers.polynomials_of(offer, pair, len(places))
        phases = offers.phases(c0, c1, q, secret, places)
        assert expected is None or phases == list(map(int, expected[number]))
        for index, phase in enumerate(phases):
            row, score = index // len(classes), classes[index % len(classes)]
            found[row][score] = offers.integer_of(offer, score, phase, q)
    return found


def _check_header(
    model: model_pb2.Model, offer: model_pb2.Offer, header: prediction_pb2.ItemHeader, keys: Keys
) -> None:
    assert (header.model, header.config_id) == (model.name, model.config_id)
    assert header.ciphertext_count == offer.ciphertexts_per_item
    needs_key = offer.required_key == keys_pb2.KEY_KIND_PUBLIC_ENCRYPTION_KEY
    assert header.key_id == (keys.public_key_id if needs_key else "")
    is_packed = offer.HasField("reply_bits")
    form = prediction_pb2.REPLY_FORM_PACKED if is_packed else prediction_pb2.REPLY_FORM_RESIDUES
    assert list(header.reply_forms) == [form]
    assert keys.fits(Parameters.of(offer.parameters))


def _check_ciphertexts(
    offer: model_pb2.Offer, keys: Keys, plaintexts: list[list[int]], ciphertexts: list[bytes], digests: list[str]
) -> None:
    parameters = Parameters.of(offer.parameters)
    assert list(offer.ciphertext_forms) == [model_pb2.Offer.CIPHERTEXT_FORM_PACKED] * parameters.takes_packed
    for plaintext, ciphertext, digest in zip(plaintexts, ciphertexts, digests, strict=True):
        if not parameters.is_packed(ciphertext):
            assert is_of_this_version(ciphertext), "these are as SEAL 4.4 writes them"
        assert noise_digest(parameters, keys.secret, plaintext, ciphertext) == digest


def noise_digest(parameters: Parameters, secret: list[int], plaintext: list[int], ciphertext: bytes) -> str:
    """The SHA-256 of the noise of a ciphertext, a signed byte a coefficient."""
    assert not parameters.ciphertext_fault(ciphertext)
    q, t = parameters.q, parameters.t
    c0, c1 = parameters.polynomials(ciphertext)
    masked = product(c1, secret, q)
    noise = [centred(a + b - rounded(q * m, t), q) for a, b, m in zip(c0, masked, plaintext, strict=True)]
    assert max(map(abs, noise)) <= MOST_NOISE
    return hashlib.sha256(bytes(e % 256 for e in noise)).hexdigest()


def _check_arithmetic(
    model: model_pb2.Model,
    offer: model_pb2.Offer,
    ciphertexts: list[bytes],
    reply: list[prediction_pb2.EncryptedScores],
    expected: Any,
) -> None:
    """Check that a reply with open weights is W times the ciphertexts, to the bit, or rounded."""
    parameters, score_count = Parameters.of(offer.parameters), model.output.score_count
    q, t = parameters.q, parameters.t
    polynomials = [parameters.polynomials(ciphertext) for ciphertext in ciphertexts]
    row_count, features = len(expected["rows"]), model.input.feature_count
    for number, pair in enumerate(reply):
        classes = offers.classes_in(offer, score_count, number)
        places = offers.places(offer, features, row_count, len(classes))
        c0, c1 = [0] * parameters.N, [0] * parameters.N
        for index, (a, b) in enumerate(polynomials):
            factor = _factor(offer, [expected["weights"][k] for k in classes], index, features)
            c0 = [(x + y) % q for x, y in zip(c0, product(a, factor, q), strict=True)]
            c1 = [(x + y) % q for x, y in zip(c1, product(b, factor, q), strict=True)]
        added = [rounded(q * (int(expected["intercept"][k]) % t), t) for k in classes]
        kept = [(c0[place] + added[i % len(classes)]) % q for i, place in enumerate(places)]
        found_c0, found_c1, modulus = offers.polynomials_of(offer, pair, len(places))
        unit = 1 << offer.reply_bits.c1 - offer.reply_bits.c0
        for exact, found, step in ((kept, found_c0, unit), (c1, found_c1, 1)):
            for x, y in zip(exact, found, strict=True):
                off = abs(centred(y * q - x * modulus, q * modulus))
                assert off == 0 if modulus == q else off * 256 <= 129 * q * step


def _factor(offer: model_pb2.Offer, weights: list[list[int]], index: int, features: int) -> list[int]:
    """The polynomial with which ciphertext `index` is multiplied for the classes of a pair."""
    N = offer.parameters.poly_modulus_degree
    factor = [0] * N
    if offer.layout != offers.ROW:
        factor[0] = weights[0][index]
        return factor
    f = min(features, N)
    for j, of_class in enumerate(weights):
        block = of_class[index * N : index * N + N]
        for i, weight in enumerate(block):
            factor[j * f + f - 1 - i] = weight
    return factor
