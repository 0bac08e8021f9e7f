"""Files of older scikit-learns: what they predict here is what they predicted where they came from.

The installed scikit-learn is no oracle for them: it ignores how a logistic regression was trained.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression, RidgeClassifier, SGDClassifier

from sealserve.errors import NoSuchMethodError
from sealserve.protocol.output import Link
from sealserve_service.models.errors import ModelFileError, UnsupportedModelError
from sealserve_service.models.folding import fold
from sealserve_service.models.loading import load_model
from tests.support import old_estimators

FOLDER = Path(old_estimators.__file__).parent
# Its loss is an object of a class that the installed scikit-learn does not have.
UNREADABLE = "1.1.3-sgd_log.pkl"
# Of its probabilities, the logistic function of twice the score divided by their sum, is no link.
REFUSED = "1.1.3-one_vs_rest_multinomial.pkl"
FILES = sorted(path.name for path in FOLDER.glob("*.*-*") if path.name not in (UNREADABLE, REFUSED))
LINKS = {
    "1.1.3-auto": Link.SOFTMAX,
    "1.1.3-ovr": Link.OVR_LOGISTIC,
    "1.1.3-liblinear": Link.OVR_LOGISTIC,
    "1.1.3-binary": Link.LOGISTIC,
    "1.1.3-binary_multinomial": Link.SOFTMAX,
    "1.1.3-cv_ovr": Link.OVR_LOGISTIC,
    "1.1.3-cv_binary_multinomial": Link.SOFTMAX,
    "1.5.2-newton_cholesky": Link.OVR_LOGISTIC,
    "1.7.2-newton_cholesky": Link.SOFTMAX,
    "1.7.2-liblinear": Link.OVR_LOGISTIC,
}


def test_the_files_are_there() -> None:
    assert len(FILES) == 44
    assert {f"{case}.pkl" for case in LINKS} <= set(FILES)


@pytest.mark.parametrize("name", FILES)
def test_an_old_estimator_predicts_what_it_did(name: str) -> None:
    version, _, case = Path(name).stem.partition("-")
    model = load_model(FOLDER / name, trust_pickle=True)
    with np.load(FOLDER / f"{version}.npz") as predicted:
        scores = model.decision(predicted["rows"])
        np.testing.assert_array_equal(model.output.predict(scores), predicted[f"{case}.predict"])
        for method in ("decision_function", "predict_proba"):
            if f"{case}.{method}" in predicted:
                expected: NDArray[np.float64] = predicted[f"{case}.{method}"]
                np.testing.assert_allclose(getattr(model.output, method)(scores), expected, rtol=1e-9, atol=1e-12)
            else:
                with pytest.raises(NoSuchMethodError):
                    getattr(model.output, method)(scores)
    if name.removesuffix(".pkl") in LINKS:
        assert model.output.link is LINKS[Path(name).stem]


def test_what_this_version_cannot_read_is_refused_with_what_to_do() -> None:
    with pytest.raises(ModelFileError, match=r"not have in this version .* 'Log'\): .* numpy\.savez"):
        load_model(FOLDER / UNREADABLE, trust_pickle=True)


def test_a_link_that_clients_do_not_have_is_refused_with_what_to_do() -> None:
    with pytest.raises(UnsupportedModelError, match=r"OneVsRestClassifier .* multi_class='multinomial'.* fit it again"):
        load_model(FOLDER / REFUSED, trust_pickle=True)


@pytest.mark.parametrize(("loss", "link"), [("log", Link.OVR_LOGISTIC), ("squared_loss", Link.NONE)])
def test_a_renamed_loss_is_read(loss: str, link: Link, rows: Any, groups: Any, fit: Any) -> None:
    estimator = fit(SGDClassifier(random_state=0), rows, groups)
    estimator.loss = loss
    assert fold(estimator).output.link is link


def test_an_unknown_way_of_training_is_refused(rows: Any, groups: Any, fit: Any) -> None:
    estimator = fit(LogisticRegression(), rows, groups)
    estimator.multi_class = "newer"
    with pytest.raises(UnsupportedModelError, match=r"LogisticRegression .* multi_class='newer' is unknown.* fit it"):
        fold(estimator)


@pytest.mark.parametrize("loss", ["newer", None, ["log"]])
def test_an_unknown_loss_is_refused(loss: Any, rows: Any, groups: Any, fit: Any) -> None:
    estimator = fit(SGDClassifier(random_state=0), rows, groups)
    estimator.loss = loss
    with pytest.raises(UnsupportedModelError, match=r"SGDClassifier cannot be served: loss=.* is unknown.* fit it"):
        fold(estimator)


def test_a_classifier_without_any_classes_is_refused(rows: Any, groups: Any, fit: Any) -> None:
    estimator = fit(RidgeClassifier(), rows, groups)
    del estimator.classes_
    assert fold(estimator).output.classes == (0, 1, 2)  # as in older versions
    del estimator._label_binarizer.classes_
    with pytest.raises(UnsupportedModelError, match=r"RidgeClassifier cannot be served: .*classes_"):
        fold(estimator)
