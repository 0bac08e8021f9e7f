"""JSON format of boosted trees: what XGBoost and CatBoost save as `.json`."""

from pathlib import Path
from typing import Any

from sealserve_service.models import catboost_format, xgboost_format
from sealserve_service.models.fields import parsed_json, reading
from sealserve_service.models.linear_model import LinearModel


def read_model(content: bytes, path: Path) -> LinearModel:
    """Return the model in a file of JSON, the content of the file at the path.

    Raises:
        ModelFileError: the file is damaged, or holds what is not served; the text says what.
        ModelTooLargeError: the file or the model passes a limit.
    """
    with reading(path, "a model of XGBoost or CatBoost"):
        return _ensemble(parsed_json(content)).with_front()


def _ensemble(parsed: Any) -> LinearModel:
    names = parsed.keys() if isinstance(parsed, dict) else ()
    if "learner" in names:
        return xgboost_format.ensemble(parsed)
    if "model_info" in names:
        return catboost_format.ensemble(parsed)
    if "tree_info" in names:
        raise ValueError("it is a dump of LightGBM: save the model by booster.save_model('model.txt')")
    raise ValueError(
        "it is neither what XGBoost's save_model writes (a dump is not enough) nor what CatBoost's save_model writes "
        "with format='json'"
    )
