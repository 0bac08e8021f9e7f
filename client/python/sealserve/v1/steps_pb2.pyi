from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ValueKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    VALUE_KIND_UNSPECIFIED: _ClassVar[ValueKind]
    VALUE_KIND_NUMBER: _ClassVar[ValueKind]
    VALUE_KIND_TEXT: _ClassVar[ValueKind]
VALUE_KIND_UNSPECIFIED: ValueKind
VALUE_KIND_NUMBER: ValueKind
VALUE_KIND_TEXT: ValueKind

class InputSteps(_message.Message):
    __slots__ = ("columns", "steps", "outputs")
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    columns: _containers.RepeatedScalarFieldContainer[ValueKind]
    steps: _containers.RepeatedCompositeFieldContainer[Step]
    outputs: _containers.RepeatedCompositeFieldContainer[ValueRange]
    def __init__(self, columns: _Optional[_Iterable[_Union[ValueKind, str]]] = ..., steps: _Optional[_Iterable[_Union[Step, _Mapping]]] = ..., outputs: _Optional[_Iterable[_Union[ValueRange, _Mapping]]] = ...) -> None: ...

class ValueRange(_message.Message):
    __slots__ = ("first", "count")
    FIRST_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    first: int
    count: int
    def __init__(self, first: _Optional[int] = ..., count: _Optional[int] = ...) -> None: ...

class Step(_message.Message):
    __slots__ = ("inputs", "impute", "missing", "affine", "one_hot", "lookup", "bins", "table", "piecewise", "monomials", "elementwise", "normalize", "matrix", "trees", "text")
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    IMPUTE_FIELD_NUMBER: _ClassVar[int]
    MISSING_FIELD_NUMBER: _ClassVar[int]
    AFFINE_FIELD_NUMBER: _ClassVar[int]
    ONE_HOT_FIELD_NUMBER: _ClassVar[int]
    LOOKUP_FIELD_NUMBER: _ClassVar[int]
    BINS_FIELD_NUMBER: _ClassVar[int]
    TABLE_FIELD_NUMBER: _ClassVar[int]
    PIECEWISE_FIELD_NUMBER: _ClassVar[int]
    MONOMIALS_FIELD_NUMBER: _ClassVar[int]
    ELEMENTWISE_FIELD_NUMBER: _ClassVar[int]
    NORMALIZE_FIELD_NUMBER: _ClassVar[int]
    MATRIX_FIELD_NUMBER: _ClassVar[int]
    TREES_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    inputs: _containers.RepeatedCompositeFieldContainer[ValueRange]
    impute: Impute
    missing: Missing
    affine: Affine
    one_hot: OneHot
    lookup: Lookup
    bins: Bins
    table: Table
    piecewise: Piecewise
    monomials: Monomials
    elementwise: Elementwise
    normalize: Normalize
    matrix: Matrix
    trees: Trees
    text: Text
    def __init__(self, inputs: _Optional[_Iterable[_Union[ValueRange, _Mapping]]] = ..., impute: _Optional[_Union[Impute, _Mapping]] = ..., missing: _Optional[_Union[Missing, _Mapping]] = ..., affine: _Optional[_Union[Affine, _Mapping]] = ..., one_hot: _Optional[_Union[OneHot, _Mapping]] = ..., lookup: _Optional[_Union[Lookup, _Mapping]] = ..., bins: _Optional[_Union[Bins, _Mapping]] = ..., table: _Optional[_Union[Table, _Mapping]] = ..., piecewise: _Optional[_Union[Piecewise, _Mapping]] = ..., monomials: _Optional[_Union[Monomials, _Mapping]] = ..., elementwise: _Optional[_Union[Elementwise, _Mapping]] = ..., normalize: _Optional[_Union[Normalize, _Mapping]] = ..., matrix: _Optional[_Union[Matrix, _Mapping]] = ..., trees: _Optional[_Union[Trees, _Mapping]] = ..., text: _Optional[_Union[Text, _Mapping]] = ...) -> None: ...

class Impute(_message.Message):
    __slots__ = ("numbers", "texts", "missing_number")
    NUMBERS_FIELD_NUMBER: _ClassVar[int]
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    MISSING_NUMBER_FIELD_NUMBER: _ClassVar[int]
    numbers: _containers.RepeatedScalarFieldContainer[float]
    texts: _containers.RepeatedScalarFieldContainer[str]
    missing_number: float
    def __init__(self, numbers: _Optional[_Iterable[float]] = ..., texts: _Optional[_Iterable[str]] = ..., missing_number: _Optional[float] = ...) -> None: ...

class Missing(_message.Message):
    __slots__ = ("missing_number",)
    MISSING_NUMBER_FIELD_NUMBER: _ClassVar[int]
    missing_number: float
    def __init__(self, missing_number: _Optional[float] = ...) -> None: ...

class Affine(_message.Message):
    __slots__ = ("subtract", "divide", "multiply", "add")
    SUBTRACT_FIELD_NUMBER: _ClassVar[int]
    DIVIDE_FIELD_NUMBER: _ClassVar[int]
    MULTIPLY_FIELD_NUMBER: _ClassVar[int]
    ADD_FIELD_NUMBER: _ClassVar[int]
    subtract: _containers.RepeatedScalarFieldContainer[float]
    divide: _containers.RepeatedScalarFieldContainer[float]
    multiply: _containers.RepeatedScalarFieldContainer[float]
    add: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, subtract: _Optional[_Iterable[float]] = ..., divide: _Optional[_Iterable[float]] = ..., multiply: _Optional[_Iterable[float]] = ..., add: _Optional[_Iterable[float]] = ...) -> None: ...

class Categories(_message.Message):
    __slots__ = ("numbers", "texts", "is_text", "refuses_missing", "refuses_unknown")
    NUMBERS_FIELD_NUMBER: _ClassVar[int]
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    IS_TEXT_FIELD_NUMBER: _ClassVar[int]
    REFUSES_MISSING_FIELD_NUMBER: _ClassVar[int]
    REFUSES_UNKNOWN_FIELD_NUMBER: _ClassVar[int]
    numbers: _containers.RepeatedScalarFieldContainer[float]
    texts: _containers.RepeatedScalarFieldContainer[str]
    is_text: bool
    refuses_missing: bool
    refuses_unknown: bool
    def __init__(self, numbers: _Optional[_Iterable[float]] = ..., texts: _Optional[_Iterable[str]] = ..., is_text: _Optional[bool] = ..., refuses_missing: _Optional[bool] = ..., refuses_unknown: _Optional[bool] = ...) -> None: ...

class OneHot(_message.Message):
    __slots__ = ("columns",)
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    columns: _containers.RepeatedCompositeFieldContainer[OneHotColumn]
    def __init__(self, columns: _Optional[_Iterable[_Union[OneHotColumn, _Mapping]]] = ...) -> None: ...

class OneHotColumn(_message.Message):
    __slots__ = ("categories", "width", "places")
    CATEGORIES_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    PLACES_FIELD_NUMBER: _ClassVar[int]
    categories: Categories
    width: int
    places: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, categories: _Optional[_Union[Categories, _Mapping]] = ..., width: _Optional[int] = ..., places: _Optional[_Iterable[int]] = ...) -> None: ...

class Lookup(_message.Message):
    __slots__ = ("columns",)
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    columns: _containers.RepeatedCompositeFieldContainer[LookupColumn]
    def __init__(self, columns: _Optional[_Iterable[_Union[LookupColumn, _Mapping]]] = ...) -> None: ...

class LookupColumn(_message.Message):
    __slots__ = ("categories", "values")
    CATEGORIES_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    categories: Categories
    values: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, categories: _Optional[_Union[Categories, _Mapping]] = ..., values: _Optional[_Iterable[float]] = ...) -> None: ...

class Bins(_message.Message):
    __slots__ = ("columns", "one_hot")
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    ONE_HOT_FIELD_NUMBER: _ClassVar[int]
    columns: _containers.RepeatedCompositeFieldContainer[BinsColumn]
    one_hot: bool
    def __init__(self, columns: _Optional[_Iterable[_Union[BinsColumn, _Mapping]]] = ..., one_hot: _Optional[bool] = ...) -> None: ...

class BinsColumn(_message.Message):
    __slots__ = ("edges", "closed_right", "missing_bin")
    EDGES_FIELD_NUMBER: _ClassVar[int]
    CLOSED_RIGHT_FIELD_NUMBER: _ClassVar[int]
    MISSING_BIN_FIELD_NUMBER: _ClassVar[int]
    edges: _containers.RepeatedScalarFieldContainer[float]
    closed_right: bool
    missing_bin: int
    def __init__(self, edges: _Optional[_Iterable[float]] = ..., closed_right: _Optional[bool] = ..., missing_bin: _Optional[int] = ...) -> None: ...

class Table(_message.Message):
    __slots__ = ("columns",)
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    columns: _containers.RepeatedCompositeFieldContainer[TableColumn]
    def __init__(self, columns: _Optional[_Iterable[_Union[TableColumn, _Mapping]]] = ...) -> None: ...

class TableColumn(_message.Message):
    __slots__ = ("xs", "ys", "tolerance")
    XS_FIELD_NUMBER: _ClassVar[int]
    YS_FIELD_NUMBER: _ClassVar[int]
    TOLERANCE_FIELD_NUMBER: _ClassVar[int]
    xs: _containers.RepeatedScalarFieldContainer[float]
    ys: _containers.RepeatedScalarFieldContainer[float]
    tolerance: float
    def __init__(self, xs: _Optional[_Iterable[float]] = ..., ys: _Optional[_Iterable[float]] = ..., tolerance: _Optional[float] = ...) -> None: ...

class Piecewise(_message.Message):
    __slots__ = ("columns",)
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    columns: _containers.RepeatedCompositeFieldContainer[PiecewiseColumn]
    def __init__(self, columns: _Optional[_Iterable[_Union[PiecewiseColumn, _Mapping]]] = ...) -> None: ...

class PiecewiseColumn(_message.Message):
    __slots__ = ("edges", "origins", "coefficients", "degree", "width", "period", "domain")
    EDGES_FIELD_NUMBER: _ClassVar[int]
    ORIGINS_FIELD_NUMBER: _ClassVar[int]
    COEFFICIENTS_FIELD_NUMBER: _ClassVar[int]
    DEGREE_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    PERIOD_FIELD_NUMBER: _ClassVar[int]
    DOMAIN_FIELD_NUMBER: _ClassVar[int]
    edges: _containers.RepeatedScalarFieldContainer[float]
    origins: _containers.RepeatedScalarFieldContainer[float]
    coefficients: _containers.RepeatedScalarFieldContainer[float]
    degree: int
    width: int
    period: Interval
    domain: Interval
    def __init__(self, edges: _Optional[_Iterable[float]] = ..., origins: _Optional[_Iterable[float]] = ..., coefficients: _Optional[_Iterable[float]] = ..., degree: _Optional[int] = ..., width: _Optional[int] = ..., period: _Optional[_Union[Interval, _Mapping]] = ..., domain: _Optional[_Union[Interval, _Mapping]] = ...) -> None: ...

class Interval(_message.Message):
    __slots__ = ("low", "high")
    LOW_FIELD_NUMBER: _ClassVar[int]
    HIGH_FIELD_NUMBER: _ClassVar[int]
    low: float
    high: float
    def __init__(self, low: _Optional[float] = ..., high: _Optional[float] = ...) -> None: ...

class Monomials(_message.Message):
    __slots__ = ("degrees", "factors")
    DEGREES_FIELD_NUMBER: _ClassVar[int]
    FACTORS_FIELD_NUMBER: _ClassVar[int]
    degrees: _containers.RepeatedScalarFieldContainer[int]
    factors: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, degrees: _Optional[_Iterable[int]] = ..., factors: _Optional[_Iterable[int]] = ...) -> None: ...

class Elementwise(_message.Message):
    __slots__ = ("function", "first", "second")
    class Function(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        FUNCTION_UNSPECIFIED: _ClassVar[Elementwise.Function]
        FUNCTION_ABS: _ClassVar[Elementwise.Function]
        FUNCTION_SQUARE: _ClassVar[Elementwise.Function]
        FUNCTION_SQRT: _ClassVar[Elementwise.Function]
        FUNCTION_EXP: _ClassVar[Elementwise.Function]
        FUNCTION_EXPM1: _ClassVar[Elementwise.Function]
        FUNCTION_LOG: _ClassVar[Elementwise.Function]
        FUNCTION_LOG1P: _ClassVar[Elementwise.Function]
        FUNCTION_COS: _ClassVar[Elementwise.Function]
        FUNCTION_SIN: _ClassVar[Elementwise.Function]
        FUNCTION_TANH: _ClassVar[Elementwise.Function]
        FUNCTION_RELU: _ClassVar[Elementwise.Function]
        FUNCTION_CLIP: _ClassVar[Elementwise.Function]
        FUNCTION_YEO_JOHNSON: _ClassVar[Elementwise.Function]
        FUNCTION_BOX_COX: _ClassVar[Elementwise.Function]
        FUNCTION_NORMAL_QUANTILE: _ClassVar[Elementwise.Function]
        FUNCTION_SUBLINEAR: _ClassVar[Elementwise.Function]
        FUNCTION_GREATER: _ClassVar[Elementwise.Function]
    FUNCTION_UNSPECIFIED: Elementwise.Function
    FUNCTION_ABS: Elementwise.Function
    FUNCTION_SQUARE: Elementwise.Function
    FUNCTION_SQRT: Elementwise.Function
    FUNCTION_EXP: Elementwise.Function
    FUNCTION_EXPM1: Elementwise.Function
    FUNCTION_LOG: Elementwise.Function
    FUNCTION_LOG1P: Elementwise.Function
    FUNCTION_COS: Elementwise.Function
    FUNCTION_SIN: Elementwise.Function
    FUNCTION_TANH: Elementwise.Function
    FUNCTION_RELU: Elementwise.Function
    FUNCTION_CLIP: Elementwise.Function
    FUNCTION_YEO_JOHNSON: Elementwise.Function
    FUNCTION_BOX_COX: Elementwise.Function
    FUNCTION_NORMAL_QUANTILE: Elementwise.Function
    FUNCTION_SUBLINEAR: Elementwise.Function
    FUNCTION_GREATER: Elementwise.Function
    FUNCTION_FIELD_NUMBER: _ClassVar[int]
    FIRST_FIELD_NUMBER: _ClassVar[int]
    SECOND_FIELD_NUMBER: _ClassVar[int]
    function: Elementwise.Function
    first: _containers.RepeatedScalarFieldContainer[float]
    second: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, function: _Optional[_Union[Elementwise.Function, str]] = ..., first: _Optional[_Iterable[float]] = ..., second: _Optional[_Iterable[float]] = ...) -> None: ...

class Normalize(_message.Message):
    __slots__ = ("norm",)
    class Norm(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        NORM_UNSPECIFIED: _ClassVar[Normalize.Norm]
        NORM_L1: _ClassVar[Normalize.Norm]
        NORM_L2: _ClassVar[Normalize.Norm]
        NORM_MAX: _ClassVar[Normalize.Norm]
    NORM_UNSPECIFIED: Normalize.Norm
    NORM_L1: Normalize.Norm
    NORM_L2: Normalize.Norm
    NORM_MAX: Normalize.Norm
    NORM_FIELD_NUMBER: _ClassVar[int]
    norm: Normalize.Norm
    def __init__(self, norm: _Optional[_Union[Normalize.Norm, str]] = ...) -> None: ...

class Matrix(_message.Message):
    __slots__ = ("weights", "intercepts")
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    INTERCEPTS_FIELD_NUMBER: _ClassVar[int]
    weights: _containers.RepeatedScalarFieldContainer[float]
    intercepts: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, weights: _Optional[_Iterable[float]] = ..., intercepts: _Optional[_Iterable[float]] = ...) -> None: ...

class Trees(_message.Message):
    __slots__ = ("node_counts", "left", "right", "features", "thresholds", "misses_left", "strict", "rounds_to_float32", "category_splits")
    NODE_COUNTS_FIELD_NUMBER: _ClassVar[int]
    LEFT_FIELD_NUMBER: _ClassVar[int]
    RIGHT_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    THRESHOLDS_FIELD_NUMBER: _ClassVar[int]
    MISSES_LEFT_FIELD_NUMBER: _ClassVar[int]
    STRICT_FIELD_NUMBER: _ClassVar[int]
    ROUNDS_TO_FLOAT32_FIELD_NUMBER: _ClassVar[int]
    CATEGORY_SPLITS_FIELD_NUMBER: _ClassVar[int]
    node_counts: _containers.RepeatedScalarFieldContainer[int]
    left: _containers.RepeatedScalarFieldContainer[int]
    right: _containers.RepeatedScalarFieldContainer[int]
    features: _containers.RepeatedScalarFieldContainer[int]
    thresholds: _containers.RepeatedScalarFieldContainer[float]
    misses_left: _containers.RepeatedScalarFieldContainer[bool]
    strict: bool
    rounds_to_float32: bool
    category_splits: _containers.RepeatedCompositeFieldContainer[CategorySplit]
    def __init__(self, node_counts: _Optional[_Iterable[int]] = ..., left: _Optional[_Iterable[int]] = ..., right: _Optional[_Iterable[int]] = ..., features: _Optional[_Iterable[int]] = ..., thresholds: _Optional[_Iterable[float]] = ..., misses_left: _Optional[_Iterable[bool]] = ..., strict: _Optional[bool] = ..., rounds_to_float32: _Optional[bool] = ..., category_splits: _Optional[_Iterable[_Union[CategorySplit, _Mapping]]] = ...) -> None: ...

class CategorySplit(_message.Message):
    __slots__ = ("node", "left", "right")
    NODE_FIELD_NUMBER: _ClassVar[int]
    LEFT_FIELD_NUMBER: _ClassVar[int]
    RIGHT_FIELD_NUMBER: _ClassVar[int]
    node: int
    left: _containers.RepeatedScalarFieldContainer[int]
    right: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, node: _Optional[int] = ..., left: _Optional[_Iterable[int]] = ..., right: _Optional[_Iterable[int]] = ...) -> None: ...

class Text(_message.Message):
    __slots__ = ("tokens", "lowercase", "strip_accents", "min_word_length", "stop_words", "ngram_min", "ngram_max", "vocabulary", "hash_width", "alternates_sign")
    class Tokens(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        TOKENS_UNSPECIFIED: _ClassVar[Text.Tokens]
        TOKENS_WORDS: _ClassVar[Text.Tokens]
        TOKENS_CHARACTERS: _ClassVar[Text.Tokens]
        TOKENS_CHARACTERS_IN_WORDS: _ClassVar[Text.Tokens]
    TOKENS_UNSPECIFIED: Text.Tokens
    TOKENS_WORDS: Text.Tokens
    TOKENS_CHARACTERS: Text.Tokens
    TOKENS_CHARACTERS_IN_WORDS: Text.Tokens
    class StripAccents(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STRIP_ACCENTS_UNSPECIFIED: _ClassVar[Text.StripAccents]
        STRIP_ACCENTS_NONE: _ClassVar[Text.StripAccents]
        STRIP_ACCENTS_UNICODE: _ClassVar[Text.StripAccents]
        STRIP_ACCENTS_ASCII: _ClassVar[Text.StripAccents]
    STRIP_ACCENTS_UNSPECIFIED: Text.StripAccents
    STRIP_ACCENTS_NONE: Text.StripAccents
    STRIP_ACCENTS_UNICODE: Text.StripAccents
    STRIP_ACCENTS_ASCII: Text.StripAccents
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    LOWERCASE_FIELD_NUMBER: _ClassVar[int]
    STRIP_ACCENTS_FIELD_NUMBER: _ClassVar[int]
    MIN_WORD_LENGTH_FIELD_NUMBER: _ClassVar[int]
    STOP_WORDS_FIELD_NUMBER: _ClassVar[int]
    NGRAM_MIN_FIELD_NUMBER: _ClassVar[int]
    NGRAM_MAX_FIELD_NUMBER: _ClassVar[int]
    VOCABULARY_FIELD_NUMBER: _ClassVar[int]
    HASH_WIDTH_FIELD_NUMBER: _ClassVar[int]
    ALTERNATES_SIGN_FIELD_NUMBER: _ClassVar[int]
    tokens: Text.Tokens
    lowercase: bool
    strip_accents: Text.StripAccents
    min_word_length: int
    stop_words: _containers.RepeatedScalarFieldContainer[str]
    ngram_min: int
    ngram_max: int
    vocabulary: _containers.RepeatedScalarFieldContainer[str]
    hash_width: int
    alternates_sign: bool
    def __init__(self, tokens: _Optional[_Union[Text.Tokens, str]] = ..., lowercase: _Optional[bool] = ..., strip_accents: _Optional[_Union[Text.StripAccents, str]] = ..., min_word_length: _Optional[int] = ..., stop_words: _Optional[_Iterable[str]] = ..., ngram_min: _Optional[int] = ..., ngram_max: _Optional[int] = ..., vocabulary: _Optional[_Iterable[str]] = ..., hash_width: _Optional[int] = ..., alternates_sign: _Optional[bool] = ...) -> None: ...
