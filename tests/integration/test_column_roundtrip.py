"""Batches of columns, forced or chosen, from a real client to a real server and back."""

import logging
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sealserve.client import Client
from sealserve.errors import InputError, OutOfRangeError, ParameterError, SecretKeyError
from sealserve.he.layouts import LAYOUTS, Layout
from sealserve.secret_key import SecretKey
from sealserve_service.catalog.registry import ModelRegistry
from sealserve_service.models.linear_model import LinearModel
from tests.support.serving import HANG_SECONDS, linear, running_server, served, with_limits

RANDOM = np.random.default_rng(1)
N = LAYOUTS["column"].open_parameter_sets[0].poly_modulus_degree
SMALL = linear(RANDOM.normal(size=(2, 5)), [0.5, -2.0])


def assert_scored(client: Client, model: LinearModel, rows: NDArray[np.float64]) -> None:
    """Predict rows and compare them with the model's own arithmetic."""
    offer = client.offer(len(rows))
    bound = offer.score_error_bound
    assert np.abs(client.predict(rows) - model.decision(rows)).max() <= bound


def check(model: LinearModel, rows: NDArray[np.float64], layout: Any = "column", **limits: Any) -> Layout:
    """Predict rows through a server of the model; returns the layout in which they travelled."""
    settings = with_limits(**limits)
    with (
        running_server(ModelRegistry([served("model", model, limits=settings.limits)]), settings) as address,
        Client(address, timeout_seconds=HANG_SECONDS, layout=layout) as client,
    ):
        assert_scored(client, model, rows)
        return client.offer(len(rows)).layout


@pytest.mark.parametrize("layout", ["column", "auto", "row"])
@pytest.mark.parametrize("row_count", [1, 7, N - 1, N, N + 1, 2 * N + 5])
def test_batches_full_and_partly_filled(layout: Any, row_count: int) -> None:
    chosen = check(SMALL, RANDOM.random((row_count, 5)), layout)
    assert layout == "auto" or chosen.name == layout


@pytest.mark.parametrize("layout", ["column", "auto", "row"])
def test_one_feature(layout: Any) -> None:
    check(linear([[3.0], [-2.0]], [1.0, 5.0]), RANDOM.random((N + 3, 1)), layout)


def test_auto_sends_a_row_as_a_row_and_thousands_as_columns() -> None:
    model = linear(RANDOM.normal(size=(3, 300)))
    with (
        running_server(ModelRegistry([served("model", model)])) as address,
        Client(address, timeout_seconds=HANG_SECONDS) as client,
    ):
        rows = RANDOM.random((N + 20, 300))
        for row_count, layout in (
            (1, LAYOUTS["row"]),
            (N, LAYOUTS["column"]),
            (N + 20, LAYOUTS["column"]),
            (2, LAYOUTS["row"]),
        ):
            assert client.offer(row_count).layout is layout
            assert_scored(client, model, rows[:row_count])


def test_batches_longer_than_a_message_and_than_the_window() -> None:
    """Each holds 0.9 MB whatever its length; two at once are more than the window."""
    limits = {"max_message_bytes": 200_000, "window_bytes": 1_000_000}
    model = linear(RANDOM.normal(size=(9, 60)))
    assert check(model, RANDOM.random((3 * N, 60)), **limits) is LAYOUTS["column"]


def test_replies_come_in_several_groups() -> None:
    """120 classes of 2,048 rows: a megabyte holds 32 classes."""
    assert check(linear(RANDOM.normal(size=(120, 3))), RANDOM.random((N, 3))) is LAYOUTS["column"]


@pytest.mark.slow
def test_twenty_thousand_features() -> None:
    """A batch has 655 MB; about one megabyte of it is in memory at a time."""
    assert check(linear(RANDOM.normal(size=(2, 20_000))), RANDOM.random((5, 20_000))) is LAYOUTS["column"]


@pytest.mark.slow
def test_a_thousand_classes_travel_as_rows(caplog: pytest.LogCaptureFixture) -> None:
    model = linear(RANDOM.normal(size=(1000, 4)))
    with caplog.at_level(logging.WARNING):
        registry = ModelRegistry([served("wide", model)])
    assert "model wide is not served in layout column: a batch with 1000 classes would hold" in caplog.text
    rows = RANDOM.random((10, 4))
    with running_server(registry) as address:
        for layout in ("auto", "row"):
            with Client(address, timeout_seconds=HANG_SECONDS, layout=layout) as client:
                assert client.offer(10**6).layout is LAYOUTS["row"]
                assert_scored(client, model, rows)
        with (
            Client(address, timeout_seconds=HANG_SECONDS, layout="column") as client,
            pytest.raises(ParameterError, match=r"^model 'wide' is not offered as column$"),
        ):
            client.predict(rows)


def test_one_key_serves_both_layouts_and_another_ring_none() -> None:
    rows = RANDOM.random((30, 5))
    with running_server(ModelRegistry([served("model", SMALL)])) as address:
        for parameter_set in (LAYOUTS["row"].open_parameter_sets[0], LAYOUTS["column"].open_parameter_sets[0]):
            key = SecretKey.generate(parameter_set)
            for layout in ("auto", "row", "column"):
                with Client(
                    address,
                    timeout_seconds=HANG_SECONDS,
                    layout=layout,
                    secret_key=key,
                ) as client:
                    assert_scored(client, SMALL, rows)
                    assert client.secret_key is key
        other = SecretKey.generate(LAYOUTS["column"].open_parameter_sets[1])
        with (
            Client(address, timeout_seconds=HANG_SECONDS, layout="column", secret_key=other) as client,
            pytest.raises(SecretKeyError, match=r"is offered in: column-2048-44$"),
        ):
            client.predict(rows)


@pytest.mark.parametrize("layout", ["columns", "", "ROW", None])
def test_a_layout_that_there_is_not(layout: Any) -> None:
    with pytest.raises(InputError, match="is not one of auto, row, column"):
        Client("127.0.0.1:1", layout=layout)


def test_a_stream_gathers_rows_into_batches() -> None:
    rows: list[Any] = list(RANDOM.random((N + 700, 5)))
    bad = {3: rows[3] + 9.0, N + 600: np.full(5, np.nan)}
    for index, row in bad.items():
        rows[index] = row
    with (
        running_server(ModelRegistry([served("model", SMALL)])) as address,
        Client(address, timeout_seconds=HANG_SECONDS, layout="column") as client,
    ):
        results = dict(client.stream(iter(rows), rows_per_item=500))
        bound = client.offer(500).score_error_bound
    assert sorted(results) == list(range(len(rows)))
    assert isinstance(results[3], OutOfRangeError)
    for index, result in results.items():
        if index in bad:
            assert isinstance(result, InputError)
        else:
            assert np.abs(result - SMALL.decision(rows[index][None])[0]).max() <= bound
