"""Models for the agent: numbers, strings, columns of a table and trees, with their estimators."""

from pathlib import Path
from typing import Any, NamedTuple

import joblib
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from sealserve_service.catalog.registry import ModelRegistry, ServedModel
from sealserve_service.catalog.sources import load_source
from sealserve_service.keys.registered_keys import RegisteredKeys
from sealserve_service.settings.model_source import ModelSource
from tests.support.digits import Digits
from tests.support.serving import LIMITS, served
from tests.support.tables import labels, table

COLUMNS = ["age", "city", "rooms", "words"]
LEAST_AGREEMENT = 0.995
"""Of labels: scores are a little off, and a row may be at the border of two classes."""


class AgentModels(NamedTuple):
    """Estimators by the names of their models, and rows of them.

    Attributes:
        frame: of "table", without gaps: BYTES cannot say "missing".
        normal: of "answers", "prices" and "trees".
    """

    estimators: dict[str, Any]
    frame: pd.DataFrame
    normal: NDArray[np.float64]


def agent_models(digits_model: Digits, count: int = 600) -> AgentModels:
    """Fit the models to so many rows, of which the table loses those with gaps."""
    random = np.random.default_rng(5)
    frame = table(random, count)[COLUMNS].dropna().reset_index(drop=True)
    normal = random.normal(size=(count, 6)).clip(-3, 3)
    y = np.where(normal[:, 0] + normal[:, 1] > 0, "yes", "no")
    of_columns = make_column_transformer(
        (SimpleImputer(), ["age", "rooms"]),
        (OneHotEncoder(handle_unknown="ignore"), ["city"]),
        (CountVectorizer(), "words"),
    )
    of_table = labels(frame.assign(income=1000.0), random)
    estimators = {
        "digits": digits_model.estimator,
        "answers": LogisticRegression().fit(normal, y),
        "prices": LinearRegression().fit(normal, normal @ random.normal(size=6)),
        "table": make_pipeline(of_columns, LogisticRegression(max_iter=500)).fit(frame, of_table),
        "trees": HistGradientBoostingClassifier(max_iter=10, min_samples_leaf=20).fit(normal, y),
    }
    return AgentModels(estimators, frame, normal)


def check_predictions(estimator: Any, X: Any, labels: Any, scores: Any, probabilities: Any) -> None:
    """Check what callers got for rows against what scikit-learn says of them."""
    assert len(labels) == len(X)
    assert np.mean(labels == estimator.predict(X)) >= LEAST_AGREEMENT
    np.testing.assert_allclose(scores, estimator.decision_function(X).reshape(len(X), -1), atol=5e-2)
    np.testing.assert_allclose(probabilities, estimator.predict_proba(X), atol=2e-2)


def registry_of(models: AgentModels, keys: RegisteredKeys, folder: Path) -> ModelRegistry:
    """Serve the models; files of those that publish something are in the folder."""
    estimators, frame, normal = models
    return ModelRegistry(
        [
            served("digits", estimators["digits"], input_step=1 / 16),
            served("answers", estimators["answers"], (-3.0, 3.0), keys=keys, hiding_bits=40),
            served("prices", estimators["prices"], (-3.0, 3.0)),
            _with_steps("table", estimators["table"], frame, folder),
            _with_steps("trees", estimators["trees"], normal, folder),
        ]
    )


def _with_steps(name: str, estimator: Any, rows: Any, folder: Path) -> ServedModel:
    """Serve a model that publishes its steps or its trees."""
    joblib.dump(estimator, folder / f"{name}.joblib")
    pd.DataFrame(rows).to_csv(folder / f"{name}.csv", index=False)
    source = ModelSource(
        name, folder / f"{name}.joblib", calibration=folder / f"{name}.csv", publish=("steps", "structure")
    )
    return load_source(source, trust_pickle=True, limits=LIMITS, accept_disagreement=True)
