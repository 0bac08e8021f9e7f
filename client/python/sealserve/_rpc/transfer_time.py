"""TransferTime: how long a byte takes between client and service, as the client's own calls show.

By it a client chooses between things that are equally right: full or seeded ciphertexts, rows or
columns. It is made of numbers of bytes, and of times from the first byte of a request to the last
of its reply. The service sees both as well. No value that is encrypted or decrypted enters it. A
hostile service can delay its replies, or lie about its own seconds. It then gets the other of two
forms that tell it equally little.
"""

LOCAL_SECONDS_A_BYTE = 5e-9
"""What is assumed of a service on this machine until calls show better: 1.6 Gbit/s."""

REMOTE_SECONDS_A_BYTE = 80e-9
"""What is assumed of a service on another machine until calls show better: 100 Mbit/s."""

LOOK_CALLS = 8
"""How many calls are looked at together."""

_LOOK_BYTES = 8 << 20  # or the bytes of one
# A call of fewer bytes shows the round trip only.
_LEAST_BYTES = 16 << 10
# A time that differs by no more than this factor is the same: choices shall not go to and fro. On
# loopback nearly all of a row's time is that of the call, whatever its bytes. On a busy machine 8
# calls have shown 3.7 times the assumed time of a byte.
_SAME = 4.0


class TransferTime:
    """The seconds that a byte takes, from the calls of a client. Threads may share it.

    A call that carries B bytes, both ways together, and lasts s seconds beyond what both ends
    compute, shows that a byte takes s / B seconds at most. The round trip is shared among the bytes
    of a call on purpose: the longer it is, the more a byte costs on a connection that has just
    begun. Of several calls the least time counts, because a disturbance only ever adds time.

    Calls at the same time share the link, the service and this process. Each counts what all of
    them carried and computed while it lasted. Two threads may add to a total at once, and one
    addition is lost: then a byte seems to take a little longer.

    Args:
        is_local: whether the service's address is on this machine. Only the assumption until calls
            have shown the time depends on it.

    Attributes:
        seconds_a_byte: the time to choose by. It changes when 8 calls, or one of 8 MB, have shown
            another one, by a factor of more than 4.
        carried_bytes: those of all finished calls, requests and replies together.
        computed_seconds: how long the service computed for them. It rounds that up where weights
            are private. A hostile service may give any number, or none.
        noted: the calls that were not looked at yet: bytes that were carried, seconds, and how many
            of these were computed, as far as it is known.
    """

    def __init__(self, *, is_local: bool = False) -> None:
        self.seconds_a_byte = LOCAL_SECONDS_A_BYTE if is_local else REMOTE_SECONDS_A_BYTE
        self.carried_bytes = 0
        self.computed_seconds = 0.0
        self.noted: list[tuple[int, float, float]] = []

    def note(self, byte_count: int, seconds: float, computed_seconds: float) -> None:
        """Add an item of a stream to the calls noted. Look at them, if they are enough."""
        self.noted.append((byte_count, seconds, computed_seconds))
        if len(self.noted) >= LOOK_CALLS or byte_count >= _LOOK_BYTES:
            self.look()

    def look(self) -> None:
        """Look at the calls that are noted, and forget them."""
        noted, self.noted = self.noted, []
        times = [
            max(0.0, seconds - max(0.0, computed)) / byte_count  # a number, even for a NaN
            for byte_count, seconds, computed in noted
            if byte_count >= _LEAST_BYTES
        ]
        shown = min(times, default=self.seconds_a_byte)
        if not self.seconds_a_byte / _SAME <= shown <= self.seconds_a_byte * _SAME:
            self.seconds_a_byte = shown
