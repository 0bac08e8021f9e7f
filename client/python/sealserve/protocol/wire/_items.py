"""Conversions of the headers of items and the pieces of replies."""

from collections.abc import Sequence

from sealserve.protocol.item import EncryptedScores, ItemHeader, PackedPair, ReplyForm, Residues, SealCiphertext
from sealserve.protocol.wire._enums import LAYOUTS_BY_NUMBER, layout_to_proto
from sealserve.v1 import prediction_pb2

_MAX_REPLY_FORMS = 16
_FORM_NUMBERS: dict[ReplyForm, prediction_pb2.ReplyForm] = {
    form: getattr(prediction_pb2, f"REPLY_FORM_{form.name}") for form in ReplyForm
}
_FORMS = {number: form for form, number in _FORM_NUMBERS.items()}


def header_to_proto(header: ItemHeader) -> prediction_pb2.ItemHeader:
    """Convert a header."""
    return prediction_pb2.ItemHeader(
        model=header.model,
        config_id=header.config_id,
        layout=layout_to_proto(header.layout),
        parameter_set=header.parameter_set,
        row_count=header.row_count,
        ciphertext_count=header.ciphertext_count,
        key_id=header.key_id,
        reply_forms=[number for form, number in _FORM_NUMBERS.items() if form in header.reply_forms],
    )


def header_from_proto(message: prediction_pb2.ItemHeader) -> ItemHeader:
    """Convert a header. The service checks whether it fits a model."""
    forms = message.reply_forms[:_MAX_REPLY_FORMS] or _FORMS
    return ItemHeader(
        model=message.model,
        config_id=message.config_id,
        layout=LAYOUTS_BY_NUMBER.get(message.layout),
        parameter_set=message.parameter_set,
        row_count=message.row_count,
        ciphertext_count=message.ciphertext_count,
        key_id=message.key_id,
        reply_forms=frozenset(filter(None, map(_FORMS.get, forms))),
    )


def reply_form_number(form: ReplyForm) -> int:
    """Return the number of a form in prediction.proto."""
    return _FORM_NUMBERS[form]


def scores_to_proto(first_index: int, pieces: Sequence[EncryptedScores]) -> prediction_pb2.ScoreGroup:
    """Convert consecutive pieces of a reply."""
    group = prediction_pb2.ScoreGroup(first_index=first_index)
    for piece in pieces:
        message = group.scores.add()
        if isinstance(piece, PackedPair):
            message.packed.c0, message.packed.c1 = piece
        elif isinstance(piece, Residues):
            message.residues.c0, message.residues.c1 = piece
        else:
            message.seal_ciphertext = piece
    return group


def scores_from_proto(group: prediction_pb2.ScoreGroup) -> list[EncryptedScores]:
    """Convert consecutive pieces of a reply. The codec checks that they have the layout's form."""
    pieces = list[EncryptedScores]()
    for scores in group.scores:
        if scores.HasField("packed"):
            pieces.append(PackedPair(scores.packed.c0, scores.packed.c1))
        elif scores.HasField("seal_ciphertext"):
            pieces.append(SealCiphertext(scores.seal_ciphertext))
        else:
            pieces.append(Residues(scores.residues.c0, scores.residues.c1))
    return pieces
