"""Items survive the way to protobuf and back."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sealserve.he.layouts import LAYOUTS
from sealserve.protocol import wire
from sealserve.protocol.item import EncryptedScores, ItemHeader, PackedPair, ReplyForm, Residues, SealCiphertext
from sealserve.v1 import prediction_pb2

QUICK = settings(deadline=None, max_examples=60)

counts = st.integers(0, 2**32 - 1)
texts = st.text(max_size=8)


@QUICK
@given(
    header=st.builds(
        ItemHeader,
        model=texts,
        config_id=texts,
        layout=st.sampled_from([*LAYOUTS.values(), None]),
        parameter_set=texts,
        row_count=counts,
        ciphertext_count=counts,
        key_id=texts,
        reply_forms=st.frozensets(st.sampled_from(ReplyForm), min_size=1),
    )
)
def test_headers_survive(header: ItemHeader) -> None:
    assert wire.header_from_proto(wire.header_to_proto(header)) == header


def test_the_forms_of_replies_are_the_members_of_the_oneof() -> None:
    members = prediction_pb2.EncryptedScores.DESCRIPTOR.oneofs_by_name["form"].fields
    assert {form.value for form in ReplyForm} == {field.name for field in members}
    assert {f"REPLY_FORM_{form.name}" for form in ReplyForm} | {"REPLY_FORM_UNSPECIFIED"} == set(
        prediction_pb2.ReplyForm.keys()
    )


@pytest.mark.parametrize(
    ("numbers", "forms"),
    [
        ([], set(ReplyForm)),
        ([1], {ReplyForm.RESIDUES}),
        ([2, 2], {ReplyForm.SEAL_CIPHERTEXT}),
        ([3], {ReplyForm.PACKED}),
        ([99, -1, 0, 2**31 - 1, 1], {ReplyForm.RESIDUES}),
        ([99], set()),
        ([0], set()),
        ([99] * 16 + [1], set()),
        ([99] * 15 + [1], {ReplyForm.RESIDUES}),
    ],
    ids=["none", "residues", "twice", "packed", "after unknown", "unknown", "unspecified", "beyond 16", "within 16"],
)
def test_forms_of_tomorrow_are_passed_over(numbers: list[int], forms: set[ReplyForm]) -> None:
    message = prediction_pb2.ItemHeader(reply_forms=numbers)  # type: ignore[arg-type]
    assert wire.header_from_proto(message).reply_forms == forms


few_bytes = st.binary(max_size=9)
pieces = st.one_of(
    st.builds(Residues, c0=few_bytes, c1=few_bytes),
    st.builds(PackedPair, c0=few_bytes, c1=few_bytes),
    few_bytes.map(SealCiphertext),
)


@QUICK
@given(first_index=counts, reply=st.lists(pieces, max_size=4))
def test_scores_survive_each_in_its_form(first_index: int, reply: list[EncryptedScores]) -> None:
    message = wire.scores_to_proto(first_index, reply)
    assert message.first_index == first_index
    back = wire.scores_from_proto(message)
    assert back == reply
    assert list(map(type, back)) == list(map(type, reply))
