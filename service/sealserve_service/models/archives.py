"""Archives: zip files whose members are read only after their sizes have been checked.

An archive's directory may lie. A member that says 100 bytes may inflate to gigabytes, and
`ZipFile.read` inflates all of it before it cuts the result. `read_member` inflates no more than the
directory says.
"""

import io
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile

from sealserve_service.models.limits import MAX_MEMBERS, MAX_MODEL_BYTES, check_limit

_ENTRY = b"PK\x01\x02"
"""The bytes with which each entry of a directory begins."""


def open_archive(content: bytes, max_bytes: int = MAX_MODEL_BYTES) -> ZipFile:
    """Open an archive, check its directory, and read none of its members.

    Args:
        content: of the archive.
        max_bytes: of all members, uncompressed.

    Raises:
        ModelTooLargeError: the members are too many or too large.
        ValueError: a name occurs twice, or a member is compressed in another way than NumPy and
            skops do it; there are ways whose output zipfile cannot limit.
        zipfile.BadZipFile: it is no archive.
    """
    check_limit("members", MAX_MEMBERS, content.count(_ENTRY))  # zipfile makes an object of each
    archive = ZipFile(io.BytesIO(content))
    entries = archive.infolist()
    check_limit("bytes", max_bytes, sum(entry.file_size for entry in entries))
    if len({entry.filename for entry in entries}) < len(entries):
        raise ValueError("a member occurs twice")
    if any(entry.compress_type not in (ZIP_STORED, ZIP_DEFLATED) for entry in entries):
        raise ValueError("a member is compressed in another way than by deflate")
    return archive


def read_member(archive: ZipFile, name: str) -> bytes:
    """Read a member.

    Raises:
        KeyError: there is none of that name.
        ValueError: it does not have the size that the directory says.
        zipfile.BadZipFile, zlib.error: it is damaged.
    """
    size = archive.getinfo(name).file_size
    with archive.open(name) as member:
        data = member.read(size)
    if len(data) < size:
        raise ValueError(f"the member {name!r} is shorter than the archive's directory says")
    return data
