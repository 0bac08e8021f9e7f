"""An unmodified encrypted-inference 0.9 client and its keys, with bytes for base64 strings."""

import base64
import hashlib
from collections.abc import Iterable
from functools import cached_property

import numpy as np
from encrypted.inference.eiclient import EILinearRegressionClient
from numpy.typing import NDArray


class EIUser:
    """A user of encrypted-inference 0.9."""

    def __init__(self) -> None:
        self.client = EILinearRegressionClient()

    @cached_property
    def evaluation_keys(self) -> bytes:
        """What `get_public_keys` gives: 9 MB, in 1.7 s."""
        data: bytes = self.client.get_public_keys()[1]
        return data

    @property
    def key_id(self) -> str:
        """The id under which the evaluation keys are registered."""
        return hashlib.sha256(self.evaluation_keys).hexdigest()

    def encrypt(self, features: NDArray[np.float64]) -> list[bytes]:
        """Encrypt a row (features,): one ciphertext for every 4096 of them."""
        return [base64.b64decode(text) for text in self.client.encrypt(features)]

    def decrypt(self, reply: Iterable[bytes]) -> NDArray[np.float64]:
        """Decrypt what is in the first slot of each ciphertext."""
        scores: NDArray[np.float64] = self.client.decrypt([base64.b64encode(data) for data in reply])
        return scores
