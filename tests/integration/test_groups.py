"""Groups of columns through a live service: declared, published, checked, and scored."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from sealserve.client import Client
from sealserve.errors import OutOfRangeError
from sealserve_service.catalog.registry import ModelRegistry
from sealserve_service.catalog.sources import load_source
from sealserve_service.engines.offering import PrivateWeights
from sealserve_service.models.errors import InputRangeError
from sealserve_service.settings.model_source import ModelSource
from tests.support.serving import HANG_SECONDS, LIMITS, registered_keys, running_server

SIZES = (4, 12, 3)
AGES = 2
FEATURES = AGES + sum(SIZES)
RANDOM = np.random.default_rng(19)
WEIGHTS, INTERCEPT = RANDOM.normal(size=(3, FEATURES)) + 4.0, RANDOM.normal(size=3)


def rows_of(count: int) -> NDArray[np.float64]:
    """Two ages, and three columns of categories as one-hot; of the last there may be none."""
    parts = [np.eye(size)[RANDOM.integers(0, size, count)] for size in SIZES]
    parts[2][RANDOM.random(count) < 0.3] = 0.0
    return np.hstack([RANDOM.uniform(0, 90, (count, AGES)), *parts])


@pytest.fixture
def source(tmp_path: Path) -> ModelSource:
    path, ranges = tmp_path / "table.npz", tmp_path / "ranges.csv"
    np.savez(path, coef=WEIGHTS, intercept=INTERCEPT, classes=np.arange(3))
    lines = ["name,min,max,exactly_one,at_most_one", "0,0,120,,", "1,0,120,,"]
    names = np.repeat(["colour,", "town,", ",kind"], SIZES)
    lines += [f"{AGES + place},,,{name}" for place, name in enumerate(names)]
    ranges.write_text("\n".join(lines))
    return ModelSource("table", path, input_ranges=ranges)


@pytest.mark.parametrize("bits", [None, 40])
def test_groups_are_published_checked_and_scored(bits: int | None, source: ModelSource) -> None:
    keys = registered_keys()
    private = None if bits is None else PrivateWeights(bits, keys.zero_encryptor)
    served = load_source(source, trust_pickle=False, limits=LIMITS, private=private)
    with (
        running_server(ModelRegistry([served]), keys=keys) as address,
        Client(address, timeout_seconds=HANG_SECONDS) as client,
    ):
        constraints = client.model.grid.constraints
        assert constraints.group.tolist() == [0, 0, *np.repeat([1, 2, 3], SIZES)]
        assert constraints.exactly_one.tolist() == [True, True, False]
        assert client.model.config_id == served.model.config_id
        rows = rows_of(40)
        for count in (1, 40):
            scores = client.decision_function(rows[:count])
            expected = rows[:count] @ WEIGHTS.T + INTERCEPT
            assert np.abs(scores - expected).max() <= client.offer(count).score_error_bound
        broken = rows.copy()
        broken[3, AGES : AGES + 4] = 1.0, 1.0, 0.0, 0.0
        broken[5, AGES : AGES + 4] = 0.0
        with pytest.raises(OutOfRangeError, match="rows 3, 5, exactly one of features 2, 3, 4, 5 has to be"):
            client.predict(broken)


def test_calibration_rows_that_break_a_group_are_refused(source: ModelSource, tmp_path: Path) -> None:
    rows = rows_of(300)
    path = tmp_path / "rows.npy"
    np.save(path, rows)
    with_rows = dataclasses.replace(source, calibration=path)
    assert load_source(with_rows, trust_pickle=False, limits=LIMITS).model.offers[0].observed_error is not None
    rows[7, AGES] = rows[7, AGES + 1] = 1.0
    np.save(path, rows)
    with pytest.raises(InputRangeError, match="row 7, exactly one of features 2, 3, 4, 5"):
        load_source(with_rows, trust_pickle=False, limits=LIMITS)
