"""What a tenant may have of the service; None where it has no bound of its own."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Quota:
    """Bounds of one tenant, in each process that serves.

    Attributes:
        rows_per_minute, requests_per_minute: a minute's worth may come at once; an item of a stream is a request too.
        bytes_in_flight: of ciphertexts whose items have no end yet.
        key_bytes: of registered keys, in all processes together.
    """

    rows_per_minute: float | None = None
    requests_per_minute: float | None = None
    bytes_in_flight: float | None = None
    key_bytes: float | None = None
