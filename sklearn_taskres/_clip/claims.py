"""Claims to images: a pass leaves to others what they are encoding for the same cache."""

import contextlib
import threading
import time

from .._messages import warn_user
from .stores.process import new_owner

#: Seconds that a claim lasts when it is not renewed.
LEASE = 10.0
#: Seconds without anything new after which a pass encodes by itself what others hold.
_MOST_IDLE_SECONDS = 300
#: Seconds between two looks at what others hold, the first and the longest.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.01, 0.2

_INSIDE = threading.local()


class Claims:
    """What one pass over images has claimed in a store; a thread renews it until the block ends.

    Parameters
    ----------
    store : Store or None
        None for a cache that keeps nothing: everything is the pass's own.
    lease : float, default=10.0
        Seconds that a claim lasts when it is not renewed: what others lose to a process that is
        stopped.
    clock : Clock, default=time
        What waits for others, and tells for how long.
    """

    def __init__(self, store, lease=LEASE, clock=time):
        self._store = store
        self._lease = lease
        self._clock = clock
        self._owner = new_owner()
        self._ended = threading.Event()
        self._renewing: threading.Thread | None = None
        self._idle_since: float | None = None
        self._pause = _FIRST_PAUSE
        self._has_warned = False

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self._renewing is not None:
            self._ended.set()
            self._renewing.join()
            self.release()

    def take(self, keys):
        """Return the keys that are ours to encode; others hold the rest."""
        idle = 0.0 if self._idle_since is None else self._clock.monotonic() - self._idle_since
        if not keys or self._store is None or _is_nested() or idle > _MOST_IDLE_SECONDS:
            ours = set(keys)
        else:
            self._keep_renewing()
            ours = self._store.claim(keys, self._owner, self._lease)
        if ours and idle > self._lease * 0.9:
            self._warn(idle)
        return ours

    def release(self):
        """Let others have what was claimed: it is kept by now, or can't be encoded."""
        if self._renewing is not None:
            self._store.release(self._owner)

    def pause(self):
        """Wait a moment for others, who hold all that is left."""
        if self._idle_since is None:
            self._idle_since = self._clock.monotonic()
        self._clock.sleep(self._pause)
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)

    def note_progress(self):
        """Begin anew to count the time in which nothing happens."""
        self._idle_since, self._pause = None, _FIRST_PAUSE

    def _keep_renewing(self):
        if self._renewing is None:
            self._renewing = threading.Thread(target=self._renew, name="clip-claims", daemon=True)
            self._renewing.start()

    def _renew(self):
        while not self._ended.wait(self._lease / 3):
            self._store.claim((), self._owner, self._lease)

    def _warn(self, idle):
        if not self._has_warned:
            self._has_warned = True
            warn_user(
                f"Another process or thread began to encode some of these images for the same "
                f"cache, and nothing came of it for {idle:.0f} seconds: it may have been stopped "
                f"or killed. They are encoded here."
            )


@contextlib.contextmanager
def inside_a_pass():
    """Mark this thread while it calls a user's function: passes in there claim and await nothing.

    They would wait for images that the pass around them has claimed, which waits for them.
    """
    before = _is_nested()
    _INSIDE.is_nested = True
    try:
        yield
    finally:
        _INSIDE.is_nested = before


def _is_nested():
    return getattr(_INSIDE, "is_nested", False)
