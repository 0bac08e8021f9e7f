"""The quota of a tenant: how much of the service it may use."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Quota:
    """The bounds of one tenant, in each serving process.

    None stands for no bound; in the last four, for the bound that the service gives to every
    tenant.

    Attributes:
        rows_per_minute, requests_per_minute: a minute's worth may arrive at once. An item of a
            stream is a request too.
        bytes_in_flight: of the ciphertexts of items in flight.
        key_bytes: of registered keys, in all processes together.
        waiting_calls: calls whose request has not arrived.
        open_streams: streams, also those that carry nothing.
        concurrent_uploads: of keys.
        empty_calls_per_minute: calls that bring nothing; a minute's worth may arrive at once.
    """

    rows_per_minute: float | None = None
    requests_per_minute: float | None = None
    bytes_in_flight: float | None = None
    key_bytes: float | None = None
    waiting_calls: float | None = None
    open_streams: float | None = None
    concurrent_uploads: float | None = None
    empty_calls_per_minute: float | None = None
