"""Files of boosted trees that no library wrote: each gives a typed error that names the file."""

import copy
import json
import random
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sealserve_service.models.errors import ModelError, ModelFileError, ModelTooLargeError
from sealserve_service.models.limits import MAX_PARSED_VALUES
from sealserve_service.models.linear_model import LinearModel
from sealserve_service.models.loading import is_model_file, load_model
from tests.support.boosting import FITS, numbers
from tests.support.mutations import damaged

Change = Callable[[dict[str, Any]], object]
FILES = {"XGBoost": "x.json", "XGBoost, dart, four classes, ubj": "x.ubj", "LightGBM": "l.txt", "CatBoost": "c.json"}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A file of each kind, by its name."""
    found = {}
    for name, file in FILES.items():
        source = np.random.default_rng(1)
        path = FITS[name](numbers(source), source).saved(tmp_path_factory.mktemp("saved"))
        found[file] = path.rename(path.with_name(file))
    return found


def load(path: Path, content: bytes) -> LinearModel:
    path.write_bytes(content)
    return load_model(path, trust_pickle=False)


def tree(value: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = value["learner"]["gradient_booster"]["model"]["trees"][0]
    return found


def put(place: str, value: Any) -> Change:
    """Set a field of the first tree, or of another part of an XGBoost file, named by its path."""

    def change(model: dict[str, Any]) -> None:
        part: Any = tree(model) if "." not in place else model
        *names, last = place.split(".")
        for name in names:
            part = part[int(name) if name.isdigit() else name]
        part[int(last) if last.isdigit() else last] = value

    return change


def entry(name: str, index: int, value: Any) -> Change:
    """Set one value of a list of the first tree."""
    return lambda model: tree(model)[name].__setitem__(index, value)


BOOSTER = "learner.gradient_booster"
XGBOOST: list[tuple[Change, str]] = [
    (put("new_field", 1), "these fields are unknown: tree.new_field. It was written by XGBoost 3"),
    (put("learner.calibration", {}), "unknown: learner.calibration"),
    (put(f"{BOOSTER}.model.trees.1.shape", 1), "unknown: tree.shape"),
    (
        put("learner.objective.name", "survival:aft"),
        "objective 'survival:aft' is not served; fit it with one",
    ),
    (put("learner.objective.name", "rank:map2"), "objective 'rank:map2' is not served"),
    (put(f"{BOOSTER}.name", "gblinear"), "the booster 'gblinear' is not served"),
    (put("learner.learner_model_param.base_score", "[1E0,2E0]"), "base_score has 2 values for 1 scores"),
    (put("learner.learner_model_param.base_score", "NaN"), "base_score has a value that is not finite"),
    (put("learner.learner_model_param.base_score", "a"), "base_score is no number"),
    (put("learner.learner_model_param.num_feature", "2"), "a column that is not among the 2"),
    (put("learner.learner_model_param.num_feature", "99999999"), "num_feature is no integer of 1 to"),
    (put("learner.learner_model_param.num_class", "-1"), "num_class is no integer"),
    (put("learner.feature_names", ["a"]), "1 feature_names for 6 features"),
    (put("learner.feature_names", ["a"] * 6), "two columns have the same name"),
    (put("learner.attributes.best_iteration", "99"), "best_iteration is after the last"),
    (put(f"{BOOSTER}.model.tree_info.0", 7), "tree_info names a score that there is not"),
    (put(f"{BOOSTER}.model.tree_info", []), "tree_info has 0 values instead of 6"),
    (put(f"{BOOSTER}.model.trees", []), "0|no tree"),
    (put("tree_param", {"num_nodes": "3", "size_leaf_vector": "2"}), "several values: fit it with multi_strategy"),
    (put("left_children", []), "num_nodes is not the number"),
    (entry("left_children", 0, 0), "cycles|child of several"),
    (entry("left_children", 0, 10**6), "a child that is not in its tree"),
    (entry("left_children", 0, 10**30), "left_children is no list of integers"),
    (entry("left_children", 0, 1.5), "left_children is no list of integers"),
    (entry("left_children", 0, "1"), "left_children is no list of numbers"),
    (entry("left_children", 0, [1]), "left_children is no list of numbers"),
    (entry("right_children", 0, -1), "a node has one child"),
    (entry("split_indices", 0, -1), "a column that is not among the 6"),
    (entry("split_conditions", 0, float("nan")), "a threshold is no number"),
    (entry("split_conditions", 0, float("-inf")), "a threshold is no number, or minus infinity"),
    (entry("split_conditions", -1, float("inf")), "a leaf has a value that is not finite"),
    (entry("sum_hessian", 0, None), "sum_hessian is no list of numbers"),
    (entry("split_type", 0, 1), "categories_nodes are not the nodes"),
    (put("default_left", None), "default_left is no list of numbers"),
    (put("split_conditions", {}), "split_conditions is no list of numbers"),
]


@pytest.mark.parametrize(("change", "reason"), XGBOOST, ids=[reason for _, reason in XGBOOST])
def test_an_xgboost_file_that_contradicts_itself_is_refused(
    change: Change, reason: str, files: dict[str, Path], tmp_path: Path
) -> None:
    model = json.loads(files["x.json"].read_bytes())
    change(model)
    path = tmp_path / "m.json"
    with pytest.raises(ModelFileError, match=reason) as refusal:
        load(path, json.dumps(model).encode())
    assert str(refusal.value).startswith(str(path))


LIGHTGBM = [
    ("version=v4", "version=v4\nnew=1", "unknown: head.new. It was written by LightGBM in the format v4"),
    ("Tree=0\n", "Tree=0\nbinned=1\n", "unknown: tree.binned"),
    ("objective=regression", "objective=cross_entropy", "objective 'cross_entropy' is not served; fit it with one of"),
    ("objective=regression", "objective=regression sqrt", "objective 'regression sqrt' is not served"),
    ("objective=regression", "objective=binary sigmoid:0", "sigmoid is not above 0"),
    ("num_tree_per_iteration=1", "num_tree_per_iteration=4", "6 trees are not as many for each of 4 scores"),
    ("max_feature_idx=5", "max_feature_idx=9", "6 feature_names for 10 features"),
    ("max_feature_idx=5", "max_feature_idx=x", "max_feature_idx is no integer"),
    ("num_class=1\n", "num_class=1\nnum_class=1\n", "num_class occurs twice"),
    ("\nis_linear=0", "\nis_linear=1", "leaves are linear models: fit it without linear_tree"),
    ("\nleft_child=", "\nleft_child=0 ", "left_child has"),
    ("\nnum_leaves=", "\nnum_leaves=1", "leaf_value has|num_leaves"),
    ("\nleaf_value=", "\nleaf_value=nan ", "leaf_value has"),
    ("\nsplit_feature=", "\nsplit_feature=9", "a column that is not among the 6|no integer"),
    ("\ndecision_type=", "\ndecision_type=9", "decision_type is unknown|categories that there is not"),
    ("\nend of trees", "\nend", "lacks 'end of trees'"),
    ("tree\n", "forest\n", "does not begin with 'tree'"),
]


@pytest.mark.parametrize(("old", "new", "reason"), LIGHTGBM, ids=[reason for _, _, reason in LIGHTGBM])
def test_a_lightgbm_file_that_contradicts_itself_is_refused(
    old: str, new: str, reason: str, files: dict[str, Path], tmp_path: Path
) -> None:
    text = files["l.txt"].read_text()
    assert old in text
    with pytest.raises(ModelFileError, match=reason):
        load(tmp_path / "m.txt", text.replace(old, new, 1).encode())


CATBOOST = [
    ("oblivious_trees.0.shape", 1, "unknown: tree.shape. It was written by CatBoost 1"),
    ("features_info.graph", 1, "unknown: features_info.graph"),
    ("trees", [], "not symmetric: fit it with grow_policy='SymmetricTree'"),
    ("features_info.text_features", [{}], "texts or embeddings"),
    ("scale_and_bias", [1], "scale_and_bias is no pair"),
    ("scale_and_bias", [1, []], "no score"),
    ("scale_and_bias", [1, [0, 0]], "leaf_values has"),
    ("scale_and_bias", [float("inf"), [0]], "the scale has a value that is not finite"),
    ("model_info.params.loss_function.type", "Cox", "loss_function 'Cox' is not served; fit it with one of Logloss"),
    ("model_info.params.loss_function.type", "MultiClass", "1 scores are not those of its loss_function"),
    ("oblivious_trees.0.leaf_values", [1.0], "leaf_values has 1 values instead of"),
    ("oblivious_trees.0.splits.0.split_type", "Word", "splits of the type 'Word'"),
    ("oblivious_trees.0.splits.0.border", "x", "border is no number"),
    ("oblivious_trees.0.splits.0.float_feature_index", 99, "float_feature_index is no integer of 0 to 5"),
    ("oblivious_trees.0.splits", [{}] * 17, "deeper than 16 levels"),
    ("features_info.float_features.0.flat_feature_index", 1, "the same flat_feature_index"),
    ("features_info.float_features.0.flat_feature_index", 9, "flat_feature_index does not number"),
    ("features_info.float_features.0.nan_value_treatment", "x", "nan_value_treatment is 'x'"),
    ("oblivious_trees", [], "it has no tree"),
]


@pytest.mark.parametrize(("place", "value", "reason"), CATBOOST, ids=[reason for _, _, reason in CATBOOST])
def test_a_catboost_file_that_contradicts_itself_is_refused(
    place: str, value: Any, reason: str, files: dict[str, Path], tmp_path: Path
) -> None:
    model = json.loads(files["c.json"].read_bytes())
    put(place if "." in place else f"self.{place}", value)({**model, "self": model})
    with pytest.raises(ModelFileError, match=reason):
        load(tmp_path / "m.json", json.dumps(model).encode())


def test_labels_above_a_probability_of_their_own_are_refused(files: dict[str, Path], tmp_path: Path) -> None:
    model = json.loads(files["c.json"].read_bytes())
    model["model_info"]["params"]["loss_function"]["type"] = "Logloss"
    load(tmp_path / "m.json", json.dumps(model).encode())
    model["model_info"]["binclass_probability_threshold"] = "0.7"
    with pytest.raises(ModelFileError, match=r"set binclass_probability_threshold to 0\.5"):
        load(tmp_path / "m.json", json.dumps(model).encode())


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "cannot be served as a model of XGBoost or CatBoost"),
        (b"{", "cannot be served"),
        (b"[]", "neither what XGBoost's save_model"),
        (b'{"tree_info": []}', "dump of LightGBM: save the model by booster.save_model"),
        (b'{"learner": 1}', "the field version is missing"),
        (b'{"learner": 1, "version": [3, 2, 0]}', "learner is no object"),
        (b'{"model_info": {}}', "the field features_info is missing"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"learner": {}, "version": ' + b"9" * 5000 + b"}", "cannot be served"),
        (b"\xff\xfe{", "cannot be served"),
    ],
    ids=range(10),
)
def test_other_json_is_refused(content: bytes, reason: str, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=reason):
        load(tmp_path / "m.json", content)


def ubj_of(*values: bytes) -> bytes:
    return b"".join(values)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "ends in the middle"),
        (b"{", "ends in the middle"),
        (b"}", "is no type of a value"),
        (b"{}x", "bytes after its value"),
        (b"{L" + struct.pack(">q", 2**62) + b"a", "ends in the middle"),
        (b"{L" + struct.pack(">q", -1) + b"a", "ends in the middle"),
        (b"{d\0\0\0\0", "a length is no integer"),
        (b"[$Z#L" + struct.pack(">q", 2**60), "not of numbers"),
        (b"[$d#L" + struct.pack(">q", 2**60), "ends in the middle"),
        (b"[$d#L" + struct.pack(">q", -5), "ends in the middle"),
        (b"[#L" + struct.pack(">q", 2**60) + b"Z", "longer than the file"),
        (b"[" * 1000, "nested more than 64"),
        (b"{U\x01aZU\x01aZ}", "occurs twice"),
        (b"{U\x01\xffZ}", "cannot be served as an XGBoost model"),
        (b"{$i#U\x01", "gives its length"),
        (b"{}", "the field version is missing"),
    ],
    ids=range(16),
)
def test_other_ubjson_is_refused(content: bytes, reason: str, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=reason):
        load(tmp_path / "m.ubj", content)


@pytest.mark.parametrize(
    ("name", "beginning", "value", "end"),
    [("m.json", b"[0", b",0", b"]"), ("m.txt", b"tree\n", b" 0", b""), ("m.ubj", b"[", b"Z", b"]")],
)
def test_files_of_too_many_values_are_refused(
    name: str, beginning: bytes, value: bytes, end: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = MAX_PARSED_VALUES
    if name == "m.ubj":  # whose values are counted as they are made
        count = 1000
        monkeypatch.setattr("sealserve_service.models.ubjson.MAX_OBJECTS", count)
    content = beginning + value * (count + 1) + end
    with pytest.raises(ModelTooLargeError):
        load(tmp_path / name, content)


def mutants(value: Any, source: random.Random) -> Iterator[Any]:
    """Yield copies of parsed JSON, each with one value anywhere replaced, removed or repeated."""
    others = [None, True, -1, 0, 2**31, 2**63, 0.5, 1e300, float("nan"), "", "1", "x" * 50, [], [1], {}, {"a": 1}]
    places = list(_places(value, ()))
    for place in source.sample(places, min(len(places), 150)):
        mutant = copy.deepcopy(value)
        part = mutant
        for name in place[:-1]:
            part = part[name]
        if source.random() < 0.2:
            del part[place[-1]]
        else:
            part[place[-1]] = source.choice([*others, [part[place[-1]]] * 3])
        yield mutant


def _places(value: Any, before: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    names = value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for name in names:
        yield (*before, name)
        yield from _places(value[name], (*before, name))


def outcome(path: Path, content: bytes) -> str:
    try:
        model = load(path, content)
    except ModelError as error:
        return type(error).__name__ if str(error).startswith(str(path)) else str(error)
    rows = np.vstack([numbers(np.random.default_rng(2), 5)[:, :1].repeat(model.column_count, axis=1)])
    assert model.published is not None
    if not any(column.kind.is_text for column in model.published.columns):
        assert np.isfinite(model.decision(model.features(rows))).all()
    return "loaded"


@pytest.mark.parametrize("name", FILES.values())
def test_damaged_files_are_refused_or_still_models(name: str, files: dict[str, Path], tmp_path: Path) -> None:
    source, content = random.Random(3), files[name].read_bytes()
    found = [outcome(tmp_path / name, damaged(content, source)) for _ in range(60)]
    assert set(found) <= {"loaded", "ModelFileError", "ModelTooLargeError"}
    assert found.count("ModelFileError") > 10


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES.values())
def test_damaged_files_are_refused_or_still_models_at_length(name: str, files: dict[str, Path], tmp_path: Path) -> None:
    source, content = random.Random(4), files[name].read_bytes()
    found = [outcome(tmp_path / name, damaged(content, source)) for _ in range(3000)]
    assert found.count("ModelFileError") > 500


@pytest.mark.parametrize("name", ["x.json", "c.json"])
def test_mutated_fields_are_refused_or_still_models(name: str, files: dict[str, Path], tmp_path: Path) -> None:
    value = json.loads(files[name].read_bytes())
    if name == "c.json":  # most of its fields say how it was fitted
        value["model_info"] = {"params": {"loss_function": value["model_info"]["params"]["loss_function"]}}
    found = [outcome(tmp_path / name, json.dumps(m).encode()) for m in mutants(value, random.Random(5))]
    assert set(found) <= {"loaded", "ModelFileError", "ModelTooLargeError"}
    assert found.count("ModelFileError") > 30


def test_other_files_of_these_suffixes_are_no_models_of_a_folder(files: dict[str, Path], tmp_path: Path) -> None:
    assert all(is_model_file(path) for path in files.values())
    for name, content in {"README.txt": b"a tree", "ranges.json": b'{"age": [0, 1]}', "rows.csv": b"tree\n"}.items():
        (tmp_path / name).write_bytes(content)
        assert not is_model_file(tmp_path / name)
