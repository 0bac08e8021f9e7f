"""Credentials: a client's certificates and token, whom it trusts, and if plaintext is allowed.

>>> credentials = Credentials(ca_certificate="ca.pem", token=os.environ["SEALSERVE_TOKEN"])
>>> with Client("inference.example.org:50051", credentials=credentials) as client:
"""

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from sealserve.errors import CredentialsError
from sealserve.protocol.address import is_local

__all__ = ["Credentials", "File"]

File = str | os.PathLike[str] | bytes

_TOKEN = re.compile(r"[!-~]+", re.ASCII)


@dataclass(frozen=True)
class Credentials:
    """The way to reach a service.

    The client speaks TLS, unless the service is on this machine and no attribute asks for TLS.
    Certificates and the key are PEM: a path, or the bytes themselves.

    Attributes:
        ca_certificate: the authorities to trust for the service's certificate. By default they are
            the public authorities.
        client_certificate, client_key: what identifies this client to a service that asks for a
            certificate. Give both or neither.
        server_name: the name in the service's certificate, if it differs from the address.
        token: what identifies this client to the service. It is sent with every call.
        insecure: whether to speak plaintext to other machines, too, and to send the token in it.
            Use it only if something else protects the connection.

    Raises:
        CredentialsError: the attributes contradict each other, or the token is malformed.
    """

    ca_certificate: File | None = None
    client_certificate: File | None = field(default=None, repr=False)
    client_key: File | None = field(default=None, repr=False)
    server_name: str = ""
    token: str = field(default="", repr=False)
    insecure: bool = False

    def __post_init__(self) -> None:
        if (self.client_certificate is None) != (self.client_key is None):
            raise CredentialsError(
                "a client certificate needs its key, and a key its certificate: give both or neither"
            )
        if self.insecure and self._asks_for_tls:
            raise CredentialsError("insecure means plaintext, which uses no certificates: leave out one of them")
        if self.token and not _TOKEN.fullmatch(self.token):
            raise CredentialsError(
                "the token is malformed, it has a space, a line break or a character that no token has: "
                "copy it again from where it was issued"
            )

    @property
    def _asks_for_tls(self) -> bool:
        return bool(self.ca_certificate or self.client_certificate or self.server_name)

    def uses_tls(self, address: str) -> bool:
        """Tell whether to speak TLS to an address."""
        return self._asks_for_tls or not (self.insecure or is_local(address))


def pem(file: File | None) -> bytes | None:
    """Return the PEM in a file, or the bytes if they are given instead of a path.

    Raises:
        CredentialsError: the file cannot be read, is not in PEM, or is cut short.
    """
    if file is None:
        return None
    name = "a certificate or key" if isinstance(file, bytes) else os.fspath(file)
    try:
        data = file if isinstance(file, bytes) else Path(file).read_bytes()
    except OSError as error:
        raise CredentialsError(f"{name} cannot be read, {error.strerror}: name a readable file") from error
    if b"-----BEGIN " not in data:  # gRPC would retry for ever
        raise CredentialsError(f"{name} is not in PEM: convert it")
    if data.count(b"-----BEGIN ") > data.count(b"-----END "):  # gRPC would pass over the rest
        raise CredentialsError(f"{name} is cut short: copy it again")
    return data
