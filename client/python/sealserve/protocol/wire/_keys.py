"""Conversions of registered keys."""

from datetime import UTC, timedelta

from sealserve import errors
from sealserve.errors import ParameterError
from sealserve.protocol.key_record import KeyHeader, KeyRecord
from sealserve.protocol.text import printable
from sealserve.protocol.wire._enums import KINDS, kind_to_proto, seconds
from sealserve.v1 import keys_pb2


def key_header_to_proto(header: KeyHeader) -> keys_pb2.KeyHeader:
    """Convert the header of an upload."""
    message = keys_pb2.KeyHeader(
        key_id=header.key_id,
        kind=kind_to_proto(header.kind),
        parameter_set=header.parameter_set,
        byte_count=header.byte_count,
        blob_name=header.blob_name,
    )
    if header.ttl_seconds is not None:
        message.ttl.FromTimedelta(timedelta(seconds=header.ttl_seconds))
    return message


def key_header_from_proto(message: keys_pb2.KeyHeader) -> KeyHeader:
    """Convert the header of an upload. The service checks whether it takes such a key.

    Raises:
        ParameterSetNotOfferedError: a kind that this version does not know.
    """
    if message.kind not in KINDS:
        raise errors.ParameterSetNotOfferedError("", message.parameter_set)
    return KeyHeader(
        key_id=message.key_id,
        kind=KINDS[message.kind],
        parameter_set=message.parameter_set,
        byte_count=message.byte_count,
        ttl_seconds=seconds(message.ttl) if message.HasField("ttl") else None,
        blob_name=message.blob_name,
    )


def key_to_proto(record: KeyRecord) -> keys_pb2.Key:
    """Convert a key's record."""
    return keys_pb2.Key(
        key_id=record.key_id,
        kind=kind_to_proto(record.kind),
        parameter_set=record.parameter_set,
        byte_count=record.byte_count,
        owner=record.tenant,
        create_time=record.create_time,
        expire_time=record.expire_time,
    )


def key_from_proto(message: keys_pb2.Key) -> KeyRecord:
    """Convert a key's record. Its texts are made printable, because records are shown.

    Raises:
        ParameterError: this version does not know the kind, or a time is out of range.
    """
    if message.kind not in KINDS:
        raise ParameterError("the key is of a kind that this version does not know: update sealserve")
    try:
        created, expires = message.create_time.ToDatetime(UTC), message.expire_time.ToDatetime(UTC)
    except (ValueError, OverflowError) as error:
        raise ParameterError(f"the key's times are out of range: {error}") from error
    return KeyRecord(
        tenant=printable(message.owner),
        key_id=printable(message.key_id),
        kind=KINDS[message.kind],
        parameter_set=printable(message.parameter_set),
        byte_count=message.byte_count,
        create_time=created,
        expire_time=expires,
    )
