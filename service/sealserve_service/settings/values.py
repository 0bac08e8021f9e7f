"""Values of options: what a flag's or variable's text becomes, and what is wrong with a bad one."""

import ipaddress
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

from pydantic import BeforeValidator, Field, ValidationError

from sealserve.errors import InputError
from sealserve.protocol.address import host_of
from sealserve_service.settings.errors import AddressError, OptionError

AZURE_CONTAINER = re.compile(r"azure:([a-z0-9-]{3,63})", re.ASCII)
"""A key store in the storage account of the connection string; the group is the container."""
AZURE_URL = re.compile(r"(https://[a-z0-9.-]+(?::\d+)?(?:/[a-z0-9]+)?)/([a-z0-9-]{3,63})", re.ASCII)
"""A key store that a managed identity opens; the groups are the account's URL and the container."""
MAX_MESSAGE_BYTES = (1 << 30) - 1
"""The server sets gRPC's limit to twice the published one, and gRPC takes at most 2^31 - 1."""
MAX_SECONDS = 7 * 86_400.0

_MAX_BYTES = 1 << 50
_LONGEST_SHOWN = 100
_NAMED = re.compile(r"([A-Za-z0-9][A-Za-z0-9_.-]*)=(.+)", re.DOTALL)
_DIGEST = re.compile(r"[0-9a-f]{64}")

T = TypeVar("T")


class ModelFile(NamedTuple):
    """A model as --model gives it; `sha256` of the file is "" where it is not given."""

    name: str
    path: Path
    sha256: str = ""


class PinnedFile(NamedTuple):
    """A file as an option gives it; `sha256` of the file is "" where it is not given."""

    path: Path
    sha256: str = ""


def split_address(address: str) -> tuple[str, int]:
    """Split HOST:PORT; an IPv6 host stands in brackets.

    Raises:
        AddressError: it is malformed.
    """
    host, _, port = address.rpartition(":")
    if not (host and port.isascii() and port.isdecimal() and int(port) < 1 << 16):
        raise AddressError(f"{shown(address)} is not HOST:PORT, with a port below 65536")
    return host_of(address), int(port)


# These functions get what a flag, a variable or a caller in Python gives. They parse texts and
# return other values unchanged. pydantic checks the result.


def model_file(value: object) -> object:
    """Parse [NAME=]PATH[@sha256:HEX]; without a name it is the path's stem."""
    if not isinstance(value, str):
        return value
    name, text = _split_name(value)
    file = _split_digest(text)
    return ModelFile(name or file.path.stem, *file)


def _pinned_file(value: object) -> object:
    """Parse PATH[@sha256:HEX]."""
    if isinstance(value, Path):
        return PinnedFile(value)
    return _split_digest(value) if isinstance(value, str) else value


def _split_digest(text: str) -> PinnedFile:
    path, at, digest = text.partition("@sha256:")
    if not path or (at and not _DIGEST.fullmatch(digest.lower())):
        raise ValueError("[NAME=]PATH[@sha256:HEX], where HEX is 64 hexadecimal digits")
    return PinnedFile(Path(path), digest.lower())


def _for_model(value: object) -> object:
    """Parse [NAME=]VALUE; without a name it is for all models."""
    return _split_name(value) if isinstance(value, str) else value


def _split_name(text: str) -> tuple[str | None, str]:
    match = _NAMED.fullmatch(text)
    return (match[1], match[2]) if match else (None, text)


def _words(value: object) -> object:
    """Parse WORD,..."""
    return tuple(word.strip() for word in value.split(",")) if isinstance(value, str) else value


def _low_and_high(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        low, high = map(float, value.split(","))
    except ValueError:
        raise ValueError("LO,HI: two numbers, such as 0,1") from None
    return low, high


def networks(value: object) -> object:
    """Parse NETWORK,... in each of several texts. A network of all addresses is refused."""
    if not isinstance(value, list | tuple) or not all(isinstance(text, str) for text in value):
        return value
    try:
        found = tuple(ipaddress.ip_network(part.strip()) for text in value for part in text.split(","))
    except ValueError:
        raise ValueError("addresses or networks, such as 10.0.0.0/8,192.0.2.1") from None
    if any(network.prefixlen == 0 for network in found):
        raise ValueError("the networks of your own proxies: with all addresses, a caller could name any other")
    return found


def lower_case(value: object) -> object:
    """Accept the words of a choice in any case."""
    return value.lower() if isinstance(value, str) else value


def with_host(value: object) -> object:
    """Add the default host to an address of metrics that is only a port."""
    return f"127.0.0.1:{value}" if isinstance(value, str) and value.isdecimal() else value


def _path(value: object) -> object:
    """Refuse an empty path, which would be the working directory."""
    if value == "":
        raise ValueError("a path")
    return value


File = Annotated[Path, BeforeValidator(_path)]
Pinned = Annotated[PinnedFile, BeforeValidator(_pinned_file)]
Positive = Annotated[float, Field(gt=0)]
Margin = Annotated[float, Field(ge=0, le=1000)]
Seconds = Annotated[float, Field(gt=0, le=MAX_SECONDS)]
Bytes = Annotated[int, Field(gt=0, le=_MAX_BYTES)]
Count = Annotated[int, Field(gt=0, le=10_000)]
ProcessCount = Annotated[int, Field(ge=1, le=1024)]
Networks = Annotated[tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...], BeforeValidator(networks)]
InputRange = Annotated[tuple[float, float], BeforeValidator(_low_and_high)]
Publish = Annotated[tuple[Literal["steps", "structure"], ...], BeforeValidator(_words)]
PerModel = tuple[Annotated[tuple[str | None, T], BeforeValidator(_for_model)], ...]
"""Values with the model that each is for; None is for all models."""


def fault_of_key_store(location: str) -> str:
    """Return what is wrong with the location of a key store; "" if nothing is.

    A URL or a connection string is not repeated: it may hold a secret.
    """
    if re.search("AccountKey=|SharedAccessSignature=", location, re.IGNORECASE):
        return "it is a connection string; put that in SEALSERVE_KEY_STORE_CONNECTION_STRING, and name azure:CONTAINER"
    if AZURE_CONTAINER.fullmatch(location) or AZURE_URL.fullmatch(location):
        return ""
    if "://" in location or location.startswith("azure:"):
        return "it is neither azure:CONTAINER nor https://ACCOUNT.blob.core.windows.net/CONTAINER"
    if location in ("", "memory", "none") or "/" in location or Path(location).is_dir():
        return ""
    return (
        f"{shown(location)} is none of memory, none and azure:CONTAINER; if it is a directory to be made, write "
        f"./{location}"
    )


# pydantic's kind of error -> what the value should be.
_EXPECTED = {
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing_size": "a smaller number",
    "float_parsing": "a number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "greater_than": "above {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than_equal": "at most {le}",
    "literal_error": "{expected}",
    "tuple_type": "a sequence of values",
    "value_error": "{error}",
}


def input_error(error: ValidationError, name_of: Callable[[str], str]) -> InputError:
    """Return the error of the first wrong value: one line that says what the value should be.

    Args:
        error: of all values; only its first one is reported.
        name_of: returns what the user calls an option.
    """
    fault: Any = error.errors(include_url=False)[0]
    context = fault.get("ctx", {})
    if isinstance(cause := context.get("error"), InputError):  # values that contradict each other
        return cause
    if fault["type"] == "extra_forbidden":
        return OptionError(f"there is no option {fault['loc'][0]}")
    pattern = _EXPECTED.get(fault["type"])
    expected = pattern.format_map(context) if pattern else fault["msg"].removeprefix("Input should be ")
    return OptionError(f"{name_of(fault['loc'][0])}: {shown(fault['input'])} should be {expected}")


def shown(value: object) -> str:
    """Quote a value for an error: in one line, and cut if it is long."""
    text = repr(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."
