"""Certificates made on the spot: authorities, what they have signed, and files that hold it."""

import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

DAY = timedelta(days=1)


@dataclass(frozen=True)
class Pair:
    """A certificate and its private key, in PEM."""

    certificate: bytes
    key: bytes

    def write(self, directory: Path, name: str = "server") -> tuple[Path, Path]:
        """Put both into files, in place, and return their paths."""
        certificate, key = directory / f"{name}.crt", directory / f"{name}.key"
        certificate.write_bytes(self.certificate)
        key.write_bytes(self.key)
        return certificate, key


class Authority:
    """Signs certificates with a key of its own."""

    def __init__(self, name: str, expires: timedelta = DAY) -> None:
        self._name = _name(name)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._expires = expires

    @cached_property
    def certificate(self) -> bytes:
        """The authority's own certificate, signed by itself."""
        return self.certify(self)

    def certify(self, authority: "Authority") -> bytes:
        """Sign the certificate of an authority."""
        builder = self._builder(authority._name, authority._key.public_key(), datetime.now(UTC) + authority._expires)
        signed = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        return signed.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM)

    def issue(self, name: str, *, uri: str = "", begins: timedelta = -10 * DAY, expires: timedelta = DAY) -> Pair:
        """Sign a certificate of 127.0.0.1, or of a URI, under a common name."""
        key = ec.generate_private_key(ec.SECP256R1())
        names: list[x509.GeneralName] = [x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName(name)]
        if uri:
            names = [x509.UniformResourceIdentifier(uri)]
        now = datetime.now(UTC)
        builder = self._builder(_name(name), key.public_key(), now + expires, now + begins)
        signed = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return Pair(
            signed.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM),
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        )

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey, end: datetime, begin: datetime | None = None
    ) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin or datetime.now(UTC) - 10 * DAY)
            .not_valid_after(end)
        )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])
