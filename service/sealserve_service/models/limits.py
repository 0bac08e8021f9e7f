"""Limits of models: what a file may hold, so that a small file cannot take all memory.

A compressed file of 3 MB can hold 3 GB of zeros. A small file can also ask for much more memory
than it holds: by a name that it uses a thousand times, by a sparse matrix, or by a product of two
vectors. So each size is checked before memory is taken for it.
"""

from sealserve_service.models.errors import ModelTooLargeError

MAX_MODEL_BYTES = 512 << 20
"""Bytes of a model's file, and of all that the file holds; a number counts as 8 bytes at least."""
MAX_CALIBRATION_BYTES = 2 << 30
"""Bytes of a file of calibration rows, and of the arrays that a compressed one holds."""
MAX_MEMBERS = 1 << 16
"""Members of an archive."""
MAX_FEATURES = 1 << 20
MAX_SCORES = 1 << 16
MAX_WEIGHTS = 1 << 25
"""Features times scores: 268 MB of weights."""
MAX_PARSED_VALUES = 1 << 22
"""Values of a file of trees that become objects of Python: 200,000 leaves of XGBoost in JSON."""
MAX_OBJECTS = 1 << 19
"""Values of a binary file of trees that become objects, arrays counted as one: of 20,000 trees."""
MAX_NESTING = 64
"""Levels of values within each other in such a file."""
MAX_SCHEMA_BYTES = 32 << 20
"""Bytes of the description of the objects in a .skops file: 3,000 classes, each an estimator."""
MAX_SCHEMA_VALUES = 1 << 20
"""Values in such a description, after each reference has been replaced by what it refers to."""
MAX_DESCRIPTION_VALUES = 1 << 22
"""Values in the description of a .sealmodel file: names of columns, labels, points of curves."""


def check_limit(limit: str, maximum: int, found: int) -> None:
    """Check a size against its limit.

    Raises:
        ModelTooLargeError: the size is above its limit.
    """
    if found > maximum:
        raise ModelTooLargeError(limit, maximum, found)


def check_weights(score_count: int, feature_count: int) -> None:
    """Check the shape of weights, before memory is taken for them.

    Raises:
        ModelTooLargeError: they are too many, or too many of one score or feature.
    """
    check_limit("scores", MAX_SCORES, score_count)
    check_limit("features", MAX_FEATURES, feature_count)
    check_limit("weights", MAX_WEIGHTS, score_count * feature_count)
