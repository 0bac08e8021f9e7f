"""A client asks for the residues of a private reply, before they are rounded: it gets none.

Their rounding is part of what hides the weights. Where the service did answer in any form that a
client names, the reply would have all bits of q.
"""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from sealserve.client import Client, EncryptedReply
from sealserve.errors import InputMismatchError
from sealserve.protocol.item import PackedPair, ReplyForm, Residues
from sealserve.v1 import prediction_pb2
from sealserve_service.catalog.registry import ModelRegistry
from sealserve_service.engines.linear import base
from sealserve_service.engines.linear.base import LinearEngine
from tests.support.serving import linear, registered_keys, running_server, served

LAYOUTS = ["row", "column"]
RESIDUES, PACKED = prediction_pb2.REPLY_FORM_RESIDUES, prediction_pb2.REPLY_FORM_PACKED
WEIGHTS = np.arange(-6.0, 6.0).reshape(3, 4)


@pytest.fixture(scope="module")
def registry_and_address() -> Iterator[tuple[ModelRegistry, str]]:
    keys = registered_keys()
    private = served("private", linear(WEIGHTS), keys=keys, hiding_bits=40)
    registry = ModelRegistry([private, served("open", linear(WEIGHTS))])
    with running_server(registry, keys=keys) as address:
        yield registry, address


def asked(client: Client, forms: Sequence[int]) -> EncryptedReply:
    """Send an item with these reply forms in its header."""
    item = client.encrypt(np.full((1, 4), 0.5))
    header = prediction_pb2.ItemHeader()
    header.CopyFrom(item.header_message)
    header.reply_forms[:] = forms  # type: ignore[assignment]
    return client.send(dataclasses.replace(item, header_message=header, max_piece_bytes=1 << 20))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_private_reply_is_packed_or_refused(registry_and_address: tuple[ModelRegistry, str], layout: str) -> None:
    with Client(registry_and_address[1], model="private", layout=layout) as client:
        client.register_key()
        for forms in ([RESIDUES], [RESIDUES, RESIDUES], [2, RESIDUES], [RESIDUES, 99], [RESIDUES] * 16 + [PACKED]):
            with pytest.raises(InputMismatchError) as caught:
                asked(client, forms)
            assert (caught.value.field, caught.value.expected) == ("reply_forms", PACKED)
        for forms in ([], [RESIDUES, PACKED], [2, 99, PACKED]):
            reply = asked(client, forms)
            assert all(isinstance(pair, PackedPair) for pair in reply.scores)
            np.testing.assert_allclose(client.decrypt(reply).scores[0], WEIGHTS.sum(axis=1) / 2, atol=0.2)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_open_reply_is_what_is_asked_for(registry_and_address: tuple[ModelRegistry, str], layout: str) -> None:
    """There is nothing to hide. It is packed unless the client reads residues only."""
    with Client(registry_and_address[1], model="open", layout=layout) as client:
        for forms, kind in (([RESIDUES, PACKED], PackedPair), ([], PackedPair), ([RESIDUES, 2], Residues)):
            assert all(isinstance(pair, kind) for pair in asked(client, forms).scores)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_service_that_answers_in_any_form_gives_the_residues(
    registry_and_address: tuple[ModelRegistry, str], layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The switch: the reply then has several times as many bits of c1."""
    registry, address = registry_and_address
    with Client(address, model="private", layout=layout) as client:
        client.register_key()
        packed = asked(client, [PACKED])
        for engine in registry.engines():
            assert isinstance(engine, LinearEngine)
            writer = base.ReplyWriter(Residues, base._bytes_of_residues, base._bytes_of_residues)
            monkeypatch.setattr(engine, "writers", {ReplyForm.RESIDUES: writer})
            offer = dataclasses.replace(engine.offer)
            object.__setattr__(offer, "reply_forms", (ReplyForm.RESIDUES,))
            monkeypatch.setattr(engine, "offer", offer)
        whole = asked(client, [RESIDUES])
        assert all(isinstance(pair, Residues) for pair in whole.scores)
        assert len(whole.scores[0].c1) > 2 * len(packed.scores[0].c1)  # type: ignore[union-attr]
