import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from sealserve.v1 import parameters_pb2 as _parameters_pb2
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Error(_message.Message):
    __slots__ = ("message", "stale_config", "model_not_found", "key_not_found", "parameter_set_not_offered", "malformed_ciphertext", "input_mismatch", "out_of_sequence", "limit_exceeded", "quota_exceeded", "draining", "item_timeout", "internal", "key_store_unavailable", "malformed_key", "unauthenticated", "permission_denied", "idle_timeout", "resource_unavailable")
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    STALE_CONFIG_FIELD_NUMBER: _ClassVar[int]
    MODEL_NOT_FOUND_FIELD_NUMBER: _ClassVar[int]
    KEY_NOT_FOUND_FIELD_NUMBER: _ClassVar[int]
    PARAMETER_SET_NOT_OFFERED_FIELD_NUMBER: _ClassVar[int]
    MALFORMED_CIPHERTEXT_FIELD_NUMBER: _ClassVar[int]
    INPUT_MISMATCH_FIELD_NUMBER: _ClassVar[int]
    OUT_OF_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    LIMIT_EXCEEDED_FIELD_NUMBER: _ClassVar[int]
    QUOTA_EXCEEDED_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    ITEM_TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    INTERNAL_FIELD_NUMBER: _ClassVar[int]
    KEY_STORE_UNAVAILABLE_FIELD_NUMBER: _ClassVar[int]
    MALFORMED_KEY_FIELD_NUMBER: _ClassVar[int]
    UNAUTHENTICATED_FIELD_NUMBER: _ClassVar[int]
    PERMISSION_DENIED_FIELD_NUMBER: _ClassVar[int]
    IDLE_TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    RESOURCE_UNAVAILABLE_FIELD_NUMBER: _ClassVar[int]
    message: str
    stale_config: StaleConfig
    model_not_found: ModelNotFound
    key_not_found: KeyNotFound
    parameter_set_not_offered: ParameterSetNotOffered
    malformed_ciphertext: MalformedCiphertext
    input_mismatch: InputMismatch
    out_of_sequence: OutOfSequence
    limit_exceeded: LimitExceeded
    quota_exceeded: QuotaExceeded
    draining: Draining
    item_timeout: ItemTimeout
    internal: Internal
    key_store_unavailable: KeyStoreUnavailable
    malformed_key: MalformedKey
    unauthenticated: Unauthenticated
    permission_denied: PermissionDenied
    idle_timeout: IdleTimeout
    resource_unavailable: ResourceUnavailable
    def __init__(self, message: _Optional[str] = ..., stale_config: _Optional[_Union[StaleConfig, _Mapping]] = ..., model_not_found: _Optional[_Union[ModelNotFound, _Mapping]] = ..., key_not_found: _Optional[_Union[KeyNotFound, _Mapping]] = ..., parameter_set_not_offered: _Optional[_Union[ParameterSetNotOffered, _Mapping]] = ..., malformed_ciphertext: _Optional[_Union[MalformedCiphertext, _Mapping]] = ..., input_mismatch: _Optional[_Union[InputMismatch, _Mapping]] = ..., out_of_sequence: _Optional[_Union[OutOfSequence, _Mapping]] = ..., limit_exceeded: _Optional[_Union[LimitExceeded, _Mapping]] = ..., quota_exceeded: _Optional[_Union[QuotaExceeded, _Mapping]] = ..., draining: _Optional[_Union[Draining, _Mapping]] = ..., item_timeout: _Optional[_Union[ItemTimeout, _Mapping]] = ..., internal: _Optional[_Union[Internal, _Mapping]] = ..., key_store_unavailable: _Optional[_Union[KeyStoreUnavailable, _Mapping]] = ..., malformed_key: _Optional[_Union[MalformedKey, _Mapping]] = ..., unauthenticated: _Optional[_Union[Unauthenticated, _Mapping]] = ..., permission_denied: _Optional[_Union[PermissionDenied, _Mapping]] = ..., idle_timeout: _Optional[_Union[IdleTimeout, _Mapping]] = ..., resource_unavailable: _Optional[_Union[ResourceUnavailable, _Mapping]] = ...) -> None: ...

class StaleConfig(_message.Message):
    __slots__ = ("current_config_id",)
    CURRENT_CONFIG_ID_FIELD_NUMBER: _ClassVar[int]
    current_config_id: str
    def __init__(self, current_config_id: _Optional[str] = ...) -> None: ...

class ModelNotFound(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: str
    def __init__(self, model: _Optional[str] = ...) -> None: ...

class KeyNotFound(_message.Message):
    __slots__ = ("key_id",)
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    key_id: str
    def __init__(self, key_id: _Optional[str] = ...) -> None: ...

class ParameterSetNotOffered(_message.Message):
    __slots__ = ("layout", "parameter_set")
    LAYOUT_FIELD_NUMBER: _ClassVar[int]
    PARAMETER_SET_FIELD_NUMBER: _ClassVar[int]
    layout: _parameters_pb2.Layout
    parameter_set: str
    def __init__(self, layout: _Optional[_Union[_parameters_pb2.Layout, str]] = ..., parameter_set: _Optional[str] = ...) -> None: ...

class MalformedCiphertext(_message.Message):
    __slots__ = ("index", "reason")
    class Reason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        REASON_UNSPECIFIED: _ClassVar[MalformedCiphertext.Reason]
        REASON_LENGTH: _ClassVar[MalformedCiphertext.Reason]
        REASON_HEADER: _ClassVar[MalformedCiphertext.Reason]
        REASON_PARAMETERS: _ClassVar[MalformedCiphertext.Reason]
        REASON_FORM: _ClassVar[MalformedCiphertext.Reason]
        REASON_COEFFICIENT: _ClassVar[MalformedCiphertext.Reason]
        REASON_TRANSPARENT: _ClassVar[MalformedCiphertext.Reason]
    REASON_UNSPECIFIED: MalformedCiphertext.Reason
    REASON_LENGTH: MalformedCiphertext.Reason
    REASON_HEADER: MalformedCiphertext.Reason
    REASON_PARAMETERS: MalformedCiphertext.Reason
    REASON_FORM: MalformedCiphertext.Reason
    REASON_COEFFICIENT: MalformedCiphertext.Reason
    REASON_TRANSPARENT: MalformedCiphertext.Reason
    INDEX_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    index: int
    reason: MalformedCiphertext.Reason
    def __init__(self, index: _Optional[int] = ..., reason: _Optional[_Union[MalformedCiphertext.Reason, str]] = ...) -> None: ...

class InputMismatch(_message.Message):
    __slots__ = ("field", "expected", "received")
    FIELD_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_FIELD_NUMBER: _ClassVar[int]
    field: str
    expected: int
    received: int
    def __init__(self, field: _Optional[str] = ..., expected: _Optional[int] = ..., received: _Optional[int] = ...) -> None: ...

class OutOfSequence(_message.Message):
    __slots__ = ("expected", "received")
    EXPECTED_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_FIELD_NUMBER: _ClassVar[int]
    expected: int
    received: int
    def __init__(self, expected: _Optional[int] = ..., received: _Optional[int] = ...) -> None: ...

class LimitExceeded(_message.Message):
    __slots__ = ("limit", "maximum", "received")
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    MAXIMUM_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_FIELD_NUMBER: _ClassVar[int]
    limit: str
    maximum: int
    received: int
    def __init__(self, limit: _Optional[str] = ..., maximum: _Optional[int] = ..., received: _Optional[int] = ...) -> None: ...

class QuotaExceeded(_message.Message):
    __slots__ = ("quota", "retry_delay")
    QUOTA_FIELD_NUMBER: _ClassVar[int]
    RETRY_DELAY_FIELD_NUMBER: _ClassVar[int]
    quota: str
    retry_delay: _duration_pb2.Duration
    def __init__(self, quota: _Optional[str] = ..., retry_delay: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class Draining(_message.Message):
    __slots__ = ("retry_delay",)
    RETRY_DELAY_FIELD_NUMBER: _ClassVar[int]
    retry_delay: _duration_pb2.Duration
    def __init__(self, retry_delay: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class ItemTimeout(_message.Message):
    __slots__ = ("waited",)
    WAITED_FIELD_NUMBER: _ClassVar[int]
    waited: _duration_pb2.Duration
    def __init__(self, waited: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class Internal(_message.Message):
    __slots__ = ("request_id",)
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    def __init__(self, request_id: _Optional[str] = ...) -> None: ...

class KeyStoreUnavailable(_message.Message):
    __slots__ = ("retry_delay",)
    RETRY_DELAY_FIELD_NUMBER: _ClassVar[int]
    retry_delay: _duration_pb2.Duration
    def __init__(self, retry_delay: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class MalformedKey(_message.Message):
    __slots__ = ("reason",)
    class Reason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        REASON_UNSPECIFIED: _ClassVar[MalformedKey.Reason]
        REASON_UNSEEDED: _ClassVar[MalformedKey.Reason]
        REASON_LENGTH: _ClassVar[MalformedKey.Reason]
        REASON_DIGEST: _ClassVar[MalformedKey.Reason]
        REASON_FORMAT: _ClassVar[MalformedKey.Reason]
        REASON_PARAMETERS: _ClassVar[MalformedKey.Reason]
        REASON_COEFFICIENT: _ClassVar[MalformedKey.Reason]
        REASON_DEGENERATE: _ClassVar[MalformedKey.Reason]
    REASON_UNSPECIFIED: MalformedKey.Reason
    REASON_UNSEEDED: MalformedKey.Reason
    REASON_LENGTH: MalformedKey.Reason
    REASON_DIGEST: MalformedKey.Reason
    REASON_FORMAT: MalformedKey.Reason
    REASON_PARAMETERS: MalformedKey.Reason
    REASON_COEFFICIENT: MalformedKey.Reason
    REASON_DEGENERATE: MalformedKey.Reason
    REASON_FIELD_NUMBER: _ClassVar[int]
    reason: MalformedKey.Reason
    def __init__(self, reason: _Optional[_Union[MalformedKey.Reason, str]] = ...) -> None: ...

class Unauthenticated(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class PermissionDenied(_message.Message):
    __slots__ = ("permission",)
    PERMISSION_FIELD_NUMBER: _ClassVar[int]
    permission: str
    def __init__(self, permission: _Optional[str] = ...) -> None: ...

class IdleTimeout(_message.Message):
    __slots__ = ("waited",)
    WAITED_FIELD_NUMBER: _ClassVar[int]
    waited: _duration_pb2.Duration
    def __init__(self, waited: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class ResourceUnavailable(_message.Message):
    __slots__ = ("resource", "retry_delay")
    RESOURCE_FIELD_NUMBER: _ClassVar[int]
    RETRY_DELAY_FIELD_NUMBER: _ClassVar[int]
    resource: str
    retry_delay: _duration_pb2.Duration
    def __init__(self, resource: _Optional[str] = ..., retry_delay: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...
