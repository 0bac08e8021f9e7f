import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from sealserve.v1 import keys_pb2 as _keys_pb2
from sealserve.v1 import parameters_pb2 as _parameters_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GetModelRequest(_message.Message):
    __slots__ = ("model", "config_id")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    CONFIG_ID_FIELD_NUMBER: _ClassVar[int]
    model: str
    config_id: str
    def __init__(self, model: _Optional[str] = ..., config_id: _Optional[str] = ...) -> None: ...

class GetModelResponse(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: Model
    def __init__(self, model: _Optional[_Union[Model, _Mapping]] = ...) -> None: ...

class ListModelsRequest(_message.Message):
    __slots__ = ("page_size", "page_token")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class GetInputStepsRequest(_message.Message):
    __slots__ = ("model", "steps_id", "config_id")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    STEPS_ID_FIELD_NUMBER: _ClassVar[int]
    CONFIG_ID_FIELD_NUMBER: _ClassVar[int]
    model: str
    steps_id: str
    config_id: str
    def __init__(self, model: _Optional[str] = ..., steps_id: _Optional[str] = ..., config_id: _Optional[str] = ...) -> None: ...

class GetInputStepsResponse(_message.Message):
    __slots__ = ("piece",)
    PIECE_FIELD_NUMBER: _ClassVar[int]
    piece: bytes
    def __init__(self, piece: _Optional[bytes] = ...) -> None: ...

class ListModelsResponse(_message.Message):
    __slots__ = ("models", "next_page_token")
    MODELS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[Model]
    next_page_token: str
    def __init__(self, models: _Optional[_Iterable[_Union[Model, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class Model(_message.Message):
    __slots__ = ("name", "version", "config_id", "input", "output", "offers", "limits", "requires")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CONFIG_ID_FIELD_NUMBER: _ClassVar[int]
    INPUT_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    OFFERS_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    REQUIRES_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: str
    config_id: str
    input: Input
    output: Output
    offers: _containers.RepeatedCompositeFieldContainer[Offer]
    limits: Limits
    requires: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ..., config_id: _Optional[str] = ..., input: _Optional[_Union[Input, _Mapping]] = ..., output: _Optional[_Union[Output, _Mapping]] = ..., offers: _Optional[_Iterable[_Union[Offer, _Mapping]]] = ..., limits: _Optional[_Union[Limits, _Mapping]] = ..., requires: _Optional[_Iterable[str]] = ...) -> None: ...

class Input(_message.Message):
    __slots__ = ("feature_count", "feature_names", "minimum", "maximum", "step", "keeps", "group", "exactly_one", "columns", "steps_id", "steps_bytes")
    FEATURE_COUNT_FIELD_NUMBER: _ClassVar[int]
    FEATURE_NAMES_FIELD_NUMBER: _ClassVar[int]
    MINIMUM_FIELD_NUMBER: _ClassVar[int]
    MAXIMUM_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    KEEPS_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    EXACTLY_ONE_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    STEPS_ID_FIELD_NUMBER: _ClassVar[int]
    STEPS_BYTES_FIELD_NUMBER: _ClassVar[int]
    feature_count: int
    feature_names: _containers.RepeatedScalarFieldContainer[str]
    minimum: _containers.RepeatedScalarFieldContainer[float]
    maximum: _containers.RepeatedScalarFieldContainer[float]
    step: _containers.RepeatedScalarFieldContainer[float]
    keeps: _containers.RepeatedScalarFieldContainer[bool]
    group: _containers.RepeatedScalarFieldContainer[int]
    exactly_one: _containers.RepeatedScalarFieldContainer[bool]
    columns: _containers.RepeatedCompositeFieldContainer[Column]
    steps_id: str
    steps_bytes: int
    def __init__(self, feature_count: _Optional[int] = ..., feature_names: _Optional[_Iterable[str]] = ..., minimum: _Optional[_Iterable[float]] = ..., maximum: _Optional[_Iterable[float]] = ..., step: _Optional[_Iterable[float]] = ..., keeps: _Optional[_Iterable[bool]] = ..., group: _Optional[_Iterable[int]] = ..., exactly_one: _Optional[_Iterable[bool]] = ..., columns: _Optional[_Iterable[_Union[Column, _Mapping]]] = ..., steps_id: _Optional[str] = ..., steps_bytes: _Optional[int] = ...) -> None: ...

class Column(_message.Message):
    __slots__ = ("name", "kind", "allows_missing", "minimum", "maximum")
    class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        KIND_UNSPECIFIED: _ClassVar[Column.Kind]
        KIND_NUMBER: _ClassVar[Column.Kind]
        KIND_INTEGER: _ClassVar[Column.Kind]
        KIND_BOOLEAN: _ClassVar[Column.Kind]
        KIND_STRING: _ClassVar[Column.Kind]
        KIND_TEXT: _ClassVar[Column.Kind]
        KIND_UNUSED: _ClassVar[Column.Kind]
    KIND_UNSPECIFIED: Column.Kind
    KIND_NUMBER: Column.Kind
    KIND_INTEGER: Column.Kind
    KIND_BOOLEAN: Column.Kind
    KIND_STRING: Column.Kind
    KIND_TEXT: Column.Kind
    KIND_UNUSED: Column.Kind
    NAME_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    ALLOWS_MISSING_FIELD_NUMBER: _ClassVar[int]
    MINIMUM_FIELD_NUMBER: _ClassVar[int]
    MAXIMUM_FIELD_NUMBER: _ClassVar[int]
    name: str
    kind: Column.Kind
    allows_missing: bool
    minimum: float
    maximum: float
    def __init__(self, name: _Optional[str] = ..., kind: _Optional[_Union[Column.Kind, str]] = ..., allows_missing: _Optional[bool] = ..., minimum: _Optional[float] = ..., maximum: _Optional[float] = ...) -> None: ...

class Output(_message.Message):
    __slots__ = ("task", "score_count", "classes", "link", "scalar_target", "keeps_zero_rows", "has_no_decision_function", "member_count", "curves", "pairwise")
    class Task(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        TASK_UNSPECIFIED: _ClassVar[Output.Task]
        TASK_REGRESSION: _ClassVar[Output.Task]
        TASK_CLASSIFICATION: _ClassVar[Output.Task]
        TASK_MULTILABEL: _ClassVar[Output.Task]
    TASK_UNSPECIFIED: Output.Task
    TASK_REGRESSION: Output.Task
    TASK_CLASSIFICATION: Output.Task
    TASK_MULTILABEL: Output.Task
    class Link(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        LINK_UNSPECIFIED: _ClassVar[Output.Link]
        LINK_NONE: _ClassVar[Output.Link]
        LINK_LOGISTIC: _ClassVar[Output.Link]
        LINK_OVR_LOGISTIC: _ClassVar[Output.Link]
        LINK_SOFTMAX: _ClassVar[Output.Link]
        LINK_MODIFIED_HUBER: _ClassVar[Output.Link]
        LINK_CURVES: _ClassVar[Output.Link]
        LINK_LOG: _ClassVar[Output.Link]
        LINK_LOG1P: _ClassVar[Output.Link]
    LINK_UNSPECIFIED: Output.Link
    LINK_NONE: Output.Link
    LINK_LOGISTIC: Output.Link
    LINK_OVR_LOGISTIC: Output.Link
    LINK_SOFTMAX: Output.Link
    LINK_MODIFIED_HUBER: Output.Link
    LINK_CURVES: Output.Link
    LINK_LOG: Output.Link
    LINK_LOG1P: Output.Link
    class Pairwise(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        PAIRWISE_UNSPECIFIED: _ClassVar[Output.Pairwise]
        PAIRWISE_VOTES: _ClassVar[Output.Pairwise]
        PAIRWISE_PAIRS: _ClassVar[Output.Pairwise]
        PAIRWISE_CONFIDENCES: _ClassVar[Output.Pairwise]
    PAIRWISE_UNSPECIFIED: Output.Pairwise
    PAIRWISE_VOTES: Output.Pairwise
    PAIRWISE_PAIRS: Output.Pairwise
    PAIRWISE_CONFIDENCES: Output.Pairwise
    TASK_FIELD_NUMBER: _ClassVar[int]
    SCORE_COUNT_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    LINK_FIELD_NUMBER: _ClassVar[int]
    SCALAR_TARGET_FIELD_NUMBER: _ClassVar[int]
    KEEPS_ZERO_ROWS_FIELD_NUMBER: _ClassVar[int]
    HAS_NO_DECISION_FUNCTION_FIELD_NUMBER: _ClassVar[int]
    MEMBER_COUNT_FIELD_NUMBER: _ClassVar[int]
    CURVES_FIELD_NUMBER: _ClassVar[int]
    PAIRWISE_FIELD_NUMBER: _ClassVar[int]
    task: Output.Task
    score_count: int
    classes: Classes
    link: Output.Link
    scalar_target: bool
    keeps_zero_rows: bool
    has_no_decision_function: bool
    member_count: int
    curves: _containers.RepeatedCompositeFieldContainer[Curve]
    pairwise: Output.Pairwise
    def __init__(self, task: _Optional[_Union[Output.Task, str]] = ..., score_count: _Optional[int] = ..., classes: _Optional[_Union[Classes, _Mapping]] = ..., link: _Optional[_Union[Output.Link, str]] = ..., scalar_target: _Optional[bool] = ..., keeps_zero_rows: _Optional[bool] = ..., has_no_decision_function: _Optional[bool] = ..., member_count: _Optional[int] = ..., curves: _Optional[_Iterable[_Union[Curve, _Mapping]]] = ..., pairwise: _Optional[_Union[Output.Pairwise, str]] = ...) -> None: ...

class Curve(_message.Message):
    __slots__ = ("scores", "probabilities")
    SCORES_FIELD_NUMBER: _ClassVar[int]
    PROBABILITIES_FIELD_NUMBER: _ClassVar[int]
    scores: _containers.RepeatedScalarFieldContainer[float]
    probabilities: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, scores: _Optional[_Iterable[float]] = ..., probabilities: _Optional[_Iterable[float]] = ...) -> None: ...

class Classes(_message.Message):
    __slots__ = ("integers", "strings", "booleans", "doubles")
    INTEGERS_FIELD_NUMBER: _ClassVar[int]
    STRINGS_FIELD_NUMBER: _ClassVar[int]
    BOOLEANS_FIELD_NUMBER: _ClassVar[int]
    DOUBLES_FIELD_NUMBER: _ClassVar[int]
    integers: IntegerLabels
    strings: StringLabels
    booleans: BooleanLabels
    doubles: DoubleLabels
    def __init__(self, integers: _Optional[_Union[IntegerLabels, _Mapping]] = ..., strings: _Optional[_Union[StringLabels, _Mapping]] = ..., booleans: _Optional[_Union[BooleanLabels, _Mapping]] = ..., doubles: _Optional[_Union[DoubleLabels, _Mapping]] = ...) -> None: ...

class IntegerLabels(_message.Message):
    __slots__ = ("values",)
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, values: _Optional[_Iterable[int]] = ...) -> None: ...

class StringLabels(_message.Message):
    __slots__ = ("values",)
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, values: _Optional[_Iterable[str]] = ...) -> None: ...

class BooleanLabels(_message.Message):
    __slots__ = ("values",)
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedScalarFieldContainer[bool]
    def __init__(self, values: _Optional[_Iterable[bool]] = ...) -> None: ...

class DoubleLabels(_message.Message):
    __slots__ = ("values",)
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, values: _Optional[_Iterable[float]] = ...) -> None: ...

class Offer(_message.Message):
    __slots__ = ("layout", "parameters", "weights", "rows_per_item", "classes_per_polynomial", "ciphertexts_per_item", "score_scale", "score_centers", "score_radii", "score_error_bound", "input_rounding_error_bound", "observed_error", "cost", "required_key", "weight_rounding_error_bound", "expected_score_error", "verdict", "reply_bits", "ciphertext_forms")
    class CiphertextForm(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        CIPHERTEXT_FORM_UNSPECIFIED: _ClassVar[Offer.CiphertextForm]
        CIPHERTEXT_FORM_PACKED: _ClassVar[Offer.CiphertextForm]
    CIPHERTEXT_FORM_UNSPECIFIED: Offer.CiphertextForm
    CIPHERTEXT_FORM_PACKED: Offer.CiphertextForm
    class Verdict(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        VERDICT_UNSPECIFIED: _ClassVar[Offer.Verdict]
        VERDICT_OK: _ClassVar[Offer.Verdict]
        VERDICT_UNCHECKED: _ClassVar[Offer.Verdict]
        VERDICT_WARN: _ClassVar[Offer.Verdict]
        VERDICT_REFUSE: _ClassVar[Offer.Verdict]
    VERDICT_UNSPECIFIED: Offer.Verdict
    VERDICT_OK: Offer.Verdict
    VERDICT_UNCHECKED: Offer.Verdict
    VERDICT_WARN: Offer.Verdict
    VERDICT_REFUSE: Offer.Verdict
    LAYOUT_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    ROWS_PER_ITEM_FIELD_NUMBER: _ClassVar[int]
    CLASSES_PER_POLYNOMIAL_FIELD_NUMBER: _ClassVar[int]
    CIPHERTEXTS_PER_ITEM_FIELD_NUMBER: _ClassVar[int]
    SCORE_SCALE_FIELD_NUMBER: _ClassVar[int]
    SCORE_CENTERS_FIELD_NUMBER: _ClassVar[int]
    SCORE_RADII_FIELD_NUMBER: _ClassVar[int]
    SCORE_ERROR_BOUND_FIELD_NUMBER: _ClassVar[int]
    INPUT_ROUNDING_ERROR_BOUND_FIELD_NUMBER: _ClassVar[int]
    OBSERVED_ERROR_FIELD_NUMBER: _ClassVar[int]
    COST_FIELD_NUMBER: _ClassVar[int]
    REQUIRED_KEY_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_ROUNDING_ERROR_BOUND_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_SCORE_ERROR_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    REPLY_BITS_FIELD_NUMBER: _ClassVar[int]
    CIPHERTEXT_FORMS_FIELD_NUMBER: _ClassVar[int]
    layout: _parameters_pb2.Layout
    parameters: _parameters_pb2.EncryptionParameters
    weights: _parameters_pb2.Weights
    rows_per_item: int
    classes_per_polynomial: int
    ciphertexts_per_item: int
    score_scale: float
    score_centers: _containers.RepeatedScalarFieldContainer[int]
    score_radii: _containers.RepeatedScalarFieldContainer[int]
    score_error_bound: float
    input_rounding_error_bound: float
    observed_error: ObservedError
    cost: Cost
    required_key: _keys_pb2.KeyKind
    weight_rounding_error_bound: float
    expected_score_error: float
    verdict: Offer.Verdict
    reply_bits: ReplyBits
    ciphertext_forms: _containers.RepeatedScalarFieldContainer[Offer.CiphertextForm]
    def __init__(self, layout: _Optional[_Union[_parameters_pb2.Layout, str]] = ..., parameters: _Optional[_Union[_parameters_pb2.EncryptionParameters, _Mapping]] = ..., weights: _Optional[_Union[_parameters_pb2.Weights, str]] = ..., rows_per_item: _Optional[int] = ..., classes_per_polynomial: _Optional[int] = ..., ciphertexts_per_item: _Optional[int] = ..., score_scale: _Optional[float] = ..., score_centers: _Optional[_Iterable[int]] = ..., score_radii: _Optional[_Iterable[int]] = ..., score_error_bound: _Optional[float] = ..., input_rounding_error_bound: _Optional[float] = ..., observed_error: _Optional[_Union[ObservedError, _Mapping]] = ..., cost: _Optional[_Union[Cost, _Mapping]] = ..., required_key: _Optional[_Union[_keys_pb2.KeyKind, str]] = ..., weight_rounding_error_bound: _Optional[float] = ..., expected_score_error: _Optional[float] = ..., verdict: _Optional[_Union[Offer.Verdict, str]] = ..., reply_bits: _Optional[_Union[ReplyBits, _Mapping]] = ..., ciphertext_forms: _Optional[_Iterable[_Union[Offer.CiphertextForm, str]]] = ...) -> None: ...

class ReplyBits(_message.Message):
    __slots__ = ("c0", "c1", "prime_count")
    C0_FIELD_NUMBER: _ClassVar[int]
    C1_FIELD_NUMBER: _ClassVar[int]
    PRIME_COUNT_FIELD_NUMBER: _ClassVar[int]
    c0: int
    c1: int
    prime_count: int
    def __init__(self, c0: _Optional[int] = ..., c1: _Optional[int] = ..., prime_count: _Optional[int] = ...) -> None: ...

class ObservedError(_message.Message):
    __slots__ = ("score_error", "row_count", "label_disagreement", "rms_score_error", "expected_label_disagreement")
    SCORE_ERROR_FIELD_NUMBER: _ClassVar[int]
    ROW_COUNT_FIELD_NUMBER: _ClassVar[int]
    LABEL_DISAGREEMENT_FIELD_NUMBER: _ClassVar[int]
    RMS_SCORE_ERROR_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_LABEL_DISAGREEMENT_FIELD_NUMBER: _ClassVar[int]
    score_error: float
    row_count: int
    label_disagreement: float
    rms_score_error: float
    expected_label_disagreement: float
    def __init__(self, score_error: _Optional[float] = ..., row_count: _Optional[int] = ..., label_disagreement: _Optional[float] = ..., rms_score_error: _Optional[float] = ..., expected_label_disagreement: _Optional[float] = ...) -> None: ...

class Cost(_message.Message):
    __slots__ = ("request_bytes", "reply_bytes", "server_seconds", "held_bytes", "key_bytes")
    REQUEST_BYTES_FIELD_NUMBER: _ClassVar[int]
    REPLY_BYTES_FIELD_NUMBER: _ClassVar[int]
    SERVER_SECONDS_FIELD_NUMBER: _ClassVar[int]
    HELD_BYTES_FIELD_NUMBER: _ClassVar[int]
    KEY_BYTES_FIELD_NUMBER: _ClassVar[int]
    request_bytes: int
    reply_bytes: int
    server_seconds: float
    held_bytes: int
    key_bytes: int
    def __init__(self, request_bytes: _Optional[int] = ..., reply_bytes: _Optional[int] = ..., server_seconds: _Optional[float] = ..., held_bytes: _Optional[int] = ..., key_bytes: _Optional[int] = ...) -> None: ...

class Limits(_message.Message):
    __slots__ = ("max_message_bytes", "max_open_items", "item_timeout", "window_bytes", "max_key_bytes", "suggested_connections", "idle_timeout")
    MAX_MESSAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_OPEN_ITEMS_FIELD_NUMBER: _ClassVar[int]
    ITEM_TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    WINDOW_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_KEY_BYTES_FIELD_NUMBER: _ClassVar[int]
    SUGGESTED_CONNECTIONS_FIELD_NUMBER: _ClassVar[int]
    IDLE_TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    max_message_bytes: int
    max_open_items: int
    item_timeout: _duration_pb2.Duration
    window_bytes: int
    max_key_bytes: int
    suggested_connections: int
    idle_timeout: _duration_pb2.Duration
    def __init__(self, max_message_bytes: _Optional[int] = ..., max_open_items: _Optional[int] = ..., item_timeout: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., window_bytes: _Optional[int] = ..., max_key_bytes: _Optional[int] = ..., suggested_connections: _Optional[int] = ..., idle_timeout: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...
