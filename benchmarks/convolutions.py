"""Convolutions: seeded random convolutions of MNIST's images, as a pipeline that can be published.

Random filters are laid over patches of the image. The absolute values that they find are averaged
over regions, and the averages are divided by their norm. Only a linear head is trained on them, and
it stays private. The idea is that of Jarrett et al. ("What is the Best Multi-Stage Architecture for
Object Recognition?", ICCV 2009), who found random filters with rectification and pooling to be
nearly as good as trained ones.

The language of steps has no strides. So the filters are a `matrix` for each patch, and the regions
are a `matrix` for each filter: 2.5 MB in all, well within the limits of published steps.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import RidgeClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, Normalizer, StandardScaler
from sklearn.random_projection import GaussianRandomProjection

TRAINING_IMAGES = 8_000  # of the 10,000: the others are unseen
SEED = 7
SIDE, FILTERS, SIZE, STRIDE, REGIONS = 28, 40, 7, 2, 4


def features(images: NDArray[np.float64]) -> Pipeline:
    """Return the pipeline of the features of images (images, 784). It learns nothing of them."""
    patches, filters = _patches(), np.arange(FILTERS)
    regions = _regions()
    found = ColumnTransformer(
        [
            (f"patch {number}", GaussianRandomProjection(FILTERS, random_state=SEED), pixels)
            for number, pixels in enumerate(patches)
        ]
    )
    pooled = ColumnTransformer(
        [
            (f"filter {k}", GaussianRandomProjection(len(regions)), np.arange(k, len(patches) * FILTERS, FILTERS))
            for k in filters
        ]
    )
    pipeline = make_pipeline(found, FunctionTransformer(np.abs), pooled, Normalizer()).fit(images[:10])
    # scikit-learn has no transformer that is a given matrix: the averages replace what is random.
    for _, projection, _ in pooled.transformers_:
        projection.components_ = regions
    return pipeline


def fitted(images: NDArray[np.float64], labels: NDArray[Any]) -> Pipeline:
    """Train a head on the features of images, and return the whole pipeline."""
    front = features(images)
    head = make_pipeline(StandardScaler(), RidgeClassifier(alpha=10.0)).fit(front.transform(images), labels)
    return Pipeline([*front.steps, *head.steps])


def _starts() -> NDArray[np.intp]:
    """Return where patches begin, along a side of the image."""
    return np.arange(0, SIDE - SIZE + 1, STRIDE)


def _patches() -> NDArray[np.intp]:
    """Return the pixels of each patch: (patches, pixels)."""
    inside = (np.arange(SIZE)[:, None] * SIDE + np.arange(SIZE)).ravel()
    corners = (_starts()[:, None] * SIDE + _starts()).ravel()
    return corners[:, None] + inside


def _regions() -> NDArray[np.float64]:
    """Return the weights by which patches are averaged: (regions, patches)."""
    count = len(_starts())
    place = np.arange(count) * REGIONS // count
    region = (place[:, None] * REGIONS + place).ravel()
    weights = np.eye(REGIONS**2)[:, region]
    averages: NDArray[np.float64] = weights / weights.sum(axis=1, keepdims=True)
    return averages
