from sealserve.v1 import errors_pb2 as _errors_pb2
from sealserve.v1 import parameters_pb2 as _parameters_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ReplyForm(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REPLY_FORM_UNSPECIFIED: _ClassVar[ReplyForm]
    REPLY_FORM_RESIDUES: _ClassVar[ReplyForm]
    REPLY_FORM_SEAL_CIPHERTEXT: _ClassVar[ReplyForm]
    REPLY_FORM_PACKED: _ClassVar[ReplyForm]
REPLY_FORM_UNSPECIFIED: ReplyForm
REPLY_FORM_RESIDUES: ReplyForm
REPLY_FORM_SEAL_CIPHERTEXT: ReplyForm
REPLY_FORM_PACKED: ReplyForm

class ItemHeader(_message.Message):
    __slots__ = ("model", "config_id", "layout", "parameter_set", "row_count", "ciphertext_count", "key_id", "reply_forms")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    CONFIG_ID_FIELD_NUMBER: _ClassVar[int]
    LAYOUT_FIELD_NUMBER: _ClassVar[int]
    PARAMETER_SET_FIELD_NUMBER: _ClassVar[int]
    ROW_COUNT_FIELD_NUMBER: _ClassVar[int]
    CIPHERTEXT_COUNT_FIELD_NUMBER: _ClassVar[int]
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    REPLY_FORMS_FIELD_NUMBER: _ClassVar[int]
    model: str
    config_id: str
    layout: _parameters_pb2.Layout
    parameter_set: str
    row_count: int
    ciphertext_count: int
    key_id: str
    reply_forms: _containers.RepeatedScalarFieldContainer[ReplyForm]
    def __init__(self, model: _Optional[str] = ..., config_id: _Optional[str] = ..., layout: _Optional[_Union[_parameters_pb2.Layout, str]] = ..., parameter_set: _Optional[str] = ..., row_count: _Optional[int] = ..., ciphertext_count: _Optional[int] = ..., key_id: _Optional[str] = ..., reply_forms: _Optional[_Iterable[_Union[ReplyForm, str]]] = ...) -> None: ...

class Chunk(_message.Message):
    __slots__ = ("first_index", "ciphertexts")
    FIRST_INDEX_FIELD_NUMBER: _ClassVar[int]
    CIPHERTEXTS_FIELD_NUMBER: _ClassVar[int]
    first_index: int
    ciphertexts: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, first_index: _Optional[int] = ..., ciphertexts: _Optional[_Iterable[bytes]] = ...) -> None: ...

class EncryptedScores(_message.Message):
    __slots__ = ("residues", "seal_ciphertext", "packed")
    RESIDUES_FIELD_NUMBER: _ClassVar[int]
    SEAL_CIPHERTEXT_FIELD_NUMBER: _ClassVar[int]
    PACKED_FIELD_NUMBER: _ClassVar[int]
    residues: Residues
    seal_ciphertext: bytes
    packed: PackedPair
    def __init__(self, residues: _Optional[_Union[Residues, _Mapping]] = ..., seal_ciphertext: _Optional[bytes] = ..., packed: _Optional[_Union[PackedPair, _Mapping]] = ...) -> None: ...

class Residues(_message.Message):
    __slots__ = ("c0", "c1")
    C0_FIELD_NUMBER: _ClassVar[int]
    C1_FIELD_NUMBER: _ClassVar[int]
    c0: bytes
    c1: bytes
    def __init__(self, c0: _Optional[bytes] = ..., c1: _Optional[bytes] = ...) -> None: ...

class PackedPair(_message.Message):
    __slots__ = ("c0", "c1")
    C0_FIELD_NUMBER: _ClassVar[int]
    C1_FIELD_NUMBER: _ClassVar[int]
    c0: bytes
    c1: bytes
    def __init__(self, c0: _Optional[bytes] = ..., c1: _Optional[bytes] = ...) -> None: ...

class ScoreGroup(_message.Message):
    __slots__ = ("first_index", "scores")
    FIRST_INDEX_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    first_index: int
    scores: _containers.RepeatedCompositeFieldContainer[EncryptedScores]
    def __init__(self, first_index: _Optional[int] = ..., scores: _Optional[_Iterable[_Union[EncryptedScores, _Mapping]]] = ...) -> None: ...

class ItemDone(_message.Message):
    __slots__ = ("server_seconds",)
    SERVER_SECONDS_FIELD_NUMBER: _ClassVar[int]
    server_seconds: float
    def __init__(self, server_seconds: _Optional[float] = ...) -> None: ...

class PredictRequest(_message.Message):
    __slots__ = ("header", "ciphertexts")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    CIPHERTEXTS_FIELD_NUMBER: _ClassVar[int]
    header: ItemHeader
    ciphertexts: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, header: _Optional[_Union[ItemHeader, _Mapping]] = ..., ciphertexts: _Optional[_Iterable[bytes]] = ...) -> None: ...

class PredictResponse(_message.Message):
    __slots__ = ("scores", "done")
    SCORES_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    scores: ScoreGroup
    done: ItemDone
    def __init__(self, scores: _Optional[_Union[ScoreGroup, _Mapping]] = ..., done: _Optional[_Union[ItemDone, _Mapping]] = ...) -> None: ...

class StreamPredictRequest(_message.Message):
    __slots__ = ("item_id", "header", "chunk", "cancel")
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    HEADER_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    CANCEL_FIELD_NUMBER: _ClassVar[int]
    item_id: int
    header: ItemHeader
    chunk: Chunk
    cancel: bool
    def __init__(self, item_id: _Optional[int] = ..., header: _Optional[_Union[ItemHeader, _Mapping]] = ..., chunk: _Optional[_Union[Chunk, _Mapping]] = ..., cancel: _Optional[bool] = ...) -> None: ...

class StreamPredictResponse(_message.Message):
    __slots__ = ("item_id", "scores", "done", "error", "window")
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    WINDOW_FIELD_NUMBER: _ClassVar[int]
    item_id: int
    scores: ScoreGroup
    done: ItemDone
    error: _errors_pb2.Error
    window: Window
    def __init__(self, item_id: _Optional[int] = ..., scores: _Optional[_Union[ScoreGroup, _Mapping]] = ..., done: _Optional[_Union[ItemDone, _Mapping]] = ..., error: _Optional[_Union[_errors_pb2.Error, _Mapping]] = ..., window: _Optional[_Union[Window, _Mapping]] = ...) -> None: ...

class Window(_message.Message):
    __slots__ = ("max_bytes_in_flight",)
    MAX_BYTES_IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    max_bytes_in_flight: int
    def __init__(self, max_bytes_in_flight: _Optional[int] = ...) -> None: ...
