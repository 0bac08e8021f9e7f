"""Models as skops files: scikit-learn objects without code, made only of types that skops trusts."""

from pathlib import Path

from skops import io

from sealserve_service.models.errors import ModelFileError


def read_skops(path: Path) -> object:
    """The object in a skops file.

    Raises:
        ModelFileError: the file is damaged, or holds types that skops does not trust; they are named.
    """
    try:
        untrusted = io.get_untrusted_types(file=path)
        if not untrusted:
            return io.load(path)
    except Exception as error:  # zipfile, json and skops each have their own for a damaged file
        raise ModelFileError(f"{path} is not a readable skops file: {type(error).__name__}: {error}") from error
    raise ModelFileError(
        f"{path} holds types that could run code: {', '.join(sorted(untrusted))}. Only scikit-learn's own are served."
    )
