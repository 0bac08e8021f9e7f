"""An isotonic curve that clients get tells who was in the training, and with which label.

A point of a curve is the score of a training row. Whoever knows a row computes its score by a call
of its own, and looks it up among the points. So such curves are served with consent only.
"""

from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression

from sealserve.client import Client
from sealserve_service.catalog import sources
from sealserve_service.catalog.registry import ModelRegistry
from sealserve_service.catalog.sources import load_source
from sealserve_service.models.errors import PublicationError
from sealserve_service.settings.model_source import ModelSource
from tests.support.serving import HANG_SECONDS, LIMITS, running_server

Rows = NDArray[np.float64]


def _without_consent(*_: Any, **__: Any) -> None:
    """What was done before: curves were published with the description, and nobody was asked."""


@pytest.fixture
def source(tmp_path: Path) -> tuple[ModelSource, Rows, Rows]:
    """A calibrated model, the rows that it was calibrated with, and others like them."""
    random = np.random.default_rng(0)
    rows = random.normal(size=(240, 4))
    labels = rows[:, 0] + random.normal(size=240) > 0
    member = LogisticRegression().fit(rows[:80], labels[:80])
    calibrated = CalibratedClassifierCV(FrozenEstimator(member), method="isotonic", ensemble=False)
    calibrated.fit(rows[80:160], labels[80:160])
    joblib.dump(calibrated, tmp_path / "model.pkl")
    np.save(tmp_path / "rows.npy", rows[:80])
    asked = ModelSource("model", tmp_path / "model.pkl", calibration=tmp_path / "rows.npy", max_score_error=1e-3)
    return asked, rows[80:160], rows[160:]


def test_training_rows_are_told_from_others_by_the_points_of_a_curve(
    source: tuple[ModelSource, Rows, Rows], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, members, others = source
    with monkeypatch.context() as before:
        before.setattr(sources, "check_consent", _without_consent)
        served = load_source(asked, trust_pickle=True, limits=LIMITS, accept_disagreement=True)
    with (
        running_server(ModelRegistry([served])) as address,
        Client(address, timeout_seconds=HANG_SECONDS) as client,
    ):
        points = np.array(client.model.output.curves[0].scores)
        bound = client.offer(1).score_error_bound

        def found(rows: Rows) -> int:
            scores = client.scored(rows).scores
            return int((np.abs(scores - points).min(axis=1) <= bound).sum())

        assert found(members) >= len(points) >= 8
        assert found(others) == 0
    with pytest.raises(PublicationError, match="each point is the score of a training row"):
        load_source(asked, trust_pickle=True, limits=LIMITS, accept_disagreement=True)
