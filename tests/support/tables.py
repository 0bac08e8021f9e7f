"""Tables with categories, texts and gaps, and models of them."""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sealserve.protocol.schema import Schema
from sealserve_service.models.linear_model import LinearModel


def table(random: np.random.Generator, count: int = 150) -> pd.DataFrame:
    """A table of numbers with gaps, categories with rare and missing ones, flags and texts."""
    frame = pd.DataFrame(
        {
            "age": random.integers(18, 90, count).astype(float),
            "income": random.lognormal(8, 1, count),
            "city": random.choice(["Bern", "Basel", "Genf", "Ulm"], count, p=[0.5, 0.3, 0.15, 0.05]).astype(object),
            "rooms": random.integers(1, 6, count).astype(float),
            "words": [" ".join(random.choice(["the", "Cat", "dog", "Bär", "on", "x"], 6)) for _ in range(count)],
        }
    )
    frame.loc[random.random(count) < 0.1, "age"] = np.nan
    frame.loc[random.random(count) < 0.1, "city"] = None
    return frame


def labels(frame: pd.DataFrame, random: np.random.Generator, class_count: int = 2) -> NDArray[np.int64]:
    """Labels that numbers and cities tell, up to noise; each has as many rows as any other."""
    value = np.log(frame["income"]) + 0.02 * frame["age"].fillna(50) + (frame["city"] == "Bern")
    value = value.to_numpy() + 0.3 * random.normal(size=len(frame))
    found = np.empty(len(frame), np.int64)
    found[value.argsort()] = np.arange(len(frame)) * class_count // len(frame)
    return found


def rows_of(model: LinearModel, X: Any) -> NDArray[Any]:
    """Rows as a client reads them for a published model."""
    assert model.published is not None
    is_list = isinstance(X, list)
    return Schema.of(model.published.columns).rows([[text] for text in X] if is_list else X)
