"""Program that makes the files beside it, in an environment with an older scikit-learn.

    python make.py CASE ...    with scikit-learn 1.1.3 and skops 0.4, 1.5.2 and skops 0.10, or 1.7.2

Each case becomes VERSION-CASE.pkl and VERSION-CASE.skops. VERSION.npz has the rows and, for each
case, what the estimator predicted for them: CASE.predict, and decision_function and predict_proba
where it has them.
"""

import sys
import warnings
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import sklearn
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import (
    LogisticRegression,
    LogisticRegressionCV,
    Ridge,
    RidgeClassifier,
    RidgeClassifierCV,
    SGDClassifier,
)
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skops import io

HERE = Path(__file__).parent
METHODS = ("predict", "decision_function", "predict_proba")


def main(cases: list[str]) -> None:
    """Fit the cases and write their files."""
    generator = np.random.default_rng(0)
    rows = generator.normal(size=(40, 4))
    groups = np.digitize(rows[:, 0] + 0.3 * rows[:, 1] + 0.3 * generator.normal(size=40), [-0.5, 0.5])
    names = np.array(["lo", "mid", "high"])[groups]
    made: dict[str, tuple[Any, Any]] = {
        "auto": (lambda: LogisticRegression(), names),
        "ovr": (lambda: LogisticRegression(multi_class="ovr"), names),
        "liblinear": (lambda: LogisticRegression(solver="liblinear"), names),
        "newton_cholesky": (lambda: LogisticRegression(solver="newton-cholesky"), names),
        "binary": (lambda: LogisticRegression(), groups > 0),
        "binary_multinomial": (lambda: LogisticRegression(multi_class="multinomial"), groups > 0),
        "cv_ovr": (lambda: LogisticRegressionCV(Cs=[0.1, 1.0], cv=2, multi_class="ovr"), names),
        "cv_binary_multinomial": (
            lambda: LogisticRegressionCV(Cs=[0.1, 1.0], cv=2, multi_class="multinomial"),
            groups > 0,
        ),
        "pipeline": (lambda: make_pipeline(StandardScaler(), PCA(3), LogisticRegression(multi_class="ovr")), names),
        "one_vs_rest": (lambda: OneVsRestClassifier(LogisticRegression()), names),
        "one_vs_rest_multinomial": (lambda: OneVsRestClassifier(LogisticRegression(multi_class="multinomial")), names),
        "one_vs_rest_ridge": (lambda: OneVsRestClassifier(Ridge()), names),
        "ridge": (lambda: RidgeClassifier(), names),
        "ridge_cv": (lambda: RidgeClassifierCV(), names),
        "ridge_multilabel": (lambda: RidgeClassifier(), np.stack([groups > 0, groups > 1], axis=1).astype(int)),
        "sgd_log": (lambda: SGDClassifier(loss="log", random_state=0), names),
        "lda": (lambda: LinearDiscriminantAnalysis(), names),
    }
    predicted: dict[str, Any] = {"rows": rows}
    for case in cases:
        estimator, targets = made[case][0](), made[case][1]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            estimator.fit(rows, targets)
            for method in METHODS:
                if hasattr(estimator, method):
                    predicted[f"{case}.{method}"] = getattr(estimator, method)(rows)
        path = HERE / f"{sklearn.__version__}-{case}"
        joblib.dump(estimator, f"{path}.pkl", compress=9)
        if case not in ("sgd_log", "one_vs_rest_multinomial"):  # skops 0.4 writes no object of a loss
            io.dump(estimator, f"{path}.skops")
    np.savez_compressed(HERE / f"{sklearn.__version__}.npz", **predicted)


if __name__ == "__main__":
    main(sys.argv[1:])
