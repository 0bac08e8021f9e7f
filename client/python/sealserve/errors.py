"""Every error that sealserve raises, SDK and service alike.

SealserveError
├── InputError                   features that the client refuses to encrypt (also a ValueError)
│   ├── FeatureCountError
│   ├── FeatureNameError
│   ├── NotFiniteError
│   └── OutOfRangeError
├── NoSuchMethodError            a method that the estimator does not have (also an AttributeError)
├── CredentialsError             certificates or a token that cannot be used, or not at this address
├── SecretKeyError               a key that cannot be loaded, saved, exported or used here
├── ParameterError               encryption parameters that are malformed or below 128 bits of security
├── PlanError                    no parameter set serves the model as asked
├── ReplyError                   a reply that fails the client's checks; nothing of it is kept
├── TransportError               the call did not arrive or did not come back
│   ├── UnavailableError
│   ├── DeadlineError
│   └── CallError
└── ServiceError                 the service refused; each travels as the detail of the same name in errors.proto
├── StaleConfigError
├── ModelNotFoundError
├── KeyNotFoundError
├── ParameterSetNotOfferedError
├── MalformedCiphertextError
├── InputMismatchError
├── OutOfSequenceError
├── LimitExceededError
├── QuotaExceededError
├── DrainingError
├── ItemTimeoutError
├── KeyStoreUnavailableError
├── MalformedKeyError
├── UnauthenticatedError
├── PermissionDeniedError
├── IdleTimeoutError
└── InternalError
"""

from dataclasses import dataclass
from enum import Enum

__all__ = [
    "CallError",
    "CiphertextFault",
    "CredentialsError",
    "DeadlineError",
    "DrainingError",
    "FeatureCountError",
    "FeatureNameError",
    "IdleTimeoutError",
    "InputError",
    "InputMismatchError",
    "InternalError",
    "ItemTimeoutError",
    "KeyFault",
    "KeyNotFoundError",
    "KeyStoreUnavailableError",
    "LimitExceededError",
    "MalformedCiphertextError",
    "MalformedKeyError",
    "ModelNotFoundError",
    "NoSuchMethodError",
    "NotFiniteError",
    "OutOfRangeError",
    "OutOfSequenceError",
    "ParameterError",
    "ParameterSetNotOfferedError",
    "PermissionDeniedError",
    "PlanError",
    "QuotaExceededError",
    "ReplyError",
    "SealserveError",
    "SecretKeyError",
    "ServiceError",
    "StaleConfigError",
    "TransportError",
    "UnauthenticatedError",
    "UnavailableError",
]


class SealserveError(Exception):
    """Root of the hierarchy."""


class InputError(SealserveError, ValueError):
    """Features that the client refuses to encrypt."""


class FeatureCountError(InputError):
    """Rows are not as long as the model's."""


class FeatureNameError(InputError):
    """Columns are not the model's, or not in its order."""


class NotFiniteError(InputError):
    """A feature is NaN or infinite."""


class OutOfRangeError(InputError):
    """A feature is outside the declared range, where nothing is promised about its score."""


class NoSuchMethodError(SealserveError, AttributeError):
    """The model has no predict_proba or no decision_function, as its estimator has none."""


class CredentialsError(SealserveError):
    """Certificates or a token cannot be read or used, or a token would travel in plaintext; nothing was sent."""


class SecretKeyError(SealserveError):
    """A secret key cannot be loaded, saved, exported or used with these parameters."""


class ParameterError(SealserveError):
    """Encryption parameters are malformed, unknown to this client, or below 128 bits of security."""


class PlanError(SealserveError):
    """No parameter set serves the model as asked; the text says which bound failed and what would help."""


class ReplyError(SealserveError):
    """A reply fails a check. One text for every cause, so that nobody learns from it what a ciphertext decrypts to."""

    def __init__(self) -> None:
        super().__init__("the reply is not a well-formed answer of this model; nothing of it was kept")


class TransportError(SealserveError):
    """The call did not arrive or did not come back."""


class UnavailableError(TransportError):
    """Nothing serves at the address, or the connection broke."""


class DeadlineError(TransportError):
    """The answer did not come within timeout_seconds."""


class CallError(TransportError):
    """The call failed in another way; the text holds gRPC's status."""


class ServiceError(SealserveError):
    """The service refused an item or a call."""


@dataclass(eq=False)
class StaleConfigError(ServiceError):
    """The item was made for another configuration of the model: fetch the model again."""

    current_config_id: str

    def __str__(self) -> str:
        return "the model's configuration has changed: get the model again, encrypt anew and resend"


@dataclass(eq=False)
class ModelNotFoundError(ServiceError):
    """No model of that name is served."""

    model: str

    def __str__(self) -> str:
        if not self.model:
            return "name a model: there are several, or none"
        return f"no model named {self.model!r} is served: list the models to see what is"


@dataclass(eq=False)
class KeyNotFoundError(ServiceError):
    """The key was never registered, has expired, or was evicted."""

    key_id: str

    def __str__(self) -> str:
        return "the key is not registered: register it and resend"


@dataclass(eq=False)
class ParameterSetNotOfferedError(ServiceError):
    """The model is not offered in this layout and parameter set."""

    layout: str
    parameter_set: str

    def __str__(self) -> str:
        return f"the model is not offered in layout {self.layout!r} with parameter set {self.parameter_set!r}"


@dataclass(eq=False)
class MalformedCiphertextError(ServiceError):
    """A ciphertext is not a SEAL ciphertext of the offered parameters."""

    reason: "CiphertextFault"
    index: int = 0

    def __str__(self) -> str:
        return f"ciphertext {self.index}: {self.reason.value}"


@dataclass(eq=False)
class InputMismatchError(ServiceError):
    """A number in the request does not fit the model or the offer."""

    field: str
    expected: int
    received: int

    def __str__(self) -> str:
        return f"{self.field} is {self.received}, this offer takes {self.expected}"


@dataclass(eq=False)
class OutOfSequenceError(ServiceError):
    """A message of an item came out of order, twice, or for an unknown item."""

    expected: int
    received: int

    def __str__(self) -> str:
        return f"message out of sequence: {self.expected} was due, {self.received} came"


@dataclass(eq=False)
class LimitExceededError(ServiceError):
    """A message or a stream is beyond one of the model's limits."""

    limit: str
    maximum: int
    received: int

    def __str__(self) -> str:
        return f"{self.limit} is {self.maximum}, the request has {self.received}"


@dataclass(eq=False)
class QuotaExceededError(ServiceError):
    """A quota is used up."""

    quota: str
    retry_delay_seconds: float

    def __str__(self) -> str:
        return f"quota {self.quota} is used up: retry in {self.retry_delay_seconds:g} s"


@dataclass(eq=False)
class DrainingError(ServiceError):
    """The server is stopping."""

    retry_delay_seconds: float

    def __str__(self) -> str:
        return f"the server is stopping: retry in {self.retry_delay_seconds:g} s"


@dataclass(eq=False)
class ItemTimeoutError(ServiceError):
    """The rest of an item did not come in time."""

    waited_seconds: float

    def __str__(self) -> str:
        return f"the rest of the request did not come within {self.waited_seconds:g} s"


@dataclass(eq=False)
class KeyStoreUnavailableError(ServiceError):
    """The store of the keys does not answer, or not in time."""

    retry_delay_seconds: float

    def __str__(self) -> str:
        return f"the store of the keys does not answer: retry in {self.retry_delay_seconds:g} s"


@dataclass(eq=False)
class MalformedKeyError(ServiceError):
    """A key is not what its upload says it is."""

    reason: "KeyFault"

    def __str__(self) -> str:
        return f"the key is {self.reason.value}"


@dataclass(eq=False)
class UnauthenticatedError(ServiceError):
    """The service wants credentials, and these are missing, wrong, expired or revoked; it does not say which."""

    def __str__(self) -> str:
        return "the call has no valid credentials"


@dataclass(eq=False)
class PermissionDeniedError(ServiceError):
    """The tenant may not do this."""

    permission: str

    def __str__(self) -> str:
        return f"the tenant lacks the permission {self.permission!r}"


@dataclass(eq=False)
class IdleTimeoutError(ServiceError):
    """Nothing came on a stream without open items."""

    waited_seconds: float

    def __str__(self) -> str:
        return f"nothing came on the stream for {self.waited_seconds:g} s"


@dataclass(eq=False)
class InternalError(ServiceError):
    """The server failed."""

    request_id: str

    def __str__(self) -> str:
        return f"the server failed; its log has the cause under request id {self.request_id}"


class CiphertextFault(Enum):
    """What is wrong with a ciphertext: the first check that fails, in the order in which they are made."""

    LENGTH = "not as long as a ciphertext of these parameters, or longer once inflated"
    HEADER = "not a SEAL object of the version and compression that the layout takes"
    PARAMETERS = "encrypted for another parameter set or plaintext modulus"
    FORM = "not of two polynomials in the form and scale of a fresh ciphertext"
    COEFFICIENT = "a coefficient is at or above its prime"
    TRANSPARENT = "the second polynomial, or a product with it, is zero: it hides nothing"


class KeyFault(Enum):
    """What is wrong with a key: the first check that fails, in the order in which they are made."""

    LENGTH = "not as long as declared"
    DIGEST = "not the one of the declared SHA-256"
    FORMAT = "not made of the SEAL objects of its kind, or too long once inflated"
    PARAMETERS = "made for another parameter set or other rotations"
    COEFFICIENT = "out of its bounds: a coefficient is at or above its prime"
    DEGENERATE = "degenerate: a polynomial is zero or constant, and encrypts nothing"
