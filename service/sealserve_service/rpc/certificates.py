"""The server's certificate, its key, and its clients' authority: PEM files that may change."""

from collections.abc import Callable
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import grpc
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from sealserve_service.watched_files import UnusableFileError, WatchedFiles

_BEGIN = b"-----BEGIN CERTIFICATE-----"
_END = b"-----END CERTIFICATE-----"


def server_credentials(
    certificate: Path,
    private_key: Path,
    client_ca: Path | None,
    on_read: Callable[[datetime], None] = lambda _: None,
) -> grpc.ServerCredentials:
    """Make credentials that check their files for changes at each new connection.

    Open connections keep the credentials that they began with.

    Args:
        certificate: PEM; the server's own certificate first, then those between it and its
            authority.
        private_key: PEM; RSA or EC, without a password.
        client_ca: PEM; if given, a client must have a certificate of this authority.
        on_read: called with the time when the first certificate of the chain expires, at the start
            and at each change.

    Raises:
        UnusableFileError: a file cannot be read or is malformed, a certificate is not valid now or
            not signed by the one after it, or the key does not belong to the certificate.
    """
    paths = [certificate, private_key] + ([] if client_ca is None else [client_ca])
    files = WatchedFiles(paths, lambda contents: _make_configuration(paths, contents, on_read), interval_seconds=0.0)
    served = files.read()

    def changed() -> Any:  # None means no change; the stubs do not know it
        nonlocal served
        latest = files.read()
        if latest is served:
            return None
        served = latest
        return latest

    return grpc.dynamic_ssl_server_credentials(served, changed, require_client_authentication=client_ca is not None)


def _make_configuration(
    paths: list[Path], contents: list[bytes], on_read: Callable[[datetime], None]
) -> grpc.ServerCertificateConfiguration:
    """Check the files, which gRPC does not do, and make one configuration of them."""
    certificate, private_key, *client_ca = contents
    chain = _parse_certificates(paths[0], certificate)
    _check_chain(paths[0], chain)
    try:
        key = load_pem_private_key(private_key, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):  # the texts of these errors may quote the key
        raise UnusableFileError(f"{paths[1]}: it is not a private key in PEM without a password") from None
    if not isinstance(key, RSAPrivateKey | EllipticCurvePrivateKey):
        raise UnusableFileError(f"{paths[1]}: the private key is neither RSA nor EC")
    if key.public_key() != chain[0].public_key():
        raise UnusableFileError(f"{paths[1]}: it is not the private key of {paths[0]}")
    for data in client_ca:
        # A bundle may have authorities of the past and of the future beside those of today.
        faults = [_fault_of_validity(authority) for authority in _parse_certificates(paths[2], data)]
        if all(faults):
            raise UnusableFileError(f"{paths[2]}: no certificate is valid now: the first one {faults[0]}")
    on_read(min(each.not_valid_after_utc for each in chain))
    pairs = [(private_key, certificate)]
    return grpc.ssl_server_certificate_configuration(pairs, root_certificates=client_ca[0] if client_ca else None)


def _parse_certificates(path: Path, data: bytes) -> list[x509.Certificate]:
    begun, ended = data.count(_BEGIN), data.count(_END)
    if begun > ended:  # the parser would pass over the rest
        raise UnusableFileError(f"{path}: the file is cut short: {begun} certificates begin in it, and {ended} end")
    try:
        return x509.load_pem_x509_certificates(data)
    except ValueError as error:
        raise UnusableFileError(f"{path}: there are no certificates in PEM, or malformed ones") from error


def _check_chain(path: Path, chain: list[x509.Certificate]) -> None:
    """Check that each certificate is valid now, and signed by the one after it, an authority."""
    for number, certificate in enumerate(chain, 1):
        name = "the certificate" if number == 1 else f"certificate {number}"
        if fault := _fault_of_validity(certificate):
            raise UnusableFileError(f"{path}: {name} {fault}")
    for number, (signed, authority) in enumerate(pairwise(chain), 2):
        try:
            signed.verify_directly_issued_by(authority)
            constraints = authority.extensions.get_extension_for_class(x509.BasicConstraints).value
        except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
            constraints = None
        if constraints is None or not constraints.ca:
            raise UnusableFileError(
                f"{path}: certificate {number} is not that of the authority that signed the one before it: put the "
                "service's own certificate first, then those between it and its authority, in order"
            )


def _fault_of_validity(certificate: x509.Certificate) -> str:
    """Return why a certificate is not valid now; "" if it is."""
    begin, end, now = certificate.not_valid_before_utc, certificate.not_valid_after_utc, datetime.now(UTC)
    if end <= now:
        return f"has expired on {end:%Y-%m-%d}"
    return f"is not valid before {begin:%Y-%m-%d %H:%M} UTC, by this machine's clock" if begin > now else ""
