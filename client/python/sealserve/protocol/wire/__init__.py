"""Conversions between domain objects and protobuf messages, in pairs.

Besides the callers of gRPC, only this package uses protobuf. Every message may be hostile: a
conversion checks it, and builds nothing that is much larger than the message.
"""

from sealserve.protocol.wire._bounds import MAX_CONNECTIONS, MAX_FEATURES, MAX_OPEN_ITEMS, MAX_SCORES
from sealserve.protocol.wire._errors import error_from_proto, error_to_proto
from sealserve.protocol.wire._items import (
    header_from_proto,
    header_to_proto,
    reply_form_number,
    scores_from_proto,
    scores_to_proto,
)
from sealserve.protocol.wire._keys import (
    key_from_proto,
    key_header_from_proto,
    key_header_to_proto,
    key_to_proto,
)
from sealserve.protocol.wire._models import (
    config_digest,
    model_from_proto,
    model_to_proto,
)
from sealserve.protocol.wire._steps import SerializedSteps, steps_digest, steps_from_bytes, steps_to_bytes

__all__ = [
    "MAX_CONNECTIONS",
    "MAX_FEATURES",
    "MAX_OPEN_ITEMS",
    "MAX_SCORES",
    "SerializedSteps",
    "config_digest",
    "error_from_proto",
    "error_to_proto",
    "header_from_proto",
    "header_to_proto",
    "key_from_proto",
    "key_header_from_proto",
    "key_header_to_proto",
    "key_to_proto",
    "model_from_proto",
    "model_to_proto",
    "reply_form_number",
    "scores_from_proto",
    "scores_to_proto",
    "steps_digest",
    "steps_from_bytes",
    "steps_to_bytes",
]
