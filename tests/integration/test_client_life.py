"""What a client says of itself before and after its calls, and that a closed one says so."""

import asyncio
import dataclasses
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

from sealserve.aio import AsyncClient
from sealserve.client import Client
from sealserve.ei import EIClient
from sealserve.errors import ClientClosedError
from sealserve.key_registry import KeyRegistry
from sealserve.protocol.schema import Schema

ROWS = np.zeros((1, 64))


class Cells(HTMLParser):
    """The texts of a table."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags, self.texts = list[str](), list[str]()
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_a_client_describes_itself_in_a_line_and_as_a_table(digits_server: str) -> None:
    with Client(digits_server) as client:
        assert repr(client) == f"Client({digits_server!r}, no model yet)"  # nothing is asked for
        assert "not asked for yet" in client._repr_html_()
        model = client.model
        assert repr(model) == f"Model('digits', 64 columns, 10 classes, {len(model.offers)} offers)"
        assert repr(client) == f"Client({digits_server!r}, {model!r})"
        offer = client.offer()
        assert repr(offer).startswith("Offer(row-")
        assert "\n" not in repr(offer)
        for shown in (client, model, offer):
            cells = Cells(shown._repr_html_())
            assert cells.tags.count("table") == 1
            assert cells.tags.count("tr") >= 5
        assert repr(offer) in Cells(model._repr_html_()).texts
    assert repr(AsyncClient(digits_server, model="digits")) == f"AsyncClient({digits_server!r}, 'digits')"


def test_what_a_service_publishes_is_escaped(client: Client) -> None:
    model = client.model
    hostile = dataclasses.replace(
        model, name="<script>\x1b[2J\n", version="<img src=x>", schema=Schema(64, ("<b>",) * 64)
    )
    html = hostile._repr_html_()
    assert not {"script", "img", "b"} & set(Cells(html).tags)
    assert "\x1b" not in html + repr(hostile)
    assert "\n" not in html + repr(hostile)


METHODS: dict[str, Callable[[Any], Any]] = {
    "model": lambda client: client.model,
    "models": lambda client: list(client.models()),
    "offer": lambda client: client.offer(),
    "secret_key": lambda client: client.secret_key,
    "predict": lambda client: client.predict(ROWS),
    "decision_function": lambda client: client.decision_function(ROWS),
    "predict_proba": lambda client: client.predict_proba(ROWS),
    "scored": lambda client: client.scored(ROWS),
    "stream": lambda client: list(client.stream(ROWS)),
    "encrypt": lambda client: client.encrypt(ROWS),
    "encrypt_quantized": lambda client: client.encrypt_quantized(np.zeros((1, 64), np.int64)),
    "register_key": lambda client: client.register_key(),
}


@pytest.mark.parametrize("is_used", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_a_closed_client_says_so(method: str, is_used: bool, digits_server: str) -> None:
    """Whatever it is asked, and whether or not it knows the answer."""
    with Client(digits_server, layout="row") as client:
        if is_used:
            item = client.encrypt(ROWS)
            reply = client.send(item)
            METHODS[method](client)
    with pytest.raises(ClientClosedError, match="has been closed: make another"):
        METHODS[method](client)
    if is_used:
        with pytest.raises(ClientClosedError):
            client.send(item)
        with pytest.raises(ClientClosedError):
            client.decrypt(reply)
    client.close()  # twice is no error
    assert repr(client)


def test_a_stream_ends_when_its_client_is_closed(digits_server: str) -> None:
    client = Client(digits_server, layout="row")

    def rows() -> Iterator[Any]:
        yield ROWS[0]
        client.close()
        while True:
            yield ROWS[0]

    with pytest.raises(ClientClosedError):
        list(client.stream(rows()))


def test_a_closed_async_client_says_so(digits_server: str) -> None:
    async def use() -> None:
        async with AsyncClient(digits_server) as client:
            await client.predict(ROWS)
            reply = await client.send(item := await client.encrypt(ROWS))
        for act in (
            client.model,
            client.offer,
            client.secret_key,
            client.register_key,
            lambda: client.predict(ROWS),
            lambda: client.encrypt(ROWS),
            lambda: client.send(item),
            lambda: client.decrypt(reply),
            lambda: anext(client.models()),
            lambda: anext(client.stream(ROWS)),
        ):
            with pytest.raises(ClientClosedError):
                await act()

    asyncio.run(use())


def test_a_closed_registry_says_so(digits_server: str) -> None:
    registry = KeyRegistry(digits_server)
    registry.close()
    for act in (
        lambda: list(registry.list()),
        lambda: registry.get("0" * 64),
        lambda: registry.delete("0" * 64),
        lambda: registry.register(b"key"),
    ):
        with pytest.raises(ClientClosedError):
            act()


def test_a_closed_ei_client_says_so(digits_server: str) -> None:
    with EIClient(digits_server) as client:
        assert client.model.name == "digits"
    with pytest.raises(ClientClosedError):
        client.predict(ROWS)
