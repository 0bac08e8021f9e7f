"""Libraries of boosted trees, models that they fit, and what they predict themselves.

The libraries are the tests' own: the service reads their files without them.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from tests.support.libraries import library

Rows = NDArray[np.float64]


xgboost, lightgbm, catboost = library("xgboost"), library("lightgbm"), library("catboost")


@dataclass(frozen=True, eq=False)
class Fitted:
    """A fitted estimator, and how its library saves it and scores with it.

    Attributes:
        estimator: of the library.
        suffix: of its file.
        save: writes the file.
        scores: rows -> scores before any link, (rows, scores).
        leaves: rows -> the leaf of each tree that they reach, (rows, trees).
        float_bits: of the sums of the library.
    """

    estimator: Any
    suffix: str
    save: Callable[[Path], object]
    scores: Callable[[Any], Rows]
    leaves: Callable[[Any], NDArray[np.intp]]
    float_bits: int = 53

    def saved(self, folder: Path) -> Path:
        """Save the model, and return its file."""
        path = folder / f"model{self.suffix}"
        self.save(path)
        return path


@contextmanager
def quietly() -> Iterator[None]:
    """Leave out the libraries' warnings, and threads that would wait for each other."""
    with warnings.catch_warnings(action="ignore"), threadpool_limits(1):
        yield


def of_xgboost(estimator: Any, X: Any, y: Any, suffix: str = ".json", **fitting: Any) -> Fitted:
    """Fit an estimator of XGBoost."""
    with quietly():
        estimator.set_params(n_jobs=1).fit(X, y, **fitting)
    return Fitted(
        estimator,
        suffix,
        lambda path: estimator.get_booster().save_model(path),
        lambda rows: _columns(estimator.predict(rows, output_margin=True)),
        lambda rows: _columns(estimator.apply(rows)).astype(np.intp),
        float_bits=24,
    )


def of_lightgbm(estimator: Any, X: Any, y: Any, **fitting: Any) -> Fitted:
    """Fit an estimator of LightGBM."""
    with quietly():
        estimator.set_params(n_jobs=1, verbose=-1).fit(X, y, **fitting)

    def scores(rows: Any) -> Rows:
        raw = _columns(estimator.predict(rows, raw_score=True))
        head = estimator.booster_.model_to_string().partition("\nTree=")[0].splitlines()
        sigmoid = [line.partition("sigmoid:")[2] for line in head if line.startswith("objective=binary")]
        if "average_output" in head:
            raw = raw / (estimator.booster_.num_trees() // estimator.booster_.num_model_per_iteration())
        return raw * float(sigmoid[0]) if sigmoid else raw

    return Fitted(
        estimator,
        ".txt",
        lambda path: estimator.booster_.save_model(path),
        scores,
        lambda rows: _columns(estimator.predict(rows, pred_leaf=True)).astype(np.intp),
    )


def of_catboost(estimator: Any, X: Any, y: Any, **saving: Any) -> Fitted:
    """Fit an estimator of CatBoost."""
    with quietly():
        estimator.set_params(thread_count=1, verbose=False, allow_writing_files=False).fit(X, y)
    return Fitted(
        estimator,
        ".json",
        lambda path: estimator.save_model(str(path), format="json", **saving),
        lambda rows: _columns(estimator.predict(rows, prediction_type="RawFormulaVal")),
        lambda rows: _columns(estimator.calc_leaf_indexes(rows)).astype(np.intp),
    )


def _columns(values: Any) -> Rows:
    return np.asarray(values, np.float64).reshape(len(values), -1)


def numbers(random: np.random.Generator, count: int = 200) -> Rows:
    """Rows with gaps, a constant column, one of few values, one of tiny and one of huge ones."""
    X = random.normal(size=(count, 6))
    X[:, 1] = 3.0
    X[:, 2] = random.integers(-2, 3, count)
    X[:, 3] *= 1e-30
    X[:, 4] *= 1e30
    X[random.random(X.shape) < 0.1] = np.nan
    X[:, 5] = np.nan_to_num(X[:, 5])  # known everywhere
    return X


def targets(X: Rows, random: np.random.Generator) -> Rows:
    """Positive targets that depend on all columns."""
    Z = np.nan_to_num(X / (np.nanstd(X, axis=0) + 1e-300))
    sums: Rows = np.abs(Z[:, 0] + np.sign(Z[:, 3]) + Z[:, 5] * Z[:, 2] + np.isnan(X[:, 4]))
    return sums + 0.1 * random.random(len(X))


def classes(X: Rows, random: np.random.Generator, count: int) -> NDArray[np.int64]:
    """Classes of equal size that depend on all columns."""
    found = np.empty(len(X), np.int64)
    found[targets(X, random).argsort()] = np.arange(len(X)) * count // len(X)
    return found


def probes(X: Rows, thresholds: Rows) -> Rows:
    """Rows to score: those given, with thresholds and their neighbours, zeros and extremes."""
    random = np.random.default_rng(len(thresholds))
    near = [thresholds, np.nextafter(thresholds, -np.inf), np.nextafter(thresholds, np.inf)]
    singles = thresholds.astype(np.float32)
    near += [np.nextafter(singles, np.float32(-1e38)), np.nextafter(singles, np.float32(1e38))]
    special = np.concatenate([*near, [0.0, -0.0, 1e-36, -1e-36, 1e-30, 3e38, -3e38, np.nan]])
    return np.vstack([X, random.choice(special.astype(np.float64), (200, X.shape[1]))])


def cities(random: np.random.Generator, count: int = 300) -> pd.DataFrame:
    """A table with a column of numbers and two of categories, texts and numbers, with gaps."""
    frame = pd.DataFrame(
        {
            "size": random.normal(size=count),
            "city": pd.Categorical(random.choice(["Bern", "Genf", "Ulm", "Zürich"], count)),
            "code": pd.Categorical(random.choice([1, 5, 9], count)),
        }
    )
    frame.loc[random.random(count) < 0.1, "city"] = None
    return frame


def of_cities(frame: pd.DataFrame) -> NDArray[np.int64]:
    """Labels of a table that its categories tell."""
    is_large, is_five = frame["size"].to_numpy() > 0, (frame["code"] == 5).to_numpy()
    is_north = np.isin(frame["city"].to_numpy(object).astype(str), ["Bern", "Zürich", "Zurich"])
    found: NDArray[np.int64] = (is_north ^ is_five ^ is_large).astype(np.int64)
    return found


Fit = Callable[[Rows, np.random.Generator], Fitted]


def _xgb(kind: str, suffix: str = ".json", class_count: int = 0, **said: Any) -> Fit:
    def fit(X: Rows, random: np.random.Generator) -> Fitted:
        y = classes(X, random, class_count) if class_count else targets(X, random)
        fitting = {}
        if "early_stopping_rounds" in said:
            fitting = {"eval_set": [(X[:40], y[:40][::-1])], "verbose": False}
        chosen = {"n_estimators": 6, "max_depth": int(random.integers(1, 6)), "random_state": 0} | said
        return of_xgboost(getattr(xgboost, kind)(**chosen), X, y, suffix, **fitting)

    return fit


def _lgbm(kind: str, class_count: int = 0, **said: Any) -> Fit:
    def fit(X: Rows, random: np.random.Generator) -> Fitted:
        y = classes(X, random, class_count) if class_count else targets(X, random)
        chosen = {"n_estimators": 6, "num_leaves": int(random.integers(2, 16)), "min_child_samples": 5} | said
        return of_lightgbm(getattr(lightgbm, kind)(**chosen), X, y)

    return fit


def _cat(kind: str, class_count: int = 0, **said: Any) -> Fit:
    def fit(X: Rows, random: np.random.Generator) -> Fitted:
        y = classes(X, random, class_count) if class_count else targets(X, random)
        chosen = {"iterations": 6, "depth": int(random.integers(1, 6)), "random_seed": 0} | said
        return of_catboost(getattr(catboost, kind)(**chosen), X, y)

    return fit


BAGGED: dict[str, Any] = {"boosting_type": "rf", "bagging_freq": 1, "bagging_fraction": 0.7}
FITS: dict[str, Fit] = {
    "XGBoost": _xgb("XGBRegressor"),
    "XGBoost, ubj": _xgb("XGBRegressor", ".ubj"),
    "XGBoost, two classes": _xgb("XGBClassifier", class_count=2),
    "XGBoost, two classes, ubj": _xgb("XGBClassifier", ".ubj", class_count=2, base_score=0.3),
    "XGBoost, hinge": _xgb("XGBClassifier", class_count=2, objective="binary:hinge"),
    "XGBoost, four classes": _xgb("XGBClassifier", class_count=4),
    "XGBoost, softmax": _xgb("XGBClassifier", class_count=3, objective="multi:softmax"),
    "XGBoost, poisson": _xgb("XGBRegressor", objective="count:poisson"),
    "XGBoost, gamma": _xgb("XGBRegressor", objective="reg:gamma"),
    "XGBoost, tweedie": _xgb("XGBRegressor", objective="reg:tweedie"),
    "XGBoost, cox": _xgb("XGBRegressor", objective="survival:cox"),
    "XGBoost, absolute error": _xgb("XGBRegressor", objective="reg:absoluteerror"),
    "XGBoost, quantiles": _xgb("XGBRegressor", objective="reg:quantileerror", quantile_alpha=[0.2, 0.8]),
    "XGBoost, dart": _xgb("XGBRegressor", booster="dart", rate_drop=0.5),
    "XGBoost, dart, four classes, ubj": _xgb("XGBClassifier", ".ubj", class_count=4, booster="dart", rate_drop=0.5),
    "XGBoost, forest": _xgb("XGBRFClassifier", class_count=3),
    "XGBoost, exact": _xgb("XGBRegressor", tree_method="exact", gamma=0.5),
    "XGBoost, by loss": _xgb("XGBRegressor", grow_policy="lossguide", max_leaves=12),
    "XGBoost, stopped early": _xgb("XGBRegressor", n_estimators=9, early_stopping_rounds=3),
    "XGBoost, stopped early, classes": _xgb(
        "XGBClassifier", class_count=3, n_estimators=9, early_stopping_rounds=3, num_parallel_tree=2
    ),
    "LightGBM": _lgbm("LGBMRegressor"),
    "LightGBM, two classes": _lgbm("LGBMClassifier", class_count=2, sigmoid=0.7),
    "LightGBM, four classes": _lgbm("LGBMClassifier", class_count=4),
    "LightGBM, one versus all": _lgbm("LGBMClassifier", class_count=3, objective="multiclassova"),
    "LightGBM, poisson": _lgbm("LGBMRegressor", objective="poisson"),
    "LightGBM, quantile": _lgbm("LGBMRegressor", objective="quantile", alpha=0.8),
    "LightGBM, forest": _lgbm("LGBMRegressor", **BAGGED),
    "LightGBM, forest, three classes": _lgbm("LGBMClassifier", class_count=3, **BAGGED),
    "LightGBM, dart": _lgbm("LGBMClassifier", class_count=2, boosting_type="dart"),
    "LightGBM, zeros are missing": _lgbm("LGBMRegressor", zero_as_missing=True),
    "LightGBM, no missing values": _lgbm("LGBMRegressor", use_missing=False),
    "CatBoost": _cat("CatBoostRegressor"),
    "CatBoost, two classes": _cat("CatBoostClassifier", class_count=2),
    "CatBoost, four classes": _cat("CatBoostClassifier", class_count=4),
    "CatBoost, one versus all": _cat("CatBoostClassifier", class_count=3, loss_function="MultiClassOneVsAll"),
    "CatBoost, poisson": _cat("CatBoostRegressor", loss_function="Poisson"),
    "CatBoost, missing is greatest": _cat("CatBoostRegressor", nan_mode="Max"),
}
