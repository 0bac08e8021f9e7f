"""Grids that features keep: on the wire, folded where all are the same, and in a pin."""

import dataclasses

import numpy as np
import pytest

from sealserve.errors import ParameterError, UnexpectedModelError
from sealserve.he.quantization import InputGrid
from sealserve.protocol import wire
from sealserve.protocol.model import Model
from sealserve.protocol.pin import Pin, PinnedContent
from tests.support.serving import linear, served


def described(keeps: list[bool]) -> Model:
    model = served("model", linear([[1.0, 2.0, 3.0]]), input_step=0.5).model
    return dataclasses.replace(model, grid=InputGrid.of(3, 0.0, 1.0, 0.5, keeps))


@pytest.mark.parametrize(
    ("keeps", "written"),
    [
        ([True, False, True], [True, False, True]),
        ([True, True, True], [True]),
        ([False, False, False], []),
    ],
)
def test_flags_come_back(keeps: list[bool], written: list[bool]) -> None:
    message = wire.model_to_proto(described(keeps))
    assert list(message.input.keeps) == written
    assert wire.model_from_proto(message).grid.keeps.tolist() == keeps


def test_flags_of_another_number_are_refused() -> None:
    message = wire.model_to_proto(described([True, False, True]))
    message.input.keeps.append(True)
    with pytest.raises(ParameterError, match="one for each of 3 features"):
        wire.model_from_proto(message)


def test_a_declared_step_is_published_as_kept() -> None:
    grid = served("model", linear([[1.0, 2.0]]), input_step=0.5).model.grid
    assert grid.keeps.all()
    np.testing.assert_array_equal((0.5 / grid.step) % 1, 0)
    assert not served("model", linear([[1.0, 2.0]])).model.grid.keeps.any()


def test_a_pin_holds_the_flags() -> None:
    model, other = described([True, False, True]), described([True, True, True])
    pin = Pin.of(model)
    pin.check(model)
    assert pin.content is not None
    assert PinnedContent.from_json(pin.content.to_json()).digest == pin.digest
    with pytest.raises(UnexpectedModelError, match="flag that it keeps its grid of feature 1 is True, not False"):
        pin.check(other)
