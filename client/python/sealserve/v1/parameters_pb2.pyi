from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Layout(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LAYOUT_UNSPECIFIED: _ClassVar[Layout]
    LAYOUT_ROW: _ClassVar[Layout]
    LAYOUT_COLUMN: _ClassVar[Layout]
    LAYOUT_EI_SLOTS: _ClassVar[Layout]

class Scheme(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SCHEME_UNSPECIFIED: _ClassVar[Scheme]
    SCHEME_BFV: _ClassVar[Scheme]
    SCHEME_CKKS: _ClassVar[Scheme]

class Weights(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    WEIGHTS_UNSPECIFIED: _ClassVar[Weights]
    WEIGHTS_OPEN: _ClassVar[Weights]
    WEIGHTS_PRIVATE: _ClassVar[Weights]
LAYOUT_UNSPECIFIED: Layout
LAYOUT_ROW: Layout
LAYOUT_COLUMN: Layout
LAYOUT_EI_SLOTS: Layout
SCHEME_UNSPECIFIED: Scheme
SCHEME_BFV: Scheme
SCHEME_CKKS: Scheme
WEIGHTS_UNSPECIFIED: Weights
WEIGHTS_OPEN: Weights
WEIGHTS_PRIVATE: Weights

class EncryptionParameters(_message.Message):
    __slots__ = ("parameter_set", "scheme", "poly_modulus_degree", "coeff_modulus", "data_prime_count", "plain_modulus", "ciphertext_scale", "parms_id")
    PARAMETER_SET_FIELD_NUMBER: _ClassVar[int]
    SCHEME_FIELD_NUMBER: _ClassVar[int]
    POLY_MODULUS_DEGREE_FIELD_NUMBER: _ClassVar[int]
    COEFF_MODULUS_FIELD_NUMBER: _ClassVar[int]
    DATA_PRIME_COUNT_FIELD_NUMBER: _ClassVar[int]
    PLAIN_MODULUS_FIELD_NUMBER: _ClassVar[int]
    CIPHERTEXT_SCALE_FIELD_NUMBER: _ClassVar[int]
    PARMS_ID_FIELD_NUMBER: _ClassVar[int]
    parameter_set: str
    scheme: Scheme
    poly_modulus_degree: int
    coeff_modulus: _containers.RepeatedScalarFieldContainer[int]
    data_prime_count: int
    plain_modulus: int
    ciphertext_scale: float
    parms_id: bytes
    def __init__(self, parameter_set: _Optional[str] = ..., scheme: _Optional[_Union[Scheme, str]] = ..., poly_modulus_degree: _Optional[int] = ..., coeff_modulus: _Optional[_Iterable[int]] = ..., data_prime_count: _Optional[int] = ..., plain_modulus: _Optional[int] = ..., ciphertext_scale: _Optional[float] = ..., parms_id: _Optional[bytes] = ...) -> None: ...
