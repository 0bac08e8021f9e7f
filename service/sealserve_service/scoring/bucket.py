"""The bucket of a quota per minute: how much of it is left."""

from dataclasses import dataclass


@dataclass(kw_only=True)
class Bucket:
    """A minute's worth of something, refilled as time passes.

    Attributes:
        capacity: the highest level.
        level: at the time `filled`.
        filled: in seconds.
    """

    capacity: float
    level: float
    filled: float

    def level_at(self, now: float) -> float:
        """Return the level at a time, if nothing is taken until then."""
        return min(self.capacity, self.level + (now - self.filled) * self.capacity / 60)

    def delay(self, amount: float, now: float) -> float:
        """Return in how many seconds an amount can be taken.

        A full bucket is enough for an amount beyond its capacity, too.
        """
        return max(0.0, (min(amount, self.capacity) - self.level_at(now)) * 60 / self.capacity)

    def take(self, amount: float, now: float) -> None:
        """Take an amount that `delay` lets be taken now."""
        self.level, self.filled = self.level_at(now) - amount, now

    def owe(self, amount: float, now: float) -> None:
        """Take an amount, whatever is left. The level falls to minus a minute's worth at most."""
        self.level, self.filled = max(self.level_at(now) - amount, -self.capacity), now
