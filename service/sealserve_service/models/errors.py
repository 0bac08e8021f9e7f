"""Errors of models; every message says what to do about the fault.

ModelError
├── ModelFileError              file missing, damaged, of an unknown format, or without estimator
│   └── PickleNotTrustedError   a pickle, and the operator has not consented to run it
├── UnsupportedModelError       not linear, not affine, not fitted or not finite; names the step
└── InputRangeError             range, step or calibration rows do not fit the model
    └── InputRangeMissingError  nothing says which inputs to expect
"""

from sealserve.errors import SealserveError


class ModelError(SealserveError):
    """A model cannot be served; the text is for the operator."""


class ModelFileError(ModelError):
    """The file is missing, damaged, of an unknown format, or holds no estimator."""


class PickleNotTrustedError(ModelFileError):
    """The file is a pickle, which runs its author's code, and the operator has not consented."""


class UnsupportedModelError(ModelError):
    """The estimator, or the step that is named, is not linear, affine, fitted or finite."""


class InputRangeError(ModelError):
    """The input range, the step or the calibration rows do not fit the model."""


class InputRangeMissingError(InputRangeError):
    """Nothing says which inputs to expect: no range, no calibration rows, no scaler."""
