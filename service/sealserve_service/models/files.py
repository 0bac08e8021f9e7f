"""Files of models and calibration rows, read once: what is parsed is what was checked."""

import hashlib
import os
from pathlib import Path

from sealserve_service.models.errors import ModelFileError
from sealserve_service.models.limits import check_limit


def read_file(path: Path, sha256: str, max_bytes: int) -> bytes:
    """Return the content of a file.

    Args:
        path: of the file.
        sha256: of the content, in lower-case hexadecimal digits; "" for any.
        max_bytes: of the content; no more is read.

    Raises:
        ModelFileError: the file cannot be read, or has another SHA-256.
        ModelTooLargeError: the file is too large.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            check_limit("bytes", max_bytes, size)
            content = file.read(size)
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read: {error.strerror}") from error
    found = hashlib.sha256(content).hexdigest()
    if sha256 and found != sha256:
        raise ModelFileError(f"{path} is not the file it should be: its SHA-256 is {found}, not {sha256}")
    return content
