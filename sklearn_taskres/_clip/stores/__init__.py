"""What a store of the embedding cache offers: `memory` and `sqlite` are the two that there are."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Protocol

__all__ = ["DIGESTS", "EMBEDDINGS", "TABLES", "Clock", "Store", "batched"]

DIGESTS, EMBEDDINGS = TABLES = ("digests", "embeddings")


class Store(Protocol):
    """Values by table and key, both bytes, and claims to what is being computed.

    A store is used from many threads at a time. What goes wrong with its files is not an
    error for whoever uses it, except in `clear`: it warns, finds nothing and keeps nothing.
    """

    def read(
        self, table: str, keys: Collection[bytes], size: int, take: Callable[[bytes, bytes], Any]
    ) -> None:
        """Call take(key, value) for the keys whose value is kept and has `size` bytes.

        Other keys may be given to `take` as well, and a key may be given twice.
        """

    def write(self, table: str, items: Mapping[bytes, Any]) -> None:
        """Keep bytes-like values under their keys, replacing what is there."""

    def claim(self, keys: Collection[bytes], owner: bytes, seconds: float) -> set[bytes]:
        """Return the keys that are now the owner's to compute, for so many seconds.

        The others belong to someone else, whose seconds have not run out. All that the owner has
        claimed before is renewed, also if `keys` is empty.
        """

    def release(self, owner: bytes) -> None:
        """Give up all that the owner has claimed."""

    def entries(self) -> int:
        """Return the number of embeddings kept."""

    def size(self) -> int:
        """Return the number of bytes taken."""

    def clear(self) -> None:
        """Drop everything; raise OSError if that can't be done."""

    def evict(self, max_bytes: float) -> None:
        """Drop the oldest values until at most `max_bytes` are taken."""


class Clock(Protocol):
    """What tells the time and waits: the module `time`, unless somebody else keeps it."""

    def time(self) -> float:
        """Return seconds that all processes count alike."""

    def monotonic(self) -> float:
        """Return seconds that never go back."""

    def sleep(self, seconds: float, /) -> None:
        """Wait."""


def batched(items: Sequence, size: int) -> Iterator[Sequence]:
    """Return slices of a sequence, at most `size` long."""
    return (items[start : start + size] for start in range(0, len(items), size))
