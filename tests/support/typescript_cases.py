"""Cases of the TypeScript SDK's live tests: rows of models, and what scikit-learn says of them."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

HIDING_BITS = 40


def write_rows(path: Path, rows: NDArray[np.float64]) -> str:
    """Write rows as float64, row after row; return the path."""
    path.write_bytes(np.ascontiguousarray(rows, "<f8").tobytes())
    return str(path)


def case(model: str, path: Path, rows: NDArray[np.float64], estimator: Any) -> dict[str, Any]:
    """What a live test compares a model's predictions with: those of scikit-learn."""
    scores = rows @ estimator.coef_.T + estimator.intercept_
    return {
        "model": model,
        "rows": write_rows(path / f"{model}.f64", rows),
        "featureCount": rows.shape[1],
        "labels": estimator.classes_[scores.argmax(axis=1)].tolist(),
        "scores": scores[:10].tolist(),
    }
