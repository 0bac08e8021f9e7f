"""The format in which stores write records, and the names under which they write them.

The path of a key gives its tenant and id. The rest of the record is one line of JSON in ASCII, fit
for the first line of a file and for an HTTP header.
"""

import hashlib
import json
import re
import string
from datetime import datetime

from sealserve.protocol.key_record import KeyKind, KeyRecord

_PLAIN = frozenset((string.ascii_lowercase + string.digits + "-_").encode())
_MAX_FOLDER_CHARACTERS = 150  # file systems allow 255
_KEY_ID = re.compile(r"[0-9a-f]{64}", re.ASCII)


def folder_name(tenant: str) -> str:
    """Return the name of a tenant's folder.

    Different tenants have different names, also on systems that ignore case, and a name is safe in
    paths and URLs. Lower-case letters, digits, - and _ stay. Any other byte of UTF-8 becomes = and
    two hexadecimal digits.
    """
    data = tenant.encode("utf-8", "surrogatepass")
    name = "".join(chr(byte) if byte in _PLAIN else f"={byte:02x}" for byte in data)
    # Neither =sha256 nor =none begins like an encoded byte.
    if len(name) > _MAX_FOLDER_CHARACTERS:
        return f"=sha256-{hashlib.sha256(data).hexdigest()}"
    return name or "=none"


def is_key_id(text: str) -> bool:
    """Whether a text has the form of an id. A text of this form is safe in a path."""
    return _KEY_ID.fullmatch(text) is not None


def record_to_json(record: KeyRecord) -> str:
    """Write a record without its tenant and id."""
    fields = {
        "kind": record.kind.value,
        "parameter_set": record.parameter_set,
        "byte_count": record.byte_count,
        "create_time": record.create_time.isoformat(),
        "expire_time": record.expire_time.isoformat(),
    }
    return json.dumps(fields, separators=(",", ":"))


def record_from_json(text: str | bytes, tenant: str, key_id: str) -> KeyRecord:
    """Read the record of a tenant's key.

    Raises:
        ValueError: the text is no record.
    """
    try:
        fields = json.loads(text)
        record = KeyRecord(
            tenant=tenant,
            key_id=key_id,
            kind=KeyKind(fields["kind"]),
            parameter_set=str(fields["parameter_set"]),
            byte_count=int(fields["byte_count"]),
            create_time=datetime.fromisoformat(fields["create_time"]),
            expire_time=datetime.fromisoformat(fields["expire_time"]),
        )
    except (KeyError, TypeError) as error:
        raise ValueError("a record lacks a field, or a field has another type") from error
    if record.create_time.tzinfo is None or record.expire_time.tzinfo is None:
        raise ValueError("a time of a record lacks its zone")
    return record
