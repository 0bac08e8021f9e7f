"""Errors that sealserve raises, in the SDK and in the service.

SealserveError
├── InputError                   rows or arguments that the client refuses (also a ValueError)
│   ├── FeatureCountError
│   ├── FeatureNameError
│   ├── NotFiniteError
│   ├── OffGridError
│   └── OutOfRangeError
├── NoSuchMethodError            a method that the estimator lacks (also an AttributeError)
├── ClientClosedError            a method of a client that has been closed
├── UsageError                   a client in an event loop or a process that it cannot work in
├── CredentialsError             certificates or a token that cannot be used, or not here
├── SecretKeyError               a key that cannot be loaded, saved, exported or used here
├── ParameterError               encryption parameters that are malformed or insecure
├── RequirementError             a model that requires what this version cannot do
├── UnexpectedModelError         a model that is not the one that the client was told to expect
├── PlanError                    no parameter set serves the model as asked
├── ReplyError                   a reply that fails the client's checks
├── TransportError               the call did not arrive or did not come back
│   ├── UnavailableError
│   ├── DeadlineError
│   └── CallError
└── ServiceError                 the service refused; errors.proto has a detail of each name
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
    ├── ResourceUnavailableError
    ├── MalformedKeyError
    ├── UnauthenticatedError
    ├── PermissionDeniedError
    ├── IdleTimeoutError
    └── InternalError
"""

import copyreg
from dataclasses import dataclass
from enum import Enum
from typing import Any

_SHOWN_NAMES = 10

__all__ = [
    "CallError",
    "CiphertextFault",
    "ClientClosedError",
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
    "OffGridError",
    "OutOfRangeError",
    "OutOfSequenceError",
    "ParameterError",
    "ParameterSetNotOfferedError",
    "PermissionDeniedError",
    "PlanError",
    "QuotaExceededError",
    "ReplyError",
    "RequirementError",
    "ResourceUnavailableError",
    "SealserveError",
    "SecretKeyError",
    "ServiceError",
    "StaleConfigError",
    "TransportError",
    "UnauthenticatedError",
    "UnavailableError",
    "UnexpectedModelError",
    "UsageError",
]


class SealserveError(Exception):
    """The base class of all errors of sealserve. They can be pickled, and so cross processes."""

    def __reduce__(self) -> tuple[Any, ...]:
        # By default an error is made again from its text, which is no argument of most classes.
        return copyreg.__newobj__, (type(self), *self.args), self.__dict__  # type: ignore[attr-defined]


class InputError(SealserveError, ValueError):
    """Rows or arguments that the client refuses. Nothing that a refused row holds was encrypted."""


class FeatureCountError(InputError):
    """The rows do not have as many features as the model."""


class FeatureNameError(InputError):
    """The columns are not the model's features, or are not in the model's order."""


class NotFiniteError(InputError):
    """A feature is missing (NaN) or infinite."""


class OutOfRangeError(InputError):
    """A feature is outside the declared range. Scores have no guarantee there."""


class OffGridError(InputError):
    """A feature is between two values of the grid that it is declared to be on."""


class NoSuchMethodError(SealserveError, AttributeError):
    """The model has no predict_proba or no decision_function, because its estimator has none."""


class ClientClosedError(SealserveError):
    """The client has been closed. Nothing was sent."""

    def __str__(self) -> str:
        return "the client has been closed: make another one"


class UsageError(SealserveError):
    """A client is used in another event loop than its own, or in a child of its process."""


class CredentialsError(SealserveError):
    """Credentials cannot be used, or a token would travel in plaintext. Nothing was sent."""


class SecretKeyError(SealserveError):
    """A secret key cannot be loaded, saved, exported or used with these parameters."""


class ParameterError(SealserveError):
    """Parameters are malformed, unknown to this client, or below 128 bits of security."""


class RequirementError(SealserveError):
    """The model requires a capability that this version does not have. Nothing was sent."""


class UnexpectedModelError(SealserveError):
    """The service's description of the model is not the one that the client was told to expect.

    The client has sent nothing that depends on a feature since it got this description.
    """

    def __init__(self, difference: str) -> None:
        super().__init__(
            f"the model is not the one that is expected: {difference}; look at the new description, "
            "and save its pin if you trust it"
        )


class PlanError(SealserveError):
    """No parameter set serves the model as asked.

    The text says which bound failed and what would help.
    """


class ReplyError(SealserveError):
    """A reply fails a check, and nothing of it is kept.

    The text is the same for every cause, so that nobody learns from it what a ciphertext decrypts
    to.
    """

    def __init__(self) -> None:
        super().__init__(
            "the reply is not a well-formed answer of this model, and nothing of it was kept: "
            "make sure that you trust the service"
        )


class TransportError(SealserveError):
    """The call did not reach the service, or its answer did not come back."""


class UnavailableError(TransportError):
    """Nothing serves at the address, or the connection broke."""


class DeadlineError(TransportError):
    """The answer did not come within timeout_seconds."""


class CallError(TransportError):
    """The call failed in another way. The text holds gRPC's status."""


class ServiceError(SealserveError):
    """The service refused an item or a call."""


@dataclass(eq=False)
class StaleConfigError(ServiceError):
    """The item was made for another configuration of the model: get the model again."""

    current_config_id: str

    def __str__(self) -> str:
        return "the model's configuration has changed: get the model again, encrypt the rows again and resend"


@dataclass(eq=False)
class ModelNotFoundError(ServiceError):
    """No model of that name is served.

    Attributes:
        model: the name.
        served: names of models that are served, where the client has asked for them.
    """

    model: str
    served = tuple[str, ...]()  # no field, as it is not the service's

    def __str__(self) -> str:
        named = ", ".join(self.served[:_SHOWN_NAMES]) + (", ..." if len(self.served) > _SHOWN_NAMES else "")
        if not self.model:
            return f"name a model: {named or 'the service has several models, or none'}"
        known = f"there are {named}" if named else "list the models to see which are"
        return f"no model named {self.model!r} is served: {known}"


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
        return (
            f"the model is not offered in layout {self.layout!r} with parameter set {self.parameter_set!r}: "
            "choose one of its offers"
        )


@dataclass(eq=False)
class MalformedCiphertextError(ServiceError):
    """A ciphertext is not a SEAL ciphertext of the offered parameters."""

    reason: "CiphertextFault"
    index: int = 0

    def __str__(self) -> str:
        return f"ciphertext {self.index} is malformed: {self.reason.value}; correct it, the same bytes will fail again"


@dataclass(eq=False)
class InputMismatchError(ServiceError):
    """A number in the request does not fit the model or the offer."""

    field: str
    expected: int
    received: int

    def __str__(self) -> str:
        return f"{self.field} is {self.received}, expected {self.expected}: correct the request"


@dataclass(eq=False)
class OutOfSequenceError(ServiceError):
    """A message of an item came out of order, twice, or for an unknown item."""

    expected: int
    received: int

    def __str__(self) -> str:
        return (
            f"message out of sequence: expected {self.expected}, received {self.received}; "
            "send the item's messages in order, under a new item id"
        )


@dataclass(eq=False)
class LimitExceededError(ServiceError):
    """A message or a stream exceeds one of the model's limits."""

    limit: str
    maximum: int
    received: int

    def __str__(self) -> str:
        return f"{self.limit} is {self.maximum}, the request has {self.received}: send less at once"


@dataclass(eq=False)
class QuotaExceededError(ServiceError):
    """A quota is used up, or the server has no capacity for the item now."""

    quota: str
    retry_delay_seconds: float

    def __str__(self) -> str:
        return f"quota {self.quota} is used up: retry in {self.retry_delay_seconds:g} s"


@dataclass(eq=False)
class DrainingError(ServiceError):
    """The server is stopping, or ends a stream so that its client finds other replicas."""

    retry_delay_seconds: float

    def __str__(self) -> str:
        return f"the server is stopping, or ends this stream: retry in {self.retry_delay_seconds:g} s"


@dataclass(eq=False)
class ItemTimeoutError(ServiceError):
    """The rest of an item did not come in time."""

    waited_seconds: float

    def __str__(self) -> str:
        return f"the rest of the request did not come within {self.waited_seconds:g} s: send it again"


@dataclass(eq=False)
class KeyStoreUnavailableError(ServiceError):
    """The key store does not answer, or does not answer in time."""

    retry_delay_seconds: float

    def __str__(self) -> str:
        return f"the key store does not answer: retry in {self.retry_delay_seconds:g} s"


@dataclass(eq=False)
class ResourceUnavailableError(ServiceError):
    """The system gives the server no more file descriptors or threads."""

    resource: str
    retry_delay_seconds: float

    def __str__(self) -> str:
        return f"the server has no more {self.resource}: retry in {self.retry_delay_seconds:g} s"


@dataclass(eq=False)
class MalformedKeyError(ServiceError):
    """The bytes of a key are not what the header of its upload declares."""

    reason: "KeyFault"

    def __str__(self) -> str:
        return f"the key is malformed: {self.reason.value}; correct it, the same bytes will fail again"


@dataclass(eq=False)
class UnauthenticatedError(ServiceError):
    """The call's credentials are missing, wrong, expired or revoked.

    The service does not say which.
    """

    def __str__(self) -> str:
        return "the call has no valid credentials: send a valid token or client certificate"


@dataclass(eq=False)
class PermissionDeniedError(ServiceError):
    """The tenant may not make this call."""

    permission: str

    def __str__(self) -> str:
        return f"the tenant lacks the permission {self.permission!r}: ask the operator for it"


@dataclass(eq=False)
class IdleTimeoutError(ServiceError):
    """The stream had no open item, and no message came on it in time."""

    waited_seconds: float

    def __str__(self) -> str:
        return f"nothing came on the stream for {self.waited_seconds:g} s: open another when there is something to send"


@dataclass(eq=False)
class InternalError(ServiceError):
    """The server failed."""

    request_id: str

    def __str__(self) -> str:
        return f"the server failed: report request id {self.request_id}; its log has the cause under this id"


class CiphertextFault(Enum):
    """The first check that a ciphertext fails, in the order in which they are made."""

    LENGTH = "its length is not that of a ciphertext of these parameters, or is greater once inflated"
    HEADER = "it is not a SEAL object of the version and compression that the layout takes"
    PARAMETERS = "it was encrypted for another parameter set or plaintext modulus"
    FORM = "it does not consist of two polynomials in the form and scale of a fresh ciphertext"
    COEFFICIENT = "a coefficient is at or above its prime"
    TRANSPARENT = "its second polynomial, or a product with it, is zero, so that it hides nothing"


class KeyFault(Enum):
    """The first check that a key fails, in the order in which they are made."""

    UNSEEDED = (
        "only seeded public keys are accepted, and it is not seeded: use SecretKey.public_encryption_key, "
        "or save the Serializable<PublicKey> that SEAL's KeyGenerator::create_public_key() returns, uncompressed"
    )
    LENGTH = "it does not have the declared length"
    DIGEST = "it does not have the declared SHA-256"
    FORMAT = "it does not consist of the SEAL objects of its kind, or is too long once inflated"
    PARAMETERS = "it was made for another parameter set or other rotations"
    COEFFICIENT = "a coefficient is at or above its prime"
    DEGENERATE = "its first polynomial is zero or constant, so that it encrypts nothing"
