"""Conversions of layouts, enumerations and durations."""

from google.protobuf.duration_pb2 import Duration

from sealserve.he.layouts import LAYOUTS, Layout
from sealserve.he.parameters import Scheme
from sealserve.protocol.key_record import KeyKind
from sealserve.protocol.model import CiphertextForm, Verdict
from sealserve.protocol.output import Pairwise
from sealserve.v1 import keys_pb2, model_pb2, parameters_pb2

# A hostile peer may send 2^63 seconds, for which no lock and no event loop can wait.
_MAX_SECONDS = 1e9

_LAYOUT_NUMBERS: dict[Layout, parameters_pb2.Layout] = {
    layout: getattr(parameters_pb2, f"LAYOUT_{layout.name.upper().replace('-', '_')}") for layout in LAYOUTS.values()
}
LAYOUTS_BY_NUMBER = {number: layout for layout, number in _LAYOUT_NUMBERS.items()}

SCHEMES_TO_PROTO = {Scheme.BFV: parameters_pb2.SCHEME_BFV, Scheme.CKKS: parameters_pb2.SCHEME_CKKS}
SCHEMES = {number: scheme for scheme, number in SCHEMES_TO_PROTO.items()}

_KINDS = {
    KeyKind.EVALUATION_KEYS: keys_pb2.KEY_KIND_EVALUATION_KEYS,
    KeyKind.PUBLIC_ENCRYPTION_KEY: keys_pb2.KEY_KIND_PUBLIC_ENCRYPTION_KEY,
}
KINDS = {number: kind for kind, number in _KINDS.items()}


_VERDICTS: dict[Verdict, model_pb2.Offer.Verdict] = {
    verdict: getattr(model_pb2.Offer, f"VERDICT_{verdict.name}") for verdict in Verdict
}
VERDICTS = {number: verdict for verdict, number in _VERDICTS.items()}

CIPHERTEXT_FORMS_TO_PROTO: dict[CiphertextForm, model_pb2.Offer.CiphertextForm] = {
    CiphertextForm.PACKED: model_pb2.Offer.CIPHERTEXT_FORM_PACKED
}
CIPHERTEXT_FORMS = {number: form for form, number in CIPHERTEXT_FORMS_TO_PROTO.items()}

PAIRWISE_TO_PROTO: dict[Pairwise, model_pb2.Output.Pairwise] = {
    Pairwise.NONE: model_pb2.Output.PAIRWISE_UNSPECIFIED,
    Pairwise.VOTES: model_pb2.Output.PAIRWISE_VOTES,
    Pairwise.PAIRS: model_pb2.Output.PAIRWISE_PAIRS,
    Pairwise.CONFIDENCES: model_pb2.Output.PAIRWISE_CONFIDENCES,
}
PAIRWISE = {number: pairwise for pairwise, number in PAIRWISE_TO_PROTO.items()}


def layout_to_proto(layout: Layout | None) -> parameters_pb2.Layout:
    """Convert a layout; None becomes LAYOUT_UNSPECIFIED."""
    return _LAYOUT_NUMBERS[layout] if layout else parameters_pb2.LAYOUT_UNSPECIFIED


def kind_to_proto(kind: KeyKind | None) -> keys_pb2.KeyKind:
    """Convert a kind of key; None becomes KEY_KIND_UNSPECIFIED."""
    return _KINDS[kind] if kind else keys_pb2.KEY_KIND_UNSPECIFIED


def verdict_to_proto(verdict: Verdict | None) -> model_pb2.Offer.Verdict:
    """Convert a verdict; None becomes VERDICT_UNSPECIFIED."""
    return _VERDICTS[verdict] if verdict else model_pb2.Offer.VERDICT_UNSPECIFIED


def seconds(duration: Duration) -> float:
    """Convert a duration to seconds, at most 1e9, about 32 years.

    ToTimedelta would raise for some durations that a hostile peer sends.
    """
    return min(float(duration.seconds + duration.nanos * 1e-9), _MAX_SECONDS)
