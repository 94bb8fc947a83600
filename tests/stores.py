"""A clock that tests set, and a cache whose store a test has made."""

import dataclasses

from sklearn_taskres import EmbeddingCache
from sklearn_taskres._clip import claims


class Clock:
    """What a test sets `now` to; whoever waits has waited for a second.

    Parameters
    ----------
    meanwhile : callable or None
        Called while somebody waits: what others do.
    """

    def __init__(self, meanwhile=None):
        self.now = 1e9
        self.meanwhile = meanwhile

    def time(self):
        return self.now

    monotonic = time

    def sleep(self, _):
        self.now += 1
        if self.meanwhile is not None:
            self.meanwhile()


@dataclasses.dataclass(frozen=True)
class CacheOf(EmbeddingCache):
    """A cache that keeps everything in the store `kept_in`."""

    kept_in: object = None
    clock: object = None

    def store(self):
        return self.kept_in

    def claims(self):
        return claims.Claims(self.kept_in, clock=self.clock)
