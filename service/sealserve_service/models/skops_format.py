"""Models as skops files: scikit-learn objects without code, made only of types that skops trusts."""

from pathlib import Path

from skops import io

from sealserve_service.models.errors import ModelFileError


def read_skops(content: bytes, path: Path) -> object:
    """The object in a skops file, whose content is that of the file at the path.

    Raises:
        ModelFileError: the content is damaged, or holds types that skops does not trust; they are named.
    """
    try:
        untrusted = io.get_untrusted_types(data=content)
        if not untrusted:
            return io.loads(content)
    except Exception as error:  # zipfile, json and skops each have their own for a damaged file
        raise ModelFileError(f"{path} is not a readable skops file: {type(error).__name__}: {error}") from error
    raise ModelFileError(
        f"{path} holds types that could run code: {', '.join(sorted(untrusted))}. Only scikit-learn's own are served."
    )
