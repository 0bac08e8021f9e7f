"""What a client shows and trusts: certificates and a token, and whether plaintext will do.

>>> credentials = Credentials(ca_certificate="ca.pem", token=os.environ["SEALSERVE_TOKEN"])
>>> with Client("inference.example.org:50051", credentials=credentials) as client:
"""

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from sealserve.errors import CredentialsError
from sealserve.protocol.address import host_of, is_loopback

__all__ = ["Credentials", "File"]

File = str | os.PathLike[str] | bytes

_TOKEN = re.compile(r"[!-~]+", re.ASCII)


@dataclass(frozen=True)
class Credentials:
    """How to reach a service: with TLS, unless it is on this machine and nothing below speaks of TLS.

    Certificates and the key are PEM: a path, or the bytes themselves.

    Attributes:
        ca_certificate: whom to trust for the service's certificate; by default the public authorities.
        client_certificate, client_key: what the service knows this client by, where it asks for that; both or neither.
        server_name: the name in the service's certificate, where the address is another.
        token: what the service knows this client by; sent with every call.
        insecure: plaintext to other machines, too, token and all: where something else protects the way there.

    Raises:
        CredentialsError: they contradict each other, or the token can be none.
    """

    ca_certificate: File | None = None
    client_certificate: File | None = field(default=None, repr=False)
    client_key: File | None = field(default=None, repr=False)
    server_name: str = ""
    token: str = field(default="", repr=False)
    insecure: bool = False

    def __post_init__(self) -> None:
        if (self.client_certificate is None) != (self.client_key is None):
            raise CredentialsError("a client certificate and its key are needed, or neither")
        if self.insecure and self._speaks_of_tls:
            raise CredentialsError("insecure means plaintext, in which certificates have no use")
        if self.token and not _TOKEN.fullmatch(self.token):
            raise CredentialsError("the token is none: it has a space, a line break or a letter that no token has")

    @property
    def _speaks_of_tls(self) -> bool:
        return bool(self.ca_certificate or self.client_certificate or self.server_name)

    def use_tls(self, address: str) -> bool:
        """Whether to speak TLS to an address."""
        return self._speaks_of_tls or not (self.insecure or is_loopback(host_of(address)))


def pem(file: File | None) -> bytes | None:
    """Return the PEM of a file that is a path, or the bytes themselves.

    Raises:
        CredentialsError: it cannot be read, or is no PEM.
    """
    if file is None:
        return None
    name = "a certificate or key" if isinstance(file, bytes) else os.fspath(file)
    try:
        data = file if isinstance(file, bytes) else Path(file).read_bytes()
    except OSError as error:
        raise CredentialsError(f"{name}: {error.strerror}") from error
    if b"-----BEGIN " not in data:  # gRPC would retry for ever with it
        raise CredentialsError(f"{name}: it is not in PEM")
    return data
