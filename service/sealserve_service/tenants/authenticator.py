"""The authenticator: from a call's credentials to its tenant.

Without a file of identities, every call belongs to the one tenant ANONYMOUS. With the file, a call
has a bearer token (metadata `authorization: Bearer TOKEN`), or its connection has a client
certificate that the file knows. If a token is sent, it alone decides: a wrong token is refused even
under a good certificate.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import grpc

from sealserve.errors import UnauthenticatedError
from sealserve.protocol.address import is_loopback
from sealserve_service.tenants.caller import Network, client_host
from sealserve_service.tenants.identities import Identities, digest_of, read_identities
from sealserve_service.tenants.tenant import ANONYMOUS, Tenant
from sealserve_service.watched_files import WatchedFiles

HEALTH = "/grpc.health.v1.Health/"
_CHECK = f"{HEALTH}Check"
_AUTHORIZATION = "authorization"

_logger = logging.getLogger(__name__)


class Authenticator:
    """Finds the tenant of a call.

    Args:
        path: the file of identities, which may change; None if there is only one tenant.
        clock: returns the time; for tests.

    Raises:
        UnusableFileError: the file cannot be used.
    """

    def __init__(self, path: Path | None = None, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._clock = clock
        self._file: WatchedFiles[Identities] | None = None
        if path is not None:
            self._file = WatchedFiles([path], lambda contents: read_identities(path, contents[0]))

    def authenticate(self, context: grpc.ServicerContext) -> Tenant:
        """Return the tenant on whose behalf a call is made, according to the file as it is now.

        Raises:
            UnauthenticatedError: the call's credentials are missing, wrong, expired or revoked.
        """
        if self._file is None:
            return ANONYMOUS
        identities = self._file.read()
        tokens = [str(value) for key, value in context.invocation_metadata() if key == _AUTHORIZATION]
        if tokens:
            return self._bearer(identities, tokens)
        return _certified(identities, context)

    def _bearer(self, identities: Identities, values: list[str]) -> Tenant:
        scheme, _, text = values[0].partition(" ")
        token = identities.tokens.get(digest_of(text.strip()))
        if len(values) > 1 or scheme.lower() != "bearer" or token is None:
            _logger.debug("refused: the token is unknown")
            raise UnauthenticatedError
        if fault := token.fault(self._clock()):
            _logger.info("refused: the token %s of tenant %s is %s", token.digest[:8], token.tenant.name, fault)
            raise UnauthenticatedError
        return token.tenant


def _certified(identities: Identities, context: grpc.ServicerContext) -> Tenant:
    """Return the tenant of a connection's client certificate. gRPC has verified the certificate."""
    subjects = _subjects(context) if identities.subjects else []
    found = {tenant.name: tenant for subject in subjects if (tenant := identities.subjects.get(subject)) is not None}
    if len(found) != 1:
        _logger.debug("refused: no token, and the client certificate is unknown, ambiguous or missing")
        raise UnauthenticatedError
    return next(iter(found.values()))


def _subjects(context: grpc.ServicerContext) -> list[str]:
    """Return the subjects of a client certificate, in the form of the file of identities."""
    properties: Mapping[str, Sequence[bytes]] = context.auth_context()  # type: ignore[assignment]  # wrong in the stubs
    fields = (("CN", "x509_common_name"), ("URI", "peer_uri"))
    return [f"{kind}={value.decode(errors='replace')}" for kind, name in fields for value in properties.get(name, ())]


def is_local_probe(method: str, context: grpc.ServicerContext, proxies: Sequence[Network] = ()) -> bool:
    """Whether a call needs no credentials: a probe of this machine that asks for health."""
    return method.startswith(HEALTH) and is_loopback(client_host(context, proxies))


def is_strangers_probe(method: str, context: grpc.ServicerContext) -> bool:
    """Whether a call that has no valid credentials asks for health and pretends to no identity."""
    return method == _CHECK and not any(key == _AUTHORIZATION for key, _ in context.invocation_metadata())
