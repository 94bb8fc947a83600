"""Values in the memory of the process."""

import collections
import os
import time

from . import EMBEDDINGS
from .process import IN_USE

#: Bytes of Python objects around a value.
_OVERHEAD = 300
MEMORY_BYTES = 2 << 30


class MemoryStore:
    """Values by table and key in a dictionary, the least recently used ones first."""

    def __init__(self, max_bytes=MEMORY_BYTES, clock=time):
        self.max_bytes = max_bytes
        self._clock = clock
        self._bytes = 0
        self._values: collections.OrderedDict = collections.OrderedDict()
        self._claims: dict = {}  # key: (owner, when it ends)

    def read(self, table, keys, size, take):
        with IN_USE:
            for key in keys:
                value = self._values.get((table, key))
                if value is not None and len(value) == size:
                    self._values.move_to_end((table, key))
                    take(key, value)

    def write(self, table, items):
        with IN_USE:
            for key, value in items.items():
                replaced = self._values.pop((table, key), None)
                self._values[table, key] = bytes(value)
                self._bytes += _weight(value) - (0 if replaced is None else _weight(replaced))
            self.evict(self.max_bytes)

    def claim(self, keys, owner, seconds):
        with IN_USE:
            now = self._clock.monotonic()
            self._claims = {
                key: (holder, now + seconds if holder == owner else ends)
                for key, (holder, ends) in self._claims.items()
                if holder == owner or ends > now
            }
            for key in keys:
                self._claims.setdefault(key, (owner, now + seconds))
            return {key for key in keys if self._claims[key][0] == owner}

    def release(self, owner):
        with IN_USE:
            self._claims = {k: claim for k, claim in self._claims.items() if claim[0] != owner}

    def entries(self):
        with IN_USE:
            return sum(table == EMBEDDINGS for table, _ in self._values)

    def size(self):
        return self._bytes

    def clear(self):
        self.forget_claims()
        self.evict(0)

    def evict(self, max_bytes):
        with IN_USE:
            while self._bytes > max_bytes:
                self._bytes -= _weight(self._values.popitem(last=False)[1])

    def forget_claims(self):
        """Drop the claims of all: a child has none of the threads that made them."""
        self._claims = {}


MEMORY = MemoryStore()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=MEMORY.forget_claims)


def _weight(value):
    return len(value) + _OVERHEAD
