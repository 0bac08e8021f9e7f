"""What `sealserve models show` and `inspect` say of a model."""

import dataclasses

import numpy as np

from sealserve.cli.models import describe
from sealserve.he.quantization import InputGrid
from sealserve.protocol.model import Model
from sealserve.protocol.schema import Schema
from tests.support.serving import linear, served

MODEL = served("people", linear([[1.0, 2.0, 4.0]])).model
NAMES = ("age", "income, net", "\x1b[2J\n" + "x" * 100)


def described(grid: InputGrid, names: tuple[str, ...] = NAMES) -> list[str]:
    schema = Schema(grid.feature_count, names)
    model: Model = dataclasses.replace(MODEL, schema=schema, grid=grid)
    return describe(model).splitlines()


def test_the_range_of_each_column_is_shown_where_they_differ() -> None:
    lines = described(InputGrid.of(3, [-32, 0, 0], [144, 327680, 1], [0.5, 0.25, 1], keeps=[False, False, True]))
    assert "  'age'                      -32..144, step 0.5" in lines
    assert "  'income, net'              0..327680, step 0.25" in lines
    assert "  '\\x1b[2J\\nxxxxxxxxxxx...'  0..1, step 1, no values between" in lines
    assert "features                     3: age, 'income, net', \\x1b[2J\\n" + "x" * 100 in lines
    assert all(map(str.isprintable, lines))


def test_one_range_of_all_or_very_many_are_one_line() -> None:
    grid = InputGrid.of(3, 0.0, 1.0, 0.25)
    assert not any(line.startswith("  'age'") for line in described(grid))
    wide = InputGrid.of(31, 0.0, np.arange(1.0, 32), 0.25)
    names = tuple(map(str, range(31)))
    assert not any(line.startswith("  '0'") for line in described(wide, names))
    few = InputGrid.of(30, 0.0, np.arange(1.0, 31), 0.25)
    assert any(line.startswith("  '0'") for line in described(few, names[:30]))
