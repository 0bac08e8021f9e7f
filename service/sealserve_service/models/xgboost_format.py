"""XGBoost format: models that XGBoost saves as JSON (`.json`) or UBJSON (`.ubj`).

    booster.save_model("model.json")

Labels are 0, 1 and so on. If training stopped early, only the trees up to the best iteration count,
as for XGBoost's estimators. Source: doc/model.schema and src/tree of XGBoost 3.2.
"""

import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sealserve.protocol.output import Link, Output, Task
from sealserve_service.models.boosted_trees import boosted_model
from sealserve_service.models.ensembles import EnsembleKind
from sealserve_service.models.fields import (
    Unknown,
    field,
    integers,
    listed,
    members,
    number,
    reading,
    text,
    vector,
    whole,
)
from sealserve_service.models.limits import MAX_FEATURES, MAX_SCORES
from sealserve_service.models.linear_model import LinearModel
from sealserve_service.models.trees import MIN_ROWS
from sealserve_service.models.ubjson import parsed_ubjson
from sealserve_service.models.xgboost_trees import FIELDS_OF_TREE, SEVERAL_VALUES, Columns, Forest

_logger = logging.getLogger(__name__)

_KNOWN_VERSION = (3, 2)
_FIELDS = {
    "model": {"learner", "version", "config"},
    "learner": {
        "attributes",
        "feature_names",
        "feature_types",
        "gradient_booster",
        "learner_model_param",
        "learner_train_param",
        "objective",
    },
    "learner_model_param": {"base_score", "boost_from_average", "num_class", "num_feature", "num_target"},
    "gbtree": {"model", "name"},
    "dart": {"gbtree", "name", "weight_drop"},
    "trees": {"cats", "gbtree_model_param", "iteration_indptr", "tree_info", "trees"},
    "gbtree_model_param": {"num_parallel_tree", "num_trees", "size_leaf_vector"},
}

_Margin = Callable[[float], float]


def _logit(probability: float) -> float:
    return -math.log(1.0 / probability - 1.0)


def _same(score: float) -> float:
    return score


_LINKS: dict[str, tuple[Task, Link, _Margin, float]] = {
    "binary:logistic": (Task.CLASSIFICATION, Link.LOGISTIC, _logit, 0.25),
    "binary:hinge": (Task.CLASSIFICATION, Link.NONE, _same, 1.0),
    "multi:softprob": (Task.CLASSIFICATION, Link.SOFTMAX, _same, 0.5),
    "multi:softmax": (Task.CLASSIFICATION, Link.SOFTMAX, _same, 0.5),
    "reg:squarederror": (Task.REGRESSION, Link.NONE, _same, 1.0),
    "reg:linear": (Task.REGRESSION, Link.NONE, _same, 1.0),  # before XGBoost 1.0
    "reg:absoluteerror": (Task.REGRESSION, Link.NONE, _same, 1.0),
    "reg:quantileerror": (Task.REGRESSION, Link.NONE, _same, 1.0),
    "reg:pseudohubererror": (Task.REGRESSION, Link.NONE, _same, math.inf),
    "reg:squaredlogerror": (Task.REGRESSION, Link.NONE, _same, math.inf),
    "rank:pairwise": (Task.REGRESSION, Link.NONE, _same, math.inf),
    "rank:ndcg": (Task.REGRESSION, Link.NONE, _same, math.inf),
    "rank:map": (Task.REGRESSION, Link.NONE, _same, math.inf),
    "count:poisson": (Task.REGRESSION, Link.LOG, math.log, math.inf),
    "reg:gamma": (Task.REGRESSION, Link.LOG, math.log, math.inf),
    "reg:tweedie": (Task.REGRESSION, Link.LOG, math.log, math.inf),
    "survival:cox": (Task.REGRESSION, Link.LOG, math.log, math.inf),
}
"""Objective -> task, link, what makes a score of base_score, and the greatest Hessian of a row.

A leaf's Hessian is at most that times the number of its training rows, as long as none has a weight
above 1.
"""


def read_model(content: bytes, path: Path) -> LinearModel:
    """Return the model in a file of UBJSON, the content of the file at the path.

    Raises:
        ModelFileError: the file is damaged, or holds what is not served; the text says what.
        ModelTooLargeError: the file or the model passes a limit.
    """
    with reading(path, "an XGBoost model"):
        return ensemble(parsed_ubjson(content)).with_front()


def ensemble(parsed: Any) -> LinearModel:
    """Return the model in a parsed file.

    Raises:
        ModelTooLargeError: it passes a limit.
        ValueError: it is not one that can be served; the text says why.
    """
    version = integers(field(members(parsed, "the file"), "version"), "version")
    unknown = Unknown(f"XGBoost {'.'.join(map(str, version[:3]))}")
    whole_file = unknown.members(parsed, "model", _FIELDS["model"])
    learner = unknown.members(field(whole_file, "learner"), "learner", _FIELDS["learner"])
    parameters = unknown.members(
        field(learner, "learner_model_param"), "learner_model_param", _FIELDS["learner_model_param"]
    )
    feature_count = whole(field(parameters, "num_feature"), "num_feature", 1, MAX_FEATURES)
    output, baseline, hessian = _output(text(members(field(learner, "objective"), "objective"), "name"), parameters)
    drawn, drop = _gradient_booster(field(learner, "gradient_booster"), unknown)
    trees = listed(drawn, "trees")
    count = _tree_count(drawn, members(learner.get("attributes", {}), "attributes"), len(trees), output.score_count)
    forest = Forest(output.score_count)
    scores = integers(field(drawn, "tree_info"), "tree_info", count=len(trees))
    weights = np.ones(len(trees)) if drop is None else vector(drop, "weight_drop", count=len(trees))
    for tree, score, weight in zip(trees[:count], scores.tolist(), weights.tolist(), strict=False):
        forest.add(unknown.members(tree, "tree", FIELDS_OF_TREE), unknown, score, weight)
    unknown.check()
    if tuple(version[:2]) > _KNOWN_VERSION:
        _logger.warning(
            "a model was written by XGBoost %s, which is newer than %s, the last version that was tested",
            ".".join(map(str, version[:3])),
            ".".join(map(str, _KNOWN_VERSION)),
        )
    columns = Columns.of(learner, drawn, feature_count)
    nodes, recodings = forest.nodes(columns, hessian)
    return boosted_model(_library(hessian), nodes, baseline, output, columns.names, recodings)


def _library(hessian: float) -> EnsembleKind:
    remedy = (
        "fit it with another objective, whose min_child_weight counts rows"
        if math.isinf(hessian)
        else f"fit it with min_child_weight={MIN_ROWS * hessian:g} or more"
    )
    return EnsembleKind(
        "XGBoost",
        strict=True,
        rounds_to_float32=True,
        remedy=remedy,
        fewer_cuts="fit it with a smaller max_bin",
        cuts_are_values=True,
        cuts="each of them a value of a training row",
    )


def _output(objective: str, parameters: dict[str, Any]) -> tuple[Output, NDArray[np.float64], float]:
    """Return what the scores mean, what they begin with, and the greatest Hessian of a row."""
    if objective not in _LINKS:
        raise ValueError(f"the objective {objective!r} is not served; fit it with one of {', '.join(_LINKS)}")
    task, link, margin, hessian = _LINKS[objective]
    class_count = whole(parameters.get("num_class", "0"), "num_class", most=MAX_SCORES)
    target_count = whole(parameters.get("num_target", "1"), "num_target", most=MAX_SCORES)
    count = max(class_count, target_count, 1)
    if min(class_count, target_count) > 1:
        raise ValueError("it has several targets of several classes: fit a model for each target")
    if task is Task.REGRESSION:
        output = Output(task, count, link=link, scalar_target=count == 1)
    elif target_count > 1:
        output = Output(Task.MULTILABEL, count, tuple(range(count)), link, has_no_decision_function=True)
    else:
        labels = tuple(range(max(2, count)))
        output = Output(task, count, labels, link, has_no_decision_function=True)
    stored = field(parameters, "base_score")
    written = stored.strip("[]").split(",") if isinstance(stored, str) else [stored]
    if len(written) not in (1, count):
        raise ValueError(f"base_score has {len(written)} values for {count} scores")
    base = [margin(number(value, "base_score")) for value in written]
    return output, np.repeat(base, count) if len(base) == 1 else np.array(base), hessian


def _gradient_booster(value: Any, unknown: Unknown) -> tuple[dict[str, Any], Any]:
    """Return the ensemble, and the weights of its trees, or None if all are 1."""
    booster = members(value, "gradient_booster")
    name, drop = text(booster, "name"), None
    if name == "dart":
        unknown.members(booster, "gradient_booster", _FIELDS["dart"])
        drop, booster = field(booster, "weight_drop"), members(field(booster, "gbtree"), "gbtree")
    elif name != "gbtree":
        raise ValueError(
            f"the booster {name!r} is not served: fit it with gbtree or dart; save the weights of a gblinear as .npz"
        )
    unknown.members(booster, "gradient_booster", _FIELDS["gbtree"])
    return unknown.members(field(booster, "model"), "gradient_booster.model", _FIELDS["trees"]), drop


def _tree_count(model: dict[str, Any], attributes: dict[str, Any], tree_count: int, score_count: int) -> int:
    """Return how many trees count: those up to the best iteration, where training stopped early."""
    parameters = members(field(model, "gbtree_model_param"), "gbtree_model_param")
    if whole(parameters.get("size_leaf_vector", "0"), "size_leaf_vector") > 1:
        raise ValueError(SEVERAL_VALUES)
    if "best_iteration" not in attributes:
        return tree_count
    best = whole(attributes["best_iteration"], "best_iteration")
    if "iteration_indptr" in model:
        ends = integers(model["iteration_indptr"], "iteration_indptr")
        if best + 1 >= len(ends):
            raise ValueError("best_iteration is after the last iteration")
        end = int(ends[best + 1])
    else:
        end = (best + 1) * score_count * whole(parameters.get("num_parallel_tree", "1"), "num_parallel_tree", 1)
    if not 1 <= end <= tree_count:
        raise ValueError("best_iteration is after the last tree")
    return end
