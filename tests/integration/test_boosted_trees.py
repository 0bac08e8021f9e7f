"""Files of XGBoost, LightGBM and CatBoost, served with private weights."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from sealserve.client import Client
from sealserve_service.catalog.packing import pack
from sealserve_service.catalog.registry import ModelRegistry
from sealserve_service.catalog.sources import load_source
from sealserve_service.engines.offering import PrivateWeights
from sealserve_service.models.errors import PublicationError
from sealserve_service.settings.model_source import ModelSource
from tests.support.boosting import (
    catboost,
    cities,
    lightgbm,
    of_catboost,
    of_cities,
    of_lightgbm,
    of_xgboost,
    quietly,
    xgboost,
)
from tests.support.serving import HANG_SECONDS, LIMITS, registered_keys, running_server

FITS: dict[str, Any] = {
    "XGBoost": lambda X, y: of_xgboost(
        xgboost.XGBClassifier(n_estimators=20, max_depth=4, min_child_weight=1.25), X, y, ".ubj"
    ),
    "LightGBM": lambda X, y: of_lightgbm(
        lightgbm.LGBMClassifier(n_estimators=20, min_data_per_group=5, cat_smooth=1), X, y
    ),
    "CatBoost": lambda X, y: of_catboost(catboost.CatBoostClassifier(iterations=20, depth=4, border_count=16), X, y),
}


@pytest.mark.parametrize("name", FITS)
def test_a_file_predicts_as_its_library_through_a_private_service(name: str, tmp_path: Path) -> None:
    frame = cities(np.random.default_rng(1), 400)
    y = of_cities(frame)
    X = frame if name == "LightGBM" else frame[["size"]].assign(is_bern=(frame["city"] == "Bern").astype(float))
    if name != "LightGBM":
        X.loc[::9, "is_bern"] = np.nan
    fitted = FITS[name](X, y)
    path = fitted.saved(tmp_path)
    source = ModelSource("model", path, publish=("structure",))
    keys = registered_keys()
    with pytest.raises(PublicationError, match="--publish structure"):
        load_source(ModelSource("model", path), trust_pickle=False, limits=LIMITS)
    private = PrivateWeights(40, keys.zero_encryptor)
    served = load_source(source, trust_pickle=False, limits=LIMITS, private=private)
    (tmp_path / "model.sealmodel").write_bytes(pack(source, trust_pickle=False, hiding_bits=40).content)
    packed = ModelSource("model", tmp_path / "model.sealmodel")
    of_packed = load_source(packed, trust_pickle=False, limits=LIMITS, private=private)
    assert of_packed.model.config_id == served.model.config_id
    assert of_packed.steps == served.steps
    with (
        running_server(ModelRegistry([served]), keys=keys) as address,
        Client(address, timeout_seconds=HANG_SECONDS) as client,
    ):
        assert [column.name for column in client.model.schema.columns] == list(X.columns)
        rows = X[:80]
        scored, bound = client.scored(rows), client.offer(len(rows)).score_error_bound
        shuffled = client.predict(rows[list(X.columns)[::-1]])
    with quietly():
        expected, labels = fitted.scores(rows), np.ravel(fitted.estimator.predict(rows))
    assert np.abs(scored.scores - expected).max() <= bound + 1e-5
    clear = np.abs(expected[:, 0]) > bound + 1e-5
    assert clear.mean() > 0.9
    np.testing.assert_array_equal(np.asarray(scored.predictions)[clear], labels[clear])
    np.testing.assert_array_equal(np.asarray(shuffled), np.asarray(scored.predictions))
    if name == "LightGBM":
        assert isinstance(rows, pd.DataFrame)
        assert rows["city"].isna().any()
