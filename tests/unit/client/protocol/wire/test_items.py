"""Items survive the way to protobuf and back."""

from hypothesis import given, settings
from hypothesis import strategies as st

from sealserve.he.layouts import LAYOUTS
from sealserve.protocol import wire
from sealserve.protocol.item import EncryptedScores, ItemHeader, Residues, SealCiphertext

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
    )
)
def test_headers_survive(header: ItemHeader) -> None:
    assert wire.header_from_proto(wire.header_to_proto(header)) == header


pieces = st.one_of(
    st.builds(Residues, c0=st.binary(max_size=9), c1=st.binary(max_size=9)), st.binary(max_size=9).map(SealCiphertext)
)


@QUICK
@given(first_index=counts, reply=st.lists(pieces, max_size=4))
def test_scores_survive_each_in_its_form(first_index: int, reply: list[EncryptedScores]) -> None:
    message = wire.scores_to_proto(first_index, reply)
    assert message.first_index == first_index
    back = wire.scores_from_proto(message)
    assert back == reply
    assert list(map(type, back)) == list(map(type, reply))
