"""Models with published steps, from a file to a client: consent, refusals and predictions."""

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from interpret import glassbox
from numpy.typing import NDArray
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import (
    AdaBoostClassifier,
    HistGradientBoostingClassifier,
    IsolationForest,
    RandomForestClassifier,
)
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import CategoricalNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, PowerTransformer, StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier
from threadpoolctl import threadpool_limits

from sealserve.cli.main import main
from sealserve.client import Client
from sealserve.errors import InputError
from sealserve_service.catalog.registry import ModelRegistry, ServedModel
from sealserve_service.catalog.sources import load_source
from sealserve_service.commands.inspect import what_is_told
from sealserve_service.engines.offering import PrivateWeights
from sealserve_service.models.errors import InputRangeError, PublicationError
from sealserve_service.models.loading import load_model
from sealserve_service.settings.model_source import ModelSource
from tests.support.agreement import is_no_tie
from tests.support.serving import HANG_SECONDS, LIMITS, registered_keys, running_server
from tests.support.tables import labels, rows_of, table

COLUMNS = ["age", "income", "city", "words"]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Threads of histograms would wait for each other on busy cores."""
    with threadpool_limits(1):
        yield


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    return table(np.random.default_rng(11), 400)[COLUMNS]


@pytest.fixture(scope="module")
def pipeline(frame: pd.DataFrame) -> Any:
    branches = [
        ("numbers", make_pipeline(SimpleImputer(), StandardScaler()), ["age", "income"]),
        ("city", OneHotEncoder(handle_unknown="ignore"), ["city"]),
        ("words", TfidfVectorizer(), "words"),
    ]
    return make_pipeline(ColumnTransformer(branches), LogisticRegression()).fit(
        frame, labels(frame, np.random.default_rng(12), 3)
    )


def _numbers(random: np.random.Generator, count: int) -> NDArray[np.float64]:
    """Rows of 20 columns with gaps."""
    rows = random.normal(size=(count, 20))
    rows[random.random(rows.shape) < 0.05] = np.nan
    return rows


@pytest.fixture(scope="module")
def boosted() -> HistGradientBoostingClassifier:
    """An ensemble of 100 trees with up to 31 leaves."""
    random = np.random.default_rng(5)
    X = _numbers(random, 2000)
    y = np.nan_to_num(X[:, 0] * X[:, 1] + np.sin(3 * X[:, 2])) + random.normal(size=len(X)) > 0
    estimator = HistGradientBoostingClassifier(max_leaf_nodes=31, early_stopping=False)
    with threadpool_limits(1):  # its threads would wait for each other on busy cores
        return estimator.fit(X, y)


def saved(estimator: Any, frame: pd.DataFrame, folder: Path, **said: Any) -> ModelSource:
    joblib.dump(estimator, folder / "model.pkl")
    frame.to_csv(folder / "rows.csv", index=False)
    return ModelSource("model", folder / "model.pkl", calibration=folder / "rows.csv", **said)


def loaded(source: ModelSource, private: PrivateWeights | None = None) -> ServedModel:
    return load_source(source, trust_pickle=True, limits=LIMITS, private=private, accept_disagreement=True)


@pytest.mark.parametrize("hiding_bits", [None, 40], ids=["open", "private"])
def test_a_table_of_categories_texts_and_gaps(
    hiding_bits: int | None, pipeline: Any, frame: pd.DataFrame, tmp_path: Path
) -> None:
    keys = registered_keys()
    private = PrivateWeights(hiding_bits, keys.zero_encryptor) if hiding_bits else None
    served = loaded(saved(pipeline, frame, tmp_path, publish=("steps",)), private)
    assert [column.name for column in served.model.schema.columns] == COLUMNS
    unknown = frame[:30].assign(city="Zürich", words="cat and unknown words")
    with (
        running_server(ModelRegistry([served]), keys=keys) as address,
        Client(address, timeout_seconds=HANG_SECONDS) as client,
    ):
        for rows in (frame[:60], frame[COLUMNS[::-1]][:60], unknown):
            assert np.mean(client.predict(rows) == pipeline.predict(rows[COLUMNS])) >= 0.98
        with pytest.raises(InputError):
            client.predict(frame[["age", "city"]][:3])


def test_a_boosted_ensemble(frame: pd.DataFrame, tmp_path: Path) -> None:
    X = frame[["age", "income"]]
    estimator = HistGradientBoostingClassifier(max_iter=10).fit(X, labels(frame, np.random.default_rng(13), 3))
    source = saved(estimator, X, tmp_path, publish=("structure",))
    keys = registered_keys()
    served = loaded(source, PrivateWeights(40, keys.zero_encryptor))
    with (
        running_server(ModelRegistry([served]), keys=keys) as address,
        Client(address, timeout_seconds=HANG_SECONDS) as client,
    ):
        np.testing.assert_array_equal(client.predict(X[:100]), estimator.predict(X[:100]))


@pytest.mark.parametrize(("layout", "most_error"), [("row", 1e-3), ("column", 0.04)])
def test_the_leaves_of_a_boosted_ensemble_are_exclusive(
    layout: str, most_error: float, boosted: HistGradientBoostingClassifier, tmp_path: Path
) -> None:
    """No calibration is needed: steps tell that of each tree at most one kept leaf is 1."""
    joblib.dump(boosted, tmp_path / "model.pkl")
    source, keys = ModelSource("model", tmp_path / "model.pkl", publish=("structure",)), registered_keys()
    served = load_source(source, trust_pickle=True, limits=LIMITS, private=PrivateWeights(40, keys.zero_encryptor))
    constraints = served.model.grid.constraints
    assert len(constraints.exactly_one) == len(boosted._predictors) == 100
    assert not constraints.exactly_one.any(), "one leaf of each tree is left out"
    rows = _numbers(np.random.default_rng(6), 60)
    expected = boosted.decision_function(rows)
    with (
        running_server(ModelRegistry([served]), keys=keys) as address,
        Client(address, timeout_seconds=HANG_SECONDS, layout=layout) as client,
    ):
        assert client.model.grid.has_indicators_only
        scored, bound = client.scored(rows), client.offer(len(rows)).score_error_bound
    assert bound <= most_error
    assert np.abs(scored.scores[:, 0] - expected).max() <= bound
    clear = np.abs(expected) > bound
    assert np.count_nonzero(clear) >= 55
    np.testing.assert_array_equal(np.asarray(scored.predictions)[clear], boosted.predict(rows)[clear])


def _additive(frame: pd.DataFrame, y: Any) -> Any:
    machine = glassbox.ExplainableBoostingClassifier(outer_bags=2, max_rounds=50, interactions=2, n_jobs=1)
    with warnings.catch_warnings(action="ignore"):
        return machine.fit(frame, y)


MODELS: dict[str, tuple[list[str], Callable[[pd.DataFrame, Any], Any]]] = {
    "votes of stumps": (["income", "rooms"], lambda X, y: AdaBoostClassifier(n_estimators=30).fit(X, y)),
    "votes of trees": (
        ["income", "rooms"],
        lambda X, y: AdaBoostClassifier(DecisionTreeClassifier(max_depth=3), n_estimators=10).fit(X, y),
    ),
    "isolation forest": (["income", "age"], lambda X, _: IsolationForest(n_estimators=30, random_state=0).fit(X)),
    "sets of categories": (
        ["income", "city"],
        lambda X, y: HistGradientBoostingClassifier(max_iter=10, categorical_features=["city"]).fit(X, y),
    ),
    "polynomial kernel": (
        ["income", "rooms"],
        lambda X, y: make_pipeline(PowerTransformer(), SVC(kernel="poly", coef0=1.0)).fit(X, y),
    ),
    "categorical": (["rooms"], lambda X, y: CategoricalNB(min_categories=7).fit(X, y)),
    "calibrated forests": (
        ["income", "rooms"],
        lambda X, y: CalibratedClassifierCV(RandomForestClassifier(10, min_samples_leaf=5), cv=2).fit(X, y),
    ),
    "additive": (["income", "age", "city"], _additive),
}


@pytest.mark.parametrize(("layout", "hiding_bits"), [("row", 40), ("column", None)], ids=["row", "column"])
@pytest.mark.parametrize("name", MODELS)
def test_a_model_of_each_kind_is_served(name: str, layout: str, hiding_bits: int | None, tmp_path: Path) -> None:
    random = np.random.default_rng(18)
    frame, (columns, fit) = table(random, 400), MODELS[name]
    X, y = frame[columns], labels(frame, random, 3)
    estimator, keys = fit(X, y), registered_keys()
    private = PrivateWeights(hiding_bits, keys.zero_encryptor) if hiding_bits else None
    consent = {"publish": ("steps", "structure"), "accept_training_values": True}
    served = loaded(saved(estimator, X, tmp_path, **consent), private)
    model = load_model(tmp_path / "model.pkl", trust_pickle=True)
    rows = X[:60]
    with (
        running_server(ModelRegistry([served]), keys=keys) as address,
        Client(address, timeout_seconds=HANG_SECONDS, layout=layout) as client,
    ):
        scored, bound = client.scored(rows), client.offer(len(rows)).score_error_bound
    own = model.expected_scores(rows_of(model, rows))
    assert np.abs(scored.scores - own).max() <= bound
    clear = is_no_tie(model.output, own, bound)
    assert np.count_nonzero(clear) >= 50
    np.testing.assert_array_equal(np.asarray(scored.predictions)[clear], estimator.predict(rows)[clear])


def test_a_row_that_a_step_refuses_is_refused_among_indicators(frame: pd.DataFrame, tmp_path: Path) -> None:
    """Indicators are not compared with ranges, but a refused row has none."""
    pipeline = make_pipeline(OneHotEncoder(), LogisticRegression())
    pipeline.fit(frame[["city"]].fillna("Bern"), labels(frame, np.random.default_rng(15), 3))
    joblib.dump(pipeline, tmp_path / "model.pkl")
    served = loaded(ModelSource("model", tmp_path / "model.pkl", publish=("steps",)))
    assert served.model.grid.constraints.exactly_one.tolist() == [True]
    rows = pd.DataFrame({"city": ["Bern", "Zürich", "Bern"]})
    with (
        running_server(ModelRegistry([served])) as address,
        Client(address, timeout_seconds=HANG_SECONDS) as client,
    ):
        assert client.model.grid.has_indicators_only
        assert client.predict(rows[::2]).tolist() == pipeline.predict(rows[::2]).tolist()
        with pytest.raises(InputError, match="row 1, column 'city' has a value that the model's steps do not take"):
            client.predict(rows)
        found = client.predict(rows, errors="return")
    assert [isinstance(result, InputError) for result in found] == [False, True, False]


def test_nothing_is_published_without_consent(pipeline: Any, frame: pd.DataFrame, tmp_path: Path) -> None:
    with pytest.raises(PublicationError) as refusal:
        loaded(saved(pipeline, frame, tmp_path, publish=("structure",)))
    text = str(refusal.value)
    for part in (
        "model.pkl: clients compute a part",
        "step 'columntransformer__numbers__simpleimputer' (SimpleImputer): the mean of 2 columns (steps)",
        "step 'columntransformer__city' (OneHotEncoder): the 5 categories of 1 column (steps)",
        "a vocabulary of 5 terms, of the training texts (steps)",
        "agree by --publish steps.",
    ):
        assert part in text
    assert "StandardScaler" not in text


@pytest.mark.parametrize("command", ["serve", "inspect"])
def test_either_command_refuses_and_lists_what_it_would_publish(
    command: str, pipeline: Any, frame: pd.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also if the consent is another model's, or to another part."""
    source = saved(pipeline, frame, tmp_path)
    options = ["--trust-pickle", "--calibration", str(source.calibration)]
    if command == "serve":
        arguments = ["serve", "--model", f"shop={source.path}", *options, "--publish", "shop=structure"]
    else:
        arguments = ["inspect", str(source.path), *options, "--publish", "structure"]
    assert main(arguments) == 1
    text = capsys.readouterr().err
    assert "(OneHotEncoder): the 5 categories of 1 column (steps)" in text
    assert "agree by --publish steps." in text


def test_thresholds_that_bracket_training_rows_need_more_consent(frame: pd.DataFrame, tmp_path: Path) -> None:
    X = frame[["income"]]
    estimator = RandomForestClassifier(3, random_state=0).fit(X, labels(frame, np.random.default_rng(14)))
    source = saved(estimator, X, tmp_path, publish=("structure",))
    with pytest.raises(PublicationError, match=r"a leaf has 1 training rows.*leaf=5.*--accept-training-val"):
        loaded(source)
    accepted = saved(estimator, X, tmp_path, publish=("structure",), accept_training_values=True)
    assert loaded(accepted).model.steps_id


def test_isotonic_curves_need_consent(frame: pd.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They are applied to the scores: no step is published, and no sigmoid tells of single rows."""
    X, y = frame[["income"]], labels(frame, np.random.default_rng(16), 2)
    calibrated = CalibratedClassifierCV(LogisticRegression(), cv=2, method="isotonic").fit(X, y)
    for publish, lacking in (((), "agree by --publish steps"), (("steps",), "agree by --accept-training-values")):
        with pytest.raises(PublicationError, match=lacking) as refusal:
            loaded(saved(calibrated, X, tmp_path, publish=publish))
        assert "output: " in str(refusal.value)
        assert "points of isotonic curves" in str(refusal.value)
    command = ["inspect", str(tmp_path / "model.pkl"), "--trust-pickle", "--calibration", str(tmp_path / "rows.csv")]
    assert main(command) == 1
    assert "points of isotonic curves" in capsys.readouterr().err
    agreed = saved(calibrated, X, tmp_path, publish=("steps",), accept_training_values=True)
    assert loaded(agreed).model.output.curves
    sigmoids = CalibratedClassifierCV(LogisticRegression(), cv=2).fit(X, y)
    assert loaded(saved(sigmoids, X, tmp_path)).model.output.member_count == 2


def test_inspect_says_that_an_isolation_forest_is_public(tmp_path: Path) -> None:
    rows = np.random.default_rng(17).normal(size=(200, 2))
    joblib.dump(IsolationForest(n_estimators=10, random_state=0).fit(rows), tmp_path / "model.pkl")
    model = load_model(tmp_path / "model.pkl", trust_pickle=True)
    assert "nothing of this model stays private" in what_is_told(model, 1)


def test_inspect_lists_what_is_told(pipeline: Any, frame: pd.DataFrame, tmp_path: Path) -> None:
    model = load_model(saved(pipeline, frame, tmp_path).path, trust_pickle=True)
    text = what_is_told(model, 1234)
    assert "(OneHotEncoder): the 5 categories of 1 column" in text
    assert "About 1,234 honest scores suffice to copy this head" in text
    assert "Fewer copy most of its labels: SECURITY.md has a measured curve." in text


def test_calibration_rows_that_are_not_the_columns_are_refused(
    pipeline: Any, frame: pd.DataFrame, tmp_path: Path
) -> None:
    source = saved(pipeline, frame[["age", "city"]], tmp_path, publish=("steps",))
    with pytest.raises(InputRangeError, match="missing: income, words"):
        loaded(source)
    (tmp_path / "rows.csv").write_text("age,income,city,words\nmany,1,Bern,x\n")
    with pytest.raises(InputRangeError, match=r"rows\.csv: line 2, column 'age' \(feature 0\) is not a number"):
        loaded(source)
