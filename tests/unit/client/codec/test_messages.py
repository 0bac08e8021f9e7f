"""The messages of an item: how many ciphertexts each has."""

import pytest

from sealserve._codec.codec import EncryptedItem
from sealserve._codec.messages import item_messages
from sealserve.he.layouts import LAYOUTS
from sealserve.protocol.item import ItemHeader
from sealserve.protocol.wire import header_to_proto


@pytest.mark.parametrize(
    ("ciphertext_bytes", "max_message_bytes", "in_a_chunk"),
    [
        (32_881, 2 << 20, 31),  # about a megabyte
        (131_185, 2 << 20, 8),
        (262_257, 2 << 20, 7),  # as many as go into a message
        (262_257, 300_000, 1),
        (32_881, 100_000, 3),
    ],
)
def test_a_chunk_has_a_megabyte_or_some_ciphertexts_or_what_the_limit_allows(
    ciphertext_bytes: int, max_message_bytes: int, in_a_chunk: int
) -> None:
    ciphertexts = [bytes([number]) * ciphertext_bytes for number in range(40)]
    header = ItemHeader(
        model="model",
        config_id="",
        layout=LAYOUTS["column"],
        parameter_set="set",
        row_count=1,
        ciphertext_count=len(ciphertexts),
        key_id="",
    )
    item = EncryptedItem(
        header=header,
        header_message=header_to_proto(header),
        ciphertexts=ciphertexts,
        byte_count=len(ciphertexts) * ciphertext_bytes,
        piece_count=1,
        max_piece_bytes=1,
        fits_a_message=False,
        max_message_bytes=max_message_bytes,
    )
    sent = list(item_messages(7, item))
    assert [message.HasField("header") for message in sent] == [True] + [False] * (len(sent) - 1)
    assert {message.item_id for message in sent} == {7}
    assert {len(message.chunk.ciphertexts) for message in sent[:-1]} <= {in_a_chunk}
    assert [message.chunk.first_index for message in sent] == list(range(0, 40, in_a_chunk))
    assert [data for message in sent for data in message.chunk.ciphertexts] == ciphertexts
