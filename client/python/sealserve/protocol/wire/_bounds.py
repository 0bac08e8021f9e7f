"""Bounds of a description: what a client refuses before it spends work or memory on the rest.

Counts are checked before anything is converted. A message of a few bytes may ask for arrays of
millions of numbers, and one of megabytes for tens of thousands of parameter sets.
"""

import math
import re
from collections.abc import Iterable, Sequence

from sealserve.errors import ParameterError
from sealserve.he.bit_packing import DIGIT_BITS, MAX_BITS, MIN_BITS, possible_bits
from sealserve.protocol.links import MAX_CURVE_POINTS
from sealserve.protocol.text import printable
from sealserve.protocol.wire._enums import seconds
from sealserve.steps.limits import MAX_STEPS_BYTES
from sealserve.v1 import model_pb2, parameters_pb2

_STEPS_ID = re.compile(r"[0-9a-f]{64}")
MAX_FEATURES = 1 << 20
MAX_SCORES = 1 << 16
MAX_CONNECTIONS = 64
MAX_OPEN_ITEMS = 1024
MAX_OFFERS = 32
MAX_CIPHERTEXT_FORMS = 16
MAX_OFFERED_SCORES = 1 << 19
"""The most scores that all offers together may describe: each has a centre and a radius."""
MAX_REQUIREMENTS = 64
MAX_TEXT_BYTES = 4096
"""The most bytes of the name of a column, or of a label, in UTF-8."""
MAX_BYTES = 1 << 48
"""The most bytes that a cost or a limit may name: far more than any machine has."""


def check_counts(message: model_pb2.Model) -> None:
    """Check the identifiers of a model and how many of everything it has.

    Raises:
        ParameterError: the text names the first that makes no sense.
    """
    name, inputs, output = printable(message.name), message.input, message.output
    for what, text in (("name", message.name), ("configuration id", message.config_id)):
        check_identifier(f"the {what} of model {name!r}", text)
    if len(message.requires) > MAX_REQUIREMENTS:
        raise ParameterError(f"model {name!r} requires {len(message.requires)} capabilities: too many")
    _check_texts(f"model {name!r}: a required capability", message.requires)
    features, scores = inputs.feature_count, output.score_count
    if not (1 <= features <= MAX_FEATURES and 1 <= scores <= MAX_SCORES):
        raise ParameterError(
            f"model {name!r} has {features} features and {scores} scores; "
            f"1 to {MAX_FEATURES} and 1 to {MAX_SCORES} are possible"
        )
    if len(inputs.feature_names) not in (0, features):
        raise ParameterError(f"model {name!r}: as many feature names as features are needed, or none")
    if any(len(values) not in (1, features) for values in (inputs.minimum, inputs.maximum, inputs.step)):
        raise ParameterError(f"model {name!r}: minimum, maximum and step need one value each, or one for each feature")
    if len(inputs.group) not in (0, features) or len(inputs.exactly_one) > len(inputs.group):
        raise ParameterError(f"model {name!r}: groups need one number for each feature, and a feature each")
    if len(message.offers) > MAX_OFFERS or len(message.offers) * scores > MAX_OFFERED_SCORES:
        raise ParameterError(f"model {name!r} has {len(message.offers)} offers for {scores} scores: too many")
    if len(output.curves) not in (0, scores) or sum(len(c.scores) for c in output.curves) > MAX_CURVE_POINTS:
        raise ParameterError(f"model {name!r}: its curves are not one for each score, or have too many points")
    label_count = _label_count(output.classes)
    if label_count > scores + 1:
        raise ParameterError(f"model {name!r} has {label_count} labels for {scores} scores: too many")
    _check_texts(f"model {name!r}: the name of a column", inputs.feature_names)
    _check_texts(f"model {name!r}: a label", output.classes.strings.values)
    if len(set(inputs.feature_names)) != len(inputs.feature_names):
        raise ParameterError(f"model {name!r}: two columns have one name")
    _check_columns(name, inputs)


def _check_columns(name: str, inputs: model_pb2.Input) -> None:
    """Check the number and the names of columns, and what names their steps."""
    count = len(inputs.columns)
    if count > MAX_FEATURES or (count and inputs.feature_names):
        raise ParameterError(f"model {name!r} has {count} columns: too many, or beside the names of features")
    names = [column.name for column in inputs.columns]
    _check_texts(f"model {name!r}: the name of a column", names)
    if len(set(names)) != count and any(names):
        raise ParameterError(f"model {name!r}: two columns have one name")
    if count and all(column.kind == model_pb2.Column.KIND_UNUSED for column in inputs.columns):
        raise ParameterError(f"model {name!r}: no step reads any of its columns")
    if not inputs.steps_id:
        if inputs.steps_bytes or count not in (0, inputs.feature_count):
            raise ParameterError(f"model {name!r}: without steps, each column is a feature")
    elif not (count and _STEPS_ID.fullmatch(inputs.steps_id) and 1 <= inputs.steps_bytes <= MAX_STEPS_BYTES):
        raise ParameterError(
            f"model {name!r}: its steps have no columns or no SHA-256, or not 1 to {MAX_STEPS_BYTES} bytes"
        )


def check_identifier(what: str, text: str) -> None:
    """Check a text that the client sends back as it is, and shows.

    Raises:
        ParameterError: it is too long, or has characters that cannot be shown.
    """
    if printable(text) != text:
        raise ParameterError(f"{what} is too long, or has characters that cannot be shown")


def check_limits(name: str, limits: model_pb2.Limits) -> None:
    """Check that something can be sent within the limits.

    Raises:
        ParameterError: nothing can.
    """
    sizes = (limits.max_message_bytes, limits.max_open_items, limits.window_bytes)
    if min(sizes) < 1 or max(*sizes, limits.max_key_bytes) > MAX_BYTES:
        raise ParameterError(f"model {name!r}: its limits on bytes and items are zero or absurd")
    if seconds(limits.item_timeout) <= 0 or seconds(limits.idle_timeout) < 0:
        raise ParameterError(f"model {name!r}: its time limits are zero or negative")


def check_offer(name: str, offer: model_pb2.Offer, score_count: int) -> None:
    """Check the numbers of an offer that no type checks.

    Args:
        name: of its parameter set.
        offer: the message.
        score_count: the model's.

    Raises:
        ParameterError: one of them makes no sense.
    """
    if not 1 <= offer.classes_per_polynomial <= score_count:
        raise ParameterError(f"{name}: {offer.classes_per_polynomial} classes a polynomial, of {score_count} scores")
    if not (offer.rows_per_item and offer.ciphertexts_per_item):
        raise ParameterError(f"{name}: an item has no rows or no ciphertexts")
    cost, observed = offer.cost, offer.observed_error
    sizes = (cost.request_bytes, cost.reply_bytes, cost.held_bytes)
    if min(sizes) < 1 or max(*sizes, cost.key_bytes) > MAX_BYTES:
        raise ParameterError(f"{name}: its costs in bytes are zero or absurd")
    bounds = (offer.score_error_bound, offer.weight_rounding_error_bound, offer.input_rounding_error_bound)
    errors = (offer.expected_score_error, observed.score_error, observed.rms_score_error)
    if not _are_amounts((*bounds, *errors, cost.server_seconds)):
        raise ParameterError(f"{name}: an error or the time of the service is negative or no number")
    if not all(0 <= share <= 1 for share in (observed.label_disagreement, observed.expected_label_disagreement)):
        raise ParameterError(f"{name}: a share of rows is below 0, above 1 or no number")
    if observed.row_count > MAX_BYTES:
        raise ParameterError(f"{name}: its observed errors are of an absurd number of rows")


def check_scores(name: str, offer: model_pb2.Offer) -> None:
    """Check that every integer score within an offer's radii can be computed, and is a number.

    Raises:
        ParameterError: scores wrap around modulo t or 2^64, or are infinite.
    """
    t = offer.parameters.plain_modulus
    radii, centers = offer.score_radii, offer.score_centers
    if any(radius < 0 or 2 * radius + 1 >= t for radius in radii):
        raise ParameterError(f"{name}: scores wrap around: their range is negative or wider than the plaintext modulus")
    # Distances from a centre are up to t / 2, and are added to it as 64-bit integers.
    greatest = max((abs(center) for center in centers), default=0) + t // 2
    if greatest >= 1 << 63 or not math.isfinite(greatest / offer.score_scale):
        raise ParameterError(f"{name}: scores are too large: the centre is too far from zero, or the scale too small")


def check_reply_bits(name: str, offer: model_pb2.Offer) -> None:
    """Check that replies of an offer can be unpacked and lifted, if it has reply bits.

    Raises:
        ParameterError: they cannot.
    """
    if not offer.HasField("reply_bits"):
        return
    bits, parameters = offer.reply_bits, offer.parameters
    if parameters.scheme != parameters_pb2.SCHEME_BFV:
        raise ParameterError(f"{name}: only replies of BFV are packed")
    is_possible = all(bits_of == possible_bits(bits_of) for bits_of in (bits.c0, bits.c1))
    if not (is_possible and MIN_BITS <= bits.c0 <= bits.c1 <= MAX_BITS):
        raise ParameterError(
            f"{name}: replies of {bits.c0} and {bits.c1} bits a coefficient; {MIN_BITS} to {MAX_BITS} are possible, "
            f"even numbers only above {DIGIT_BITS}, and no more for the first polynomial"
        )
    if not 1 <= bits.prime_count <= parameters.data_prime_count:
        raise ParameterError(f"{name}: replies cannot be lifted to {bits.prime_count} data primes")


def _label_count(classes: model_pb2.Classes) -> int:
    field = classes.WhichOneof("labels")
    return len(getattr(classes, field).values) if field else 0


def _check_texts(what: str, texts: Sequence[str]) -> None:
    # A character has at most four bytes, and only the few long texts are encoded.
    if any(len(text) > MAX_TEXT_BYTES // 4 and len(text.encode()) > MAX_TEXT_BYTES for text in texts):
        raise ParameterError(f"{what} has more than {MAX_TEXT_BYTES} bytes")


def _are_amounts(values: Iterable[float]) -> bool:
    return all(value >= 0 and math.isfinite(value) for value in values)
