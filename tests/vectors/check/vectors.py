"""The vectors that are one file each, and which negatives a client refuses."""

import base64
import hashlib
import re
import struct
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any

from google.rpc.status_pb2 import Status

from sealserve.v1 import errors_pb2, model_pb2, parameters_pb2, prediction_pb2, steps_pb2
from tests.vectors.check import grid, items, offers, outputs, programs, rings, steps
from tests.vectors.check.files import are_close, changed, message_of, number, of_json, read_json
from tests.vectors.check.polynomials import rounded
from tests.vectors.check.seal_objects import Parameters, RefusedError, parms_id, unpacked
from tests.vectors.check.seeds import expanded

_GRPC_CODES = {
    **{"INVALID_ARGUMENT": 3, "DEADLINE_EXCEEDED": 4, "NOT_FOUND": 5, "PERMISSION_DENIED": 7, "RESOURCE_EXHAUSTED": 8},
    **{"FAILED_PRECONDITION": 9, "INTERNAL": 13, "UNAVAILABLE": 14, "UNAUTHENTICATED": 16},
}
_ERROR_TYPE = "type.googleapis.com/sealserve.v1.Error"
_ERRORS = Path(__file__).parents[3] / "protos/sealserve/v1/errors.proto"


def check_parameters(folder: Path) -> None:
    """Parameters, with the digests of all their levels; and what a client refuses."""
    content = read_json(folder / "parameters.json")
    for case in content["accepted"]:
        message = of_json(parameters_pb2.EncryptionParameters, case["parameters"])
        assert offers.parameters_fault(message) == ""
        N, primes, count = message.poly_modulus_degree, list(message.coeff_modulus), message.data_prime_count
        levels = [parms_id(message.scheme, N, primes[:k], message.plain_modulus) for k in range(1, count + 1)]
        assert [level.hex() for level in levels] == case["level_parms_ids"]
        assert levels[-1] == message.parms_id
        assert parms_id(parameters_pb2.SCHEME_BFV, N, primes, 2).hex() == case["key_parms_id"]
    for case in content["refused"]:
        message = of_json(parameters_pb2.EncryptionParameters, case["parameters"])
        assert offers.parameters_fault(message) == case["fault"]


def check_grid(folder: Path) -> None:
    """Rows of features and their integers."""
    for case in read_json(folder / "grid.json")["cases"]:
        message = of_json(model_pb2.Input, case["input"])
        assert grid.levels(message) == case["levels"]
        rows = [list(map(number, row)) for row in case["rows"]]
        assert [grid.cells(message, row) for row in rows] == case["cells"]


def check_packing(folder: Path) -> None:
    """Places of features and scores, packed bits, and coefficients that are lifted."""
    content = read_json(folder / "packing.json")
    for case in content["layouts"]:
        N, scores = case["poly_modulus_degree"], case["score_count"]
        offer = model_pb2.Offer(
            layout=case["layout"],
            parameters=parameters_pb2.EncryptionParameters(poly_modulus_degree=N),
            classes_per_polynomial=case["classes_per_polynomial"],
        )
        rows, features = case["row_count"], case["feature_count"]
        cells = [list(range(1 + r * features, 1 + (r + 1) * features)) for r in range(rows)]
        for plaintext, runs in zip(offers.plaintexts(offer, cells), case["plaintexts"], strict=True):
            expected = [0] * N
            for place, value, length in runs:
                expected[place : place + length] = range(value, value + length)
            assert plaintext == expected
        fitting = N // (offer.classes_per_polynomial * min(features, N)) if offer.layout == offers.ROW else N
        assert fitting == case["rows_per_item"] >= rows
        pairs = range(offers.pair_count(offer, scores))
        class_counts = [len(offers.classes_in(offer, scores, pair)) for pair in pairs]
        assert [offers.places(offer, features, rows, count) for count in class_counts] == case["score_places"]
    for case in content["bits"]:
        values = list(map(int, case["values"]))
        assert unpacked(bytes.fromhex(case["packed"]), case["bits"], len(values)) == values
    for case in content["lifts"]:
        primes = list(map(int, case["primes"]))
        lifted = [rounded(prod(primes) * int(value), 1 << case["bits"]) for value in case["values"]]
        assert [[str(value % p) for value in lifted] for p in primes] == case["residues"]


def check_seeds(folder: Path) -> None:
    """Seeds and what they expand into."""
    for case in read_json(folder / "seeds.json")["cases"]:
        N, primes = case["poly_modulus_degree"], tuple(map(int, case["primes"]))
        values = expanded(bytes.fromhex(case["seed"]), primes, N)
        assert [list(map(str, row[: len(first)])) for row, first in zip(values, case["first_values"], strict=True)] == (
            case["first_values"]
        )
        data = b"".join(struct.pack(f"<{N}Q", *row) for row in values)
        assert hashlib.sha256(data).hexdigest() == case["values_sha256"]


def check_outputs(folder: Path) -> None:
    """Scores and what they mean."""
    for case in read_json(folder / "outputs.json")["cases"]:
        output = of_json(model_pb2.Output, case["output"])
        found = [outputs.prediction(output, row) for row in case["scores"]]
        if output.task == model_pb2.Output.TASK_REGRESSION:
            assert are_close(found, case["predictions"])
        else:
            assert found == case["predictions"]
            assert [type(label) for label in found] == [type(label) for label in case["predictions"]]
        if "decision_function" in case:
            assert are_close([outputs.decision(output, row) for row in case["scores"]], case["decision_function"])
        assert ("probabilities" in case) == outputs.has_probabilities(output)
        if "probabilities" in case:
            assert are_close([outputs.probabilities(output, row) for row in case["scores"]], case["probabilities"])


def check_errors(folder: Path) -> None:
    """The trailer of each typed error, and of statuses without one."""
    comments = re.findall(r"// ([A-Z_]+): [^;]*?(\w+) = \d+;", _ERRORS.read_text())
    codes = {detail: _GRPC_CODES[code] for code, detail in comments}
    cases = read_json(folder / "errors.json")["cases"]
    for case in cases:
        status = message_of(Status, base64.b64decode(case["grpc_status_details_bin"]))
        assert (status.code, status.message) == (case["grpc_status"], case["grpc_message"])
        error = next((detail for detail in status.details if detail.type_url == _ERROR_TYPE), None)
        if error is None:
            assert case["detail"] is None
            continue
        # Fields of a later release are passed over: this message may have some.
        message = errors_pb2.Error.FromString(error.value)
        assert message.WhichOneof("detail") == case["detail"]
        if case["detail"] is None:
            continue
        assert message == of_json(errors_pb2.Error, case["error"])
        assert message_of(errors_pb2.Error, error.value).message == status.message
        assert status.code == codes[case["detail"]]
    details = {field.name for field in errors_pb2.Error.DESCRIPTOR.oneofs_by_name["detail"].fields}
    assert {case["detail"] for case in cases} == {*details, None} == {*codes, None}


def check_ciphertexts(folder: Path) -> None:
    """Ciphertexts, full and seeded, and what a service refuses."""
    assert _checked_ciphertexts(folder, "ciphertexts.json") == set(_reasons(errors_pb2.MalformedCiphertext))


def check_packed_ciphertexts(folder: Path) -> None:
    """Packed ciphertexts, and what a service refuses."""
    reasons = _checked_ciphertexts(folder, "packed_ciphertexts.json")
    assert reasons == {"REASON_LENGTH", "REASON_PARAMETERS", "REASON_COEFFICIENT"}


def _checked_ciphertexts(folder: Path, name: str) -> set[str]:
    """The reasons of the malformed ciphertexts of a file, each of which has been found."""
    content = read_json(folder / name)
    parameters = Parameters.of(of_json(parameters_pb2.EncryptionParameters, content["parameters"]))
    keys = rings.Keys.read(folder / "rings" / content["ring"])
    assert keys.fits(parameters)
    plaintext = [i**3 % parameters.t for i in range(parameters.N)]
    for case in content["good"]:
        data = changed((folder / case["file"]).read_bytes(), case)
        assert len(data) == getattr(parameters, f"{case['form']}_bytes")
        assert items.noise_digest(parameters, keys.secret, plaintext, data) == case["noise_sha256"]
    for case in content["malformed"]:
        assert parameters.ciphertext_fault(changed((folder / case["file"]).read_bytes(), case)) == case["reason"]
    return {case["reason"] for case in content["malformed"]}


def check_public_keys(folder: Path) -> None:
    """Uploads of public keys that a service refuses."""
    content = read_json(folder / "public_keys.json")
    keys = rings.Keys.read(folder / "rings" / content["ring"])
    for case in content["malformed"]:
        data = changed(keys.public_key, case)
        key_id = case.get("key_id", hashlib.sha256(data).hexdigest())
        byte_count = case.get("byte_count", len(data))
        assert keys.parameters.key_fault(byte_count, key_id, data) == case["reason"]
    assert {case["reason"] for case in content["malformed"]} == set(_reasons(errors_pb2.MalformedKey))


def check_replies(folder: Path) -> None:
    """Replies that a client refuses."""
    for case in read_json(folder / "replies.json")["refused"]:
        item = folder / "items" / case["item"]
        model, expected = items.described(item), read_json(item / "expected.json")
        header, _ = items.requested(item)
        secret = rings.Keys.read(folder / "rings" / expected["ring"]).secret
        pairs = items.replied(item)
        reply = [pairs[index] for index in case["pairs"]]
        for change in case["changes"]:
            reply[change["pair"]] = _changed_pair(reply[change["pair"]], change)
        fault = ""
        try:
            items.decrypted(model, items.offered(model, header), secret, header.row_count, reply)
        except RefusedError as error:
            fault = str(error)
        assert fault == case["fault"], case["name"]


def _changed_pair(pair: prediction_pb2.EncryptedScores, change: Any) -> prediction_pb2.EncryptedScores:
    """A pair with a change of one of its polynomials, or in another form."""
    found, form = prediction_pb2.EncryptedScores(), str(pair.WhichOneof("form"))
    polynomials = getattr(found, change.get("form", form))
    polynomials.MergeFromString(getattr(pair, form).SerializeToString())
    setattr(polynomials, change["field"], changed(getattr(polynomials, change["field"]), change))
    return found


def check_descriptions(folder: Path) -> None:
    """Descriptions: which offers remain, and which models a client refuses."""
    for case in read_json(folder / "descriptions.json")["cases"]:
        model = model_pb2.Model.FromString(base64.b64decode(case["model"]))
        assert model_fault(model) == case["fault"], case["name"]
        if not case["fault"]:
            known = [offer for offer in model.offers if is_known(offer)]
            assert [offer.parameters.parameter_set for offer in known] == case["offers"]


def is_known(offer: model_pb2.Offer) -> bool:
    """Whether an offer has no enumerator that this client does not know."""
    enumerations = (
        (parameters_pb2.Layout, offer.layout),
        (parameters_pb2.Scheme, offer.parameters.scheme),
        (parameters_pb2.Weights, offer.weights),
    )
    return all(value and value in kind.values() for kind, value in enumerations)


def model_fault(model: model_pb2.Model) -> str:
    """Why a client refuses a model; "" if it does not."""
    if set(model.requires) - {"steps"}:
        return "requires"
    output = model.output
    for kind, value in ((model_pb2.Output.Task, output.task), (model_pb2.Output.Link, output.link)):
        if not value or value not in kind.values():
            return "output"
    faults = (offers.offer_fault(model, offer) for offer in model.offers if is_known(offer))
    return next((fault for fault in faults if fault), "")


def check_refused_steps(folder: Path) -> None:
    """Serialized steps that a client refuses."""
    for case in read_json(folder / "refused_steps.json")["cases"]:
        assert programs.fault(base64.b64decode(case["steps"])) == case["fault"], case["name"]


def check_steps(path: Path) -> None:
    """A program, rows, their features and their integers."""
    content = read_json(path)
    data = base64.b64decode(content["steps"])
    program = message_of(steps_pb2.InputSteps, data)
    assert not programs.fault(data)
    names = {programs.NUMBER: "number", programs.TEXT: "text"}
    assert [names[kind] for kind in program.columns] == content["columns"]
    rows = [list(map(number, row)) for row in content["rows"]]
    found = [steps.features(program, row) for row in rows]
    assert [features is None for features in found] == content["refused"]
    for features, expected in zip(found, content["features"], strict=True):
        assert (features is None and expected is None) or are_close(features, expected)
    count = sum(part.count for part in program.outputs)
    minimum, maximum, step = ([content["grid"][name]] for name in ("minimum", "maximum", "step"))
    described = model_pb2.Input(feature_count=count, minimum=minimum, maximum=maximum, step=step)
    cells = [None if features is None else grid.cells(described, features) for features in found]
    assert cells == content["cells"]


def _reasons(message: Any) -> list[str]:
    return [name for name in message.Reason.DESCRIPTOR.values_by_name if name != "REASON_UNSPECIFIED"]


FILES: dict[str, Callable[[Path], None]] = {
    "parameters.json": check_parameters,
    "grid.json": check_grid,
    "packing.json": check_packing,
    "seeds.json": check_seeds,
    "outputs.json": check_outputs,
    "errors.json": check_errors,
    "ciphertexts.json": check_ciphertexts,
    "packed_ciphertexts.json": check_packed_ciphertexts,
    "public_keys.json": check_public_keys,
    "replies.json": check_replies,
    "descriptions.json": check_descriptions,
    "refused_steps.json": check_refused_steps,
}


def checks(folder: Path) -> dict[str, Callable[[], None]]:
    """A check for each vector, by its path in the folder of the vectors."""
    found: dict[str, Callable[[], None]] = {}
    for name, check in FILES.items():
        found[name] = lambda check=check: check(folder)  # type: ignore[misc]
    for pattern, of_path in (("rings/*", rings.check), ("items/*", items.check), ("steps/*.json", check_steps)):
        for path in sorted(folder.glob(pattern)):
            found[str(path.relative_to(folder))] = lambda of_path=of_path, path=path: of_path(path)  # type: ignore[misc]
    return found
