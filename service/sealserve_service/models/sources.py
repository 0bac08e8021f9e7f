"""From what the operator says of a model to the model that is served."""

import numpy as np
from numpy.typing import NDArray

from sealserve.model import Limits
from sealserve_service.models.errors import InputRangeError
from sealserve_service.models.input_grid import input_grid
from sealserve_service.models.loading import load_model
from sealserve_service.models.registry import EngineFactory, ServedModel, serve_model
from sealserve_service.settings import ModelSource


def serve_source(
    source: ModelSource, *, trust_pickle: bool, limits: Limits, ei_engine: EngineFactory | None = None
) -> ServedModel:
    """Load a model, decide its grid, make it ready.

    Raises:
        ModelError: the file, the model or its range will not do.
        PlanError: no parameter set serves it as asked.
    """
    model = load_model(source.path, trust_pickle=trust_pickle, sha256=source.sha256)
    calibration = calibration_rows(source)
    grid = input_grid(model, input_range=source.input_range, input_step=source.input_step, calibration=calibration)
    return serve_model(
        source.name,
        model,
        grid,
        limits,
        max_score_error=source.max_score_error,
        calibration=calibration,
        ei_engine=ei_engine,
    )


def calibration_rows(source: ModelSource) -> NDArray[np.float64] | None:
    """Read the calibration rows, float64 (rows, feature_count), or None if there are none.

    Raises:
        InputRangeError: the file is missing or holds no array of numbers.
    """
    if source.calibration is None:
        return None
    try:
        return np.asarray(np.load(source.calibration, allow_pickle=False), np.float64)
    except (OSError, ValueError, TypeError) as error:
        raise InputRangeError(f"{source.calibration}: no .npy file of calibration rows: {error}") from error
